//! Reads the control queue of the endpoint, and obeys it.
//!
//! A message is *in force* when the next instance has to obey it as well; it is *held*: obeyed
//! and not acknowledged, so that the broker delivers it again to each new session. A cancel is
//! in force until a mark releases it, a drain until a resume with a higher number.
//!
//! Promises:
//! - [`ControlReader::read_waiting`] returns when each message that was in the queue when the
//!   session began is obeyed, those included that an earlier instance held.
//! - A message is acknowledged only when what it asks for is on disk, and a resume only
//!   when the drains that it ends are off the queue.
//! - A mark releases cancels only once each of them has been read, also where it came before them.
//! - A broker ends a channel on which something is unacknowledged for long, so the inlet is
//!   opened anew every [`REOPEN`] while anything is held; all of it comes again then.
//! - What is held never keeps later messages from coming: the inlet is opened anew with a
//!   larger prefetch before that is used up, up to [`MOST`] messages.

use crate::link::events_request::EventsRequest;
use crate::link::instance::Instance;
use crate::link::session_error::SessionError;
use crate::link::steering::{Orders, Release, Steering};
use crate::messages::Messages;
use crate::pending::CancelCounts;
use crate::pending::drain::{Drained, DrainedBy};
use crate::pending::ledger::Ledger;
use clutch_common::link::{Connection, Delivery, Fault, Inlet, InletOptions, Tag};
use clutch_common::topology;
use clutch_common::wire::{self, Cancel, Drain, Steering as Message};
use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often the inlet is opened anew while anything is held. A broker has 30 minutes of
/// patience.
const REOPEN: Duration = Duration::from_secs(600);
/// How many messages may be under way at first, besides those that wait.
const FIRST: u16 = 128;
/// The most messages that may be under way: what is held, and a few more.
const MOST: u16 = u16::MAX;
/// The most messages that are read at once.
const GROUP: usize = 32;
/// The pause between two looks whether an earlier consumer is gone.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a message may take that is here already.
const MOMENT: Duration = Duration::from_millis(20);
/// After how much silence the queue is asked again whether anything waits.
const SILENCE: Duration = Duration::from_secs(1);
/// After how long another consumer of the queue is told of in the log.
const OTHERS: Duration = Duration::from_secs(10);

/// Messages in force.
#[derive(Debug, Default)]
struct HeldMessages {
    /// Cancels, by their number.
    cancels: BTreeMap<Tag, u64>,
    drains: BTreeMap<Tag, Drain>,
}

impl HeldMessages {
    fn count(&self) -> usize {
        self.cancels.len() + self.drains.len()
    }

    /// The drain that counts, if there is one.
    fn drained(&self) -> Option<Drained> {
        let last = self.drains.values().max_by_key(|drain| drain.number)?;
        Some(Drained { deadline_ms: last.deadline_ms })
    }
}

/// The reader of a control queue, in one session.
pub(crate) struct ControlReader<'a> {
    connection: &'a dyn Connection,
    ledger: &'a Ledger,
    instance: &'a Instance,
    steering: &'a Steering,
    messages: Option<&'a Messages>,
    orders: Orders,
    queue: String,
    /// Nothing while it is being opened anew.
    inlet: Option<Box<dyn Inlet>>,
    prefetch: u16,
    opened: Instant,
    held: HeldMessages,
    /// Whether all that waited when the session began is obeyed.
    caught_up: bool,
}

impl<'a> ControlReader<'a> {
    /// Opens the control queue on the connection that has the lease, and obeys all that waits
    /// in it.
    pub(crate) async fn read_waiting(
        connection: &'a dyn Connection,
        ledger: &'a Ledger,
        instance: &'a Instance,
        steering: &'a Steering,
        messages: Option<&'a Messages>,
    ) -> Result<Self, SessionError> {
        let queue = topology::control_queue(ledger.endpoint_id);
        until_no_consumer(connection, &queue).await?;
        // Nothing else consumes it, so nothing is under way: this is all there is.
        let expected = connection.waiting(&queue).await?;
        let prefetch = u16::try_from(expected).unwrap_or(MOST).saturating_add(FIRST);
        let orders = steering.orders();
        let inlet = open(connection, &queue, prefetch).await?;
        let (opened, held) = (Instant::now(), HeldMessages::default());
        let mut reader = Self {
            connection,
            ledger,
            instance,
            steering,
            messages,
            orders,
            queue,
            inlet: Some(inlet),
            prefetch,
            opened,
            held,
            caught_up: false,
        };
        ledger.forget_cancels();
        reader.catch_up(expected).await?;
        reader.caught_up = true;
        reader.apply_drain();
        Ok(reader)
    }

    /// Reads until `expected` messages have come and nothing more waits or is on its way.
    async fn catch_up(&mut self, mut expected: u64) -> Result<(), SessionError> {
        let mut came = 0;
        loop {
            if self.is_full() {
                match self.grow().await? {
                    Some(all) => (came, expected) = (0, all),
                    None => return Ok(()),
                }
            }
            // What was to come and does not is gone, such as with a queue that was purged.
            let patience = if came < expected { SILENCE } else { MOMENT };
            if let Ok(deliveries) = timeout(patience, self.inlet()?.receive(GROUP)).await {
                let deliveries = deliveries?;
                came += deliveries.len() as u64;
                self.obey_all(deliveries).await?;
                continue;
            }
            let more = self.connection.waiting(&self.queue).await?;
            if more > 0 {
                expected = came + more;
                continue;
            }
            // The broker has sent all of them; an answer on the same way comes after them.
            self.inlet()?.secured().await?;
            match timeout(MOMENT, self.inlet()?.receive(GROUP)).await {
                Ok(deliveries) => self.obey_all(deliveries?).await?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Obeys what comes, and marks. Returns when the session cannot go on.
    pub(crate) async fn run(&mut self) -> SessionError {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    async fn step(&mut self) -> Result<(), SessionError> {
        let (due, any) = (self.opened + REOPEN, self.held.count() > 0);
        let due = async { if any { sleep_until(due).await } else { pending().await } };
        let inlet = self.inlet.as_deref_mut().ok_or_else(closed)?;
        tokio::select! {
            biased;
            order = self.orders.next() => self.release(order).await?,
            deliveries = inlet.receive(GROUP) => self.obey_all(deliveries?).await?,
            () = due => drop(self.reopen().await?),
        }
        if self.is_full() {
            self.grow().await?;
        }
        Ok(())
    }

    async fn obey_all(&mut self, deliveries: Vec<Delivery>) -> Result<(), SessionError> {
        for delivery in deliveries {
            self.obey(delivery).await?;
        }
        Ok(())
    }

    async fn obey(&mut self, delivery: Delivery) -> Result<(), SessionError> {
        let tag = delivery.tag;
        if let Some(damage) = &delivery.message.damage {
            tracing::error!(
                reason = damage,
                "a message of the service is damaged and goes to the dead-letter queue: what it \
                 asked for is not done. Ask for it again"
            );
            return Ok(self.inlet()?.dead_letter(tag).await?);
        }
        match wire::decode_steering(&delivery.message.body) {
            Ok(Message::Cancel(cancel)) => return self.cancel(tag, &cancel).await,
            Ok(Message::Drain(drain)) => {
                self.held.drains.insert(tag, drain);
                self.apply_drain();
                return Ok(());
            }
            Ok(Message::Resume(resume)) => self.resume(resume.number).await?,
            Ok(Message::Follow(follow)) => self.steering.events.send(EventsRequest::Follow(follow)),
            Ok(Message::Report(_)) => self.steering.events.send(EventsRequest::Report),
            // They are accepted after all that waits here, so that a cancel finds them.
            Ok(Message::Urgent(urgent)) => self.steering.offer(urgent.copies),
            Ok(Message::Post(post)) => {
                if let Some(messages) = self.messages {
                    messages.take(post, delivery.redelivered);
                }
            }
            Err(unknown) => self.instance.pass_by(&unknown),
        }
        Ok(self.inlet()?.acknowledge_one(tag).await?)
    }

    async fn cancel(&mut self, tag: Tag, cancel: &Cancel) -> Result<(), SessionError> {
        let (CancelCounts { waiting, running, unknown }, stored) =
            self.ledger.cancel(cancel).await?;
        stored.await?;
        self.held.cancels.insert(tag, cancel.number);
        let (number, attempts) = (cancel.number, cancel.attempts.len());
        tracing::info!(number, attempts, waiting, running, unknown, "cancelled tasks");
        Ok(())
    }

    /// Ends the drains with a lower number. They leave the queue for certain before the resume
    /// does: one that came again alone would never end.
    async fn resume(&mut self, number: u64) -> Result<(), Fault> {
        let over = self.held.drains.extract_if(.., |_, drain| drain.number < number);
        let over: Vec<Tag> = over.map(|(tag, _)| tag).collect();
        if over.is_empty() {
            return Ok(());
        }
        self.settle(over).await?;
        self.apply_drain();
        Ok(())
    }

    fn apply_drain(&self) {
        if self.caught_up {
            self.ledger.drain(DrainedBy::Service, self.held.drained());
            self.instance.request_presence();
        }
    }

    /// Acknowledges the cancels that a mark has released. They were in their queue before the mark
    /// was in its own, and may come later on this one.
    async fn release(&mut self, order: Release) -> Result<(), SessionError> {
        self.catch_up(0).await?;
        let over = self.held.cancels.extract_if(.., |_, number| *number <= order.up_to);
        let over: Vec<Tag> = over.map(|(tag, _)| tag).collect();
        if !over.is_empty() {
            self.settle(over).await?;
        }
        self.ledger.release_cancels(order.up_to);
        self.steering.released(order);
        Ok(())
    }

    async fn settle(&mut self, tags: Vec<Tag>) -> Result<(), Fault> {
        for tag in tags {
            self.inlet()?.acknowledge_one(tag).await?;
        }
        self.inlet()?.secured().await
    }

    fn is_full(&self) -> bool {
        self.held.count() >= usize::from(self.prefetch)
    }

    /// Has more messages be under way. Returns how many come again, or nothing where no more may
    /// be under way.
    async fn grow(&mut self) -> Result<Option<u64>, Fault> {
        if self.prefetch == MOST {
            tracing::error!(
                held = self.held.count(),
                "too many cancels are in force for more messages of the service to be read: they \
                 are released when the tasks before them have been read"
            );
            return Ok(None);
        }
        self.prefetch = self.prefetch.saturating_mul(2);
        Ok(Some(self.reopen().await?))
    }

    /// Opens the inlet anew: what is held comes again, before what comes later. Returns how many
    /// messages wait then.
    async fn reopen(&mut self) -> Result<u64, Fault> {
        let held = self.held.count() as u64;
        self.inlet = None;
        until_no_consumer(self.connection, &self.queue).await?;
        let waiting = until_given_back(self.connection, &self.queue, held).await?;
        let inlet = open(self.connection, &self.queue, self.prefetch).await?;
        tracing::debug!(held = self.held.count(), "opened the control queue anew");
        self.inlet = Some(inlet);
        self.opened = Instant::now();
        self.held = HeldMessages::default();
        Ok(waiting)
    }

    fn inlet(&mut self) -> Result<&mut dyn Inlet, Fault> {
        match &mut self.inlet {
            Some(inlet) => Ok(inlet.as_mut()),
            None => Err(closed()),
        }
    }
}

/// The fault of a reader that was given up while it opened its inlet anew.
fn closed() -> Fault {
    Fault::Closed("the control queue is not open".to_owned())
}

async fn open(
    connection: &dyn Connection,
    queue: &str,
    prefetch: u16,
) -> Result<Box<dyn Inlet>, Fault> {
    let options = InletOptions { queue: queue.to_owned(), prefetch, lease: None, one_by_one: true };
    connection.inlet(&options).await
}

/// Waits until the consumer of an earlier instance is gone, and all that it held is back in the
/// queue.
async fn until_no_consumer(connection: &dyn Connection, queue: &str) -> Result<(), Fault> {
    let (since, mut told) = (Instant::now(), false);
    while let Some(consumers @ 1..) = connection.consumers(queue).await? {
        if since.elapsed() >= OTHERS && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                queue,
                consumers,
                "another program consumes the control queue: no task is read until it ends"
            );
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits a moment until so many messages that were held wait in the queue again; returns how
/// many wait.
async fn until_given_back(
    connection: &dyn Connection,
    queue: &str,
    held: u64,
) -> Result<u64, Fault> {
    let since = Instant::now();
    loop {
        let waiting = connection.waiting(queue).await?;
        if waiting >= held || since.elapsed() >= SILENCE {
            return Ok(waiting);
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
