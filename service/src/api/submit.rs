//! Takes submissions: checks, records, publishes, and answers once the broker has confirmed
//! the tasks, or, if the caller waits for outcomes, once these are recorded: the broker
//! certainly had the tasks then. Recorded tasks are published, and the broker's answers
//! recorded, even if the caller disconnects.

use super::Api;
use super::error::{self, ApiError, Json};
use super::query::{known_submission, unknown_endpoint};
use super::types::{
    MAX_KEY, MAX_TASKS_PER_REQUEST, MAX_TASKS_PER_SUBMISSION, SubmitAnswer, SubmitRequest,
};
use super::wait::{self, Target};
use crate::broker::session::LinkState;
use crate::model::{Progress, TaskState};
use crate::publishing::{Outgoing, Publication, PublishError, Publisher};
use crate::store::{Chunk, Endpoint, RecordedTask};
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use tokio::sync::oneshot;

/// How many tasks an error names.
const NAMED: usize = 5;

pub(super) async fn submit(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<SubmitAnswer>, ApiError> {
    let (context, body) = request.into_parts();
    let upload = api.uploads.read(&context.headers, body).await?;
    let request: SubmitRequest = error::body(&upload.bytes)?;
    check(&request)?;
    let publisher = publisher(&api)?;
    let wait_ms = request.wait_ms;
    let several = request.total > 1 && request.tasks.len() as u64 == request.total;
    let whole = several.then(|| request.key.clone());
    // From before anything is recorded: what is done then is done by a later commit.
    let mut commits = api.commits.clone();
    commits.mark_unchanged();
    let (tell, told) = oneshot::channel();
    // This future is dropped when the connection is; the task goes on.
    let mut submitting = api.submissions.clone().spawn({
        let api = api.clone();
        async move {
            let _upload = upload;
            record_and_publish(&api, &publisher, request, tell).await
        }
    });
    let cut_off = |error| ApiError::internal(format!("the submission was cut off: {error}"));
    let Some(begun) = (if wait_ms > 0 { told.await.ok() } else { None }) else {
        return submitting.await.map_err(cut_off)?.map(Json);
    };
    // How far a whole submission is costs the same however many tasks it has.
    let target = match whole {
        Some(key) => Target::Submission(known_submission(&api, &key).await?),
        None => Target::Tasks(begun.ids.clone()),
    };
    if begun.published < begun.ids.len() as u64 {
        commits.mark_changed();
    }
    // Tasks that are not confirmed are waited for as well.
    let holding = wait::hold(&api, &target, wait_ms, commits, Progress::complete);
    tokio::pin!(holding);
    let progress = tokio::select! {
        biased;
        progress = &mut holding => progress?,
        published = &mut submitting => {
            published.map_err(cut_off)??;
            holding.await?
        }
    };
    Ok(Json(SubmitAnswer { progress: Some(progress), ..begun }))
}

/// Records the tasks, sends their ids to a caller that waits for outcomes, and publishes them.
async fn record_and_publish(
    api: &Api,
    publisher: &Publisher,
    request: SubmitRequest,
    tell: oneshot::Sender<SubmitAnswer>,
) -> Result<SubmitAnswer, ApiError> {
    let SubmitRequest { endpoint: name, key, total, first, tasks, wait_ms } = request;
    let chunk = Chunk { endpoint: name.clone(), key, total, first, specs: tasks, now_ms: now_ms() };
    let begun = api.store.record_submission(chunk).await?;
    let Some((endpoint, begun)) = begun else {
        return Err(unknown_endpoint(api, &name).await);
    };
    let open = begun.iter().filter(|one| one.state == TaskState::Submitting).count();
    let answer = SubmitAnswer {
        endpoint: endpoint.id,
        ids: begun.iter().map(|one| one.task.id).collect(),
        published: open as u64,
        progress: None,
    };
    if wait_ms > 0 {
        // The caller may have gone.
        drop(tell.send(answer.clone()));
    }
    let published = publish(publisher, &endpoint, &begun, wait_ms > 0).await?;
    Ok(SubmitAnswer { published, ..answer })
}

/// The rules for a submission that need no records.
fn check(request: &SubmitRequest) -> Result<(), ApiError> {
    let count = request.tasks.len();
    if request.key.is_empty()
        || request.key.len() > MAX_KEY
        || request.key.chars().any(char::is_control)
    {
        return Err(ApiError::bad_request(format!(
            "key must have from 1 to {MAX_KEY} bytes and no control characters"
        )));
    }
    if count == 0 || count > MAX_TASKS_PER_REQUEST {
        return Err(ApiError::bad_request(format!(
            "a request carries from 1 to {MAX_TASKS_PER_REQUEST} tasks, this one has {count}"
        )));
    }
    if request.total > MAX_TASKS_PER_SUBMISSION
        || request.first.saturating_add(count as u64) > request.total
    {
        return Err(ApiError::bad_request(format!(
            "first ({}) and the number of tasks ({count}) must lie within total ({}), and total \
             within {MAX_TASKS_PER_SUBMISSION}",
            request.first, request.total
        )));
    }
    for (index, spec) in (request.first..).zip(&request.tasks) {
        spec.check().map_err(|reason| {
            ApiError::bad_request(format!("task {index}: {reason}; nothing was recorded"))
        })?;
    }
    Ok(())
}

fn publisher(api: &Api) -> Result<Publisher, ApiError> {
    match &*api.link.borrow() {
        LinkState::Engaged(publisher) => Ok(publisher.clone()),
        LinkState::Disengaged(fault) => Err(ApiError::unavailable(
            "disengaged",
            format!("the service has no link to the broker: {fault}"),
        )),
    }
}

/// Publishes the tasks that are `submitting`; returns how many the broker confirmed.
async fn publish(
    publisher: &Publisher,
    endpoint: &Endpoint,
    begun: &[RecordedTask],
    batched: bool,
) -> Result<u64, ApiError> {
    let open: Vec<&RecordedTask> =
        begun.iter().filter(|one| one.state == TaskState::Submitting).collect();
    if open.is_empty() {
        return Ok(0);
    }
    let tasks: Vec<Outgoing<'_>> = open.iter().map(|one| Outgoing::from(*one)).collect();
    let publication = Publication::Submission { batched };
    let outcomes = publisher.tasks(endpoint.id, publication, &tasks).await?;
    let failed: Vec<(&RecordedTask, PublishError)> = open
        .iter()
        .zip(outcomes)
        .filter_map(|(one, outcome)| Some((*one, outcome.err()?)))
        .collect();
    match failed.first() {
        None => Ok(open.len() as u64),
        Some((_, why)) => Err(refusal(why, endpoint, &failed, begun.len())),
    }
}

/// The words for tasks that the broker does not have, or may not have.
fn refusal(
    why: &PublishError,
    endpoint: &Endpoint,
    failed: &[(&RecordedTask, PublishError)],
    asked: usize,
) -> ApiError {
    let name = &endpoint.name;
    let (code, words) = match why {
        PublishError::Returned(reason) => (
            "returned",
            format!(
                "the broker has no queue for the endpoint '{name}' ({reason}); `clutch-service \
                 provision {name}` declares it"
            ),
        ),
        PublishError::Refused => (
            "refused",
            format!("the broker refused the tasks: is the queue of the endpoint '{name}' full?"),
        ),
        PublishError::TooLarge(limit) => (
            "too_large",
            format!(
                "the broker takes no message of more than {limit} bytes: pass large data by file, \
                 or have its max_message_size raised"
            ),
        ),
        PublishError::Unknown(reason) => (
            "unconfirmed",
            format!("the broker did not confirm the tasks, and may have them or not: {reason}"),
        ),
    };
    let mut named: Vec<String> =
        failed.iter().take(NAMED).map(|(one, _)| one.task.id.to_string()).collect();
    if failed.len() > NAMED {
        named.push(format!("and {} more", failed.len() - NAMED));
    }
    let count = failed.len();
    ApiError::not_submitted(
        code,
        format!("{words}; {count} of {asked} tasks are not submitted: {}", named.join(", ")),
    )
}
