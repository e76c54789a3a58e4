//! The part of the ledger that obeys the service: cancels tasks, and is drained.

use super::{Ledger, Stored};
use crate::pending::drain::{Drained, DrainedBy, Drains};
use crate::pending::inbox::Held;
use crate::pending::inbox::listing::Listed;
use crate::pending::stop::StopReason;
use crate::pending::{CancelCounts, Found, Limits, Pending};
use crate::storage::journal::{Finished, JournalError};
use clutch_common::id::Attempt;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::wire::Cancel;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::futures::Notified;

impl Ledger {
    /// Puts a cancel in force, and obeys it, in one commit: attempts that wait end as
    /// `cancelled`, those that run are stopped, those that are not known are noted as seen and
    /// answered, and those that have ended stay as they are.
    pub(crate) async fn cancel(
        &self,
        cancel: &Cancel,
    ) -> Result<(CancelCounts, Stored), JournalError> {
        let mut attempts = cancel.attempts.clone();
        attempts.sort_unstable();
        attempts.dedup();
        let room = self.journal.reserve().await?;
        // No wait from here on: what is unknown now is so when that is decided.
        let mut unknown = Vec::new();
        for attempt in attempts {
            if !self.knows(attempt)? {
                unknown.push(attempt);
            }
        }
        let result = |attempt, found| match found {
            Found::Waiting => self.cancelled(attempt),
            Found::Unknown => self.unknown(attempt),
        };
        let (cancelled, outs, commit) = self.shared.decide(|pending| {
            let (cancelled, outs, changes) = pending.cancel(cancel, unknown, result);
            (cancelled, outs, room.submit(changes))
        });
        self.shared.withdrawn.notify_waiters();
        Ok((cancelled, self.stored(outs, commit)))
    }

    /// Waits until tasks that wait may have been cancelled, from the first poll on.
    pub(crate) fn withdrawn(&self) -> Notified<'_> {
        self.shared.withdrawn.notified()
    }

    /// Whether a cancel in force covers an attempt.
    pub(crate) fn is_cancelled(&self, attempt: Attempt) -> bool {
        self.shared.lock().is_cancelled(attempt)
    }

    /// Ends the cancels up to a number: all tasks that they name have been read.
    pub(crate) fn release_cancels(&self, up_to: u64) {
        self.shared.lock().release_cancels(up_to);
    }

    /// Ends all cancels: those that are in force are read anew.
    pub(crate) fn forget_cancels(&self) {
        self.shared.lock().forget_cancels();
    }

    /// The result of an attempt that was cancelled before it started.
    pub(super) fn cancelled(&self, attempt: Attempt) -> Arc<Finished> {
        let reason = "it was cancelled before it started";
        self.finished(self.not_run(attempt, Outcome::Cancelled, reason.to_owned()))
    }

    /// The result of a cancelled attempt that is not known.
    fn unknown(&self, attempt: Attempt) -> Arc<Finished> {
        let reason = "it was cancelled, and the endpoint does not know it: it does not start here";
        let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
        self.finished(TaskResult { lost: Some(Loss::Unknown), ..result })
    }

    /// Begins or changes a drain, or ends it: no task starts and none is read while there is
    /// one. Each origin has a drain of its own.
    pub(crate) fn drain(&self, by: DrainedBy, drained: Option<Drained>) {
        let (before, after, tasks, running) = self.shared.decide(|pending| {
            let before = pending.drains().is_draining();
            pending.drain(by, drained);
            (before, pending.drains().is_draining(), pending.tasks(), pending.running())
        });
        match (before, after) {
            (false, true) => tracing::info!(
                ?by,
                running,
                waiting = tasks - running,
                "drained: no task is started or read, and those that run go on"
            ),
            (true, false) => {
                tracing::info!(?by, running, "resumed: tasks are read and started again");
            }
            (true, true) | (false, false) => (),
        }
    }

    /// The drains that there are.
    pub(crate) fn drains(&self) -> Drains {
        self.shared.lock().drains()
    }

    /// Changes the limits of pending work.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.shared.decide(|pending| pending.set_limits(limits));
    }

    /// How many tasks have a slot, how many slots they take, and how many tasks are accepted and
    /// not finished.
    pub(crate) fn running_and_accepted(&self) -> (usize, usize, usize) {
        let pending = self.shared.lock();
        (pending.running(), pending.slots_used(), pending.tasks())
    }

    /// Lists at most `most` tasks that are accepted and not finished, those that have a slot
    /// first; and returns how many there are.
    pub(crate) fn list(&self, most: usize) -> (Vec<Listed>, usize) {
        let pending = self.shared.lock();
        (pending.list(most), pending.tasks())
    }

    /// When each task that is noted to run began to.
    pub(crate) fn noted_runs(&self) -> HashMap<Attempt, u64> {
        self.running.noted().into_iter().map(|run| (run.attempt, run.started_at_ms)).collect()
    }

    /// Waits until a drain has begun, changed or ended since the last call.
    pub(crate) async fn drain_changed(&self) {
        self.shared.drain.notified().await;
    }

    /// Stops all tasks that have a slot.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.shared.lock().stop(reason);
    }

    /// Takes a task back that was stopped without an outcome: it waits again.
    pub(crate) fn put_back(&self, held: Held) {
        self.shared.decide(|pending: &mut Pending| pending.put_back(held));
    }
}
