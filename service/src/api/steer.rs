//! Steers endpoints: has one drain, or start tasks again. The request is recorded, then sent,
//! and sent again by the session until the broker has it.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::{Named, read_or_default};
use super::named_endpoint::known_endpoint;
use super::problem::{AnyRequest, Naming, WithBody};
use super::types::{DrainAnswer, DrainRequest};
use crate::broker::session::LinkState;
use crate::failover::send_drain;
use crate::store::{DrainChange, Endpoint};
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;

/// The longest time that a drained endpoint's tasks may be given, in milliseconds: a year.
const LONGEST_DEADLINE: u64 = 366 * 24 * 60 * 60 * 1000;

/// Has an endpoint drain: it starts no task and takes none.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/drain",
    tag = "endpoints",
    params(("name" = String, Path, description = "The name or id of the endpoint")),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "What is in force", body = DrainAnswer),
        AnyRequest,
        Naming,
        WithBody,
    ),
)]
pub(super) async fn drain(
    State(api): State<Api>,
    Named(name): Named,
    request: Request,
) -> Result<Json<DrainAnswer>, ApiError> {
    let request: DrainRequest = read_or_default(request).await?;
    let deadline_ms = match request.deadline_in_ms {
        Some(millis) if millis > LONGEST_DEADLINE => {
            return Err(ApiError::bad_request("the deadline is more than a year away"));
        }
        deadline => deadline.map(|millis| now_ms() + millis),
    };
    change(&api, &name, DrainChange::Drain { deadline_ms }).await
}

/// Ends the drain of an endpoint.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/resume",
    tag = "endpoints",
    params(("name" = String, Path, description = "The name or id of the endpoint")),
    responses(
        (status = 200, description = "What is in force", body = DrainAnswer),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<DrainAnswer>, ApiError> {
    change(&api, &name, DrainChange::Resume).await
}

/// Records the change, and sends it if the link is up and the broker does not have it.
async fn change(api: &Api, name: &str, change: DrainChange) -> Result<Json<DrainAnswer>, ApiError> {
    let Endpoint { id, name, .. } = known_endpoint(api, name).await?;
    let recorded = api.store.change_drain(id, change, now_ms()).await?;
    let gone = || ApiError::not_found(format!("the endpoint '{name}' was removed meanwhile"));
    let (standing, changed) = recorded.ok_or_else(gone)?;
    let link = api.link.borrow().clone();
    let unsent = match link {
        _ if standing.confirmed => None,
        LinkState::Disengaged(fault) => Some(fault),
        LinkState::Engaged(publisher) => {
            let sent = send_drain(&api.store, &publisher, standing.message(id)).await?;
            sent.err().map(|why| why.to_string())
        }
    };
    Ok(Json(DrainAnswer {
        endpoint: id,
        name,
        draining: standing.draining,
        since_ms: standing.since_ms,
        deadline_ms: standing.deadline_ms,
        changed,
        confirmed: unsent.is_none(),
        unsent,
    }))
}
