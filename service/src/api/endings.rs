//! Ends endpoints by a person's word: one is removed, or its state folders are declared lost.

use super::error::{ApiError, Json};
use super::extract::{Named, read_or_default};
use super::named_endpoint::known_endpoint;
use super::problem::{AnyRequest, AskingBroker, Changing, Naming, WithBody};
use super::types::{CancelAnswer, LostAnswer, LostRequest, RemoveRequest};
use super::{Api, cancel};
use crate::broker::observer::Sought;
use crate::broker::retire::{RetireError, retire};
use crate::broker::session::LinkState;
use crate::model::{QueueState, Removed, active};
use crate::store::{DeclaredLost, Endpoint};
use axum::extract::{Request, State};
use clutch_common::failover::KnownState;
use clutch_common::system::clock::now_ms;
use clutch_common::text::counted::counted;
use std::time::Duration;

/// The longest that an endpoint is waited for which is to be removed.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Removes an endpoint.
///
/// The removal goes on if the client goes away: each step can be repeated.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/remove",
    tag = "endpoints",
    params(("name" = String, Path, description = "The name or id of the endpoint")),
    request_body = Option<RemoveRequest>,
    responses(
        (status = 200, description = "It is removed", body = Removed),
        AnyRequest,
        Naming,
        WithBody,
        Changing,
        AskingBroker,
    ),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Named(name): Named,
    request: Request,
) -> Result<Json<Removed>, ApiError> {
    let request: RemoveRequest = read_or_default(request).await?;
    let endpoint = known_endpoint(&api, &name).await?;
    engaged(&api, "removed")?;
    let removing = api.clone();
    let working = api.submissions.spawn(async move {
        let ended = match request.end_tasks {
            true => end_tasks(&removing, &endpoint, request.wait_ms).await?,
            false => CancelAnswer::default(),
        };
        let connection = removing.told.observer.connect("clutch/service/remove").await;
        let connection =
            connection.map_err(|fault| unremoved(RetireError::Broker(fault), &ended))?;
        let end_tasks = request.end_tasks;
        let removed = retire(&removing.store, connection.as_ref(), &endpoint, end_tasks).await;
        connection.close().await;
        let removed = removed.map_err(|error| unremoved(error, &ended))?;
        Ok::<_, ApiError>(Removed { cancelled: removed.cancelled + ended.cancelled, ..removed })
    });
    let removed = working.await.map_err(|error| ApiError::internal(error.to_string()))??;
    look_anew(&api);
    tracing::info!(endpoint = removed.name, id = %removed.id, "the endpoint is removed");
    Ok(Json(removed))
}

/// Cancels what an endpoint has, and waits for it where it is online.
async fn end_tasks(api: &Api, endpoint: &Endpoint, wait_ms: u64) -> Result<CancelAnswer, ApiError> {
    let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
    cancel::all_of(api, endpoint.id, wait).await
}

/// The error of an endpoint that is not removed, some tasks of which were cancelled before.
fn unremoved(error: RetireError, ended: &CancelAnswer) -> ApiError {
    let mut words = String::new();
    if ended.cancelled > 0 {
        words.push_str(&format!("{} ended as cancelled; ", counted(ended.cancelled, "task")));
    }
    if ended.asked > 0 {
        let tasks = counted(ended.asked, "task");
        words
            .push_str(&format!("the endpoint was asked to end {tasks} and has not answered yet; "));
    }
    words.push_str(&error.to_string());
    match error {
        RetireError::Running(_) | RetireError::Pending(_) => ApiError::conflict(words),
        RetireError::Broker(_) => ApiError::disengaged(words),
        RetireError::Store(error) => error.into(),
    }
}

/// Declares state folders of an endpoint lost.
///
/// A state folder with an instance that is connected is not lost.
#[utoipa::path(
    post,
    path = "/v1/endpoints/{name}/lost",
    tag = "endpoints",
    params(("name" = String, Path, description = "The name or id of the endpoint")),
    request_body = Option<LostRequest>,
    responses(
        (status = 200, description = "They are declared lost", body = LostAnswer),
        AnyRequest,
        Naming,
        WithBody,
        Changing,
        AskingBroker,
    ),
)]
pub(super) async fn lost(
    State(api): State<Api>,
    Named(name): Named,
    request: Request,
) -> Result<Json<LostAnswer>, ApiError> {
    let LostRequest { state } = read_or_default(request).await?;
    let Endpoint { id, name, .. } = known_endpoint(&api, &name).await?;
    engaged(&api, "declared lost")?;
    let record = api.store.endpoint_record(id).await?;
    let states = record.map(|record| record.states).unwrap_or_default();
    let known: Vec<KnownState> = states.iter().map(|state| state.known.clone()).collect();
    let active = active(&states).map(|state| state.known.id);
    let sought = vec![Sought { endpoint: id, drains: true }];
    match api.told.observer.look(sought).await.pop() {
        Some(QueueState::There { consumed: Some(true), .. }) => {
            if state.is_none_or(|state| active == Some(state)) {
                return Err(online(&name));
            }
        }
        Some(QueueState::There { consumed: Some(false), .. } | QueueState::Missing) => (),
        _ => {
            let words = format!(
                "whether {name} is online is not known, as the broker does not say: try again"
            );
            return Err(ApiError::disengaged(words));
        }
    }
    let declared = api.store.declare_lost(id, (state, known), now_ms()).await?;
    let Some(DeclaredLost { states, tasks }) = declared else {
        return Err(ApiError::conflict(format!(
            "an instance of {name} was heard just now: look at `clutch-service endpoint show \
             {name}`, and declare it lost again if it is"
        )));
    };
    if !states.is_empty() {
        tracing::warn!(
            endpoint = name,
            states = states.len(),
            in_doubt = tasks,
            "a person declared the endpoint's state folders lost: when another instance is active, \
             tasks that it does not know are submitted again, or end as interrupted"
        );
        look_anew(&api);
    }
    Ok(Json(LostAnswer { endpoint: id, name, states, tasks }))
}

/// An error that says what cannot be done, unless the link is up.
fn engaged(api: &Api, what: &str) -> Result<(), ApiError> {
    match &*api.link.borrow() {
        LinkState::Engaged(_) => Ok(()),
        LinkState::Disengaged(fault) => Err(ApiError::disengaged(format!(
            "the service has no link to the broker ({fault}): nothing is {what} without it"
        ))),
    }
}

/// Has the session look at the records anew.
fn look_anew(api: &Api) {
    api.signals.news.send_modify(|count| *count += 1);
}

fn online(name: &str) -> ApiError {
    ApiError::conflict(format!(
        "{name} is online: it is not lost. To have it start nothing more, `clutch-service endpoint \
         drain {name}`; to give up another state folder of it, add --state-folder and one that \
         `clutch-service endpoint show {name}` lists"
    ))
}
