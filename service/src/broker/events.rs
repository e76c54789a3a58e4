//! Reads the events queue beside the results: takes what endpoints tell about running work
//! into the overlay.
//!
//! Touches the events queue, the records to look up tasks, and the overlay. Promises: a
//! message is acknowledged as soon as it came, nothing waits for it, and a fault of the
//! queue alone does not end the session.

use super::anomalies::AnomalyCounters;
use crate::messages::Mail;
use crate::model::{FeedEvent, FeedKind, LiveTask, TaskState};
use crate::overlay::{Overlay, TaskRow};
use crate::store::Store;
use clutch_common::id::TaskId;
use clutch_common::link::{Connection, Delivery, Fault, Inlet, InletOptions};
use clutch_common::topology::{self, QueueKind};
use clutch_common::wire::{self, Events, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The prefetch, and how many messages are taken in at once.
const PREFETCH: u16 = 32;
/// The pause before the queue is opened again after a fault.
const PAUSE: Duration = Duration::from_secs(10);

/// The parts that events are read with.
pub(crate) struct EventReader<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// The overlay.
    pub(crate) overlay: &'a Overlay,
    /// Counts messages that are passed by.
    pub(crate) counts: &'a AnomalyCounters,
    /// The connection.
    pub(crate) connection: &'a dyn Connection,
    /// The kind of the queues that all endpoints share.
    pub(crate) kind: QueueKind,
    /// The note of kept messages, which is told of tasks that run.
    pub(crate) mail: &'a Mail,
}

impl EventReader<'_> {
    /// Reads until told to stop.
    ///
    /// # Errors
    /// Never: if the link is lost, the collector ends the session.
    pub(crate) async fn read(&self, stop: &CancellationToken) -> Result<(), Fault> {
        tokio::select! {
            biased;
            () = stop.cancelled() => (),
            () = self.keep_reading() => (),
        }
        Ok(())
    }

    async fn keep_reading(&self) {
        loop {
            let Err(fault) = self.session().await else { return };
            tracing::warn!(
                %fault,
                "events of endpoints cannot be read: the states accepted and running, progress and \
                 live output are missing until they can; tried again"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads until a fault.
    async fn session(&self) -> Result<(), Fault> {
        let mut inlet = self.open().await?;
        loop {
            let deliveries = inlet.receive(usize::from(PREFETCH)).await?;
            if let Some(last) = deliveries.last() {
                inlet.acknowledge(last.tag).await?;
            }
            self.take_in(&deliveries).await;
        }
    }

    async fn open(&self) -> Result<Box<dyn Inlet>, Fault> {
        let queue = topology::EVENTS_QUEUE.to_owned();
        let options = InletOptions { queue, prefetch: PREFETCH, lease: None, one_by_one: false };
        match self.connection.inlet(&options).await {
            Err(Fault::Missing(_)) => {
                self.connection.declare(&topology::shared(self.kind)).await?;
                self.connection.inlet(&options).await
            }
            inlet => inlet,
        }
    }

    async fn take_in(&self, deliveries: &[Delivery]) {
        let events: Vec<Events> = deliveries.iter().filter_map(|one| self.decoded(one)).collect();
        let unknown: Vec<TaskId> =
            events.iter().flat_map(|events| self.overlay.unknown(events)).collect();
        let rows = self.rows(unknown).await;
        let told = self.store.feed().is_on();
        let before = if told { self.known(&events) } else { BTreeMap::new() };
        for events in &events {
            let started = self.started(events);
            self.overlay.take_in(events, &rows);
            self.mail.run(started);
        }
        if told {
            self.tell(before).await;
        }
    }

    /// The tasks that a message tells to run, and that did not before; none while no messages are
    /// kept for any.
    fn started(&self, events: &Events) -> Vec<TaskId> {
        if !self.mail.is_kept() {
            return Vec::new();
        }
        let running = events.attempts.iter().filter(|one| one.phase == Phase::Running);
        let tasks: Vec<TaskId> = running.map(|one| one.attempt.task_id).collect();
        let before = self.overlay.phases(tasks.iter().copied());
        let came = tasks.into_iter().zip(before);
        came.filter(|(_, phase)| *phase != Some(Phase::Running)).map(|(task, _)| task).collect()
    }

    /// The tasks of these messages, as they are known before these are taken in.
    fn known(&self, events: &[Events]) -> BTreeMap<TaskId, Option<LiveTask>> {
        let attempts = events.iter().flat_map(|events| &events.attempts);
        let tasks: BTreeSet<TaskId> = attempts.map(|event| event.attempt.task_id).collect();
        tasks.into_iter().map(|task| (task, self.overlay.task(task))).collect()
    }

    /// Tells the feed what is new of these tasks.
    async fn tell(&self, before: BTreeMap<TaskId, Option<LiveTask>>) {
        let mut kinds = Vec::new();
        for (task, before) in &before {
            if let Some(now) = self.overlay.task(*task) {
                kinds.extend(news(before.as_ref(), &now).into_iter().map(|kind| (*task, kind)));
            }
        }
        if kinds.is_empty() {
            return;
        }
        let events = self.store.task_events(kinds).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "how far tasks are cannot be told to the clients that listen");
            Vec::new()
        });
        let live = |mut event: FeedEvent| {
            let of = event.of.as_mut()?;
            let live = self.overlay.task(of.task)?;
            of.attempt = live.attempt;
            of.state = match live.phase {
                Phase::Accepted => TaskState::Accepted,
                Phase::Running => TaskState::Running,
            };
            of.progress = live.progress.filter(|_| event.kind == FeedKind::Progress);
            Some(event)
        };
        self.store.feed().tell(events.into_iter().filter_map(live));
    }

    /// The rows of tasks that have no outcome.
    async fn rows(&self, tasks: Vec<TaskId>) -> BTreeMap<TaskId, TaskRow> {
        if tasks.is_empty() {
            return BTreeMap::new();
        }
        let places = self.store.task_places(tasks).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "tasks of an event cannot be looked up");
            BTreeMap::new()
        });
        let open = places.into_iter().filter(|(_, at)| !matches!(at.state, TaskState::Done(_)));
        let row = |(task, at): (TaskId, crate::store::TaskPlace)| {
            let (submission, index, attempt) = (at.submission, at.index, at.attempt);
            (task, TaskRow { row: at.row, submission, index, attempt })
        };
        open.map(row).collect()
    }

    /// The events in a message, if it can be read and is its endpoint's own: a broker may
    /// restrict each endpoint to its own routing key.
    fn decoded(&self, delivery: &Delivery) -> Option<Events> {
        if let Some(damage) = &delivery.message.damage {
            tracing::debug!(damage, "an event is damaged");
            return None;
        }
        let events = match wire::decode_events(&delivery.message.body) {
            Ok(events) => events,
            Err(unknown) => {
                self.counts.passed_by(&unknown, Instant::now());
                return None;
            }
        };
        let key = delivery.message.routing_key.as_deref();
        if key.is_some_and(|key| key != topology::events_key(events.endpoint_id)) {
            tracing::debug!(
                key,
                endpoint = %events.endpoint_id,
                "an event was published with a routing key that is not that of its endpoint"
            );
            return None;
        }
        Some(events)
    }
}

/// The kinds of events that are new of a task, as its endpoint tells.
fn news(before: Option<&LiveTask>, now: &LiveTask) -> Vec<FeedKind> {
    let same = before.filter(|before| before.attempt == now.attempt);
    let phase = match now.phase {
        Phase::Accepted => FeedKind::Accepted,
        Phase::Running => FeedKind::Running,
    };
    let came = same.is_none_or(|before| before.phase != now.phase).then_some(phase);
    let told = same.and_then(|before| before.progress.as_ref());
    let progress = now.progress.as_ref().filter(|progress| told != Some(progress));
    came.into_iter().chain(progress.map(|_| FeedKind::Progress)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_and_a_progress_are_news_once() {
        let progress = |at_ms| TaskProgress { fraction: None, message: None, data: None, at_ms };
        let live = |attempt, phase, progress| LiveTask {
            attempt,
            phase,
            since_ms: 1,
            accepted_at_ms: None,
            progress,
            waits_for: None,
            waits: Vec::new(),
            heard_at_ms: 1,
            stale: false,
        };
        let waits = live(1, Phase::Accepted, None);
        let runs = live(1, Phase::Running, Some(progress(1)));
        assert_eq!(news(None, &waits), [FeedKind::Accepted]);
        assert_eq!(news(Some(&waits), &waits), []);
        assert_eq!(news(Some(&waits), &runs), [FeedKind::Running, FeedKind::Progress]);
        assert_eq!(news(Some(&runs), &live(1, Phase::Running, Some(progress(1)))), []);
        let further = live(1, Phase::Running, Some(progress(2)));
        assert_eq!(news(Some(&runs), &further), [FeedKind::Progress]);
        let again = live(2, Phase::Running, Some(progress(1)));
        assert_eq!(news(Some(&runs), &again), [FeedKind::Running, FeedKind::Progress]);
    }
    use crate::store::conformance::store;
    use clutch_common::id::{EndpointId, StateId};
    use clutch_common::link::{Message, Tag};
    use clutch_common::wire::{Load, TaskProgress, encode_events};
    use uuid::Uuid;

    #[tokio::test]
    async fn an_event_counts_only_under_the_routing_key_of_its_endpoint() {
        let (_temp, store) = store().await;
        let (overlay, counts) = (Overlay::default(), AnomalyCounters::default());
        let mail = Mail::default();
        let broker = crate::stub_broker::Broker::default();
        let reader = EventReader {
            store: &store,
            overlay: &overlay,
            counts: &counts,
            connection: &broker,
            kind: QueueKind::Classic,
            mail: &mail,
        };
        let endpoint = EndpointId::new();
        let events = Events {
            endpoint_id: endpoint,
            state_id: StateId::new(),
            instance: Uuid::nil(),
            at_ms: 1,
            complete: true,
            load: Some(Load::default()),
            attempts: Vec::new(),
            output: Vec::new(),
        };
        let delivery = |key: &str, body: Vec<u8>| {
            let message = Message { routing_key: Some(key.to_owned()), body, ..Message::default() };
            Delivery { tag: Tag(1), redelivered: false, message }
        };
        let foreign = delivery(&topology::events_key(EndpointId::new()), encode_events(&events));
        let unreadable = delivery(&topology::events_key(endpoint), b"nonsense".to_vec());
        reader.take_in(&[foreign, unreadable]).await;
        assert_eq!((overlay.load(endpoint), counts.read().passed_by), (None, 1));
        reader.take_in(&[delivery(&topology::events_key(endpoint), encode_events(&events))]).await;
        assert!(overlay.load(endpoint).is_some());
    }
}
