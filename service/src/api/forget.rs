//! Forgets ended tasks, for a bounded time per request.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::read;
use super::problem::{AnyRequest, Naming, WithBody};
use super::query::known_submission;
use super::types::{ForgetAnswer, ForgetRequest};
use crate::store::Forgettable;
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use std::time::Duration;
use tokio::time::Instant;

/// How long a request works, give or take a slice.
const WORKS_FOR: Duration = Duration::from_secs(2);
/// A position behind every task: all were looked at, and the file still shrinks.
const BEHIND_ALL: u64 = (1 << 53) - 1;

/// Forgets ended tasks.
///
/// A request works for about 2 s; it is sent again with `next` as `from`, until `next` is null.
#[utoipa::path(
    post,
    path = "/v1/forget",
    tag = "tasks",
    request_body = ForgetRequest,
    responses(
        (status = 200, description = "How many it forgot", body = ForgetAnswer),
        AnyRequest,
        Naming,
        WithBody,
    ),
)]
pub(super) async fn forget(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<ForgetAnswer>, ApiError> {
    let request: ForgetRequest = read(request).await?;
    let which = match (&request.key, request.older_than_ms) {
        // The submission may have gone with the request before.
        (Some(_), None) if request.from == BEHIND_ALL => Forgettable::EndedBefore(0),
        (Some(key), None) => Forgettable::Submission(known_submission(&api, key).await?),
        (None, Some(age)) => Forgettable::EndedBefore(now_ms().saturating_sub(age)),
        _ => return Err(ApiError::bad_request("pass either key or older_than_ms")),
    };
    let until = Instant::now() + WORKS_FOR;
    let is_over = || Instant::now() >= until || api.stop.is_cancelled();
    let mut answer = ForgetAnswer { next: Some(request.from), ..ForgetAnswer::default() };
    while let Some(from) = answer.next.filter(|from| *from < BEHIND_ALL) {
        let slice = api.store.forget(which, from, request.dry_run).await?;
        answer.tasks += slice.tasks;
        answer.submissions += slice.submissions;
        answer.unfinished += slice.unfinished;
        answer.next = slice.next.or(Some(BEHIND_ALL));
        if is_over() {
            break;
        }
    }
    if answer.next == Some(BEHIND_ALL) {
        let mut shrinks = !request.dry_run;
        if let Forgettable::EndedBefore(before_ms) = which
            && shrinks
        {
            answer.occurrences = occurrences(&api, before_ms, &is_over).await?;
        }
        while shrinks && !is_over() {
            shrinks = api.store.release_pages().await?;
        }
        answer.next = shrinks.then_some(BEHIND_ALL);
    }
    if !request.dry_run {
        api.store.durable().await?;
    }
    Ok(Json(answer))
}

/// Forgets old records of instants until the time is over; returns how many. What is left then
/// is forgotten by the next request. Looking alone goes on to the last schedule.
async fn occurrences(
    api: &Api,
    before_ms: u64,
    is_over: &(impl Fn() -> bool + Sync),
) -> Result<u64, ApiError> {
    let (mut records, mut next) = (0, Some(String::new()));
    while let Some(after) = next.filter(|_| records == 0 || !is_over()) {
        let slice = api.store.forget_occurrences(before_ms, after).await?;
        records += slice.records;
        next = slice.next;
    }
    Ok(records)
}
