//! The catalogue of this run, behind one lock. Clones share it.
//!
//! The store tells it, after each transaction, what that changed ([`Change`]); the collector,
//! which endpoints were heard. Its news wake the placer. It holds no more than what is placed,
//! which credit bounds, and the members.

use super::catalogue::{Catalogue, TaskKind, TaskPlacement};
use super::member::{MemberFacts, QueueReader};
use super::view::BoardView;
use clutch_common::id::EndpointId;
use clutch_common::system::clock::now_ms;
use clutch_common::task::priority::Priority;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A change of the records that concerns topics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// A kind of tasks, by its number.
    Kind(i64, TaskKind),
    /// Tasks of a kind and a priority wait.
    Waits(i64, Priority),
    /// No task of a kind and a priority waits.
    NoneWaits(i64, Priority),
    /// A task is placed.
    Placed(i64, TaskPlacement),
    /// A task that waits may do so until a moment.
    MayExpire(u64),
    /// Tasks were placed by the catalogue itself.
    Matched,
    /// A placed task has ended.
    Ended(i64),
    /// A placed task is taken back.
    TakenBack(i64),
    /// A placed task is claimed.
    Claimed(i64),
    /// An endpoint told what it offers.
    Told(EndpointId, MemberFacts),
    /// An endpoint was removed.
    Removed(EndpointId),
    /// A member does not offer a kind of tasks.
    NotOffered(EndpointId, i64),
}

/// The changes of a transaction.
#[derive(Debug, Default)]
pub(crate) struct TopicChanges {
    list: Vec<Change>,
    now_ms: Option<u64>,
}

impl TopicChanges {
    /// Adds one, at a moment, if that is known.
    pub(crate) fn add(&mut self, change: Change, now_ms: Option<u64>) {
        self.list.push(change);
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The catalogue of this run.
#[derive(Clone, Debug)]
pub(crate) struct TopicBoard {
    inner: Arc<Mutex<Catalogue>>,
    /// Bumped when something may be placed.
    news: watch::Sender<u64>,
}

impl Default for TopicBoard {
    fn default() -> Self {
        Self { inner: Arc::default(), news: watch::channel(0).0 }
    }
}

impl TopicBoard {
    /// The counter that is raised when something may be placed.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The members, for people.
    pub(crate) fn view(&self) -> BoardView {
        self.lock().view(now_ms())
    }

    /// Uses the catalogue.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Catalogue) -> T) -> T {
        work(&mut self.lock())
    }

    /// Whether there are members.
    pub(crate) fn has_members(&self) -> bool {
        self.lock().has_members()
    }

    /// Gives a member no work until a moment: its queue does not take it.
    pub(crate) fn block(&self, member: EndpointId, until_ms: u64, now_ms: u64) {
        self.lock().block(member, until_ms, now_ms);
        self.tell();
    }

    /// Notes that endpoints have sent something.
    pub(crate) fn heard(&self, endpoints: impl IntoIterator<Item = EndpointId>, now_ms: u64) {
        if self.lock().heard(endpoints, now_ms) {
            self.tell();
        }
    }

    /// Notes what the broker says of the queue of a member.
    pub(crate) fn seen(&self, endpoint: EndpointId, seen: QueueReader, now_ms: u64) {
        self.lock().seen(endpoint, seen, now_ms);
        self.tell();
    }

    /// Takes in what a transaction changed, or undoes what it was to.
    pub(crate) fn transacted(&self, committed: bool, changes: TopicChanges) {
        let mut catalogue = self.lock();
        let now_ms = catalogue.at(changes.now_ms);
        let mut news = catalogue.ended(committed, now_ms);
        for change in changes.list.into_iter().filter(|_| committed) {
            news |= apply(&mut catalogue, change, now_ms);
        }
        drop(catalogue);
        if news {
            self.tell();
        }
    }

    /// Has what waits looked at.
    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Catalogue> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in a change; returns whether something may be placed by it.
fn apply(catalogue: &mut Catalogue, change: Change, now_ms: u64) -> bool {
    match change {
        Change::Kind(number, kind) => catalogue.kind(number, kind),
        Change::Waits(kind, priority) => drop(catalogue.open.insert((kind, priority))),
        Change::NoneWaits(kind, priority) => {
            catalogue.open.remove(&(kind, priority));
            return false;
        }
        Change::Placed(task, placed) => {
            catalogue.placed(task, placed, now_ms);
            return false;
        }
        Change::MayExpire(at_ms) => catalogue.may_expire(Some(at_ms)),
        Change::Matched => return false,
        Change::Claimed(task) => {
            catalogue.claimed(task);
            return false;
        }
        Change::Ended(task) => return catalogue.left(task, true, now_ms),
        Change::TakenBack(task) => return catalogue.left(task, false, now_ms),
        Change::Told(member, facts) => catalogue.told(member, facts, now_ms),
        Change::Removed(member) => catalogue.removed(member),
        Change::NotOffered(member, kind) => catalogue.withhold(member, kind, now_ms),
    }
    true
}
