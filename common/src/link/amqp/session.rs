//! One AMQP connection while it lives: its health, its channels, and its end.

use super::classify;
use super::sizes::Sizes;
use super::socket::SocketHandle;
use super::stream::Traffic;
use crate::link::{Fault, Terms};
use futures_util::StreamExt as _;
use lapin::Event;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How many channels are opened on one connection, one after another or at once.
/// `RabbitMQ` allows 2,047 at once. Numbers are not used twice: on a channel with the
/// number of one that the broker closed, lapin 4.12 answers with that one's error. A
/// broker may allow fewer.
const CHANNELS: u16 = 2000;

/// How many bytes within a [`Terms::confirm_timeout`] are more than heartbeats.
pub(super) const MOVING: u64 = 4 * 1024;

/// The longest wait for an answer on a connection that moves.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// How long closing in order may take before the socket is cut.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// How long the reason for a connection's end may come after the end itself.
pub(super) const REASON_PATIENCE: Duration = Duration::from_secs(1);

/// The state of a connection.
#[derive(Clone, Debug)]
pub(super) enum Health {
    /// It works, since then.
    Up(Instant),
    /// The broker stopped taking anything from it.
    Blocked {
        /// When it did.
        since: Instant,
        /// Why, in the broker's words.
        reason: String,
    },
    /// It has ended.
    Down(Fault),
}

/// The part that an inlet, an outlet and their connection share. The connection lives
/// until it is closed or the last of them is dropped.
pub(super) struct AmqpSession {
    lapin: lapin::Connection,
    socket: SocketHandle,
    /// The bytes that have moved on it.
    pub(super) traffic: Traffic,
    health: watch::Sender<Health>,
    events: Mutex<JoinSet<()>>,
    /// How many channels there have been.
    pub(super) opened: AtomicU16,
    /// The terms it was opened with.
    pub(super) terms: Terms,
    /// How large a message the broker takes.
    pub(super) sizes: Arc<Sizes>,
}

impl AmqpSession {
    /// Watches over a connection that lapin has opened.
    pub(super) fn new(
        lapin: lapin::Connection,
        socket: SocketHandle,
        traffic: Traffic,
        terms: Terms,
        sizes: Arc<Sizes>,
    ) -> Self {
        let (health, _) = watch::channel(Health::Up(Instant::now()));
        // lapin hands each event to one listener only, so there is one, which
        // tells the others.
        let (mut events, status) = (lapin.events_listener(), lapin.status().clone());
        let teller = health.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                if let Event::ConnectionBlocked(reason) = event {
                    tell(&teller, Health::Blocked { since: Instant::now(), reason });
                } else if let Event::ConnectionUnblocked = event {
                    tell(&teller, Health::Up(Instant::now()));
                } else if let Event::Error(error) = event
                    // The same event tells of a channel's end.
                    && !status.connected()
                {
                    tell(&teller, Health::Down(classify::established(&error)));
                    return;
                }
            }
        });
        let (events, opened) = (Mutex::new(tasks), AtomicU16::new(0));
        Self { lapin, socket, traffic, health, events, opened, terms, sizes }
    }

    /// Watches the connection's health.
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The fault that ended the connection, if one has.
    pub(super) fn alive(&self) -> Result<(), Fault> {
        match &*self.health.borrow() {
            Health::Down(fault) => Err(fault.clone()),
            Health::Up(_) | Health::Blocked { .. } => Ok(()),
        }
    }

    /// How many channels there may be, one after another.
    pub(super) fn channels(&self) -> u16 {
        CHANNELS.min(self.lapin.configuration().channel_max())
    }

    /// The limits agreed on with the broker, in words.
    pub(super) fn agreed(&self) -> String {
        let agreed = self.lapin.configuration();
        format!(
            "heartbeats of {} s, frames of {} bytes, {} channels a connection",
            agreed.heartbeat(),
            agreed.frame_max(),
            agreed.channel_max()
        )
    }

    /// Opens a channel, at most [`AmqpSession::channels`] over the connection's lifetime.
    pub(super) async fn channel(&self) -> Result<lapin::Channel, Fault> {
        let (opened, most) = (self.opened.fetch_add(1, Ordering::Relaxed), self.channels());
        if opened >= most {
            self.opened.store(most, Ordering::Relaxed);
            return Err(Fault::Closed("its channels are used up".to_owned()));
        }
        self.answer(self.lapin.create_channel()).await
    }

    /// Waits for the broker's answer to a request, as [`AmqpSession::while_moving`] does.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Fault> {
        match self.while_moving(request).await? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Waits for something of the broker's while anything moves on the connection, as it
    /// may come behind large messages; else, no longer than [`Terms::confirm_timeout`].
    pub(super) async fn while_moving<T>(
        &self,
        awaited: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let (mut awaited, patience) = (pin!(awaited), self.terms.confirm_timeout);
        let until = Instant::now() + LONGEST.max(patience);
        loop {
            let before = self.traffic.moved();
            if let Ok(came) = timeout(patience, awaited.as_mut()).await {
                return Ok(came);
            }
            if self.traffic.moved() - before < MOVING || Instant::now() >= until {
                return Err(Fault::ConfirmTimeout(patience));
            }
        }
    }

    /// The fault behind an error. An error that only says that the connection
    /// is gone is explained by what ended the connection.
    pub(super) async fn explain(&self, error: &lapin::Error) -> Fault {
        if classify::is_aftermath(error) && !self.lapin.status().connected() {
            let mut health = self.watch();
            let down = health.wait_for(|health| matches!(health, Health::Down(_)));
            if let Ok(Ok(health)) = timeout(REASON_PATIENCE, down).await
                && let Health::Down(fault) = &*health
            {
                return fault.clone();
            }
        }
        classify::established(error)
    }

    /// Closes the connection in order, or cuts it.
    pub(super) async fn close(&self) {
        tell(&self.health, Health::Down(Fault::Closed("it was closed on this side".to_owned())));
        let mut events =
            std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::select! {
            closed = timeout(CLOSE_PATIENCE, self.lapin.close(200, "OK".into())) => match closed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the connection had ended before"),
                Err(_) => tracing::debug!("the broker did not answer that the connection is closed"),
            },
            // lapin may leave a close unanswered when the connection dies then.
            Some(_) = events.join_next() => tracing::debug!("the connection ended meanwhile"),
        }
        self.socket.cut();
        events.shutdown().await;
    }
}

impl Drop for AmqpSession {
    /// Cuts the socket: a drop cannot wait for the broker.
    fn drop(&mut self) {
        self.socket.cut();
    }
}

/// Changes the health, except that what is down stays down, for its first
/// reason.
fn tell(health: &watch::Sender<Health>, news: Health) {
    health.send_if_modified(|health| {
        let alive = !matches!(health, Health::Down(_));
        if alive {
            *health = news;
        }
        alive
    });
}
