//! Listings, one task in full, and results.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::{Named, Parameters};
use super::named_endpoint::known_endpoint;
use super::observed::{live_positions, observe, show_phases};
use super::problem::{AnyRequest, Naming};
use super::types::{MAX_PAGE, MissingPage, ResultPage, TaskPage};
use crate::model::{NamePattern, TaskDetail, TaskOutcome, TaskState};
use crate::store::TaskFilter;
use axum::extract::State;
use clutch_common::id::TaskId;
use clutch_common::task::priority::Priority;
use serde::Deserialize;
use utoipa::IntoParams;

/// How many rows a page has unless told otherwise.
const DEFAULT_PAGE: u64 = 50;

/// Which tasks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TasksQuery {
    /// Only those for an endpoint, by its name or id.
    endpoint: Option<String>,
    /// Only those that were submitted to this topic.
    topic: Option<String>,
    /// Only those in this state, or in one of several with commas between them.
    #[param(style = Form, explode = false, min_items = 1, value_type = Option<Vec<TaskState>>)]
    state: Option<String>,
    /// Only those of a submission.
    key: Option<String>,
    /// Only those with this name; each `*` stands for any characters.
    name: Option<String>,
    /// Only those of this priority.
    #[param(inline)]
    priority: Option<Priority>,
    /// Only those recorded then or later, in milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    /// Only those recorded before.
    until_ms: Option<u64>,
    /// The `next` of the page before.
    before: Option<u64>,
    /// The most tasks of the page; 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Lists tasks, newest first.
///
/// A page may have fewer tasks than `limit`, or none, and a `next`.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    tag = "tasks",
    params(TasksQuery),
    responses(
        (status = 200, description = "A page of tasks", body = TaskPage),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn tasks(
    State(api): State<Api>,
    Parameters(query): Parameters<TasksQuery>,
) -> Result<Json<TaskPage>, ApiError> {
    let endpoint = match &query.endpoint {
        Some(endpoint) => Some(known_endpoint(&api, endpoint).await?.id),
        None => None,
    };
    let submission = match &query.key {
        Some(key) => Some(known_submission(&api, key).await?),
        None => None,
    };
    let states = query.state.iter().flat_map(|states| states.split(','));
    let states: Result<_, String> = states.map(str::parse).collect();
    let filter = TaskFilter {
        endpoint,
        topic: query.topic,
        states: states.map_err(ApiError::bad_request)?,
        submission,
        name: query.name.map(NamePattern::new),
        priority: query.priority,
        since_ms: query.since_ms,
        until_ms: query.until_ms,
        before: query.before,
        limit: page(query.limit)?,
    };
    let mut page = match live_positions(&api, &filter) {
        Some(positions) => api.store.tasks_at(&filter, positions).await?,
        None => api.store.tasks(&filter).await?,
    };
    show_phases(&api, &mut page.items);
    // A page may be short: what is submitted by the records may be running.
    page.items.retain(|task| filter.states.is_empty() || filter.states.contains(&task.state));
    Ok(Json(page.into()))
}

/// Shows all that is known of one task.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = TaskId, Path, description = "The task")),
    responses(
        (status = 200, description = "The task", body = TaskDetail),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn task(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<TaskDetail>, ApiError> {
    let task = known_task(&api, &id).await?;
    Ok(Json(observe(&api, task).await?))
}

/// Counts the tasks that have been without a result for long, or may be lost, by endpoint.
#[utoipa::path(
    get,
    path = "/v1/missing",
    tag = "tasks",
    responses(
        (status = 200, description = "The endpoints with such tasks", body = MissingPage),
        AnyRequest,
    ),
)]
pub(super) async fn missing(State(api): State<Api>) -> Result<Json<MissingPage>, ApiError> {
    Ok(Json(MissingPage { missing: api.store.missing().await? }))
}

/// The query of `/v1/results`: a submission or a task, and a page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResultsQuery {
    /// The submission; without it, `task` is required.
    key: Option<String>,
    /// The task, by its id; without it, `key` is required.
    #[param(value_type = Option<TaskId>)]
    task: Option<String>,
    /// The `next` of the page before.
    from: Option<u64>,
    /// The most tasks of the page; 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Reads the recorded results of a submission in its order, or that of one task.
#[utoipa::path(
    get,
    path = "/v1/results",
    tag = "tasks",
    params(ResultsQuery),
    responses(
        (status = 200, description = "A page of results", body = ResultPage),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn results(
    State(api): State<Api>,
    Parameters(query): Parameters<ResultsQuery>,
) -> Result<Json<ResultPage>, ApiError> {
    match (&query.key, &query.task) {
        (Some(key), None) => {
            let submission = known_submission(&api, key).await?;
            let limit = page(query.limit)?;
            let from = query.from.unwrap_or(0);
            let ((total, forgotten), page) = api.store.results(submission, from, limit).await?;
            Ok(Json(ResultPage { results: page.items, total, forgotten, next: page.next }))
        }
        (None, Some(task)) => {
            let detail = known_task(&api, task).await?;
            let recorded = detail.summary.attempt;
            let result =
                detail.results.into_iter().find(|one| Some(one.result.attempt) == recorded);
            let results = vec![TaskOutcome { summary: detail.summary, result }];
            Ok(Json(ResultPage { results, total: 1, forgotten: 0, next: None }))
        }
        _ => Err(ApiError::bad_request("pass either key or task")),
    }
}

fn page(limit: Option<u64>) -> Result<u64, ApiError> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        _ => Err(ApiError::bad_request(format!("limit must be from 1 to {MAX_PAGE}"))),
    }
}

/// The task of that id.
pub(super) async fn known_task(api: &Api, id: &str) -> Result<TaskDetail, ApiError> {
    let id: TaskId =
        id.parse().map_err(|_| ApiError::bad_request(format!("'{id}' is not a task id")))?;
    let task = api.store.task(id).await?;
    task.ok_or_else(|| ApiError::not_found(format!("no task {id} is recorded here")))
}

/// The submission of that key.
pub(super) async fn known_submission(api: &Api, key: &str) -> Result<i64, ApiError> {
    let submission = api.store.submission(key).await?;
    submission
        .ok_or_else(|| ApiError::not_found(format!("nothing was submitted under the key '{key}'")))
}
