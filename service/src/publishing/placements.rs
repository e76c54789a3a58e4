//! The obstacles of tasks that the broker is to get, in memory, for all links of this
//! run: endpoints that take none for the time being, and tasks of which a copy may be at the
//! broker without a confirm. Touches nothing; clones share it.

use crate::store::{Error, Store};
use clutch_common::id::EndpointId;
use clutch_common::system::clock::now_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The pause after a queue took no task, the first time, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why an endpoint's tasks are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The broker has no queue for the endpoint.
    NoQueue,
    /// The endpoint's queue is full.
    QueueFull,
    /// The broker does not confirm what it is sent.
    Unconfirmed,
}

impl Hold {
    /// The sentence for people.
    #[must_use]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoQueue => {
                "the broker has no queue for the endpoint: `clutch-service provision` declares it"
            }
            Self::QueueFull => "the endpoint's queue at the broker is full",
            Self::Unconfirmed => "the broker does not confirm what it is sent for the endpoint",
        }
    }
}

/// An endpoint that takes no tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Why.
    pub(crate) why: Hold,
    /// Since when, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// When its tasks are published again.
    retry_at: Instant,
    /// The pause that ends then.
    pause: Duration,
}

impl Held {
    /// After the first time.
    fn first(why: Hold, now: Instant) -> Self {
        let pause = FIRST_PAUSE;
        Self { why, since_ms: now_ms(), retry_at: now + pause, pause }
    }

    /// After one more time. The pause grows with each time, not with every one of several
    /// messages at once.
    fn again(&mut self, why: Hold, now: Instant) {
        self.why = why;
        if self.retry_at <= now {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.retry_at = now + self.pause;
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Tasks, by row, of which a copy may be at the broker.
    in_doubt: BTreeMap<EndpointId, BTreeSet<i64>>,
    held: BTreeMap<EndpointId, Held>,
}

/// The obstacles of tasks that wait, for all links of a run.
#[derive(Clone, Debug)]
pub(crate) struct Placements {
    state: Arc<Mutex<State>>,
    /// Bumped when there is something to place.
    news: watch::Sender<u64>,
}

impl Default for Placements {
    fn default() -> Self {
        Self { state: Arc::default(), news: watch::channel(0).0 }
    }
}

impl Placements {
    /// The obstacles that the records of an earlier run left: every task without an answer is in
    /// doubt.
    pub(crate) async fn load(store: &Store) -> Result<Self, Error> {
        let placements = Self::default();
        placements.doubt_since(store, u64::MAX).await?;
        Ok(placements)
    }

    /// Has every task in doubt that was recorded until then and has no answer.
    pub(crate) async fn doubt_since(&self, store: &Store, until_ms: u64) -> Result<(), Error> {
        let found = store.submitting_since(until_ms).await?;
        if !found.is_empty() {
            let mut state = self.lock();
            for (endpoint, task) in found {
                state.in_doubt.entry(endpoint).or_default().insert(task);
            }
            drop(state);
            self.tell();
        }
        Ok(())
    }

    /// Why an endpoint's tasks are not taken; nothing if they are.
    pub(crate) fn held(&self, endpoint: EndpointId) -> Option<Held> {
        self.lock().held.get(&endpoint).copied()
    }

    /// Has an endpoint's tasks published at once, whatever pause there is, as soon as there is
    /// a link.
    pub(crate) fn try_now(&self, endpoint: EndpointId) {
        if let Some(held) = self.lock().held.get_mut(&endpoint) {
            held.retry_at = Instant::now();
        }
        self.tell();
    }

    /// Tells the placer that there is something to place.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Begins with a new link: every endpoint's tasks are tried at once.
    pub(super) fn begin(&self) {
        self.lock().held.clear();
    }

    /// When an endpoint's tasks may be published again, if that is later than now.
    pub(super) fn paused_until(&self, endpoint: EndpointId) -> Option<Instant> {
        let until = self.lock().held.get(&endpoint)?.retry_at;
        (until > Instant::now()).then_some(until)
    }

    /// Notes that an endpoint's tasks were not taken.
    pub(super) fn hold(&self, endpoint: EndpointId, why: Hold) {
        let (mut state, now) = (self.lock(), Instant::now());
        let known = state.held.contains_key(&endpoint);
        let first = || Held::first(why, now);
        state.held.entry(endpoint).and_modify(|held| held.again(why, now)).or_insert_with(first);
        drop(state);
        if !known {
            tracing::warn!(%endpoint, reason = why.words(), "tasks wait, and are tried again");
        }
    }

    /// Notes that an endpoint's tasks are taken.
    pub(super) fn release(&self, endpoint: EndpointId) {
        self.lock().held.remove(&endpoint);
    }

    /// The endpoints with tasks in doubt.
    pub(super) fn endpoints_in_doubt(&self) -> Vec<EndpointId> {
        self.lock().in_doubt.keys().copied().collect()
    }

    /// Up to `limit` tasks of an endpoint that are in doubt, by row; they stay so.
    pub(super) fn in_doubt(&self, endpoint: EndpointId, limit: usize) -> Vec<i64> {
        let state = self.lock();
        state.in_doubt.get(&endpoint).into_iter().flatten().copied().take(limit).collect()
    }

    /// Whether a copy of a task may be at the broker.
    pub(super) fn is_in_doubt(&self, endpoint: EndpointId, task: i64) -> bool {
        let state = self.lock();
        state.in_doubt.get(&endpoint).is_some_and(|tasks| tasks.contains(&task))
    }

    /// Notes that copies of tasks may be at the broker.
    pub(crate) fn doubt(&self, endpoint: EndpointId, tasks: impl IntoIterator<Item = i64>) {
        let mut tasks = tasks.into_iter().peekable();
        if tasks.peek().is_some() {
            self.lock().in_doubt.entry(endpoint).or_default().extend(tasks);
        }
    }

    /// Notes that tasks are in doubt no more.
    pub(super) fn clear(&self, endpoint: EndpointId, tasks: impl IntoIterator<Item = i64>) {
        let mut state = self.lock();
        let Some(in_doubt) = state.in_doubt.get_mut(&endpoint) else { return };
        for task in tasks {
            in_doubt.remove(&task);
        }
        if in_doubt.is_empty() {
            state.in_doubt.remove(&endpoint);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_each_time_and_not_with_each_message() {
        let mut now = Instant::now();
        let mut held = Held::first(Hold::NoQueue, now);
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            held.again(Hold::QueueFull, now);
            assert_eq!((held.retry_at - now).as_secs(), expected);
            now = held.retry_at;
            held.again(Hold::QueueFull, now);
        }
        assert_eq!(held.why, Hold::QueueFull);
    }

    #[test]
    fn a_caller_ends_a_pause_and_a_confirm_the_reason() {
        let (placements, endpoint) = (Placements::default(), EndpointId::new());
        placements.hold(endpoint, Hold::NoQueue);
        assert!(placements.paused_until(endpoint).is_some());
        placements.try_now(endpoint);
        assert_eq!(placements.paused_until(endpoint), None);
        assert_eq!(placements.held(endpoint).unwrap().why, Hold::NoQueue, "it is told still");
        placements.release(endpoint);
        assert_eq!(placements.held(endpoint), None);
    }

    #[test]
    fn a_doubt_ends_with_an_answer_about_that_task() {
        let (placements, endpoint) = (Placements::default(), EndpointId::new());
        placements.doubt(endpoint, [3, 1, 2]);
        assert_eq!(placements.in_doubt(endpoint, 2), [1, 2]);
        placements.clear(endpoint, [1, 2]);
        assert!(placements.is_in_doubt(endpoint, 3) && !placements.is_in_doubt(endpoint, 1));
        placements.clear(EndpointId::new(), [3]);
        assert_eq!(placements.endpoints_in_doubt(), [endpoint]);
        placements.clear(endpoint, [3]);
        assert_eq!(placements.endpoints_in_doubt(), []);
    }
}
