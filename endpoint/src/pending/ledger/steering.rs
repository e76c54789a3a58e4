//! The part of the ledger that obeys: drains, and stops tasks that run.

use super::Ledger;
use crate::pending::Pending;
use crate::pending::drain::{Drained, DrainedBy, Drains};
use crate::pending::inbox::Held;
use crate::pending::stop::StopReason;

impl Ledger {
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
