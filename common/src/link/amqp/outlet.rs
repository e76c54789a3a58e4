//! Publishes on a channel of its own, with confirms.
//!
//! Publishing hands a message to lapin and does not wait; the messages on their
//! way are futures, polled by [`Outlet::settled`] when lapin wakes them. One
//! timer runs while messages are open or the connection is blocked, and none
//! otherwise. It gives the oldest open message its confirm timeout from when it
//! became the oldest, and from when the system was last seen to take bytes of it; and the
//! time that what the system may hold back takes on the slowest link that is of use. So a
//! slow link that moves is no fault, and a message that is stuck is one. While the broker
//! blocks the connection, only the blocked timeout counts; when that ends, the confirm
//! timeout starts anew.
//!
//! A message larger than any that the broker has taken goes alone by a channel of its
//! own: if it is too large, the broker closes that channel, and nothing else is in
//! doubt. Others of that kind wait for what becomes of it.

use super::classify;
use super::properties;
use super::session::{AmqpSession, Health, MOVING, REASON_PATIENCE};
use super::short_name::short;
use super::window::{Answer, Return, Window};
use crate::link::{self, Destination, Fault, Message, Outlet, Settlement, Ticket};
use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// The slowest link that messages get through, in bytes per second.
const SLOWEST: u64 = 4 * 1024;
/// How many bytes the system takes of a connection before it sends them, at the most.
const BUFFERED: usize = 4 * 1024 * 1024;

/// An [`Outlet`] to a broker. What it keeps is bounded by the messages that are
/// open.
pub(super) struct AmqpOutlet {
    session: Arc<AmqpSession>,
    channel: Channel,
    health: watch::Receiver<Health>,
    window: Window,
    flights: HashMap<Ticket, Flight>,
    /// How many bytes these have together.
    flying: usize,
    /// How many bytes the connection has sent, about, when all of these are sent.
    mark: u64,
    /// How many it had sent when it was last seen to send, and when that was.
    seen: (u64, Option<Instant>),
    landed: Vec<(Ticket, Answer)>,
    landing: Arc<Landing>,
    end: Option<lapin::Error>,
    probe: Probe,
    /// Messages that wait for the probe.
    unproven: VecDeque<Unproven>,
    /// Messages that need no answer of the broker.
    told: Vec<(Ticket, Settlement)>,
}

/// The channel for one message at a time that is larger than any before.
#[derive(Default)]
struct Probe {
    channel: Option<Channel>,
    opening: Option<BoxFuture<'static, Result<Channel, Fault>>>,
    /// The message, and its size.
    open: Option<(Ticket, usize)>,
}

/// A message that may be too large for the broker.
struct Unproven {
    ticket: Ticket,
    destination: Destination,
    message: Message,
}

/// A message on its way: written, then confirmed.
struct Flight {
    confirmed: Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>,
    size: usize,
    /// How many bytes the connection has sent, about, when this is sent.
    mark: u64,
    beacon: Arc<Beacon>,
}

/// The flights that may have come further, in the order they did.
#[derive(Default)]
struct Landing {
    woken: Mutex<Vec<Ticket>>,
    notify: Notify,
}

/// Wakes one flight.
struct Beacon {
    ticket: Ticket,
    lit: AtomicBool,
    landing: Arc<Landing>,
}

impl Wake for Beacon {
    fn wake(self: Arc<Self>) {
        if !self.lit.swap(true, Ordering::AcqRel) {
            self.landing.lock().push(self.ticket);
            self.landing.notify.notify_one();
        }
    }
}

impl Landing {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Ticket>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn poll(&mut self) -> Poll<lapin::Result<Confirmation>> {
        // Put out before polling: what happens from here on lights it again.
        self.beacon.lit.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.beacon));
        self.confirmed.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl AmqpOutlet {
    /// Opens a channel with confirms.
    pub(super) async fn open(session: &Arc<AmqpSession>) -> Result<Self, Fault> {
        let channel = confirming(session).await?;
        Ok(Self {
            session: Arc::clone(session),
            channel,
            health: session.watch(),
            window: Window::default(),
            flights: HashMap::new(),
            flying: 0,
            mark: 0,
            seen: (session.traffic.sent(), None),
            landed: Vec::new(),
            landing: Arc::default(),
            end: None,
            probe: Probe::default(),
            unproven: VecDeque::new(),
            told: Vec::new(),
        })
    }

    /// Settles everything that is answered.
    ///
    /// The batch is complete in the sense of [`Window::settle`]: lapin resolves
    /// confirms one after another on one thread, and wakes each flight before it
    /// resolves the next. So when a flight is seen resolved, every flight
    /// resolved before it has been woken, and the loop, which ends only when
    /// no flight is woken, has seen it too. (A flight still noted as being written
    /// was woken when it was written, which is before the broker's answer. One
    /// that landed while it was being published is in the batch from the start.)
    fn sweep(&mut self) -> Vec<(Ticket, Settlement)> {
        let mut answers = std::mem::take(&mut self.landed);
        loop {
            let woken = std::mem::take(&mut *self.landing.lock());
            if woken.is_empty() {
                let mut settled = self.window.settle(answers, Instant::now());
                settled.append(&mut self.told);
                return settled;
            }
            for ticket in woken {
                let Some(flight) = self.flights.get_mut(&ticket) else { continue };
                let Poll::Ready(outcome) = flight.poll() else { continue };
                let size = flight.size;
                self.flights.remove(&ticket);
                self.flying -= size;
                match outcome {
                    Ok(confirmation) => {
                        self.proven(ticket);
                        answers.push((ticket, answer(confirmation)));
                    }
                    Err(error) => self.refused(ticket, size, error),
                }
            }
        }
    }

    /// Notes that the broker has taken the message on the probe, if it is that.
    fn proven(&mut self, ticket: Ticket) {
        if let Some((_, size)) = self.probe.open.take_if(|(open, _)| *open == ticket) {
            self.session.sizes.took(size);
        }
    }

    /// Notes an error that a message met: that it is too large, or what ended the
    /// outlet. A message on the probe that is too large ends that, and nothing else.
    fn refused(&mut self, ticket: Ticket, size: usize, error: lapin::Error) {
        let probed = self.probe.open.take_if(|(open, _)| *open == ticket).is_some();
        if let Some(limit) = classify::too_large(&error) {
            let sizes = &self.session.sizes;
            if probed || limit.is_some() {
                sizes.refused(size, limit);
            }
            if size > sizes.limit() {
                self.window.forget(ticket);
                self.told.push((ticket, Settlement::TooLarge(sizes.limit())));
            }
            if probed {
                self.probe.channel = None;
                return;
            }
        }
        self.fail(error);
    }

    /// Sends what waits for the probe, if that is free. Cancelling it loses nothing.
    async fn advance(&mut self) -> Result<(), Fault> {
        while self.probe.open.is_none()
            && let Some(next) = self.unproven.front()
        {
            let size = next.message.body.len();
            let (sizes, proven) = (&self.session.sizes, self.session.sizes.is_proven(size));
            let fits = size <= sizes.limit();
            let channel = if !fits || proven { self.channel.clone() } else { self.probe().await? };
            let Some(next) = self.unproven.pop_front() else { return Ok(()) };
            if !fits {
                self.told.push((next.ticket, Settlement::TooLarge(self.session.sizes.limit())));
                continue;
            }
            if !proven {
                self.probe.open = Some((next.ticket, size));
            }
            self.launch(next, channel).await?;
        }
        Ok(())
    }

    /// The probe's channel, which is opened if there is none.
    async fn probe(&mut self) -> Result<Channel, Fault> {
        if let Some(channel) = &self.probe.channel {
            return Ok(channel.clone());
        }
        let session = &self.session;
        let opening = self.probe.opening.get_or_insert_with(|| {
            let session = Arc::clone(session);
            async move { confirming(&session).await }.boxed()
        });
        let opened = opening.await;
        self.probe.opening = None;
        Ok(self.probe.channel.insert(opened?).clone())
    }

    /// Hands a message to lapin.
    async fn launch(&mut self, one: Unproven, channel: Channel) -> Result<(), Fault> {
        let Unproven { ticket, destination, message } = one;
        let message_id =
            message.message_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let properties = properties::outgoing(&message, &message_id)?;
        let exchange = short(&destination.exchange)?;
        let routing_key = short(&destination.routing_key)?;
        let body = message.body;
        let size = body.len();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let beacon =
            Beacon { ticket, lit: AtomicBool::new(false), landing: Arc::clone(&self.landing) };
        let confirmed = async move {
            let published =
                channel.basic_publish(exchange, routing_key, options, &body, properties).await;
            drop(body);
            published?.await
        };
        let (confirmed, beacon) = (Box::pin(confirmed), Arc::new(beacon));
        self.mark = self.mark.max(self.session.traffic.sent()) + size as u64;
        let mut flight = Flight { confirmed, size, mark: self.mark, beacon };
        // The first poll queues the message with lapin, after those before it.
        match flight.poll() {
            Poll::Pending => {
                self.window.publish(ticket, message_id, Instant::now());
                self.flights.insert(ticket, flight);
                self.flying += size;
                Ok(())
            }
            Poll::Ready(Ok(confirmation)) => {
                self.window.publish(ticket, message_id, Instant::now());
                self.proven(ticket);
                self.landed.push((ticket, answer(confirmation)));
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                self.fail(error);
                Err(self.why().await)
            }
        }
    }

    /// Notes the error that ended this outlet. One that names a reason replaces
    /// one that only tells of its aftermath.
    fn fail(&mut self, error: lapin::Error) {
        if self.end.as_ref().is_none_or(classify::is_aftermath) {
            self.end = Some(error);
        }
    }

    /// The fault for a message that cannot be handed over any more. Where what is
    /// known only says that channel or connection are gone, the messages before it
    /// are told why. (What lapin sends on a channel that the broker has closed
    /// costs the connection, and that says nothing of the first reason.)
    async fn why(&mut self) -> Fault {
        let landing = Arc::clone(&self.landing);
        let told = async {
            loop {
                self.sweep();
                let unsaid = self.end.as_ref().is_some_and(classify::is_aftermath);
                if !unsaid || self.flights.is_empty() {
                    return;
                }
                landing.notify.notified().await;
            }
        };
        // Whether it is told in time or not, what is known by then is the fault.
        timeout(REASON_PATIENCE, told).await.unwrap_or(());
        match self.ended().await {
            Err(fault) => fault,
            Ok(()) => Fault::Closed("the channel is gone".to_owned()),
        }
    }

    /// When waiting becomes a fault, and which.
    fn deadline(&self) -> Option<(Instant, Fault)> {
        let terms = &self.session.terms;
        match &*self.health.borrow() {
            Health::Down(_) => None,
            Health::Blocked { since, reason } => Some((
                *since + terms.blocked_timeout,
                Fault::Blocked { reason: reason.clone(), after: terms.blocked_timeout },
            )),
            Health::Up(since) => {
                let (_, waiting) = self.window.oldest()?;
                let patience = patience(terms.confirm_timeout, self.flying);
                let since = (*since).max(waiting).max(self.seen.1.unwrap_or(waiting));
                Some((since + patience, Fault::ConfirmTimeout(patience)))
            }
        }
    }

    /// Whether the oldest message has come further since that was last asked: then it is
    /// waited for anew.
    fn moves(&mut self) -> bool {
        if !matches!(&*self.health.borrow(), Health::Up(_)) {
            return false;
        }
        let (sent, before) = (self.session.traffic.sent(), self.seen.0);
        let oldest = self.window.oldest().and_then(|(ticket, _)| self.flights.get(&ticket));
        let unsent = oldest.is_some_and(|flight| flight.mark > before);
        let moves = unsent && sent - before >= MOVING;
        if moves {
            self.seen = (sent, Some(Instant::now()));
        }
        moves
    }

    /// The fault that ended this outlet, if one has.
    async fn ended(&mut self) -> Result<(), Fault> {
        if let Some(error) = &self.end {
            return Err(self.session.explain(error).await);
        }
        self.session.alive()
    }
}

/// How long the oldest message may be the oldest, and not come further, while so many
/// bytes are under way.
fn patience(timeout: Duration, bytes: usize) -> Duration {
    timeout + Duration::from_secs(bytes.min(BUFFERED) as u64 / SLOWEST)
}

/// A channel with confirms.
async fn confirming(session: &AmqpSession) -> Result<Channel, Fault> {
    let channel = session.channel().await?;
    session.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// The broker's answer as the window understands it.
fn answer(confirmation: Confirmation) -> Answer {
    let (accepted, returned) = match confirmation {
        Confirmation::Ack(returned) => (true, returned),
        Confirmation::Nack(returned) => (false, returned),
        Confirmation::NotRequested => (false, None),
    };
    let carried = returned.map(|message| Return {
        message_id: message.properties.message_id().as_ref().map(ToString::to_string),
        reason: format!(
            "{} {} (exchange '{}', routing key '{}')",
            message.reply_code, message.reply_text, message.exchange, message.routing_key
        ),
    });
    Answer { accepted, carried }
}

#[async_trait]
impl Outlet for AmqpOutlet {
    async fn publish(
        &mut self,
        destination: &Destination,
        message: Message,
    ) -> Result<Ticket, Fault> {
        if self.ended().await.is_err() {
            return Err(self.why().await);
        }
        link::fits(&message)?;
        let ticket = self.window.ticket();
        let size = message.body.len();
        let one = Unproven { ticket, destination: destination.clone(), message };
        if self.session.sizes.is_proven(size) {
            self.launch(one, self.channel.clone()).await?;
        } else {
            // What cannot be sent on is to be told by this message, and not by a later one.
            properties::outgoing(&one.message, "")?;
            short(&destination.exchange)?;
            short(&destination.routing_key)?;
            self.unproven.push_back(one);
            self.landing.notify.notify_one();
        }
        Ok(ticket)
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        loop {
            let settled = self.sweep();
            if !settled.is_empty() {
                return Ok(settled);
            }
            self.ended().await?;
            self.advance().await?;
            if !self.told.is_empty() {
                continue;
            }
            let landing = Arc::clone(&self.landing);
            match self.deadline() {
                None => tokio::select! {
                    () = landing.notify.notified() => {}
                    _ = self.health.changed() => {}
                },
                Some((deadline, fault)) => tokio::select! {
                    () = landing.notify.notified() => {}
                    _ = self.health.changed() => {}
                    () = sleep_until(deadline) => if !self.moves() {
                        return Err(fault);
                    },
                },
            }
        }
    }

    fn open(&self) -> usize {
        self.window.len() + self.unproven.len() + self.told.len()
    }

    fn limit(&self) -> usize {
        self.session.sizes.limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_link_needs_for_what_is_under_way_is_no_fault() {
        let timeout = Duration::from_secs(30);
        assert_eq!(patience(timeout, 4000), timeout);
        // A megabyte at ten kilobytes a second takes a hundred seconds.
        assert!(patience(timeout, 1_000_000) > Duration::from_secs(100) + timeout);
        assert!(patience(timeout, crate::wire::MAX_BODY) < Duration::from_secs(1200));
    }
}
