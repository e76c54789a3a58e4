//! Whether a process is frozen, as by SIGSTOP: nothing of it goes on, and what
//! others send to it waits in its sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The gate that everything has to pass that a process does.
pub(super) struct Gate {
    is_frozen: AtomicBool,
    changed: Notify,
}

impl Gate {
    /// An open one: the process runs.
    pub(super) fn new() -> Self {
        Self { is_frozen: AtomicBool::new(false), changed: Notify::new() }
    }

    /// The process is frozen, or goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.is_frozen.store(frozen, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Whether the process is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Relaxed)
    }

    /// Resolves when the process runs.
    pub(super) async fn awake(&self) {
        self.until(false).await;
    }

    /// Resolves when the process is frozen.
    pub(super) async fn frozen(&self) {
        self.until(true).await;
    }

    async fn until(&self, frozen: bool) {
        loop {
            let changed = self.changed.notified();
            if self.is_frozen() == frozen {
                return;
            }
            changed.await;
        }
    }
}
