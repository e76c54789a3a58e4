//! Has tasks run again that have their outcome, as their next attempts.

use super::error::{ApiError, Json};
use super::extract::read;
use super::problem::{AnyRequest, Naming, WithBody};
use super::query::known_submission;
use super::types::{MAX_TASKS_NAMED, RetryAnswer, RetryRequest};
use super::{Api, wait};
use crate::model::TaskState;
use crate::store::{RetrySlice, TaskSelection};
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::Outcome;

/// How many tasks are recorded in one transaction.
const SLICE: usize = 1000;

/// Has tasks run again that have their outcome, as their next attempts.
#[utoipa::path(
    post,
    path = "/v1/retry",
    tag = "tasks",
    request_body = RetryRequest,
    responses(
        (status = 200, description = "How many run again", body = RetryAnswer),
        AnyRequest,
        Naming,
        WithBody,
    ),
)]
pub(super) async fn retry(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<RetryAnswer>, ApiError> {
    let request: RetryRequest = read(request).await?;
    let selection = selection(&api, &request).await?;
    // This future is dropped when the connection is; the recording goes on.
    let recording = api.submissions.clone().spawn({
        let api = api.clone();
        async move { record(&api, selection).await }
    });
    let cut_off = |error| ApiError::internal(format!("the request was cut off: {error}"));
    let RetrySlice { retried, open, external } = recording.await.map_err(cut_off)??;
    Ok(Json(RetryAnswer { retried, open, external }))
}

/// The tasks that a request is about.
async fn selection(api: &Api, request: &RetryRequest) -> Result<TaskSelection, ApiError> {
    let RetryRequest { tasks, key, states } = request;
    if tasks.is_empty() == key.is_none() || tasks.len() > MAX_TASKS_NAMED {
        return Err(ApiError::bad_request(format!(
            "pass either key or tasks, from 1 to {MAX_TASKS_NAMED} of them"
        )));
    }
    for state in states {
        if !matches!(state.parse().map_err(ApiError::bad_request)?, TaskState::Done(_)) {
            return Err(ApiError::bad_request(format!(
                "'{state}' is no outcome: a task without one is under way; cancel it first, or \
                 wait for it"
            )));
        }
    }
    wait::check_known(api, tasks).await?;
    let submission = match key {
        Some(key) => Some(known_submission(api, key).await?),
        None => None,
    };
    // Of a submission, all that did not succeed.
    let failed = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Succeeded);
    let states = match (states.is_empty(), key) {
        (true, Some(_)) => failed.map(|outcome| outcome.as_str().to_owned()).collect(),
        _ => states.clone(),
    };
    Ok(TaskSelection { tasks: tasks.clone(), submission, states, ..TaskSelection::default() })
}

/// Records the request, slice by slice, so that results are recorded in between.
async fn record(api: &Api, selection: TaskSelection) -> Result<RetrySlice, ApiError> {
    let mut all = RetrySlice::default();
    let mut cursor = api.store.select(selection).await?;
    loop {
        let (next, selected) = api.store.next_selected(cursor, SLICE).await?;
        cursor = next;
        if selected.is_empty() {
            return Ok(all);
        }
        let rows = selected.into_iter().map(|task| task.seq).collect();
        let slice = api.store.retry(rows, now_ms()).await?;
        all.retried += slice.retried;
        all.open += slice.open;
        all.external += slice.external;
        if slice.retried > 0 {
            api.signals.news.send_modify(|count| *count += 1);
        }
    }
}
