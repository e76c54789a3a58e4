//! Finds the endpoint that a request names, and says which exist where there is none of that name.

use super::Api;
use super::error::ApiError;

/// The endpoint of that name or id; the error lists those that exist.
pub(super) async fn known_endpoint(
    api: &Api,
    name_or_id: &str,
) -> Result<crate::store::Endpoint, ApiError> {
    match api.store.endpoint(name_or_id).await? {
        Some(endpoint) => Ok(endpoint),
        None => Err(unknown_endpoint(api, name_or_id).await),
    }
}

/// The error for an unknown endpoint; it lists the known ones.
pub(super) async fn unknown_endpoint(api: &Api, name_or_id: &str) -> ApiError {
    match known_names(api).await {
        Ok(known) => ApiError::not_found(format!("there is no endpoint '{name_or_id}': {known}")),
        Err(error) => error,
    }
}

/// The names of the endpoints that exist, in words.
pub(super) async fn known_names(api: &Api) -> Result<String, ApiError> {
    /// How many names are listed.
    const LISTED: u32 = 20;
    let names = api.store.endpoint_names(LISTED).await?;
    if names.is_empty() {
        return Ok("none is provisioned yet (`clutch-service provision NAME`)".to_owned());
    }
    let more = if names.len() == LISTED as usize { ", …" } else { "" };
    Ok(format!("known are {}{more}", names.join(", ")))
}
