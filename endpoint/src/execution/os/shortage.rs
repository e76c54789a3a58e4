//! Waiting while the host lacks what it takes to start a process: no task fails of that.
//! A warning is logged when the first task waits, and a notice when the last one goes on.
//!
//! Touches: the clock.

use crate::pending::stop::{StopReason, StopSignal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// The pause before a start is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How many tasks of an endpoint wait for its host.
#[derive(Debug, Default)]
pub(crate) struct HostShortage(AtomicUsize);

/// The wait of one task.
#[derive(Debug)]
pub(crate) struct ShortageWait<'a> {
    shortage: &'a HostShortage,
    begun: bool,
}

impl HostShortage {
    /// Creates the wait of a task, which has not begun yet.
    pub(crate) fn wait(&self) -> ShortageWait<'_> {
        ShortageWait { shortage: self, begun: false }
    }
}

impl ShortageWait<'_> {
    /// Pauses before the next try; `why` says what the host lacks.
    ///
    /// # Errors
    /// The task is stopped meanwhile.
    pub(crate) async fn pause(&mut self, why: &str, stop: &StopSignal) -> Result<(), StopReason> {
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
            reason = stop.wait() => Err(reason),
            () = sleep(PAUSE) => Ok(()),
        }
    }

    /// Ends the wait: the task starts.
    pub(crate) fn over(mut self) {
        if self.end() {
            tracing::info!("the host has what tasks need to start again: going on");
        }
    }

    /// Ends the wait; returns whether it was the last one.
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
        let (shortage, stop) = (HostShortage::default(), StopSignal::new());
        let (mut first, mut second) = (shortage.wait(), shortage.wait());
        assert!(!shortage.wait().end(), "a task that has not waited ends nothing");
        first.pause("no room", &stop).await.unwrap();
        second.pause("no room", &stop).await.unwrap();
        first.pause("no room", &stop).await.unwrap();
        assert!(!first.end(), "each counts once");
        stop.request(StopReason::Shutdown);
        assert_eq!(second.pause("no room", &stop).await, Err(StopReason::Shutdown));
        assert!(second.end());
    }
}
