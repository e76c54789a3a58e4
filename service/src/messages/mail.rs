//! The note of kept messages that the parts beside the router share: whether there are any, and
//! the tasks that have come to run since. Touches nothing.

use clutch_common::id::TaskId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// How many tasks may be noted; what is sent again now and then finds the others.
const MAX_TASKS: usize = 10_000;

/// The note of kept messages, for one session.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    kept: AtomicU64,
    running: Mutex<BTreeSet<TaskId>>,
    noted: Notify,
}

impl Mail {
    /// Whether messages are kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed) > 0
    }

    /// Notes how many messages are kept.
    pub(super) fn set_kept(&self, count: u64) {
        self.kept.store(count, Ordering::Relaxed);
    }

    /// How many messages are kept.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Notes that tasks run.
    pub(crate) fn run(&self, tasks: impl IntoIterator<Item = TaskId>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_TASKS.saturating_sub(running.len());
        running.extend(tasks.into_iter().take(room));
        if !running.is_empty() {
            self.noted.notify_one();
        }
    }

    /// Waits for tasks that run. Cancelling the wait loses none.
    pub(super) async fn running(&self) -> BTreeSet<TaskId> {
        loop {
            let running = {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *running)
            };
            if !running.is_empty() {
                return running;
            }
            self.noted.notified().await;
        }
    }
}
