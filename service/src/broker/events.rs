//! Reads the events queue beside the results: takes what endpoints tell about running work
//! into the overlay.
//!
//! Touches the events queue, the records to look up tasks, and the overlay. Promises: a
//! message is acknowledged as soon as it came, nothing waits for it, and a fault of the
//! queue alone does not end the session.

use super::anomalies::AnomalyCounters;
use crate::model::TaskState;
use crate::overlay::{Overlay, TaskRow};
use crate::store::Store;
use clutch_common::id::TaskId;
use clutch_common::link::{Connection, Delivery, Fault, Inlet, InletOptions};
use clutch_common::topology::{self, QueueKind};
use clutch_common::wire::{self, Events};
use std::collections::BTreeMap;
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
        for events in &events {
            self.overlay.take_in(events, &rows);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::store;
    use clutch_common::id::{EndpointId, StateId};
    use clutch_common::link::{Message, Tag};
    use clutch_common::wire::{Load, encode_events};
    use uuid::Uuid;

    #[tokio::test]
    async fn an_event_counts_only_under_the_routing_key_of_its_endpoint() {
        let (_temp, store) = store().await;
        let (overlay, counts) = (Overlay::default(), AnomalyCounters::default());
        let broker = crate::stub_broker::Broker::default();
        let reader = EventReader {
            store: &store,
            overlay: &overlay,
            counts: &counts,
            connection: &broker,
            kind: QueueKind::Classic,
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
