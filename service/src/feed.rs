//! The feed: what happens to tasks and endpoints, for the clients that listen to it.
//!
//! The store, the session and the API tell it events; each client reads them from one ring.
//! Promises: while no client listens, an event is not even made (one look at an atomic tells);
//! the ring is bounded by [`MAX_BYTES`], and a client holds no copy of it. A client that comes
//! back goes on where it was, as long as the ring has what came since: it is kept while a client
//! listens, and for [`LINGER`] after that. An event that was let go is never passed over in
//! silence: the position of a client that missed one is refused.
//!
//! A *position* is the number of the next event to read, in one *generation*: the time from when
//! the first client listened until the ring was dropped.

use crate::model::{FeedEvent, FeedKind};
use clutch_common::id::{EndpointId, TaskId};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// How many bytes the events of the ring take together.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// The share of an event beside its text.
const OVERHEAD: usize = 160;
/// How long the ring is kept after the last client went away.
const LINGER: Duration = Duration::from_secs(300);
/// How many clients listen at once.
const MAX_LISTENERS: usize = 64;

/// The feed; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed(Arc<FeedState>);

#[derive(Debug, Default)]
struct FeedState {
    /// Whether events are to be told.
    listening: AtomicBool,
    ring: Mutex<Ring>,
    /// Bumped when there are new events.
    told: watch::Sender<u64>,
}

/// The events, the oldest first.
#[derive(Debug, Default)]
struct Ring {
    generation: u64,
    /// The number of the first event.
    first: u64,
    events: VecDeque<KeptEvent>,
    bytes: usize,
    listeners: usize,
    /// Since when no client listens.
    idle_since: Option<Instant>,
}

/// An event as it is sent, and what a filter looks at.
#[derive(Debug)]
struct KeptEvent {
    kind: FeedKind,
    task: Option<TaskId>,
    endpoint: EndpointId,
    key: Option<Arc<str>>,
    json: Box<str>,
}

impl KeptEvent {
    fn bytes(&self) -> usize {
        OVERHEAD + self.json.len() + self.key.as_ref().map_or(0, |key| key.len())
    }
}

/// A place in the feed. Its text is `GENERATION-NUMBER`, the number of the last event that was
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FeedPosition {
    generation: u64,
    next: u64,
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.generation, self.next)
    }
}

impl FromStr for FeedPosition {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (generation, next) = text.split_once('-').ok_or(())?;
        let generation = u64::from_str_radix(generation, 16).map_err(drop)?;
        Ok(Self { generation, next: next.parse().map_err(drop)? })
    }
}

/// Which events a client wants; of an empty condition, all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only those of a task.
    pub(crate) task: Option<TaskId>,
    /// Only those of a submission.
    pub(crate) key: Option<String>,
    /// Only those of an endpoint and its tasks.
    pub(crate) endpoint: Option<EndpointId>,
    /// Only those of these kinds.
    pub(crate) kinds: BTreeSet<FeedKind>,
}

impl Filter {
    fn takes(&self, event: &KeptEvent) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.task.is_none_or(|task| event.task == Some(task))
            && self.endpoint.is_none_or(|endpoint| event.endpoint == endpoint)
            && self.key.as_deref().is_none_or(|key| event.key.as_deref() == Some(key))
    }
}

/// A client that listens; until it is dropped, events are kept.
#[derive(Debug)]
pub(crate) struct Listener {
    feed: Feed,
    told: watch::Receiver<u64>,
    /// Where it reads next.
    pub(crate) position: FeedPosition,
}

/// The place at which a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It begins with the next event.
    Anew,
    /// It goes on where it was.
    Resumed,
    /// It cannot go on where it was, and begins with the next event.
    Reset,
}

/// Events that a client asked for were let go before it read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind;

impl Feed {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events are to be told.
    pub(crate) fn is_on(&self) -> bool {
        self.0.listening.load(Ordering::Acquire)
    }

    /// Tells events, in their order.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = FeedEvent>) {
        let events: Vec<KeptEvent> = events.into_iter().filter_map(kept).collect();
        if events.is_empty() {
            return;
        }
        let mut ring = self.ring();
        if ring.listeners == 0 && ring.idle_since.is_none_or(|since| since.elapsed() > LINGER) {
            self.0.listening.store(false, Ordering::Release);
            *ring = Ring::default();
            return;
        }
        for event in events {
            ring.push(event, MAX_BYTES);
        }
        drop(ring);
        self.0.told.send_modify(|count| *count += 1);
    }

    /// Begins to listen, after the last event that the client has, where that is known; nothing
    /// if too many listen. What is told from then on reaches the client; transactions that are
    /// under way have to be waited for.
    pub(crate) fn listen(&self, after: Option<&str>) -> Option<(Listener, Opening)> {
        let mut ring = self.ring();
        if ring.listeners >= MAX_LISTENERS {
            return None;
        }
        let lasts =
            ring.listeners > 0 || ring.idle_since.is_some_and(|since| since.elapsed() <= LINGER);
        if !lasts {
            let generation = Uuid::new_v4().as_u64_pair().0;
            *ring = Ring { generation, ..Ring::default() };
        }
        ring.listeners += 1;
        ring.idle_since = None;
        self.0.listening.store(true, Ordering::Release);
        let now = FeedPosition { generation: ring.generation, next: ring.end() };
        let wanted = after.map(FeedPosition::from_str);
        let (position, begun) = match wanted {
            None => (now, Opening::Anew),
            Some(Ok(position)) if ring.has(position) => (position, Opening::Resumed),
            Some(_) => (now, Opening::Reset),
        };
        drop(ring);
        let (feed, told) = (self.clone(), self.0.told.subscribe());
        Some((Listener { feed, told, position }, begun))
    }
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Whether everything from a position on is here.
    fn has(&self, position: FeedPosition) -> bool {
        position.generation == self.generation && (self.first..=self.end()).contains(&position.next)
    }

    fn push(&mut self, event: KeptEvent, most: usize) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.bytes > most
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }

    /// Writes the events from a position on as server-sent events, up to so many bytes; returns
    /// where to go on.
    fn read(
        &self,
        from: FeedPosition,
        filter: &Filter,
        most: usize,
        text: &mut String,
    ) -> Result<FeedPosition, Behind> {
        if !self.has(from) {
            return Err(Behind);
        }
        let skipped = usize::try_from(from.next - self.first).unwrap_or(usize::MAX);
        let mut at = from;
        for event in self.events.iter().skip(skipped) {
            if text.len() >= most {
                break;
            }
            at.next += 1;
            if filter.takes(event) {
                let KeptEvent { kind, json, .. } = event;
                text.push_str(&format!("id: {at}\nevent: {kind}\ndata: {json}\n\n"));
            }
        }
        Ok(at)
    }
}

impl Listener {
    /// Reads what there is, as server-sent events, up to about so many bytes.
    pub(crate) fn read(&mut self, filter: &Filter, most: usize) -> Result<String, Behind> {
        let mut text = String::new();
        self.told.mark_unchanged();
        self.position = self.feed.ring().read(self.position, filter, most, &mut text)?;
        Ok(text)
    }

    /// Waits for new events.
    pub(crate) async fn changed(&mut self) {
        // The feed is not gone: this has it.
        drop(self.told.changed().await);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut ring = self.feed.ring();
        ring.listeners -= 1;
        if ring.listeners == 0 {
            ring.idle_since = Some(Instant::now());
        }
    }
}

fn kept(event: FeedEvent) -> Option<KeptEvent> {
    let json = match serde_json::to_string(&event) {
        Ok(json) => json.into_boxed_str(),
        Err(error) => {
            tracing::error!(%error, "an event cannot be encoded");
            return None;
        }
    };
    let (task, key) = event.of.map_or((None, None), |of| (Some(of.task), of.key));
    Some(KeptEvent {
        kind: event.kind,
        task,
        endpoint: event.endpoint,
        key: key.map(Into::into),
        json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FeedTask, TaskState};

    fn event(number: u64, key: &str) -> FeedEvent {
        FeedEvent {
            kind: FeedKind::Submitted,
            at_ms: number,
            endpoint: EndpointId(Uuid::nil()),
            endpoint_name: None,
            status: None,
            of: Some(FeedTask {
                task: TaskId(Uuid::nil()),
                key: Some(key.to_owned()),
                index: Some(number),
                name: None,
                state: TaskState::Submitted,
                attempt: 1,
                progress: None,
            }),
        }
    }

    /// The times of the events in a text.
    fn times(text: &str) -> Vec<u64> {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let time =
            |json| serde_json::from_str::<serde_json::Value>(json).unwrap()["at_ms"].as_u64();
        data.map(|json| time(json).unwrap()).collect()
    }

    fn read(listener: &mut Listener) -> Vec<u64> {
        times(&listener.read(&Filter::default(), usize::MAX).unwrap())
    }

    #[test]
    fn nothing_is_kept_unless_a_client_listens() {
        let feed = Feed::default();
        assert!(!feed.is_on());
        feed.tell([event(1, "k")]);
        let (mut listener, begun) = feed.listen(None).unwrap();
        assert!(feed.is_on());
        assert_eq!((begun, read(&mut listener)), (Opening::Anew, Vec::<u64>::new()));
        feed.tell([event(2, "k"), event(3, "k")]);
        assert_eq!(read(&mut listener), [2, 3]);
        assert!(read(&mut listener).is_empty());
        drop(listener);
        feed.ring().idle_since = Instant::now().checked_sub(LINGER * 2);
        feed.tell([event(4, "k")]);
        assert!(!feed.is_on());
        assert_eq!(feed.ring().events.len(), 0);
    }

    #[test]
    fn a_client_that_comes_back_misses_nothing_and_gets_nothing_twice() {
        let feed = Feed::default();
        let (mut listener, _) = feed.listen(None).unwrap();
        feed.tell([event(1, "k"), event(2, "k")]);
        assert_eq!(read(&mut listener), [1, 2]);
        let position = listener.position.to_string();
        drop(listener);
        feed.tell([event(3, "k")]);
        let (mut again, begun) = feed.listen(Some(&position)).unwrap();
        feed.tell([event(4, "k")]);
        assert_eq!((begun, read(&mut again)), (Opening::Resumed, vec![3, 4]));
        let (mut at_first, begun) = feed.listen(Some(&position)).unwrap();
        assert_eq!((begun, read(&mut at_first)), (Opening::Resumed, vec![3, 4]));
    }

    #[test]
    fn a_place_that_is_not_in_the_ring_is_told() {
        let feed = Feed::default();
        let (listener, _) = feed.listen(None).unwrap();
        let FeedPosition { generation, next } = listener.position;
        for place in [
            "".to_owned(),
            "x-1".to_owned(),
            format!("{:016x}-{next}", generation ^ 1),
            format!("{generation:016x}-{}", next + 1),
        ] {
            let (mut listener, begun) = feed.listen(Some(&place)).unwrap();
            assert_eq!(begun, Opening::Reset, "{place}");
            assert!(read(&mut listener).is_empty());
        }
        drop(listener);
        feed.ring().idle_since = Instant::now().checked_sub(LINGER * 2);
        let place = FeedPosition { generation, next }.to_string();
        assert_eq!(feed.listen(Some(&place)).unwrap().1, Opening::Reset);
    }

    #[test]
    fn the_ring_is_bounded_and_a_client_that_is_behind_is_told() {
        let mut ring = Ring::default();
        let one = kept(event(10, "k")).unwrap().bytes();
        for number in 10..20 {
            ring.push(kept(event(number, "k")).unwrap(), 3 * one);
        }
        assert_eq!((ring.first, ring.events.len(), ring.bytes), (7, 3, 3 * one));
        let read = |next| {
            let mut text = String::new();
            let from = FeedPosition { generation: 0, next };
            let to = ring.read(from, &Filter::default(), usize::MAX, &mut text)?;
            Ok((to.next, times(&text)))
        };
        assert_eq!(read(6), Err(Behind));
        assert_eq!(read(8), Ok((10, vec![18, 19])));
        assert_eq!(read(10), Ok((10, vec![])));
    }

    #[test]
    fn a_client_gets_what_its_filter_takes_and_its_place_moves_on_all_the_same() {
        let feed = Feed::default();
        let (mut listener, _) = feed.listen(None).unwrap();
        feed.tell((0..10).map(|number| event(number, if number == 5 { "this" } else { "other" })));
        let filter = |key: &str| Filter { key: Some(key.to_owned()), ..Filter::default() };
        assert_eq!(times(&listener.read(&filter("this"), 1).unwrap()), [5]);
        let next = listener.position.next;
        assert_eq!(listener.read(&filter("none"), 1).unwrap(), "");
        assert!(listener.position.next > next && listener.position.next == feed.ring().end());
        let kinds = BTreeSet::from([FeedKind::Outcome]);
        let (mut listener, _) = feed.listen(None).unwrap();
        feed.tell([event(11, "this")]);
        assert_eq!(listener.read(&Filter { kinds, ..Filter::default() }, 1).unwrap(), "");
    }

    #[test]
    fn only_so_many_listen_at_once() {
        let feed = Feed::default();
        let listeners: Vec<_> = (0..MAX_LISTENERS).map(|_| feed.listen(None).unwrap()).collect();
        assert!(feed.listen(None).is_none());
        drop(listeners);
        assert!(feed.listen(None).is_some());
    }
}
