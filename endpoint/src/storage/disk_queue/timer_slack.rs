//! Starts threads with timers that may be late, so that they do not wake an idle daemon.
//!
//! Touches: the timer slack of threads of its own (`PR_SET_TIMERSLACK`, prctl(2)).
//! Promises that the caller's own timers stay as they are.

use rustix::thread::set_current_timer_slack;
use std::io;
use std::num::NonZeroU64;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

/// How late the timers may be, in nanoseconds: an hour.
const SLACK: NonZeroU64 = NonZeroU64::new(3600 * 1_000_000_000).unwrap();

/// Runs `job` on a thread of its own; its timers, and those of the threads that it
/// starts, may be late by an hour. A notification wakes them as quickly as ever; `job` must
/// not sleep.
///
/// sled keeps seven threads that wait for work for a second at a time, look whether
/// they are too many, which these never are, and wait again: without this they wake an
/// idle daemon seven times a second.
///
/// # Panics
/// When `job` does.
pub(super) fn with_slack<R: Send>(job: impl FnOnce() -> R + Send) -> io::Result<R> {
    let slack = || {
        if let Err(error) = set_current_timer_slack(Some(SLACK)) {
            tracing::debug!(%error, "the store's threads will wake once a second");
        }
        job()
    };
    let name = thread::Builder::new().name("opening".to_owned());
    let ended = thread::scope(|scope| name.spawn_scoped(scope, slack).map(ScopedJoinHandle::join));
    Ok(ended?.unwrap_or_else(|panic| resume_unwind(panic)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::gettid;

    /// This thread's; `prctl` tells no more than 32 bits of it.
    fn slack() -> u64 {
        let path = format!("/proc/{}/timerslack_ns", gettid().as_raw_nonzero());
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn threads_started_with_slack_may_be_late_and_others_may_not() {
        let before = slack();
        assert!(before < SLACK.get());
        let within = with_slack(|| thread::spawn(slack).join().unwrap()).unwrap();
        assert_eq!((within, slack()), (SLACK.get(), before));
    }

    #[test]
    #[should_panic(expected = "as meant")]
    fn a_panic_comes_through() {
        drop(with_slack(|| panic!("as meant")));
    }
}
