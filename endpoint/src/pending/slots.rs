//! The tasks that have a slot, and the way to stop each of them. Pure.

use super::inbox::{Held, cores};
use super::look::WaitingTask;
use super::stop::{StopReason, StopSignal};
use crate::storage::journal::Seq;
use clutch_common::id::Attempt;
use clutch_common::task::{Task, Work};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task that has a slot.
#[derive(Debug)]
struct RunningTask {
    task: Arc<Task>,
    accepted_at_ms: Option<u64>,
    stop: StopSignal,
}

/// The tasks that have a slot.
#[derive(Debug, Default)]
pub(crate) struct RunningTasks(BTreeMap<Seq, RunningTask>);

impl RunningTasks {
    /// Adds a task.
    pub(crate) fn take(&mut self, held: &Held) {
        let (task, stop) = (Arc::clone(&held.task), held.stop.clone());
        let accepted_at_ms = held.accepted_at_ms;
        self.0.insert(held.seq, RunningTask { task, accepted_at_ms, stop });
    }

    /// Removes a task that has ended, or waits again.
    pub(crate) fn free(&mut self, seq: Seq) {
        self.0.remove(&seq);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many slots they take.
    pub(crate) fn used(&self) -> usize {
        self.0.values().map(|running| cores(&running.task)).sum()
    }

    /// The tasks, in the order in which they were accepted.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.0.values().map(|running| &running.task)
    }

    /// The tasks that something has to be started for, as they are told while that goes on: all
    /// but calls of built-in functions.
    pub(crate) fn to_start(&self) -> impl Iterator<Item = WaitingTask> {
        let started = self.0.iter().filter(|(_, running)| !running.task.is_built_in());
        started.map(|(seq, RunningTask { task, accepted_at_ms, .. })| WaitingTask {
            seq: *seq,
            attempt: task.attempt(),
            accepted_at_ms: *accepted_at_ms,
            waits_for: Some(match &task.work {
                Work::Call(call) => format!("for a worker of '{}' to start", call.function),
                Work::Process(_) => "for its process to start".to_owned(),
            }),
        })
    }

    /// Stops all tasks.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.0.values().for_each(|running| running.stop.request(reason));
    }

    /// Stops the tasks that a cancel covers; returns how many these are.
    pub(crate) fn cancel(&self, covers: impl Fn(Attempt) -> bool) -> usize {
        let covered = self.0.values().filter(|running| covers(running.task.attempt()));
        covered.map(|running| running.stop.request(StopReason::Cancelled)).count()
    }
}
