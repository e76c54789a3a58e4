//! The state of the link, for people: up or down, since when, why, and when it is tried
//! again. Pure state behind a lock.

use clutch_common::system::clock::now_ms;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether the link is up, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkPhase {
    /// It has not been up since the start, and has not failed.
    Connecting,
    /// Tasks are read.
    Engaged,
    /// Another instance reads the tasks.
    StandingBy,
    /// It is down.
    Disengaged,
}

/// The state of the link. Times are in milliseconds since the Unix epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LinkStatus {
    /// Whether it is up.
    pub(crate) phase: LinkPhase,
    /// Since when.
    pub(crate) since_ms: u64,
    /// The last fault of a link that is down.
    pub(crate) fault: Option<String>,
    /// The advice to a person about it.
    pub(crate) advice: Option<&'static str>,
    /// When it is tried again.
    pub(crate) next_try_ms: Option<u64>,
}

impl LinkStatus {
    fn since(phase: LinkPhase, since_ms: u64) -> Self {
        Self { phase, since_ms, fault: None, advice: None, next_try_ms: None }
    }
}

/// Holds the state of the link; the session sets it.
#[derive(Debug)]
pub(crate) struct LinkBoard(Mutex<LinkStatus>);

impl Default for LinkBoard {
    fn default() -> Self {
        Self(Mutex::new(LinkStatus::since(LinkPhase::Connecting, now_ms())))
    }
}

impl LinkBoard {
    /// Returns the present state.
    pub(crate) fn now(&self) -> LinkStatus {
        self.lock().clone()
    }

    /// Notes that the link is up.
    pub(super) fn up(&self, phase: LinkPhase) {
        let mut status = self.lock();
        if status.phase != phase {
            *status = LinkStatus::since(phase, now_ms());
        }
    }

    /// Notes that the link is down, and is tried again after `delay`.
    pub(super) fn down(&self, fault: String, advice: &'static str, delay: Duration) {
        let now = now_ms();
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let mut status = self.lock();
        if status.phase != LinkPhase::Disengaged {
            *status = LinkStatus::since(LinkPhase::Disengaged, now);
        }
        status.fault = Some(fault);
        status.advice = Some(advice);
        status.next_try_ms = Some(now.saturating_add(delay));
    }

    fn lock(&self) -> MutexGuard<'_, LinkStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_down_since_its_first_fault_and_tells_the_last() {
        let board = LinkBoard::default();
        assert_eq!(board.now().phase, LinkPhase::Connecting);
        board.down("one".to_owned(), "a", Duration::from_secs(1));
        let since_ms = board.now().since_ms - 5;
        board.0.lock().unwrap().since_ms = since_ms;
        board.down("two".to_owned(), "b", Duration::from_secs(1));
        let found = board.now();
        assert_eq!((found.phase, found.since_ms), (LinkPhase::Disengaged, since_ms));
        assert_eq!((found.fault.as_deref(), found.advice), (Some("two"), Some("b")));
        assert!(found.next_try_ms.unwrap() >= since_ms + 1000);
        board.up(LinkPhase::Engaged);
        assert_eq!((board.now().phase, board.now().fault), (LinkPhase::Engaged, None));
    }
}
