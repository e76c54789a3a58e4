//! When each state of an endpoint was heard last, and how far the results queue is read: the
//! collector notes it, the watch reads it.
//!
//! Lives as long as a session. Holds no more states than are watched.

use clutch_common::failover::Heard;
use clutch_common::id::StateId;
use clutch_common::system::clock::now_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// When states were heard last by the wall clock, for people: it outlives sessions. Holds no
/// more states than are watched.
#[derive(Debug, Default)]
pub(crate) struct LastHeard(Mutex<BTreeMap<StateId, u64>>);

impl LastHeard {
    /// When a state was heard last in this run of the service.
    pub(crate) fn of(&self, state: StateId) -> Option<u64> {
        self.lock().get(&state).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StateId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The times at which states were heard; the collector notes them, the watch reads them.
pub(crate) struct Liveness {
    inner: Mutex<LivenessState>,
    last: Arc<LastHeard>,
    news: watch::Sender<u64>,
    fences: watch::Sender<u64>,
}

#[derive(Default)]
struct LivenessState {
    /// The states that are watched; all states, until that is known.
    watched: Option<BTreeSet<StateId>>,
    heard: Heard,
    /// The id of the barrier that is waited for.
    barrier: Option<String>,
    /// The id of the barrier after which placements end.
    fence: Option<String>,
}

impl Liveness {
    /// Nothing is heard yet. `news` is raised when the records have changed or a barrier was read.
    pub(crate) fn new(news: watch::Sender<u64>, last: Arc<LastHeard>) -> Self {
        Self { inner: Mutex::default(), last, news, fences: watch::channel(0).0 }
    }

    /// Notes that instances on these states have sent something.
    pub(crate) fn record_heard(&self, states: &BTreeSet<StateId>, now: Instant) {
        let mut inner = self.lock();
        let LivenessState { watched, heard, .. } = &mut *inner;
        let counts =
            |state: &&StateId| watched.as_ref().is_none_or(|watched| watched.contains(*state));
        let counted = || states.iter().filter(counts);
        heard.extend(counted().map(|state| (*state, now)));
        let wall = now_ms();
        self.last.lock().extend(counted().map(|state| (*state, wall)));
    }

    /// Notes that the barriers with these ids were read.
    pub(crate) fn barriers_read(&self, ids: &[String]) {
        let mut inner = self.lock();
        inner.barrier.take_if(|barrier| ids.contains(barrier));
        let fence = inner.fence.take_if(|barrier| ids.contains(barrier));
        drop(inner);
        if fence.is_some() {
            self.fences.send_modify(|count| *count += 1);
        }
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
        self.last.lock().retain(|state, _| states.contains(state));
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

    /// Waits for another barrier with this id beside it, instead of an earlier one.
    pub(crate) fn await_fence(&self, barrier: String) {
        self.lock().fence = Some(barrier);
    }

    /// Whether that other barrier was read.
    pub(crate) fn fence_was_read(&self) -> bool {
        self.lock().fence.is_none()
    }

    /// The counter that is raised when the other barrier was read.
    pub(crate) fn fences(&self) -> watch::Receiver<u64> {
        self.fences.subscribe()
    }

    /// Whether the barrier that was waited for was read.
    pub(super) fn barrier_was_read(&self) -> bool {
        self.lock().barrier.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, LivenessState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
