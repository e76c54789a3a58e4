//! When each state of an endpoint was heard last, and how far the results queue is read: the
//! collector notes it, the watch reads it.
//!
//! Lives as long as a session. Holds no more states than are watched.

use clutch_common::failover::Heard;
use clutch_common::id::StateId;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// The times at which states were heard; the collector notes them, the watch reads them.
pub(crate) struct Liveness {
    inner: Mutex<LivenessState>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct LivenessState {
    /// The states that are watched; all states, until that is known.
    watched: Option<BTreeSet<StateId>>,
    heard: Heard,
    /// The id of the barrier that is waited for.
    barrier: Option<String>,
}

impl Liveness {
    /// Nothing is heard yet. `news` is raised when the records have changed or a barrier was read.
    pub(crate) fn new(news: watch::Sender<u64>) -> Self {
        Self { inner: Mutex::default(), news }
    }

    /// Notes that instances on these states have sent something.
    pub(crate) fn record_heard(&self, states: &BTreeSet<StateId>, now: Instant) {
        let mut inner = self.lock();
        let LivenessState { watched, heard, .. } = &mut *inner;
        let counts =
            |state: &&StateId| watched.as_ref().is_none_or(|watched| watched.contains(*state));
        heard.extend(states.iter().filter(counts).map(|state| (*state, now)));
    }

    /// Notes that the barriers with these ids were read.
    pub(crate) fn barriers_read(&self, ids: &[String]) {
        self.lock().barrier.take_if(|barrier| ids.contains(barrier));
        self.notify();
    }

    /// Has the watch look at the records.
    pub(super) fn notify(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// The counter that is raised whenever the watch has to look at the records.
    pub(crate) fn news(&self) -> watch::Sender<u64> {
        self.news.clone()
    }

    /// Watches these states and no others. A state that was not watched before counts as just
    /// heard.
    pub(super) fn watch_states(&self, states: BTreeSet<StateId>, now: Instant) {
        let mut inner = self.lock();
        let LivenessState { watched, heard, .. } = &mut *inner;
        heard.retain(|state, _| states.contains(state));
        if let Some(before) = watched {
            heard.extend(states.difference(before).map(|state| (*state, now)));
        }
        *watched = Some(states);
    }

    /// When each state was heard last.
    pub(super) fn last_heard(&self) -> Heard {
        self.lock().heard.clone()
    }

    /// Waits for the barrier with this id, instead of an earlier one.
    pub(super) fn await_barrier(&self, barrier: String) {
        self.lock().barrier = Some(barrier);
    }

    /// Whether the barrier that was waited for was read.
    pub(super) fn barrier_was_read(&self) -> bool {
        self.lock().barrier.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, LivenessState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
