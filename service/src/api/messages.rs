//! Shows a message that the service keeps, or kept.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::Named;
use super::problem::{AnyRequest, Naming};
use crate::model::MessageView;
use axum::extract::State;
use uuid::Uuid;

/// Shows how far a message is that a task sent with `--mailbox`.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    tag = "tasks",
    params(("id" = Uuid, Path, description = "The message")),
    responses(
        (status = 200, description = "The message, without its bytes", body = MessageView),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn message(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<MessageView>, ApiError> {
    let id: Uuid = id
        .parse()
        .map_err(|_| ApiError::bad_request(format!("'{id}' is not the id of a message")))?;
    let message = api.store.message(id).await?;
    let unknown = || {
        ApiError::not_found(format!(
            "no message {id} is kept here, nor was: only those that are sent with --mailbox are, \
             as long as their targets are recorded"
        ))
    };
    message.map(Json).ok_or_else(unknown)
}
