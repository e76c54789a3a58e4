//! Whether a process is frozen, as by SIGSTOP: nothing of it goes on, and what
//! others send to it waits in its sockets.

use tokio::sync::watch;

/// What everything that a process does has to pass.
pub(super) struct Gate(watch::Sender<bool>);

impl Gate {
    /// An open one: the process runs.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// The process is frozen, or goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.0.send_replace(frozen);
    }

    /// Whether the process is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        *self.0.borrow()
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
        // The sender lives as long as this call.
        drop(self.0.subscribe().wait_for(|now| *now == frozen).await);
    }
}
