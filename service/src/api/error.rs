//! The API's errors, and its answers in JSON.

use super::problem::{Kind, MEDIA_TYPE};
use crate::store;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error as it is answered: as problem details.
#[derive(Debug)]
pub(super) struct ApiError {
    kind: Kind,
    detail: String,
}

impl ApiError {
    /// An error of a kind, in words for people.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// 400: the request cannot be understood or acted upon.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// 404: what the request names does not exist.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 409: what is asked for contradicts what is there.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 500: the service failed; the log says so as well.
    pub(super) fn internal(detail: String) -> Self {
        tracing::error!(error = detail, "a request failed");
        Self::new(Kind::Internal, detail)
    }

    /// 503: there is no link to the broker, or it does not answer.
    pub(super) fn disengaged(detail: impl Into<String>) -> Self {
        Self::new(Kind::Disengaged, detail)
    }

    /// 503: the service is stopping.
    pub(super) fn stopping() -> Self {
        Self::new(Kind::Stopping, "the service is stopping")
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        if let store::Error::Conflict(message) = error {
            return Self::conflict(message);
        }
        Self::internal(format!("{:#}", anyhow::Error::from(error)))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        encoded(status, MEDIA_TYPE, &self.kind.problem(self.detail))
    }
}

/// A JSON response.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        encoded(StatusCode::OK, "application/json", &self.0)
    }
}

fn encoded(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, media_type)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
