//! The tasks that have a slot, and the way to stop each of them. Pure.

use super::inbox::Held;
use super::stop::{StopReason, StopSignal};
use crate::storage::journal::Seq;
use clutch_common::id::Attempt;
use clutch_common::task::Task;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task that has a slot.
#[derive(Debug)]
struct RunningTask {
    task: Arc<Task>,
    stop: StopSignal,
}

/// The tasks that have a slot.
#[derive(Debug, Default)]
pub(crate) struct RunningTasks(BTreeMap<Seq, RunningTask>);

impl RunningTasks {
    /// Adds a task.
    pub(crate) fn take(&mut self, held: &Held) {
        let (task, stop) = (Arc::clone(&held.task), held.stop.clone());
        self.0.insert(held.seq, RunningTask { task, stop });
    }

    /// Removes a task that has ended, or waits again.
    pub(crate) fn free(&mut self, seq: Seq) {
        self.0.remove(&seq);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The tasks, in the order in which they were accepted.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.0.values().map(|running| &running.task)
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
