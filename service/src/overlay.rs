//! The overlay over the records: how far each task is at its endpoint, and the output of
//! tasks that are followed, as the endpoints' events tell it. In memory only.
//!
//! The session fills it, the API reads it. Promises: it is bounded (see `attempts` and
//! `output`), nothing that is recorded depends on it, and it costs nothing while no endpoint
//! tells anything and no task is followed.

mod attempts;
mod output;

pub(crate) use attempts::{PhaseCounts, TaskRow};
pub(crate) use output::{FOLLOW_FOR, FollowDue, NewOutput, Piece, ReadUpTo, recorded};

use crate::model::{LiveLoad, LiveTask, ring_of, rings};
use attempts::Attempts;
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::TaskResult;
use clutch_common::wire::{Events, Phase};
use output::Followed;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use uuid::Uuid;

/// The overlay; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Overlay(Arc<OverlayState>);

#[derive(Debug)]
struct OverlayState {
    table: Mutex<Table>,
    /// Bumped when output of a followed task has come, or its attempt has another phase.
    output: watch::Sender<u64>,
    /// Bumped when an endpoint is to be asked for the output of a task.
    asked: watch::Sender<u64>,
    /// Since when the service has no link to the broker.
    unlinked_since_ms: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct Table {
    attempts: Attempts,
    followed: Followed,
    /// The session that each endpoint spoke in last; only while tasks are followed.
    instances: BTreeMap<EndpointId, Uuid>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self(Arc::new(OverlayState {
            table: Mutex::default(),
            output: watch::Sender::new(0),
            asked: watch::Sender::new(0),
            unlinked_since_ms: Mutex::new(Some(now_ms())),
        }))
    }
}

impl Overlay {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks of a message that have to be looked up before it is taken in.
    pub(crate) fn unknown(&self, events: &Events) -> Vec<TaskId> {
        self.table().attempts.unknown(events)
    }

    /// Takes in a message; `rows` are those of the tasks that were unknown.
    pub(crate) fn take_in(&self, events: &Events, rows: &BTreeMap<TaskId, TaskRow>) {
        let now = Instant::now();
        let mut table = self.table();
        table.attempts.apply(events, rows, now_ms());
        if table.followed.is_empty() {
            table.instances.clear();
            return;
        }
        let before = table.instances.insert(events.endpoint_id, events.instance);
        if before.is_some_and(|before| before != events.instance) {
            table.followed.ask_again(now);
            self.0.asked.send_modify(|count| *count += 1);
        }
        for event in &events.output {
            table.followed.push(event, events.instance, now);
        }
        drop(table);
        self.0.output.send_modify(|count| *count += 1);
    }

    /// Removes tasks that have a result.
    pub(crate) fn ended(&self, results: &[TaskResult]) {
        let mut table = self.table();
        if !table.attempts.is_empty() {
            table.attempts.ended(results);
        }
        if !table.followed.is_empty() {
            results.iter().for_each(|result| table.followed.ended(result.task_id));
        }
    }

    /// A task, as its endpoint told of it last.
    pub(crate) fn task(&self, task: TaskId) -> Option<LiveTask> {
        self.table().attempts.task(task, now_ms())
    }

    /// Tasks that wait for each other in rings, by messages.
    pub(crate) fn rings(&self) -> Vec<Vec<TaskId>> {
        let waits = self.table().attempts.waits();
        rings(&waits)
    }

    /// The ring of tasks that wait for each other, from this task on; nothing if it is in none.
    pub(crate) fn ring_of(&self, task: TaskId) -> Option<Vec<TaskId>> {
        let waits = self.table().attempts.waits();
        ring_of(&waits, task)
    }

    /// The phases of tasks, in their order.
    pub(crate) fn phases(&self, tasks: impl Iterator<Item = TaskId>) -> Vec<Option<Phase>> {
        let table = self.table();
        tasks.map(|task| table.attempts.phase(task)).collect()
    }

    /// The load of an endpoint, as it told it last.
    pub(crate) fn load(&self, endpoint: EndpointId) -> Option<LiveLoad> {
        self.table().attempts.load(endpoint, now_ms())
    }

    /// When an endpoint told anything last.
    pub(crate) fn heard_at_ms(&self, endpoint: EndpointId) -> Option<u64> {
        self.table().attempts.heard_at_ms(endpoint)
    }

    /// How many tasks of an endpoint are in each phase.
    pub(crate) fn at_endpoint(&self, endpoint: EndpointId) -> PhaseCounts {
        self.table().attempts.at_endpoint(endpoint)
    }

    /// How many tasks of all endpoints are in each phase.
    pub(crate) fn everywhere(&self) -> PhaseCounts {
        self.table().attempts.everywhere()
    }

    /// How many tasks of a submission are in each phase.
    pub(crate) fn in_submission(&self, submission: i64) -> PhaseCounts {
        self.table().attempts.in_submission(submission)
    }

    /// The rows of the tasks in a phase, the newest first; with a submission only those of
    /// it, by falling index.
    pub(crate) fn rows(
        &self,
        phase: Phase,
        endpoint: Option<EndpointId>,
        submission: Option<i64>,
    ) -> Vec<TaskRow> {
        let table = self.table();
        let chosen = table.attempts.in_phase(phase).filter(|(at, of)| {
            endpoint.is_none_or(|endpoint| endpoint == *of)
                && (submission.is_none() || submission == at.submission)
        });
        let mut rows: Vec<TaskRow> = chosen.map(|(at, _)| at).collect();
        drop(table);
        match submission {
            Some(_) => rows.sort_unstable_by_key(|at| std::cmp::Reverse(at.index)),
            None => rows.sort_unstable_by_key(|at| std::cmp::Reverse(at.row)),
        }
        rows
    }

    /// The running tasks of an endpoint, and since when they run, by its clock.
    pub(crate) fn running_at(&self, endpoint: EndpointId) -> Vec<(TaskId, u64)> {
        self.table().attempts.running_at(endpoint)
    }

    /// Follows the output of an attempt, or goes on to; false if too many are followed.
    pub(crate) fn follow(&self, attempt: Attempt, read: ReadUpTo) -> bool {
        match self.table().followed.follow(attempt, read, Instant::now()) {
            None => return false,
            Some(false) => (),
            Some(true) => self.0.asked.send_modify(|count| *count += 1),
        }
        true
    }

    /// The output of a followed task that a client does not have.
    pub(crate) fn output(&self, task: TaskId, read: ReadUpTo) -> NewOutput {
        self.table().followed.output(task, read)
    }

    /// Changes whenever a followed task may have new output.
    pub(crate) fn output_changes(&self) -> watch::Receiver<u64> {
        self.0.output.subscribe()
    }

    /// The attempts that endpoints are to be asked for the output of.
    pub(crate) fn follows_due(&self) -> Vec<FollowDue> {
        self.table().followed.due(Instant::now())
    }

    /// When the next attempts are due.
    pub(crate) fn next_follow_due(&self) -> Option<Instant> {
        self.table().followed.next_due()
    }

    /// Notes that an endpoint could not be asked for the output of an attempt.
    pub(crate) fn follow_failed(&self, attempt: Attempt) {
        self.table().followed.not_asked(attempt, Instant::now());
    }

    /// Changes whenever an endpoint is to be asked.
    pub(crate) fn follow_changes(&self) -> watch::Receiver<u64> {
        self.0.asked.subscribe()
    }

    /// Notes that there is a link to the broker.
    pub(crate) fn linked(&self) {
        *lock(&self.0.unlinked_since_ms) = None;
        self.table().followed.ask_again(Instant::now());
    }

    /// Notes that there is no link to the broker.
    pub(crate) fn unlinked(&self) {
        lock(&self.0.unlinked_since_ms).get_or_insert_with(now_ms);
    }

    /// Since when there is no link; nothing if there is one.
    pub(crate) fn unlinked_since_ms(&self) -> Option<u64> {
        *lock(&self.0.unlinked_since_ms)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
