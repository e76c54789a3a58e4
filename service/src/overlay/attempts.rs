//! The overlay's table: per endpoint its last load, and per task how far the endpoint says
//! that it is. Pure.
//!
//! Bounded by [`MAX_BYTES`] and [`MAX_ENDPOINTS`]: what does not fit is left out, and shown
//! as `submitted`. A complete message replaces everything that its endpoint told before; a
//! result removes its task.

use crate::model::{LiveLoad, LiveTask};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::result::TaskResult;
use clutch_common::wire::{AttemptEvent, Events, MessageWait, Phase, TaskProgress};
use std::collections::{BTreeMap, BTreeSet};

/// How many bytes the tasks take together, counted as [`weight`] does.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The share of a task that has told no progress.
const TASK_BYTES: usize = 400;
/// How many endpoints are kept.
const MAX_ENDPOINTS: usize = 10_000;
/// The longest words that are kept of a task or an endpoint, in bytes.
const MAX_WORDS: usize = 800;
/// The largest data of a task's progress, in bytes; larger ones are left out.
const MAX_DATA: usize = 4 * 1024;
/// How many open sends and receives of a task are kept, and how many addressees of each.
const MAX_WAITS: usize = 16;
/// The share of one of them.
const WAIT_BYTES: usize = 100;
/// How many troubles of an endpoint are kept.
const MAX_TROUBLES: usize = 16;
/// An endpoint tells everything every 30 seconds while it has tasks: after three times
/// that, its last word may be wrong.
pub(crate) const STALE_AFTER_MS: u64 = 90_000;

/// Where a task is in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskRow {
    /// Its row.
    pub(crate) row: u64,
    /// Its submission.
    pub(crate) submission: Option<i64>,
    /// Its index in that.
    pub(crate) index: Option<u64>,
    /// The attempt under way.
    pub(crate) attempt: u32,
}

/// How many tasks are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhaseCounts {
    /// The tasks that wait for a slot.
    pub(crate) accepted: u64,
    /// The tasks that have one.
    pub(crate) running: u64,
}

impl PhaseCounts {
    fn of(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Accepted => &mut self.accepted,
            Phase::Running => &mut self.running,
        }
    }

    fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    endpoints: BTreeMap<EndpointId, KnownEndpoint>,
    tasks: BTreeMap<TaskId, OverlaidTask>,
    submissions: BTreeMap<i64, PhaseCounts>,
    bytes: usize,
    /// The tasks with open sends or receives.
    waiting: BTreeSet<TaskId>,
}

#[derive(Debug)]
struct KnownEndpoint {
    load: Option<LiveLoad>,
    heard_at_ms: u64,
    tasks: BTreeSet<TaskId>,
    phases: PhaseCounts,
}

#[derive(Debug)]
struct OverlaidTask {
    endpoint: EndpointId,
    at: TaskRow,
    live: LiveTask,
}

impl Attempts {
    /// Whether nothing is known of any task.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks of a message that are not in the table: they have to be looked up.
    pub(crate) fn unknown(&self, events: &Events) -> Vec<TaskId> {
        let tasks = events.attempts.iter().map(|one| one.attempt.task_id);
        tasks.filter(|task| !self.tasks.contains_key(task)).collect()
    }

    /// Takes in a message. `rows` are those of the tasks that were unknown, without those
    /// that the service does not know or that have their outcome.
    pub(crate) fn apply(&mut self, events: &Events, rows: &BTreeMap<TaskId, TaskRow>, now_ms: u64) {
        let id = events.endpoint_id;
        if !self.endpoints.contains_key(&id) && self.endpoints.len() >= MAX_ENDPOINTS {
            return;
        }
        let mut kept = BTreeMap::new();
        if events.complete {
            kept = self.remove_all(id);
        }
        let endpoint = self.endpoints.entry(id).or_insert_with(KnownEndpoint::new);
        endpoint.heard_at_ms = now_ms;
        if let Some(load) = &events.load {
            let mut load = load.clone();
            load.troubles.truncate(MAX_TROUBLES);
            load.troubles.iter_mut().for_each(shorten);
            let ahead = i128::from(events.at_ms) - i128::from(now_ms);
            let clock_ahead_ms = i64::try_from(ahead).unwrap_or_default();
            let live = LiveLoad { load, heard_at_ms: now_ms, clock_ahead_ms, stale: false };
            endpoint.load = Some(live);
        }
        for event in &events.attempts {
            let task = event.attempt.task_id;
            let known = self.tasks.get(&task).map(|known| known.at);
            let at =
                known.or_else(|| kept.get(&task).copied()).or_else(|| rows.get(&task).copied());
            if let Some(at) = at {
                self.put(id, at, event, now_ms);
            }
        }
    }

    fn put(&mut self, endpoint: EndpointId, at: TaskRow, event: &AttemptEvent, now_ms: u64) {
        let task = event.attempt.task_id;
        if self.tasks.get(&task).is_some_and(|known| known.live.attempt > event.attempt.attempt) {
            return;
        }
        let at = TaskRow { attempt: at.attempt.max(event.attempt.attempt), ..at };
        if event.attempt.attempt < at.attempt {
            return;
        }
        let live = live(event, now_ms);
        let before = self.remove(task);
        if self.bytes + weight(&live) > MAX_BYTES {
            tracing::debug!(%task, "there is no room to note how far the task is");
            return;
        }
        // Progress comes with the phase, and an event without any is no sign that there is none.
        let kept = before.filter(|before| before.live.attempt == live.attempt);
        let progress = live.progress.clone().or_else(|| kept.and_then(|kept| kept.live.progress));
        let live = LiveTask { progress, ..live };
        self.bytes += weight(&live);
        if !live.waits.is_empty() {
            self.waiting.insert(task);
        }
        *self.submission(at.submission).of(live.phase) += 1;
        let known = self.endpoints.entry(endpoint).or_insert_with(KnownEndpoint::new);
        known.tasks.insert(task);
        *known.phases.of(live.phase) += 1;
        self.tasks.insert(task, OverlaidTask { endpoint, at, live });
    }

    /// The counts of a submission; those of tasks without one are kept under a number that
    /// no submission has.
    fn submission(&mut self, submission: Option<i64>) -> &mut PhaseCounts {
        self.submissions.entry(submission.unwrap_or(i64::MIN)).or_default()
    }

    fn remove(&mut self, task: TaskId) -> Option<OverlaidTask> {
        let known = self.tasks.remove(&task)?;
        self.waiting.remove(&task);
        self.bytes -= weight(&known.live);
        let phase = known.live.phase;
        if let Some(endpoint) = self.endpoints.get_mut(&known.endpoint) {
            endpoint.tasks.remove(&task);
            let count = endpoint.phases.of(phase);
            *count = count.saturating_sub(1);
        }
        let counts = self.submission(known.at.submission);
        *counts.of(phase) = counts.of(phase).saturating_sub(1);
        if counts.is_zero() {
            self.submissions.remove(&known.at.submission.unwrap_or(i64::MIN));
        }
        Some(known)
    }

    /// Removes all tasks of an endpoint; returns where they are in the records.
    fn remove_all(&mut self, endpoint: EndpointId) -> BTreeMap<TaskId, TaskRow> {
        let tasks = self.endpoints.get_mut(&endpoint).map(|known| std::mem::take(&mut known.tasks));
        let removed = tasks.into_iter().flatten();
        removed.filter_map(|task| Some((task, self.remove(task)?.at))).collect()
    }

    /// Removes the tasks that have a result of the attempt that is known, or of a later one.
    pub(crate) fn ended(&mut self, results: &[TaskResult]) {
        for result in results {
            let known = self.tasks.get(&result.task_id);
            if known.is_some_and(|known| known.live.attempt <= result.attempt) {
                self.remove(result.task_id);
            }
        }
    }

    /// A task, as it is known at this time.
    pub(crate) fn task(&self, task: TaskId, now_ms: u64) -> Option<LiveTask> {
        let known = self.tasks.get(&task)?;
        let heard_at_ms = self.endpoints.get(&known.endpoint)?.heard_at_ms;
        Some(LiveTask { heard_at_ms, stale: is_stale(heard_at_ms, now_ms), ..known.live.clone() })
    }

    /// The tasks that others wait for, by the tasks that wait for them.
    pub(crate) fn waits(&self) -> BTreeMap<TaskId, BTreeSet<TaskId>> {
        let known = self.waiting.iter().filter_map(|task| Some((*task, self.tasks.get(task)?)));
        let waited_for = known.map(|(task, known)| {
            (task, known.live.waits.iter().filter_map(MessageWait::waits_for).collect())
        });
        waited_for.collect()
    }

    /// The phase of a task.
    pub(crate) fn phase(&self, task: TaskId) -> Option<Phase> {
        self.tasks.get(&task).map(|known| known.live.phase)
    }

    /// The load of an endpoint, as it is known at this time.
    pub(crate) fn load(&self, endpoint: EndpointId, now_ms: u64) -> Option<LiveLoad> {
        let load = self.endpoints.get(&endpoint)?.load.clone()?;
        Some(LiveLoad { stale: is_stale(load.heard_at_ms, now_ms), ..load })
    }

    /// When an endpoint told anything last, by the service's clock.
    pub(crate) fn heard_at_ms(&self, endpoint: EndpointId) -> Option<u64> {
        self.endpoints.get(&endpoint).map(|known| known.heard_at_ms)
    }

    /// How many tasks of an endpoint are in each phase.
    pub(crate) fn at_endpoint(&self, endpoint: EndpointId) -> PhaseCounts {
        self.endpoints.get(&endpoint).map(|known| known.phases).unwrap_or_default()
    }

    /// How many tasks of all endpoints are in each phase.
    pub(crate) fn everywhere(&self) -> PhaseCounts {
        self.endpoints.values().fold(PhaseCounts::default(), |all, one| PhaseCounts {
            accepted: all.accepted + one.phases.accepted,
            running: all.running + one.phases.running,
        })
    }

    /// How many tasks of a submission are in each phase.
    pub(crate) fn in_submission(&self, submission: i64) -> PhaseCounts {
        self.submissions.get(&submission).copied().unwrap_or_default()
    }

    /// The tasks in a phase, in no order.
    pub(crate) fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (TaskRow, EndpointId)> {
        let tasks = self.tasks.values().filter(move |known| known.live.phase == phase);
        tasks.map(|known| (known.at, known.endpoint))
    }

    /// The running tasks of an endpoint, and since when they run, by its clock.
    pub(crate) fn running_at(&self, endpoint: EndpointId) -> Vec<(TaskId, u64)> {
        let tasks = self.endpoints.get(&endpoint).into_iter().flat_map(|known| &known.tasks);
        let known = tasks.filter_map(|task| Some((*task, self.tasks.get(task)?)));
        let running = known.filter(|(_, known)| known.live.phase == Phase::Running);
        running.map(|(task, known)| (task, known.live.since_ms)).collect()
    }
}

impl KnownEndpoint {
    fn new() -> Self {
        let (tasks, phases) = (BTreeSet::new(), PhaseCounts::default());
        Self { load: None, heard_at_ms: 0, tasks, phases }
    }
}

fn is_stale(heard_at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(heard_at_ms) > STALE_AFTER_MS
}

/// An event as it is kept: long words and large data are cut or left out.
fn live(event: &AttemptEvent, now_ms: u64) -> LiveTask {
    let mut waits_for = event.waits_for.clone();
    waits_for.iter_mut().for_each(shorten);
    let progress = event.progress.clone().map(|mut progress| {
        progress.message.iter_mut().for_each(shorten);
        let data = progress.data.filter(|data| data.text().len() <= MAX_DATA);
        TaskProgress { data, ..progress }
    });
    LiveTask {
        attempt: event.attempt.attempt,
        phase: event.phase,
        since_ms: event.since_ms,
        accepted_at_ms: event.accepted_at_ms,
        progress,
        waits_for,
        waits: event.waits.iter().take(MAX_WAITS).map(shortened).collect(),
        heard_at_ms: now_ms,
        stale: false,
    }
}

/// A wait with no more addressees than are kept.
fn shortened(wait: &MessageWait) -> MessageWait {
    let mut wait = wait.clone();
    wait.addressees.truncate(MAX_WAITS);
    wait.addressees.iter_mut().for_each(shorten);
    wait
}

fn shorten(words: &mut String) {
    words.truncate(words.floor_char_boundary(MAX_WORDS));
}

/// How many bytes a task takes, or a little more.
fn weight(live: &LiveTask) -> usize {
    let progress = live.progress.as_ref().map_or(0, |progress| {
        let data = progress.data.as_ref().map_or(0, |data| data.text().len());
        data + progress.message.as_ref().map_or(0, String::len)
    });
    let addressees = live.waits.iter().flat_map(|wait| &wait.addressees);
    let waits = live.waits.len() * WAIT_BYTES
        + addressees.map(|addressee| addressee.len() + WAIT_BYTES).sum::<usize>();
    TASK_BYTES + waits + progress + live.waits_for.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests;
