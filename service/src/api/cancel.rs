//! Cancels tasks: records the request in slices, has endpoints asked, and waits for those that
//! may answer. What was recorded is sent also if the caller disconnects.

use super::error::{ApiError, Json};
use super::extract::read;
use super::named_endpoint::known_endpoint;
use super::problem::{AnyRequest, Changing, Naming, WithBody};
use super::query::known_submission;
use super::types::{AskedEndpoint, CancelAnswer, CancelRequest, MAX_TASKS_NAMED};
use super::{Api, wait};
use crate::broker::observer::Sought;
use crate::model::{NamePattern, QueueState, TaskState, topic_id};
use crate::store::{SelectedTask, TaskSelection};
use axum::extract::{Request, State};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{CANCEL_MAX, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The longest a request is held.
const LONGEST: Duration = Duration::from_secs(600);
/// The shortest pause between two counts of the tasks that are left.
const LOOK: Duration = Duration::from_millis(20);

/// The states of tasks without an outcome, as a request names them.
const OPEN: [&str; 3] = ["scheduled", "waiting", "submitted"];

/// The records of a request.
#[derive(Debug, Default)]
struct Requested {
    cancelled: u64,
    too_late: u64,
    /// The messages that name the tasks that endpoints are asked for.
    messages: Vec<(EndpointId, u64)>,
    /// The rows of these tasks, as ranges.
    rows: Vec<(i64, i64)>,
    /// The rows of descendants that were taken along.
    descendants: BTreeSet<i64>,
}

impl Requested {
    /// Adds a row, in ascending order where that is so.
    fn add(&mut self, row: i64) {
        match self.rows.last_mut() {
            Some((_, last)) if *last + 1 == row => *last = row,
            _ => self.rows.push((row, row)),
        }
    }
}

/// Cancels tasks: those that meet every condition of the request.
#[utoipa::path(
    post,
    path = "/v1/cancel",
    tag = "tasks",
    request_body = CancelRequest,
    responses(
        (status = 200, description = "What became of them", body = CancelAnswer),
        AnyRequest,
        Naming,
        WithBody,
        Changing,
    ),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<CancelAnswer>, ApiError> {
    let request: CancelRequest = read(request).await?;
    let selection = selection(&api, &request).await?;
    let wait = Duration::from_millis(request.wait_ms).min(LONGEST);
    // A key names all of its tasks: those that have ended came too late for this.
    let ended = match (&request.key, request.states.is_empty() && request.name.is_none()) {
        (Some(key), true) => {
            let submission = known_submission(&api, key).await?;
            api.store.submission_progress(submission).await?.unwrap_or_default().done
        }
        _ => 0,
    };
    // This future is dropped when the connection is; the recording goes on.
    let recording = api.submissions.clone().spawn({
        let api = api.clone();
        let (states, with_children) = (request.states.clone(), request.with_children);
        async move { record(&api, selection, &states, with_children).await }
    });
    let cut_off = |error| ApiError::internal(format!("the request was cut off: {error}"));
    let requested = recording.await.map_err(cut_off)??;
    let answer = answer(&api, requested, wait).await?;
    Ok(Json(CancelAnswer { too_late: answer.too_late + ended, ..answer }))
}

/// Cancels all tasks of an endpoint that have no outcome, and waits for it where it may answer.
pub(super) async fn all_of(
    api: &Api,
    endpoint: EndpointId,
    wait: Duration,
) -> Result<CancelAnswer, ApiError> {
    let states = OPEN.map(str::to_owned).to_vec();
    let selection = TaskSelection { endpoint: Some(endpoint), states, ..TaskSelection::default() };
    let requested = record(api, selection, &[], false).await?;
    answer(api, requested, wait).await
}

/// The tasks that a request is about.
async fn selection(api: &Api, request: &CancelRequest) -> Result<TaskSelection, ApiError> {
    let CancelRequest { tasks, key, endpoint, topic, name, states, .. } = request;
    let to = [endpoint, topic].into_iter().flatten().next();
    if tasks.is_empty() && key.is_none() && to.is_none() && name.is_none() {
        return Err(ApiError::bad_request(
            "say which tasks to cancel: pass tasks, key, endpoint, topic or name",
        ));
    }
    if tasks.len() > MAX_TASKS_NAMED {
        return Err(ApiError::bad_request(format!(
            "a request names at most {MAX_TASKS_NAMED} tasks, this one has {}",
            tasks.len()
        )));
    }
    for state in states {
        if let TaskState::Done(_) = state.parse().map_err(ApiError::bad_request)? {
            return Err(ApiError::bad_request(format!(
                "'{state}' is an outcome: a task that has one cannot be cancelled"
            )));
        }
    }
    wait::check_known(api, tasks).await?;
    // Of none, all that have no outcome. Tasks that are named are looked at in any case: one that has
    // its outcome came too late.
    let states = match states.as_slice() {
        [] if tasks.is_empty() => OPEN.map(str::to_owned).to_vec(),
        states => states.to_vec(),
    };
    Ok(TaskSelection {
        tasks: tasks.clone(),
        submission: match key {
            Some(key) => Some(known_submission(api, key).await?),
            None => None,
        },
        endpoint: match (endpoint, topic) {
            (None, None) => None,
            (Some(endpoint), None) => Some(known_endpoint(api, endpoint).await?.id),
            (None, Some(topic)) => Some(topic_id(topic)),
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_request("pass either endpoint or topic"));
            }
        },
        name: name.as_deref().map(NamePattern::new),
        states,
    })
}

/// Records the request, slice by slice, so that results are recorded in between. A task is to be
/// cancelled before its children are looked for: after that it gets no more.
async fn record(
    api: &Api,
    selection: TaskSelection,
    states: &[String],
    with_children: bool,
) -> Result<Requested, ApiError> {
    let mut requested = Requested::default();
    let mut cursor = api.store.select(selection).await?;
    loop {
        let (next, selected) = api.store.next_selected(cursor, CANCEL_MAX).await?;
        cursor = next;
        if selected.is_empty() {
            return Ok(requested);
        }
        let phases = api.told.overlay.phases(selected.iter().map(|task| task.attempt.task_id));
        let meant = selected.into_iter().zip(phases);
        let meant = meant.filter(|(task, phase)| is_meant(states, *task, *phase));
        let (rows, tasks): (Vec<i64>, Vec<TaskId>) =
            meant.map(|(task, _)| (task.seq, task.attempt.task_id)).unzip();
        record_slice(api, rows, &mut requested).await?;
        if with_children {
            record_descendants(api, &tasks, &mut requested).await?;
        }
    }
}

/// Records the request for the descendants of tasks, until there are no more of them.
async fn record_descendants(
    api: &Api,
    tasks: &[TaskId],
    requested: &mut Requested,
) -> Result<(), ApiError> {
    loop {
        // Those that were submitted meanwhile are found by the next look.
        let mut rows = api.store.open_descendants(tasks.to_vec()).await?;
        rows.retain(|row| requested.descendants.insert(*row));
        if rows.is_empty() {
            return Ok(());
        }
        for rows in rows.chunks(CANCEL_MAX) {
            record_slice(api, rows.to_vec(), requested).await?;
        }
    }
}

/// Records the request for the tasks in some rows.
async fn record_slice(
    api: &Api,
    rows: Vec<i64>,
    requested: &mut Requested,
) -> Result<(), ApiError> {
    if rows.is_empty() {
        return Ok(());
    }
    let slice = api.store.cancel(rows, now_ms()).await?;
    requested.cancelled += slice.cancelled;
    requested.too_late += slice.too_late;
    let asked = !slice.asked.is_empty();
    for (endpoint, (number, rows)) in slice.asked {
        requested.messages.push((endpoint, number));
        rows.into_iter().for_each(|row| requested.add(row));
    }
    if asked {
        api.signals.news.send_modify(|count| *count += 1);
    }
    if slice.cancelled > 0 {
        api.signals.recorded.send_modify(|count| *count += 1);
    }
    Ok(())
}

/// Whether a task is in one of the states that are asked for; of none, every task is. How far
/// one that was submitted is, its endpoint's last event tells.
fn is_meant(states: &[String], task: SelectedTask, phase: Option<Phase>) -> bool {
    let shown = match phase {
        None => TaskState::Submitted,
        Some(Phase::Accepted) => TaskState::Accepted,
        Some(Phase::Running) => TaskState::Running,
    };
    states.is_empty() || !task.submitted || states.iter().any(|state| state == shown.as_str())
}

/// Waits for the endpoints that may answer, and counts what became of the tasks.
async fn answer(api: &Api, requested: Requested, wait: Duration) -> Result<CancelAnswer, ApiError> {
    let Requested { cancelled, too_late, messages, rows, .. } = requested;
    let online = online(api, &messages).await;
    let until = Instant::now() + wait;
    let left = wait_for(api, &messages, &online, until).await?;
    let mut answer = CancelAnswer { cancelled, too_late, ..CancelAnswer::default() };
    for (outcome, tasks) in api.store.count_outcomes(rows).await? {
        if outcome == Outcome::Cancelled {
            answer.cancelled += tasks;
        } else {
            answer.too_late += tasks;
        }
    }
    for (endpoint, asked) in left {
        let known = api.store.endpoint(&endpoint.to_string()).await?;
        let name = known.map_or_else(|| endpoint.to_string(), |known| known.name);
        let online = online.get(&endpoint).copied().flatten();
        answer.asked += asked;
        answer.endpoints.push(AskedEndpoint { endpoint, name, asked, online });
    }
    Ok(answer)
}

/// Whether an instance of each endpoint is there, where that can be told.
async fn online(api: &Api, messages: &[(EndpointId, u64)]) -> BTreeMap<EndpointId, Option<bool>> {
    let endpoints: BTreeSet<EndpointId> = messages.iter().map(|(endpoint, _)| *endpoint).collect();
    // One that drains reads its control queue only, and is told as well.
    let sought = endpoints.iter().map(|endpoint| Sought { endpoint: *endpoint, drains: true });
    let looked = api.told.observer.look(sought.collect()).await;
    let online = looked.into_iter().map(|queue| match queue {
        QueueState::Unknown => None,
        QueueState::Missing => Some(false),
        QueueState::There { consumed, .. } => consumed,
    });
    endpoints.into_iter().zip(online).collect()
}

/// Waits until no task is left at an endpoint that may answer, or the time is over. Returns how
/// many are left, by endpoint.
async fn wait_for(
    api: &Api,
    messages: &[(EndpointId, u64)],
    online: &BTreeMap<EndpointId, Option<bool>>,
    until: Instant,
) -> Result<BTreeMap<EndpointId, u64>, ApiError> {
    let mut commits = api.commits.clone();
    loop {
        commits.mark_unchanged();
        let looked = Instant::now();
        let left = api.store.open_cancellations(messages.to_vec()).await?;
        let may_answer = |endpoint| online.get(endpoint).copied().flatten() != Some(false);
        let waits = left.iter().any(|(endpoint, tasks)| *tasks > 0 && may_answer(endpoint));
        if !waits || Instant::now() >= until {
            return Ok(left);
        }
        // Counting is not to hold up what is counted.
        let pause = LOOK.max(4 * looked.elapsed());
        let changed = async {
            tokio::time::sleep(pause).await;
            commits.changed().await
        };
        tokio::select! {
            biased;
            () = api.stop.cancelled() => return Ok(left),
            changed = changed => if changed.is_err() { return Ok(left) },
            () = tokio::time::sleep_until(until) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::Attempt;

    #[test]
    fn what_is_queued_is_not_meant_where_only_what_runs_is() {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        let meant = |states: &[&str], submitted, phase| {
            let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
            is_meant(&states, SelectedTask { seq: 1, attempt, submitted }, phase)
        };
        for phase in [None, Some(Phase::Accepted), Some(Phase::Running)] {
            assert!(meant(&[], true, phase));
            assert_eq!(meant(&["running"], true, phase), phase == Some(Phase::Running));
            assert_eq!(meant(&["accepted"], true, phase), phase == Some(Phase::Accepted));
            assert_eq!(meant(&["submitted"], true, phase), phase.is_none());
            assert_eq!(meant(&["waiting", "running"], true, phase), phase == Some(Phase::Running));
        }
        assert!(meant(&["waiting", "running"], false, None), "the records say that it waits");
    }
}
