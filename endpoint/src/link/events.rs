//! The publisher of events: tells the service about running work, and publishes the output of
//! attempts that are followed.
//!
//! It has an outlet of its own on the connection that results go by. Promises: while no task
//! is pending it has no tick; it looks at what is pending once a second instead of noting each
//! start; at most [`OPEN_MAX`] messages and about [`OPEN_BYTES`] bytes are unconfirmed, and
//! what does not fit waits; and none of its faults ends a session, or delays a result by more
//! than these bytes take. An event that is refused or returned is gone.

mod gatherer;

use super::events_request::EventsRequest;
use super::instance::Instance;
use super::optional::{settled, until};
use crate::execution::engine::SlotCount;
use crate::execution::live::Live;
use crate::messages::Messages;
use crate::pending::ledger::Ledger;
use crate::pending::look::Look;
use crate::storage::journal::Seq;
use crate::system::troubles::Troubles;
use clutch_common::id::Attempt;
use clutch_common::link::{Connection, Destination, Fault, Message, Outlet, Settlement, Ticket};
use clutch_common::system::clock::now_ms;
use clutch_common::topology;
use clutch_common::wire::{self, EVENTS_TYPE, Events, Load, OutputEvent, TaskProgress};
use gatherer::{Gatherer, Seen, WAITING_MAX};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use uuid::Uuid;

/// How often it looks at what is pending, while something is.
const TICK: Duration = Duration::from_secs(1);
/// How long output waits for more.
const COALESCE: Duration = Duration::from_millis(100);
/// Most messages that are sent and not confirmed.
const OPEN_MAX: usize = 16;
/// Most bytes that are sent and not confirmed, give or take one message.
const OPEN_BYTES: usize = 256 * 1024;
/// Most bytes of output in one message, give or take one piece.
const OUTPUT_BYTES: usize = 192 * 1024;
/// The pause after a fault of the outlet.
const PAUSE: Duration = Duration::from_secs(30);

/// The publisher of events, over all sessions.
pub(crate) struct EventsPublisher {
    live: Arc<Live>,
    requests: Mutex<mpsc::Receiver<EventsRequest>>,
    slots: SlotCount,
    troubles: Troubles,
    /// Whether a message was lost, which is told in the log once.
    told_loss: AtomicBool,
}

impl EventsPublisher {
    /// Creates the publisher of an endpoint with so many slots.
    pub(crate) fn new(
        live: Arc<Live>,
        requests: mpsc::Receiver<EventsRequest>,
        slots: SlotCount,
        troubles: Troubles,
    ) -> Self {
        let (requests, told_loss) = (Mutex::new(requests), AtomicBool::new(false));
        Self { live, requests, slots, troubles, told_loss }
    }

    /// Publishes events on a connection for as long as it is polled.
    pub(crate) async fn publish(
        &self,
        connection: &dyn Connection,
        ledger: &Arc<Ledger>,
        instance: &Instance,
        messages: Option<&Messages>,
    ) {
        let mut requests = self.requests.lock().await;
        let mut session = EventsSession {
            publisher: self,
            ledger,
            instance,
            messages,
            connection,
            outlet: None,
            open: HashMap::new(),
            open_bytes: 0,
            paused_until: None,
            gatherer: Gatherer::default(),
            // An earlier session may have left some.
            flush_at: Some(Instant::now()),
            output: Vec::new(),
        };
        session.work(&mut requests).await;
    }

    fn lost(&self, why: &str) {
        if !self.told_loss.swap(true, Ordering::Relaxed) {
            tracing::debug!(why, "events are lost: the service sees running work late, or not");
        }
    }
}

/// The publisher of events in one session.
struct EventsSession<'a> {
    publisher: &'a EventsPublisher,
    ledger: &'a Arc<Ledger>,
    instance: &'a Instance,
    messages: Option<&'a Messages>,
    connection: &'a dyn Connection,
    /// Opened when there is something to tell.
    outlet: Option<Box<dyn Outlet>>,
    /// The messages that are not confirmed, with their sizes.
    open: HashMap<Ticket, usize>,
    open_bytes: usize,
    paused_until: Option<Instant>,
    gatherer: Gatherer,
    /// When output that waits is published.
    flush_at: Option<Instant>,
    output: Vec<OutputEvent>,
}

impl EventsSession<'_> {
    async fn work(&mut self, requests: &mut mpsc::Receiver<EventsRequest>) {
        let live = Arc::clone(&self.publisher.live);
        let mut tick_at: Option<Instant> = None;
        loop {
            self.send_all().await;
            let outlet = self.outlet.as_deref_mut();
            tokio::select! {
                biased;
                settled = settled(outlet), if !self.open.is_empty() => self.settle(settled),
                () = until(tick_at), if tick_at.is_some() => {
                    tick_at = self.tick().await.then(|| Instant::now() + TICK);
                }
                () = until(self.flush_at), if self.flush_at.is_some() => {
                    self.flush_at = None;
                    self.output = live.take_output(OUTPUT_BYTES, now_ms());
                }
                () = live.output_ready(), if self.flush_at.is_none() && self.output.is_empty() => {
                    self.flush_at = Some(Instant::now() + COALESCE);
                }
                () = self.ledger.until_pending(), if tick_at.is_none() => {
                    tick_at = Some(Instant::now() + TICK);
                }
                Some(request) = requests.recv() => match request {
                    EventsRequest::Follow(follow) => {
                        if !live.follow(&follow, now_ms()) {
                            let task = follow.attempt;
                            tracing::debug!(%task, "the output is not followed: too much else is");
                        }
                    }
                    EventsRequest::Report => {
                        self.gatherer.ask_complete();
                        let again = self.tick().await;
                        tick_at = again.then(|| Instant::now() + TICK);
                    }
                },
            }
        }
    }

    /// Gathers what is to be told. Returns whether something is pending.
    async fn tick(&mut self) -> bool {
        if self.ledger.tasks() == 0 {
            // What is over has no progress.
            self.progress().await;
            let load = self.load(&self.ledger.look(Seq(0), 0));
            self.gatherer.rest(load);
            return false;
        }
        let progress = self.progress().await;
        if self.gatherer.is_drained() {
            let now_ms = now_ms();
            let running = self.ledger.runs();
            let look = self.ledger.look(self.gatherer.next_waiting(now_ms), WAITING_MAX);
            let load = self.load(&look);
            let Look { waiting, slotted, .. } = look;
            let waits = self.messages.map(Messages::open_waits).unwrap_or_default();
            let seen = Seen { running, waiting, slotted, progress, waits, load };
            self.gatherer.gather(now_ms, seen);
        }
        true
    }

    async fn progress(&mut self) -> BTreeMap<Attempt, TaskProgress> {
        let (live, ledger) = (Arc::clone(&self.publisher.live), Arc::clone(self.ledger));
        let running =
            move || -> HashSet<_> { ledger.runs().iter().map(|noted| noted.attempt).collect() };
        spawn_blocking(move || live.progress(running)).await.unwrap_or_default()
    }

    fn load(&self, look: &Look) -> Load {
        Load {
            slots: self.publisher.slots.get() as u64,
            running: look.running,
            slots_used: look.slots_used,
            accepted: look.accepted,
            undelivered: look.undelivered,
            draining: look.draining,
            inbox_full: look.inbox_full,
            troubles: self.publisher.troubles.words(),
        }
    }

    /// Sends what is to be told, as far as there is room.
    async fn send_all(&mut self) {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            // The next complete message says it.
            self.output.clear();
            while self.gatherer.next().is_some() {}
            self.gatherer.ask_complete();
            return;
        }
        while self.open.len() < OPEN_MAX && self.open_bytes < OPEN_BYTES {
            let mut events = Events {
                endpoint_id: self.ledger.endpoint_id,
                state_id: self.ledger.state_id,
                instance: self.instance.id(),
                at_ms: now_ms(),
                complete: false,
                load: None,
                attempts: Vec::new(),
                output: std::mem::take(&mut self.output),
            };
            if events.output.is_empty() {
                let Some(told) = self.gatherer.next() else { return };
                events.complete = told.complete;
                events.load = Some(told.load);
                events.attempts = told.attempts;
            }
            if let Err(fault) = self.send(&events).await {
                self.failed(&fault);
                return;
            }
        }
    }

    async fn send(&mut self, events: &Events) -> Result<(), Fault> {
        let message = Message {
            message_id: Some(Uuid::new_v4().to_string()),
            kind: Some(EVENTS_TYPE.to_owned()),
            timestamp_ms: Some(events.at_ms),
            body: wire::encode_events(events),
            ..Message::default()
        };
        let destination = Destination {
            exchange: topology::EVENTS_EXCHANGE.to_owned(),
            routing_key: topology::events_key(self.ledger.endpoint_id),
        };
        let size = message.body.len();
        let outlet = match &mut self.outlet {
            Some(outlet) => outlet,
            None => self.outlet.insert(self.connection.outlet().await?),
        };
        let ticket = outlet.publish(&destination, message).await?;
        self.open.insert(ticket, size);
        self.open_bytes += size;
        Ok(())
    }

    fn settle(&mut self, settled: Result<Vec<(Ticket, Settlement)>, Fault>) {
        let settled = match settled {
            Ok(settled) => settled,
            Err(fault) => return self.failed(&fault),
        };
        for (ticket, settlement) in settled {
            self.open_bytes -= self.open.remove(&ticket).unwrap_or(0);
            match settlement {
                Settlement::Confirmed => {}
                Settlement::Returned(why) => self.publisher.lost(&why),
                Settlement::Refused => self.publisher.lost("the queue of events is full"),
                Settlement::TooLarge(_) => self.publisher.lost("the broker takes no such size"),
                Settlement::Doubt => self.publisher.lost("the broker did not answer"),
            }
        }
    }

    /// Pauses after a fault of the outlet. If the connection is lost, the session ends by it.
    fn failed(&mut self, fault: &Fault) {
        self.publisher.lost(&fault.to_string());
        (self.outlet, self.open_bytes) = (None, 0);
        self.open.clear();
        self.output.clear();
        self.gatherer.ask_complete();
        self.paused_until = Some(Instant::now() + PAUSE);
    }
}

#[cfg(test)]
mod tests;
