//! Adds to what is recorded of tasks what their endpoints tell of them: states, progress,
//! counts, and for one task its timeline and why it has no outcome.
//!
//! Reads the records and the overlay, and asks the broker about the endpoint's queue where a
//! request needs it, bounded in time.

use super::Api;
use super::error::ApiError;
use super::placed;
use crate::broker::observer::Sought;
use crate::broker::session::LinkState;
use crate::model::{
    LiveTask, Placement, Progress, QueueState, TaskDetail, TaskState, TaskSummary, WaitFacts,
    timeline, why,
};
use crate::publishing::Hold;
use crate::store::TaskFilter;
use clutch_common::failover::KnownState;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::Work;
use clutch_common::task::priority::Priority;
use clutch_common::wire::{Phase, Role};

/// The most running tasks of which the walltimes are read, to tell when a slot is free.
const WALLTIMES: usize = 256;

/// The state of a task that runs or waits at its endpoint.
fn of_phase(phase: Phase) -> TaskState {
    match phase {
        Phase::Accepted => TaskState::Accepted,
        Phase::Running => TaskState::Running,
    }
}

/// The phase that a state stands for.
fn phase_of(state: TaskState) -> Option<Phase> {
    match state {
        TaskState::Accepted => Some(Phase::Accepted),
        TaskState::Running => Some(Phase::Running),
        TaskState::Scheduled | TaskState::Waiting | TaskState::Submitted | TaskState::Done(_) => {
            None
        }
    }
}

/// Shows submitted tasks as their endpoints told of them last.
pub(super) fn show_phases(api: &Api, tasks: &mut [TaskSummary]) {
    for task in tasks.iter_mut().filter(|task| task.state == TaskState::Submitted) {
        if let Some(live) = api.told.overlay.task(task.id) {
            show_phase(task, &live);
        }
    }
}

fn show_phase(task: &mut TaskSummary, live: &LiveTask) {
    task.state = of_phase(live.phase);
    task.progress = live.progress.clone();
}

/// Counts submitted tasks of a submission where they are at their endpoints.
pub(super) fn count_submission(api: &Api, submission: i64, progress: &mut Progress) {
    let counts = api.told.overlay.in_submission(submission);
    progress.move_submitted(TaskState::Running, counts.running);
    progress.move_submitted(TaskState::Accepted, counts.accepted);
}

/// Counts submitted tasks of an endpoint, or of all, where they are at their endpoints.
pub(super) fn count_endpoint(api: &Api, endpoint: Option<EndpointId>, progress: &mut Progress) {
    let overlay = &api.told.overlay;
    let counts = endpoint.map_or_else(|| overlay.everywhere(), |id| overlay.at_endpoint(id));
    progress.move_submitted(TaskState::Running, counts.running);
    progress.move_submitted(TaskState::Accepted, counts.accepted);
}

/// Counts submitted tasks where they are at their endpoints.
pub(super) fn count_tasks(api: &Api, tasks: &[TaskId], progress: &mut Progress) {
    for phase in api.told.overlay.phases(tasks.iter().copied()).into_iter().flatten() {
        progress.move_submitted(of_phase(phase), 1);
    }
}

/// The positions of the tasks of a filter that asks for nothing but tasks that are accepted or
/// running; nothing for any other filter.
pub(super) fn live_positions(api: &Api, filter: &TaskFilter) -> Option<Vec<u64>> {
    let phases: Option<Vec<Phase>> = filter.states.iter().map(|state| phase_of(*state)).collect();
    let phases = phases.filter(|phases| !phases.is_empty())?;
    let rows = phases
        .into_iter()
        .flat_map(|phase| api.told.overlay.rows(phase, filter.endpoint, filter.submission));
    let mut positions: Vec<u64> = match filter.submission {
        Some(_) => rows.filter_map(|row| row.index).collect(),
        None => rows.map(|row| row.row).collect(),
    };
    positions.sort_unstable_by_key(|position| std::cmp::Reverse(*position));
    positions.dedup();
    Some(positions)
}

/// Adds to a task's record how far it is at its endpoint, its timeline, and why it has no
/// outcome.
pub(super) async fn observe(api: &Api, detail: TaskDetail) -> Result<TaskDetail, ApiError> {
    let mut detail = detail;
    let family = &mut detail.family;
    for relative in family.parent.iter_mut().chain(&mut family.descendants) {
        if relative.state == TaskState::Submitted
            && let Some(live) = api.told.overlay.task(relative.id)
        {
            relative.state = of_phase(live.phase);
        }
    }
    let is_done = matches!(detail.summary.state, TaskState::Done(_));
    if !is_done || detail.summary.topic.is_some() {
        let places = api.store.task_places(vec![detail.summary.id]).await?;
        if let Some(place) = places.get(&detail.summary.id) {
            detail.placement = placed::placement(api, &detail, place.row).await?;
        }
        if is_done {
            detail.timeline = timeline(&detail);
            return Ok(detail);
        }
        let attempt = places.get(&detail.summary.id).map(|place| place.attempt);
        let live = api.told.overlay.task(detail.summary.id);
        detail.live = live.filter(|live| Some(live.attempt) == attempt);
        if let Some(live) = &detail.live {
            show_phase(&mut detail.summary, live);
            let waits = !live.waits.is_empty();
            detail.ring = waits
                .then(|| api.told.overlay.ring_of(detail.summary.id))
                .flatten()
                .unwrap_or_default();
        }
        let mut facts = facts(api, &detail).await?;
        if let Some(place) = places.get(&detail.summary.id) {
            let ahead = api.store.tasks_ahead(detail.summary.endpoint, place).await?;
            let there = api.told.overlay.at_endpoint(detail.summary.endpoint);
            facts.cancel_requested_ms = place.cancel_requested_ms;
            // Most that are at the endpoint are normal, and ahead of no urgent task.
            let there =
                if place.priority > Priority::Normal { 0 } else { there.accepted + there.running };
            facts.tasks_ahead = ahead.saturating_sub(there);
        }
        detail.why = Some(why(&facts));
    }
    detail.timeline = timeline(&detail);
    Ok(detail)
}

/// The facts about a task, but for the number of tasks ahead of it.
async fn facts(api: &Api, detail: &TaskDetail) -> Result<WaitFacts, ApiError> {
    let (now_ms, endpoint) = (now_ms(), detail.summary.endpoint);
    let overlay = &api.told.overlay;
    let fault = match &*api.link.borrow() {
        LinkState::Engaged(_) => None,
        LinkState::Disengaged(fault) => Some(fault.clone()),
    };
    let unlinked = fault.map(|fault| (overlay.unlinked_since_ms().unwrap_or(now_ms), fault));
    let mut heard = api.store.endpoint_heard(endpoint).await?;
    let load = overlay.load(endpoint);
    let drains = heard.drained_since_ms.is_some()
        || load.as_ref().is_some_and(|load| !load.stale && load.load.draining);
    let topic = placed::facts(api, detail).await?;
    // What is not placed has no queue.
    let placed = topic.as_ref().is_none_or(|topic| topic.unplaced.is_none());
    let sought = placed.then_some(Sought { endpoint, drains });
    let queue = api.told.observer.look(sought.into_iter().collect()).await.pop();
    let (queue_exists, messages_waiting, consumed) = match queue.unwrap_or(QueueState::Unknown) {
        QueueState::There { waiting, consumed } => (Some(true), Some(waiting), consumed),
        QueueState::Missing => (Some(false), None, None),
        QueueState::Unknown => (None, None, None),
    };
    for state in &heard.states {
        heard.at_ms = heard.at_ms.max(api.told.last_heard.of(state.id));
    }
    let task = detail.task.as_ref();
    let name = detail.summary.endpoint_name.clone();
    Ok(WaitFacts {
        now_ms,
        endpoint: name.unwrap_or_else(|| endpoint.to_string()),
        unlinked,
        due_at_ms: detail.due_at_ms.filter(|_| detail.summary.state == TaskState::Scheduled),
        placement: placement(api, detail),
        topic,
        retry_at_ms: detail.retry_at_ms,
        cancel_requested_ms: None,
        queue_exists,
        consumed,
        messages_waiting,
        tasks_ahead: 0,
        heard_at_ms: heard.at_ms.max(overlay.heard_at_ms(endpoint)),
        standby_only: stands_by(&heard.states),
        drained_since_ms: heard.drained_since_ms,
        slot_free_at_ms: slot_free_at_ms(api, endpoint).await?,
        cores: detail.summary.cores.into(),
        slots: told_slots(api, endpoint, detail.summary.cores).await?,
        load,
        live: detail.live.clone(),
        function: task.and_then(|task| match &task.work {
            Work::Call(call) => Some(call.function.to_string()),
            Work::Process(_) => None,
        }),
        expires_at_ms: task.and_then(|task| task.expires_at_ms),
        asked: detail.asked.map(|asked| (asked.asked_at_ms, asked.answered_at_ms)),
    })
}

/// How many slots the endpoint's instance that was heard last told of; looked up for a task that
/// takes several.
async fn told_slots(api: &Api, endpoint: EndpointId, cores: u32) -> Result<Option<u64>, ApiError> {
    if cores <= 1 {
        return Ok(None);
    }
    let record = api.store.endpoint_record(endpoint).await?;
    let states = record.into_iter().flat_map(|record| record.states);
    let mut slots = states.filter_map(|state| Some(state.told.details?.slots));
    Ok(slots.next())
}

/// Whether instances are known, and all of them stand by.
fn stands_by(states: &[KnownState]) -> bool {
    let mut counted = states.iter().filter(|state| state.given_up_at_ms.is_none()).peekable();
    counted.peek().is_some() && counted.all(|state| state.role == Role::Standby)
}

/// When a slot is free by the walltimes of the tasks that run, by the service's clock.
async fn slot_free_at_ms(api: &Api, endpoint: EndpointId) -> Result<Option<u64>, ApiError> {
    let mut running = api.told.overlay.running_at(endpoint);
    running.truncate(WALLTIMES);
    if running.is_empty() {
        return Ok(None);
    }
    let ahead = api.told.overlay.load(endpoint).map_or(0, |load| load.clock_ahead_ms);
    let tasks = running.iter().map(|(task, _)| *task).collect();
    let walltimes = api.store.walltimes(tasks).await?;
    let ends = running.iter().zip(walltimes).filter_map(|((_, since), walltime)| {
        since.checked_add(walltime?)?.checked_add_signed(ahead.saturating_neg())
    });
    Ok(ends.min())
}

/// How far the service has come with a task, by its record and by what the broker answered.
fn placement(api: &Api, detail: &TaskDetail) -> Placement {
    if detail.summary.state != TaskState::Waiting {
        return Placement::Placed;
    }
    match api.placements.held(detail.summary.endpoint).map(|held| held.why) {
        Some(Hold::NoQueue) => Placement::Returned,
        Some(Hold::QueueFull) => Placement::Refused,
        Some(Hold::Unconfirmed) | None => Placement::OnItsWay,
    }
}
