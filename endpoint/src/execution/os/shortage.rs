//! Waiting for a host that lacks what it takes to start a process: no task fails of
//! that. It is told once, and once again when the last task that waits goes on.
//!
//! Touches: the clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The pause before the host is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// The tasks of an endpoint that wait for its host.
#[derive(Debug, Default)]
pub(crate) struct HostShortage(AtomicUsize);

/// One task's wait, if it waits.
#[derive(Debug)]
pub(crate) struct ShortageWait<'a> {
    shortage: &'a HostShortage,
    begun: bool,
}

impl HostShortage {
    /// For a task that does not wait yet.
    pub(crate) fn wait(&self) -> ShortageWait<'_> {
        ShortageWait { shortage: self, begun: false }
    }
}

impl ShortageWait<'_> {
    /// Pauses, because of what `why` says. False if told to stop meanwhile.
    pub(crate) async fn pause(&mut self, why: &str, stop: &CancellationToken) -> bool {
        if !std::mem::replace(&mut self.begun, true)
            && self.shortage.0.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(
                why,
                "the host lacks what a task needs to start: tasks wait until it has it, and none \
                 fails of it"
            );
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = sleep(PAUSE) => true,
        }
    }

    /// The task waits no longer: it starts.
    pub(crate) fn over(mut self) {
        if self.end() {
            tracing::info!("the host has what tasks need to start again: going on");
        }
    }

    /// Whether this was the last wait.
    fn end(&mut self) -> bool {
        std::mem::take(&mut self.begun) && self.shortage.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

impl Drop for ShortageWait<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_wait_ends_what_the_first_began() {
        let (shortage, stop) = (HostShortage::default(), CancellationToken::new());
        let (mut first, mut second) = (shortage.wait(), shortage.wait());
        assert!(!shortage.wait().end(), "who has not waited ends nothing");
        assert!(first.pause("no room", &stop).await && second.pause("no room", &stop).await);
        assert!(first.pause("no room", &stop).await, "each waits once");
        assert!(!first.end());
        stop.cancel();
        assert!(!second.pause("no room", &stop).await);
        assert!(second.end());
    }
}
