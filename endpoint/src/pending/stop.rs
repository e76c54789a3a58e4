//! The order to stop a running task, and its reason. Pure state that wakes its waiters.

use std::sync::Arc;
use tokio::sync::SetOnce;

/// Why a running task is ended before it ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StopReason {
    /// The daemon stops.
    Shutdown,
    /// The task has reached its walltime.
    Walltime,
    /// The task is cancelled.
    Cancelled,
    /// The endpoint is drained, and the deadline of that has come.
    Drained,
}

impl StopReason {
    /// Whether a task stopped for this reason has an outcome. A task without one stays in
    /// the inbox and runs again.
    pub(crate) fn ends_task(self) -> bool {
        match self {
            Self::Shutdown | Self::Drained => false,
            Self::Walltime | Self::Cancelled => true,
        }
    }
}

/// A signal to stop; all of its clones are one signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopSignal(Arc<SetOnce<StopReason>>);

impl StopSignal {
    /// Creates a signal that has not been given.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Gives the signal. The first reason stands.
    pub(crate) fn request(&self, reason: StopReason) {
        // An error is only that an earlier reason stands.
        drop(self.0.set(reason));
    }

    /// Returns the reason, if the signal was given.
    pub(crate) fn requested(&self) -> Option<StopReason> {
        self.0.get().copied()
    }

    /// Waits for the signal, and returns its reason.
    pub(crate) async fn wait(&self) -> StopReason {
        *self.0.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_wakes_its_clones_with_the_first_reason() {
        let signal = StopSignal::new();
        assert_eq!(signal.requested(), None);
        let clone = signal.clone();
        let (reason, ()) = tokio::join!(clone.wait(), async {
            signal.request(StopReason::Shutdown);
            signal.request(StopReason::Walltime);
        });
        assert_eq!(reason, StopReason::Shutdown);
        assert_eq!(clone.requested(), Some(StopReason::Shutdown));
        assert_eq!(clone.wait().await, StopReason::Shutdown, "it stays given");
    }

    #[test]
    fn a_task_is_over_at_its_walltime_and_when_it_is_cancelled() {
        for (reason, over) in [
            (StopReason::Walltime, true),
            (StopReason::Cancelled, true),
            (StopReason::Shutdown, false),
            (StopReason::Drained, false),
        ] {
            assert_eq!(reason.ends_task(), over, "{reason:?}");
        }
    }
}
