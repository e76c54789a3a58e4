//! Takes submissions: checks, records, publishes, and answers once the broker
//! has confirmed, or, if outcomes are waited for, once these are recorded: that the
//! broker had the tasks is plain then. What was recorded is published, and the
//! broker's word on it recorded, whether or not whoever asked is still there.

use super::Api;
use super::error::{self, ApiError, Json};
use super::query::{known_submission, unknown_endpoint};
use super::types::{
    MAX_KEY, MAX_TASKS_PER_REQUEST, MAX_TASKS_PER_SUBMISSION, SubmitAnswer, SubmitRequest,
};
use super::wait::{self, Target};
use crate::broker::session::Link;
use crate::model::{Progress, TaskState};
use crate::publishing::pack::Part;
use crate::publishing::placing::place_tasks;
use crate::publishing::submitter::{Job, Unplaced};
use crate::store::{Begun, Chunk, Endpoint};
use axum::extract::{Request, State};
use clutch_common::system::clock::now_ms;
use tokio::sync::{mpsc, oneshot};

/// How many tasks an error names.
const NAMED: usize = 5;

pub(super) async fn submit(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<SubmitAnswer>, ApiError> {
    let (parts, body) = request.into_parts();
    let upload = api.uploads.read(&parts.headers, body).await?;
    let request: SubmitRequest = error::body(&upload.bytes)?;
    check(&request)?;
    let jobs = jobs(&api)?;
    let wait_ms = request.wait_ms;
    let several = request.total > 1 && request.tasks.len() as u64 == request.total;
    let whole = several.then(|| request.key.clone());
    // From before anything is recorded: what is done then is done by a later commit.
    let mut commits = api.commits.clone();
    commits.mark_unchanged();
    let (tell, told) = oneshot::channel();
    // This future is dropped when the connection is; the task goes on.
    let mut placing = api.placing.clone().spawn({
        let api = api.clone();
        async move {
            let _upload = upload;
            place(&api, &jobs, request, tell).await
        }
    });
    let cut_off = |error| ApiError::internal(format!("the submission was cut off: {error}"));
    let Some(begun) = (if wait_ms > 0 { told.await.ok() } else { None }) else {
        return placing.await.map_err(cut_off)?.map(Json);
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
        placed = &mut placing => {
            placed.map_err(cut_off)??;
            holding.await?
        }
    };
    Ok(Json(SubmitAnswer { progress: Some(progress), ..begun }))
}

/// Records, tells what was recorded to whoever waits for outcomes, publishes, and
/// records what became of it.
async fn place(
    api: &Api,
    jobs: &mpsc::Sender<Job>,
    request: SubmitRequest,
    tell: oneshot::Sender<SubmitAnswer>,
) -> Result<SubmitAnswer, ApiError> {
    let SubmitRequest { endpoint: name, key, total, first, tasks, wait_ms } = request;
    let chunk = Chunk { endpoint: name.clone(), key, total, first, specs: tasks, now_ms: now_ms() };
    let begun = api.store.begin_submission(chunk).await?;
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
        // Whoever asked may have gone.
        drop(tell.send(answer.clone()));
    }
    let published = publish(api, jobs, &endpoint, &begun, wait_ms > 0).await?;
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

fn jobs(api: &Api) -> Result<mpsc::Sender<Job>, ApiError> {
    match &*api.link.borrow() {
        Link::Engaged(jobs) => Ok(jobs.clone()),
        Link::Disengaged(fault) => Err(ApiError::unavailable(
            "disengaged",
            format!("the service has no link to the broker: {fault}"),
        )),
    }
}

/// Publishes what is still `submitting` and records what the broker said, or has
/// it recorded soon; returns how many tasks it confirmed.
async fn publish(
    api: &Api,
    jobs: &mpsc::Sender<Job>,
    endpoint: &Endpoint,
    begun: &[Begun],
    soon: bool,
) -> Result<u64, ApiError> {
    let open: Vec<&Begun> = begun.iter().filter(|one| one.state == TaskState::Submitting).collect();
    let parts: Vec<Part> = open.iter().map(|one| (one.task.id, one.body.as_str())).collect();
    if parts.is_empty() {
        return Ok(0);
    }
    let fates = place_tasks(jobs, endpoint.id, &parts).await;
    let mut confirmed = Vec::with_capacity(open.len());
    let mut failed: Vec<(&Begun, Unplaced)> = Vec::new();
    for (one, fate) in open.iter().copied().zip(fates) {
        match fate {
            Ok(()) => confirmed.push(one.seq),
            Err(why) => failed.push((one, why)),
        }
    }
    if soon {
        api.marks.add(api, confirmed);
    } else if api.store.mark_submitted(confirmed, now_ms()).await? {
        api.news.send_modify(|count| *count += 1);
    }
    for state in [TaskState::Returned, TaskState::Refused] {
        let those = failed.iter().filter(|(_, why)| state_of(why) == state);
        let seqs: Vec<i64> = those.map(|(one, _)| one.seq).collect();
        api.store.mark_unplaced(seqs, state).await?;
    }
    match failed.first() {
        None => Ok(open.len() as u64),
        Some((_, why)) => Err(refusal(why, endpoint, &failed, begun.len())),
    }
}

/// Where a task is that the broker did not confirm.
fn state_of(why: &Unplaced) -> TaskState {
    match why {
        Unplaced::Returned(_) => TaskState::Returned,
        Unplaced::Refused | Unplaced::TooLarge(_) => TaskState::Refused,
        Unplaced::Unknown(_) => TaskState::Submitting,
    }
}

/// The words for tasks that the broker does not have, or may not have.
fn refusal(
    why: &Unplaced,
    endpoint: &Endpoint,
    failed: &[(&Begun, Unplaced)],
    asked: usize,
) -> ApiError {
    let name = &endpoint.name;
    let (code, words) = match why {
        Unplaced::Returned(reason) => (
            "returned",
            format!(
                "the broker has no queue for the endpoint '{name}' ({reason}); `clutch-service \
                 provision {name}` declares it"
            ),
        ),
        Unplaced::Refused => (
            "refused",
            format!("the broker refused the tasks: is the queue of the endpoint '{name}' full?"),
        ),
        Unplaced::TooLarge(limit) => (
            "too_large",
            format!(
                "the broker takes no message of more than {limit} bytes: pass large data by file, \
                 or have its max_message_size raised"
            ),
        ),
        Unplaced::Unknown(reason) => (
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
