//! Reads the parts of a request: its query, the name in its path, and a body that is no
//! submission. What cannot be read is answered as every error is.

use super::error::ApiError;
use super::problem::Kind;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long the body of a request may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// The parameters of a query string.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(parameters) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(Self(parameters))
    }
}

/// The name or id in the path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(Self(name))
    }
}

/// Reads the body of a request.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    json(&bytes(request).await?)
}

/// Reads the body of a request; without one, or with `null`, all is left at its default.
pub(super) async fn read_or_default<T: DeserializeOwned + Default>(
    request: Request,
) -> Result<T, ApiError> {
    let bytes = bytes(request).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    Ok(json::<Option<T>>(&bytes)?.unwrap_or_default())
}

async fn bytes(request: Request) -> Result<Bytes, ApiError> {
    let bytes = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, &()));
    let read = bytes.await.map_err(|_| too_slow())?;
    read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(super::MAX_QUESTION),
        _ => unreadable(rejection.body_text()),
    })
}

/// Reads JSON from a body.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// The error for a body that cannot be read.
pub(super) fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("the body cannot be read: {error}"))
}

/// The error for a body that is longer than this.
pub(super) fn too_large(bytes: usize) -> ApiError {
    ApiError::new(Kind::BodyTooLarge, format!("the body has more than {bytes} bytes"))
}

/// The error for a body that does not arrive.
pub(super) fn too_slow() -> ApiError {
    ApiError::new(Kind::TooSlow, "the body took too long to arrive")
}
