//! Takes submissions: checks, records and answers. Tasks are published after that while there
//! is a link to the broker, and wait for the placer while there is none. A caller may ask for
//! more than the record: for the broker's confirms, or for outcomes. Recorded tasks are
//! published, and the broker's answers recorded, even if the caller disconnects.

use super::Api;
use super::error::{ApiError, Json};
use super::extract;
use super::problem::{AnyRequest, Changing, Kind, Naming, Publishing, WithBody};
use super::query::known_submission;
use super::recipient;
use super::types::{
    MAX_KEY, MAX_TASKS_PER_REQUEST, MAX_TASKS_PER_SUBMISSION, SubmitAnswer, SubmitRequest,
};
use super::upload::Upload;
use super::wait::{self, Target};
use super::waiting::link;
use crate::model::{Progress, RetryPolicy};
use crate::publishing::{Outgoing, PublishError, Publisher, RoomTaken};
use crate::store::{Chunk, Endpoint, Handing, RecordedChunk, RecordedTask, StoredState};
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use tokio::sync::oneshot;

/// How many tasks an error names.
const NAMED: usize = 5;

/// Submits tasks.
///
/// A task is known by key and index, so that the same request may be sent again. The answer
/// comes when all are on the disk of the service, or later where `confirmed` or `wait_ms` asks for more.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    request_body = SubmitRequest,
    responses(
        (status = 200, description = "The tasks are recorded", body = SubmitAnswer),
        AnyRequest,
        Naming,
        WithBody,
        Changing,
        Publishing,
    ),
)]
pub(super) async fn submit(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<SubmitAnswer>, ApiError> {
    let (context, body) = request.into_parts();
    let upload = api.uploads.read(&context.headers, body).await?;
    let request: SubmitRequest = extract::json(&upload.bytes)?;
    check(&request)?;
    let link = link(&api);
    if let (true, Err(fault)) = (request.confirmed, &link) {
        let words = format!("{fault}; nothing was recorded");
        return Err(ApiError::disengaged(words));
    }
    let SubmitRequest { confirmed, wait_ms, .. } = request;
    let several = request.total > 1 && request.tasks.len() as u64 == request.total;
    let whole = several.then(|| request.key.clone());
    // From before anything is recorded: what is done then is done by a later commit.
    let mut commits = api.commits.clone();
    commits.mark_unchanged();
    let (tell, told) = oneshot::channel();
    // This future is dropped when the connection is; the task goes on.
    let submitting = api.submissions.clone().spawn({
        let api = api.clone();
        async move { record_and_publish(&api, link, request, upload, tell).await }
    });
    let cut_off = |error| ApiError::internal(format!("the submission was cut off: {error}"));
    let Some(begun) = told.await.ok().filter(|_| !confirmed) else {
        return submitting.await.map_err(cut_off)?.map(Json);
    };
    if wait_ms == 0 {
        return Ok(Json(begun));
    }
    // How far a whole submission is costs the same however many tasks it has.
    let target = match whole {
        Some(key) => Target::Submission(known_submission(&api, &key).await?),
        None => Target::Tasks(begun.ids.clone()),
    };
    if begun.recorded < begun.ids.len() as u64 {
        commits.mark_changed();
    }
    // Tasks that are not confirmed are waited for as well.
    let progress = wait::hold(&api, &target, wait_ms, commits, Progress::complete).await?;
    Ok(Json(SubmitAnswer { progress: Some(progress), ..begun }))
}

/// Records the tasks, tells the caller, and publishes them if there is a link that takes them.
async fn record_and_publish(
    api: &Api,
    link: Result<Publisher, String>,
    request: SubmitRequest,
    upload: Upload,
    tell: oneshot::Sender<SubmitAnswer>,
) -> Result<SubmitAnswer, ApiError> {
    let link = with_room(api, link, upload.bytes.len()).await;
    if let (true, Err(reason)) = (request.confirmed, &link) {
        return Err(ApiError::disengaged(format!("{reason}; nothing was recorded")));
    }
    let to = recipient::of(&request)?;
    let SubmitRequest { key, total, first, tasks, confirmed, retry, due, .. } = request;
    let handing = match &link {
        Ok(_) if confirmed => Handing::Unconfirmed,
        Ok(_) => Handing::New,
        Err(_) => Handing::Nothing,
    };
    let (specs, parent, now_ms) = (tasks, None, now_ms());
    let sent = to.clone();
    let chunk = Chunk { to, key, total, first, specs, handing, retry, due, parent, now_ms };
    let begun = api.store.record_submission(chunk).await?;
    let Some(RecordedChunk { id, endpoint, tasks: begun, due_at_ms }) = begun else {
        return Err(recipient::unknown(api, &sent).await);
    };
    let scheduled = begun.iter().any(|one| one.state == StoredState::Scheduled);
    let answer = SubmitAnswer {
        endpoint: id,
        ids: begun.iter().map(|one| one.task.id).collect(),
        recorded: begun.iter().filter(|one| one.new).count() as u64,
        waiting: link.as_ref().err().filter(|_| !scheduled).cloned(),
        due_at_ms,
        warnings: endpoint.as_ref().map(warnings).unwrap_or_default(),
        progress: None,
    };
    // The caller may have gone.
    drop(tell.send(answer.clone()));
    // The broker may take its time, and others are to be recorded meanwhile.
    drop(upload);
    if scheduled {
        api.signals.timers.send_modify(|count| *count += 1);
    }
    if begun.iter().any(|one| one.state == StoredState::Waiting) {
        // A caller that submits again wants it tried, and a link may have come up meanwhile.
        api.placements.try_now(id);
    }
    // What goes to a topic is published by the placer.
    if let (Ok((publisher, _room)), Some(endpoint)) = (&link, &endpoint) {
        publish(publisher, endpoint, &begun, !confirmed).await?;
    }
    Ok(answer)
}

/// The publisher of the link, and room for a submission of so many bytes; or why its tasks wait.
async fn with_room(
    api: &Api,
    link: Result<Publisher, String>,
    bytes: usize,
) -> Result<(Publisher, RoomTaken), String> {
    let publisher = link?;
    let unconfirmed = || {
        "the broker does not confirm what it was sent before; its memory or disk may be short"
            .to_owned()
    };
    Ok((publisher, api.publishing.take(bytes).await.ok_or_else(unconfirmed)?))
}

/// The reasons for which tasks of an endpoint do not run, as far as its record tells.
fn warnings(endpoint: &Endpoint) -> Vec<String> {
    let name = &endpoint.name;
    let drains =
        || format!("{name} drains: its tasks wait until `clutch-service endpoint resume {name}`");
    endpoint.draining.then(drains).into_iter().collect()
}

/// The rules for a submission that need no records.
fn check(request: &SubmitRequest) -> Result<(), ApiError> {
    let count = request.tasks.len();
    if request.key.is_empty()
        || request.key.chars().count() > MAX_KEY
        || request.key.chars().any(char::is_control)
    {
        return Err(ApiError::bad_request(format!(
            "key must have from 1 to {MAX_KEY} characters, none of them a control character"
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
    recipient::of(request)?;
    if let Some(Err(reason)) = request.retry.as_ref().map(RetryPolicy::check) {
        return Err(ApiError::bad_request(format!("retry: {reason}")));
    }
    if let Some(due) = request.due {
        due.check(now_ms()).map_err(|reason| ApiError::bad_request(format!("due: {reason}")))?;
        if request.confirmed {
            return Err(ApiError::bad_request(
                "the broker gets scheduled tasks when they are due: leave out confirmed or due",
            ));
        }
    }
    for (index, spec) in (request.first..).zip(&request.tasks) {
        spec.check().map_err(|reason| {
            ApiError::bad_request(format!("task {index}: {reason}; nothing was recorded"))
        })?;
    }
    Ok(())
}

/// Publishes the tasks that are to be handed to the link.
async fn publish(
    publisher: &Publisher,
    endpoint: &Endpoint,
    begun: &[RecordedTask],
    batched: bool,
) -> Result<(), ApiError> {
    let open: Vec<&RecordedTask> = begun.iter().filter(|one| one.hand_over.is_some()).collect();
    if open.is_empty() {
        return Ok(());
    }
    let tasks: Vec<Outgoing<'_>> = open.iter().map(|one| Outgoing::from(*one)).collect();
    let outcomes = publisher.tasks(endpoint.id, batched, &tasks).await?;
    let failed: Vec<(&RecordedTask, PublishError)> = open
        .iter()
        .zip(outcomes)
        .filter_map(|(one, outcome)| Some((*one, outcome.err()?)))
        .collect();
    match failed.first() {
        None => Ok(()),
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
    let (kind, words) = match why {
        PublishError::Returned(reason) => (
            Kind::Returned,
            format!(
                "the broker has no queue for the endpoint '{name}' ({reason}); `clutch-service \
                 provision {name}` declares it"
            ),
        ),
        PublishError::Refused => (
            Kind::Refused,
            format!("the broker refused the tasks: is the queue of the endpoint '{name}' full?"),
        ),
        PublishError::TooLarge(limit) => (
            Kind::TooLarge,
            format!(
                "the broker takes no message of more than {limit} bytes: pass large data by file, \
                 or have its max_message_size raised; tasks that are too large end as rejected"
            ),
        ),
        PublishError::Unknown(reason) => (
            Kind::Unconfirmed,
            format!("the broker did not confirm the tasks, and may have them or not: {reason}"),
        ),
    };
    let mut named: Vec<String> =
        failed.iter().take(NAMED).map(|(one, _)| one.task.id.to_string()).collect();
    if failed.len() > NAMED {
        named.push(format!("and {} more", failed.len() - NAMED));
    }
    let count = failed.len();
    ApiError::new(
        kind,
        format!(
            "{words}; {count} of {asked} tasks are not submitted: {}; those that are not rejected \
             wait, and are placed when that is possible",
            named.join(", ")
        ),
    )
}
