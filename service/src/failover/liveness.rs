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

/// Shared by the collector, which fills it, and the watch.
pub(crate) struct Liveness {
    inner: Mutex<LivenessState>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct LivenessState {
    /// The states that are watched; all states, until that is known.
    watched: Option<BTreeSet<StateId>>,
    heard: Heard,
    /// The message that is waited for, of those that the service sends to
    /// itself.
    barrier: Option<String>,
}

impl Liveness {
    /// Nothing is heard yet; `news` is bumped with what is more than a sign of
    /// life.
    pub(crate) fn new(news: watch::Sender<u64>) -> Self {
        Self { inner: Mutex::default(), news }
    }

    /// Instances on these states have sent something.
    pub(crate) fn record_heard(&self, states: &BTreeSet<StateId>, now: Instant) {
        let mut inner = self.lock();
        let LivenessState { watched, heard, .. } = &mut *inner;
        let counts =
            |state: &&StateId| watched.as_ref().is_none_or(|watched| watched.contains(*state));
        heard.extend(states.iter().filter(counts).map(|state| (*state, now)));
    }

    /// The messages with these ids, which the service sent to itself, were read.
    pub(crate) fn barriers_read(&self, ids: &[String]) {
        self.lock().barrier.take_if(|barrier| ids.contains(barrier));
        self.notify();
    }

    /// The records have changed in what the watch looks at.
    pub(super) fn notify(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// The counter that is raised whenever the watch has to look at the records.
    pub(crate) fn news(&self) -> watch::Sender<u64> {
        self.news.clone()
    }

    /// Listens for these states, and no others. One that is new since it did so
    /// before has just been heard.
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

    /// Waits for the message with this id, and no other.
    pub(super) fn await_barrier(&self, barrier: String) {
        self.lock().barrier = Some(barrier);
    }

    /// Whether the message that was waited for was read.
    pub(super) fn barrier_was_read(&self) -> bool {
        self.lock().barrier.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, LivenessState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
