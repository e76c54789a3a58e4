//! The long poll: answers when tasks are done, or further than the caller saw.
//! Woken by the collector's commits; while nothing is recorded it does nothing.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::read;
use super::observed::{count_submission, count_tasks};
use super::problem::{AnyRequest, AskingBroker, Naming, WithBody};
use super::query::known_submission;
use super::types::{MAX_TASKS_NAMED, WaitRequest};
use crate::model::Progress;
use axum::extract::{Request, State};
use clutch_common::id::TaskId;
use std::time::Duration;
use tokio::sync::watch;

/// The longest a request is held.
const LONGEST: Duration = Duration::from_secs(600);

/// The tasks to wait for, as the records know them.
pub(super) enum Target {
    Submission(i64),
    Tasks(Vec<TaskId>),
}

/// Waits for the outcomes of tasks.
#[utoipa::path(
    post,
    path = "/v1/wait",
    tag = "tasks",
    request_body = WaitRequest,
    responses(
        (status = 200, description = "How far the tasks are", body = Progress),
        AnyRequest,
        Naming,
        WithBody,
        AskingBroker,
    ),
)]
pub(super) async fn wait(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<Progress>, ApiError> {
    let request: WaitRequest = read(request).await?;
    let target = target(&api, &request).await?;
    let seen = request.seen;
    let mut commits = api.commits.clone();
    commits.mark_changed();
    hold(&api, &target, request.timeout_ms, commits, |progress| {
        let ended = match target {
            Target::Submission(_) => progress.settled(),
            Target::Tasks(_) => progress.complete(),
        };
        ended || seen.is_some_and(|seen| seen != progress.done)
    })
    .await
    .map(Json)
}

/// Waits until the progress is enough, or the time is over. The progress is read whenever
/// the number of commits is not the one that `commits` has seen.
pub(super) async fn hold(
    api: &Api,
    target: &Target,
    timeout_ms: u64,
    mut commits: watch::Receiver<u64>,
    enough: impl Fn(&Progress) -> bool,
) -> Result<Progress, ApiError> {
    let timeout = tokio::time::sleep(Duration::from_millis(timeout_ms).min(LONGEST));
    tokio::pin!(timeout);
    let stopping = || ApiError::stopping();
    loop {
        let over = tokio::select! {
            biased;
            () = &mut timeout => true,
            () = api.stop.cancelled() => return Err(stopping()),
            changed = commits.changed() => changed.map(|()| false).map_err(|_| stopping())?,
        };
        let progress = progress(api, target).await?;
        if over || enough(&progress) {
            return Ok(progress);
        }
    }
}

async fn target(api: &Api, request: &WaitRequest) -> Result<Target, ApiError> {
    match &request.key {
        Some(key) if request.tasks.is_empty() => {
            Ok(Target::Submission(known_submission(api, key).await?))
        }
        None if (1..=MAX_TASKS_NAMED).contains(&request.tasks.len()) => {
            Ok(Target::Tasks(request.tasks.clone()))
        }
        _ => Err(ApiError::bad_request(format!(
            "pass either key or tasks, from 1 to {MAX_TASKS_NAMED} of them"
        ))),
    }
}

/// How far a target is.
pub(super) async fn progress(api: &Api, target: &Target) -> Result<Progress, ApiError> {
    match target {
        Target::Submission(submission) => {
            let progress = api.store.submission_progress(*submission).await?;
            let mut progress = progress.ok_or_else(|| {
                ApiError::not_found("the submission is forgotten: all its tasks have ended")
            })?;
            count_submission(api, *submission, &mut progress);
            Ok(progress)
        }
        Target::Tasks(tasks) => check_known(api, tasks).await,
    }
}

/// The progress of tasks, if all of them are recorded.
pub(super) async fn check_known(api: &Api, tasks: &[TaskId]) -> Result<Progress, ApiError> {
    let (mut progress, unknown) = api.store.tasks_progress(tasks).await?;
    count_tasks(api, tasks, &mut progress);
    match unknown.first() {
        None => Ok(progress),
        Some(first) => Err(ApiError::not_found(format!(
            "{} of the tasks are not recorded here, the first of them {first}",
            unknown.len()
        ))),
    }
}
