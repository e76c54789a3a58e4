//! Lists endpoints, and shows one in full: what is recorded, joined with what the broker says of
//! their queues now.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::{Named, Parameters};
use super::named_endpoint::{known_endpoint, unknown_endpoint};
use super::problem::{AnyRequest, Naming};
use super::types::{EndpointAnswer, EndpointPage, MAX_PAGE};
use crate::broker::observer::Sought;
use crate::broker::session::LinkState;
use crate::model::{
    DrainView, EndpointDetail, EndpointStatus, EndpointSummary, InstanceView, QueueState, active,
    status,
};
use crate::store::EndpointRecord;
use axum::extract::State;
use clutch_common::id::EndpointId;
use clutch_common::system::clock::now_ms;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which endpoints to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EndpointsQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// The most endpoints of the page; 1000 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Lists endpoints by name.
#[utoipa::path(
    get,
    path = "/v1/endpoints",
    tag = "endpoints",
    params(EndpointsQuery),
    responses(
        (status = 200, description = "A page of endpoints", body = EndpointPage),
        AnyRequest,
    ),
)]
pub(super) async fn endpoints(
    State(api): State<Api>,
    Parameters(query): Parameters<EndpointsQuery>,
) -> Result<Json<EndpointPage>, ApiError> {
    let limit = query.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit must be from 1 to {MAX_PAGE}")));
    }
    let records = api.store.endpoint_records(query.after.unwrap_or_default(), limit).await?;
    let full = records.len() as u64 == limit;
    let next = records.last().filter(|_| full).map(|record| record.endpoint.name.clone());
    let fault = fault(&api);
    let endpoints =
        seen(&api, records).await.into_iter().map(|(record, queue)| summary(&api, &record, queue));
    let endpoints = endpoints.collect();
    let rings = api.told.overlay.rings();
    Ok(Json(EndpointPage { engaged: fault.is_none(), fault, endpoints, rings, next }))
}

/// Shows one endpoint in full, with its instances.
#[utoipa::path(
    get,
    path = "/v1/endpoints/{name}",
    tag = "endpoints",
    params(("name" = String, Path, description = "The name or id of the endpoint")),
    responses(
        (status = 200, description = "The endpoint", body = EndpointAnswer),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn endpoint(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<EndpointAnswer>, ApiError> {
    let id = known_endpoint(&api, &name).await?.id;
    let record = api.store.endpoint_record(id).await?;
    let seen = seen(&api, record.into_iter().collect()).await.pop();
    let Some((record, queue)) = seen else { return Err(unknown_endpoint(&api, &name).await) };
    let fault = fault(&api);
    let endpoint = EndpointDetail {
        summary: summary(&api, &record, queue),
        queue: record.endpoint.queue,
        created_at_ms: record.created_at_ms,
        lost_after_ms: record.lost_after_ms,
        instances: record.states.iter().map(InstanceView::from).collect(),
        tasks: record.open,
        in_doubt: record.unaccounted,
        unasked: record.unasked,
        cancels: record.cancels,
    };
    Ok(Json(EndpointAnswer { engaged: fault.is_none(), fault, endpoint }))
}

/// How endpoints are: the first of them by name, up to a page.
pub(super) async fn statuses(
    api: &Api,
) -> Result<Vec<(EndpointId, String, EndpointStatus)>, ApiError> {
    let records = api.store.endpoint_records(String::new(), MAX_PAGE).await?;
    let seen = with_status(api, records).await.into_iter();
    Ok(seen.map(|(record, status)| (record.endpoint.id, record.endpoint.name, status)).collect())
}

/// Adds to the records how the endpoints are.
pub(super) async fn with_status(
    api: &Api,
    records: Vec<EndpointRecord>,
) -> Vec<(EndpointRecord, EndpointStatus)> {
    let status = |(record, queue): (EndpointRecord, QueueState)| {
        let (status, _) = status(&record.states, queue, drains(&record), now_ms());
        (record, status)
    };
    seen(api, records).await.into_iter().map(status).collect()
}

/// Why the link is down; nothing if it is up.
pub(super) fn fault(api: &Api) -> Option<String> {
    match &*api.link.borrow() {
        LinkState::Engaged(_) => None,
        LinkState::Disengaged(fault) => Some(fault.clone()),
    }
}

/// Adds to the records what is known since, and asks the broker for the queues.
async fn seen(api: &Api, mut records: Vec<EndpointRecord>) -> Vec<(EndpointRecord, QueueState)> {
    for state in records.iter_mut().flat_map(|record| &mut record.states) {
        let heard = api.told.last_heard.of(state.known.id).unwrap_or(0);
        state.heard_at_ms = state.heard_at_ms.max(heard);
    }
    let sought = records
        .iter()
        .map(|record| Sought { endpoint: record.endpoint.id, drains: drains(record) });
    let queues = api.told.observer.look(sought.collect()).await;
    records.into_iter().zip(queues).collect()
}

/// Whether an endpoint starts no tasks, by the service's word or its own.
fn drains(record: &EndpointRecord) -> bool {
    let told = active(&record.states).and_then(|state| state.told.details.as_ref());
    record.drain.draining || told.is_some_and(|details| details.draining)
}

fn summary(api: &Api, record: &EndpointRecord, queue: QueueState) -> EndpointSummary {
    let load = api.told.overlay.load(record.endpoint.id).filter(|load| !load.stale);
    let (status, since_ms) = status(&record.states, queue, drains(record), now_ms());
    let drained_since = record.drain.since_ms.filter(|_| status == EndpointStatus::Draining);
    let latest = record.states.iter().max_by_key(|state| state.heard_at_ms);
    let of = active(&record.states).or(latest);
    let details = of.and_then(|state| state.told.details.as_ref());
    EndpointSummary {
        name: record.endpoint.name.clone(),
        id: record.endpoint.id,
        status,
        since_ms: drained_since.or(since_ms),
        drain: record.drain.draining.then_some(DrainView {
            since_ms: record.drain.since_ms,
            deadline_ms: record.drain.deadline_ms,
            confirmed: record.drain.confirmed,
        }),
        slots: details.map(|details| details.slots),
        running: load.as_ref().map(|load| load.load.running),
        accepted: load.map(|load| load.load.accepted),
        queued: match queue {
            QueueState::There { waiting, .. } => Some(waiting),
            QueueState::Missing | QueueState::Unknown => None,
        },
        pending: record.open.values().sum(),
        oldest_pending_ms: record.oldest_ms,
        version: details.map(|details| details.version.clone()),
        host: details.map(|details| details.host.clone()),
        last_heard_ms: latest.map(|state| state.heard_at_ms),
    }
}
