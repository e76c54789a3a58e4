//! What the collector tells the watch over the endpoints: who was heard, and how
//! far it has read. Lives as long as a session; holds no more than the states
//! that are watched.

use super::rules::Heard;
use clutch_common::id::StateId;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Shared by the collector, which fills it, and the watch.
pub(crate) struct Ear {
    inner: Mutex<Inner>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    listened_for: BTreeSet<StateId>,
    heard: Heard,
    mark: Option<String>,
}

impl Ear {
    /// Nothing is heard yet; `news` is bumped with what is more than a sign of
    /// life.
    pub(crate) fn new(news: watch::Sender<u64>) -> Self {
        Self { inner: Mutex::default(), news }
    }

    /// Instances on these states have sent something.
    pub(crate) fn hear(&self, states: &BTreeSet<StateId>, now: Instant) {
        let mut inner = self.lock();
        let Inner { listened_for, heard, .. } = &mut *inner;
        heard.extend(states.intersection(listened_for).map(|state| (*state, now)));
    }

    /// The message with this id, which the service sent to itself, was read.
    pub(crate) fn read(&self, mark: String) {
        self.lock().mark = Some(mark);
        self.tell();
    }

    /// The records have changed in what the watch looks at.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Listens for these states, and no others. Those that it did not listen for
    /// were heard at `new_heard`, if at all.
    pub(super) fn listen_for(&self, states: BTreeSet<StateId>, new_heard: Option<Instant>) {
        let mut inner = self.lock();
        let Inner { listened_for, heard, .. } = &mut *inner;
        heard.retain(|state, _| states.contains(state));
        if let Some(at) = new_heard {
            heard.extend(states.difference(listened_for).map(|state| (*state, at)));
        }
        *listened_for = states;
    }

    /// When each state was heard last.
    pub(super) fn heard(&self) -> Heard {
        self.lock().heard.clone()
    }

    /// Whether the message with this id was read.
    pub(super) fn has_read(&self, mark: &str) -> bool {
        self.lock().mark.as_deref() == Some(mark)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
