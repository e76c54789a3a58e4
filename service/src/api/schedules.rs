//! Schedules: sets of them are applied, and single ones shown, paused, run by hand and removed.
//!
//! Touches the records, and tells the timers that they changed.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::{Named, Parameters, read, read_or_default};
use super::named_endpoint::known_names;
use super::problem::{AnyRequest, Changing, Naming, WithBody};
use super::types::MAX_PAGE;
use crate::model::{
    ChangedSchedule, NamedSchedule, Occurrence, RemovedSchedule, ScheduleDetail, ScheduleSummary,
};
use crate::schedule::PauseCause;
use crate::store::ScheduleSet;
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

/// The most schedules of one request.
const MAX_SCHEDULES: usize = 10_000;
/// The longest name of an owner, and the longest reason of a pause, in bytes.
const MAX_WORDS: usize = 200;

/// A set of schedules to apply.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchedulesRequest {
    /// The owner that declares them; a schedule belongs to one owner, or none.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// The schedules.
    pub(crate) schedules: Vec<NamedSchedule>,
    /// Whether schedules that are there and differ are replaced; else they are a conflict.
    #[serde(default)]
    pub(crate) replace: bool,
    /// Whether schedules of the owner that are not in the set are removed.
    #[serde(default)]
    pub(crate) prune: bool,
    /// Whether it is only told what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// A pause.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PauseRequest {
    /// The reason, for people.
    #[schema(max_length = 200)]
    pub(crate) reason: Option<String>,
}

/// The schedules, each with the change that was made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SchedulesAnswer {
    /// The schedules, in the order of the request, and then those that were removed.
    pub(crate) schedules: Vec<ChangedSchedule>,
}

/// A page of schedules.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SchedulePage {
    /// The schedules, by name.
    pub(crate) schedules: Vec<ScheduleSummary>,
    /// The value of `after` for the next page; none after the last.
    pub(crate) next: Option<String>,
}

/// Whether a request changed anything.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Changed {
    /// Whether it did.
    pub(crate) changed: bool,
}

/// Which schedules to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SchedulesQuery {
    /// Only those of this owner.
    owner: Option<String>,
    /// Only those that come after this name.
    after: Option<String>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Applies a set of schedules, as a whole or not at all.
#[utoipa::path(
    post,
    path = "/v1/schedules",
    tag = "schedules",
    request_body = SchedulesRequest,
    responses(
        (status = 200, description = "What was done", body = SchedulesAnswer),
        Changing,
        AnyRequest,
        Naming,
        WithBody,
    ),
)]
pub(super) async fn apply(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<SchedulesAnswer>, ApiError> {
    let request: SchedulesRequest = read(request).await?;
    check(&request)?;
    endpoints(&api, &request.schedules).await?;
    let SchedulesRequest { owner, schedules, replace, prune, dry_run } = request;
    let set = ScheduleSet { owner, schedules, replace, prune, dry_run };
    let schedules = api.store.apply_schedules(set, now_ms()).await?;
    if !dry_run {
        tell(&api);
    }
    Ok(Json(SchedulesAnswer { schedules }))
}

/// The rules for a set that need no records. Each schedule that breaks one is named.
fn check(request: &SchedulesRequest) -> Result<(), ApiError> {
    let SchedulesRequest { owner, schedules, prune, .. } = request;
    if schedules.len() > MAX_SCHEDULES {
        return Err(ApiError::bad_request(format!("a set has at most {MAX_SCHEDULES} schedules")));
    }
    if *prune && owner.is_none() {
        return Err(ApiError::bad_request("prune removes schedules of an owner: name it"));
    }
    if owner.as_ref().is_some_and(|owner| owner.is_empty() || owner.len() > MAX_WORDS) {
        let words = format!("the name of an owner has from 1 to {MAX_WORDS} bytes");
        return Err(ApiError::bad_request(words));
    }
    let mut names = BTreeSet::new();
    let wrong = |schedule: &NamedSchedule| {
        let name = schedule.name.clone();
        if let Err(reason) = schedule.check() {
            return Some(format!("{name}: {reason}"));
        }
        let twice = format!("{name}: it is there twice");
        (!names.insert(name)).then_some(twice)
    };
    let wrong: Vec<String> = schedules.iter().filter_map(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::bad_request(wrong.join("\n"))) }
}

/// Makes sure that there are the endpoints of schedules. Each schedule without one is named.
async fn endpoints(api: &Api, schedules: &[NamedSchedule]) -> Result<(), ApiError> {
    let mut unknown = BTreeSet::new();
    let names: BTreeSet<&str> = schedules.iter().map(|one| one.spec.endpoint.as_str()).collect();
    for name in names {
        if api.store.endpoint(name).await?.is_none() {
            unknown.insert(name);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let known = known_names(api).await?;
    let missing = schedules.iter().filter(|one| unknown.contains(one.spec.endpoint.as_str()));
    let words = missing.map(|one| {
        let (name, endpoint) = (&one.name, &one.spec.endpoint);
        format!("{name}: there is no endpoint '{endpoint}': {known}")
    });
    Err(ApiError::not_found(words.collect::<Vec<String>>().join("\n")))
}

/// Lists schedules.
#[utoipa::path(
    get,
    path = "/v1/schedules",
    tag = "schedules",
    params(SchedulesQuery),
    responses((status = 200, description = "A page", body = SchedulePage), AnyRequest),
)]
pub(super) async fn schedules(
    State(api): State<Api>,
    Parameters(query): Parameters<SchedulesQuery>,
) -> Result<Json<SchedulePage>, ApiError> {
    let limit = query.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit must be from 1 to {MAX_PAGE}")));
    }
    let after = query.after.unwrap_or_default();
    let schedules = api.store.schedules(query.owner, after, limit).await?;
    let full = schedules.len() as u64 == limit;
    let next = schedules.last().filter(|_| full).map(|last| last.name.clone());
    Ok(Json(SchedulePage { schedules, next }))
}

/// Shows a schedule, with its next instants and its last occurrences.
#[utoipa::path(
    get,
    path = "/v1/schedules/{name}",
    tag = "schedules",
    params(("name" = String, Path, description = "The name of the schedule")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleDetail),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn schedule(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<ScheduleDetail>, ApiError> {
    let found = api.store.schedule(name.clone()).await?;
    found.map(Json).ok_or_else(|| unknown(&name))
}

/// Pauses a schedule: its instants are skipped until it is resumed.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/pause",
    operation_id = "pause_schedule",
    tag = "schedules",
    params(("name" = String, Path, description = "The name of the schedule")),
    request_body = Option<PauseRequest>,
    responses(
        (status = 200, description = "What was done", body = Changed),
        AnyRequest,
        Changing,
        Naming,
        WithBody,
    ),
)]
pub(super) async fn pause(
    State(api): State<Api>,
    Named(name): Named,
    request: Request,
) -> Result<Json<Changed>, ApiError> {
    let PauseRequest { reason } = read_or_default(request).await?;
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_WORDS) {
        let words = format!("the reason of a pause has at most {MAX_WORDS} bytes");
        return Err(ApiError::bad_request(words));
    }
    set_paused(&api, name, Some(PauseCause::ByHand { reason })).await
}

/// Has a schedule go on.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/resume",
    operation_id = "resume_schedule",
    tag = "schedules",
    params(("name" = String, Path, description = "The name of the schedule")),
    responses(
        (status = 200, description = "What was done", body = Changed),
        AnyRequest,
        Changing,
        Naming,
    ),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<Changed>, ApiError> {
    set_paused(&api, name, None).await
}

async fn set_paused(
    api: &Api,
    name: String,
    cause: Option<PauseCause>,
) -> Result<Json<Changed>, ApiError> {
    let changed = api.store.pause_schedule(name.clone(), cause, now_ms()).await?;
    let changed = changed.ok_or_else(|| unknown(&name))?;
    tell(api);
    Ok(Json(Changed { changed }))
}

/// Has a schedule make a task at once, beside its instants.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/run",
    operation_id = "run_schedule",
    tag = "schedules",
    params(("name" = String, Path, description = "The name of the schedule")),
    responses(
        (status = 200, description = "The occurrence", body = Occurrence),
        Changing,
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn run(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<Occurrence>, ApiError> {
    let occurrence = api.store.run_schedule(name.clone(), now_ms()).await?;
    let occurrence = occurrence.ok_or_else(|| unknown(&name))?;
    api.placements.tell();
    tell(&api);
    Ok(Json(occurrence))
}

/// Removes a schedule. Its occurrences and its tasks stay.
#[utoipa::path(
    post,
    path = "/v1/schedules/{name}/remove",
    operation_id = "remove_schedule",
    tag = "schedules",
    params(("name" = String, Path, description = "The name of the schedule")),
    responses(
        (status = 200, description = "What was done", body = RemovedSchedule),
        AnyRequest,
        Changing,
        Naming,
    ),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<RemovedSchedule>, ApiError> {
    let removed = api.store.remove_schedule(name.clone()).await?;
    let removed = removed.ok_or_else(|| unknown(&name))?;
    tell(&api);
    Ok(Json(removed))
}

fn tell(api: &Api) {
    api.signals.timers.send_modify(|count| *count += 1);
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no schedule '{name}': `clutch-service schedule list`"))
}
