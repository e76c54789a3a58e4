//! Pending work as it is told to the service while it goes on. Pure.

use super::Pending;
use crate::storage::journal::Seq;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::Task;
use std::sync::Arc;

/// A task that is not started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WaitingTask {
    /// Its sequence number.
    pub(crate) seq: Seq,
    /// Its attempt.
    pub(crate) attempt: Attempt,
    /// When it was accepted, where that is known.
    pub(crate) accepted_at_ms: Option<u64>,
    /// Why it waits, in words, where that is not for a slot.
    pub(crate) waits_for: Option<String>,
}

/// Pending work at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Look {
    /// Some of the tasks without a slot, in order.
    pub(crate) waiting: Vec<WaitingTask>,
    /// The tasks with a slot that are started, or that something has to be started for; none
    /// where no task is asked for.
    pub(crate) slotted: Vec<WaitingTask>,
    /// How many tasks have a slot.
    pub(crate) running: u64,
    /// How many slots those take.
    pub(crate) slots_used: u64,
    /// How many tasks have none.
    pub(crate) accepted: u64,
    /// How many results the broker has not confirmed.
    pub(crate) undelivered: u64,
    /// Whether the endpoint is drained.
    pub(crate) draining: bool,
    /// Whether the inbox takes no more tasks.
    pub(crate) inbox_full: bool,
}

impl Pending {
    /// The attempts at a task that are accepted and not finished.
    pub(crate) fn attempts_at(&self, task: TaskId) -> impl Iterator<Item = &Arc<Task>> {
        let all = self.slots.tasks().chain(self.inbox.tasks_waiting());
        all.filter(move |found| found.id == task)
    }

    /// Pending work, and of the tasks without a slot at most `max`, from a sequence number on.
    pub(crate) fn look(&self, from: Seq, max: usize) -> Look {
        let (tasks, running) = (self.tasks(), self.running());
        Look {
            waiting: self.inbox.waiting_from(from, max),
            slotted: self.slots.to_start().take(max).collect(),
            running: running as u64,
            slots_used: self.slots_used() as u64,
            accepted: tasks.saturating_sub(running) as u64,
            undelivered: self.undelivered(),
            draining: self.drains().is_draining(),
            inbox_full: self.inbox.room() == 0,
        }
    }
}
