//! One AMQP connection: opening it, watching its health, closing it.

use super::classify::{self, Stage};
use super::inlet::AmqpInlet;
use super::outlet::AmqpOutlet;
use super::shelf::AmqpShelf;
use super::sizes::Sizes;
use super::socket::Cord;
use super::stream::{self, Pulse, Sifted};
use super::{LONGEST_NAME, declare, rehearsal};
use crate::link::{
    Check, Connection, Destination, Fault, Inlet, InletOptions, Outlet, Shelf, Terms,
};
use crate::topology::Topology;
use async_rs::Tokio;
use async_rs::traits::Reactor as _;
use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::QueueDeclareOptions;
use lapin::tcp::TLSConfig;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, ConnectionProperties, Event};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The largest frame we take, in bytes. lapin keeps 32 of these for each
/// direction of a connection.
pub(super) const FRAME_MAX: u32 = 32 * 1024;

/// How many channels are opened on one connection, one after another or at once.
/// `RabbitMQ` allows 2,047 at once; and lapin 4.12 answers on a channel whose
/// number was another's, which the broker closed, with that one's error. A broker may
/// allow fewer.
const CHANNELS: u16 = 2000;

/// How many channels there are on a connection at once, at most.
const NEEDED: u16 = 2;

/// How many bytes within a [`Terms::confirm_timeout`] are more than heartbeats.
pub(super) const MOVING: u64 = 4 * 1024;

/// The longest wait for an answer on a connection that moves.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// How long closing in order may take before the socket is cut.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// How long the reason for a connection's end may come after the end itself.
pub(super) const REASON_PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a connection.
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

/// What an inlet, an outlet and their connection share. The connection lives
/// until it is closed or the last of them is dropped.
pub(super) struct Session {
    lapin: lapin::Connection,
    cord: Cord,
    /// What has moved on it.
    pub(super) pulse: Pulse,
    health: watch::Sender<Health>,
    events: Mutex<JoinSet<()>>,
    /// How many channels there have been.
    opened: AtomicU16,
    /// The terms it was opened with.
    pub(super) terms: Terms,
    /// How large a message the broker takes.
    pub(super) sizes: Arc<Sizes>,
}

/// A [`Connection`] to a broker.
pub(super) struct AmqpConnection {
    uri: AMQPUri,
    terms: Terms,
    sizes: Arc<Sizes>,
    name: String,
    session: Mutex<Arc<Session>>,
    /// The channel to look at queues by, while it is not in use.
    looking: Mutex<Option<Channel>>,
}

impl AmqpConnection {
    /// Connects and logs in, within [`Terms::connect_timeout`].
    pub(super) async fn open(
        uri: &AMQPUri,
        terms: &Terms,
        sizes: &Arc<Sizes>,
        name: &str,
    ) -> Result<Self, Fault> {
        let session = Mutex::new(Arc::new(open(uri, terms, sizes, name).await?));
        let (uri, terms, sizes) = (uri.clone(), terms.clone(), Arc::clone(sizes));
        let looking = Mutex::default();
        Ok(Self { uri, terms, sizes, name: name.to_owned(), session, looking })
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn looking(&self) -> MutexGuard<'_, Option<Channel>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, or a new one in its place when its channels are used up: a
    /// lease may be asked for without end. As long as anything lives on the old
    /// one, that stays.
    async fn fresh_session(&self) -> Result<Arc<Session>, Fault> {
        let session = self.session();
        if session.opened.load(Ordering::Relaxed) < session.channels()
            || Arc::strong_count(&session) > 2
        {
            return Ok(session);
        }
        session.close().await;
        let fresh = Arc::new(open(&self.uri, &self.terms, &self.sizes, &self.name).await?);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }
}

async fn open(
    uri: &AMQPUri,
    terms: &Terms,
    sizes: &Arc<Sizes>,
    name: &str,
) -> Result<Session, Fault> {
    let (cord, pulse) = (Cord::default(), Pulse::default());
    match timeout(terms.connect_timeout, handshake(uri, terms, name, &cord, &pulse)).await {
        Ok(Ok(lapin)) => {
            pulse.agreed(lapin.configuration().frame_max());
            let channels = lapin.configuration().channel_max();
            if channels < NEEDED {
                cord.cut();
                let allowed =
                    format!("it allows {channels} channel a connection, {NEEDED} are needed");
                return Err(Fault::Limited(allowed));
            }
            Ok(Session::new(lapin, cord, pulse, terms.clone(), Arc::clone(sizes)))
        }
        Ok(Err(error)) => {
            cord.cut();
            Err(classify::connecting(&error, cord.stage()))
        }
        Err(_) => {
            cord.cut();
            let within = humantime::format_duration(terms.connect_timeout);
            Err(Fault::Unreachable(match cord.stage() {
                Stage::Tcp => format!("no TCP connection within {within}"),
                Stage::Tls => format!("TLS was not agreed on within {within}"),
                Stage::Handshake => format!("it did not answer the AMQP handshake within {within}"),
            }))
        }
    }
}

async fn handshake(
    uri: &AMQPUri,
    terms: &Terms,
    name: &str,
    cord: &Cord,
    pulse: &Pulse,
) -> lapin::Result<lapin::Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "clutch".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let (cord, pulse, limit) = (cord.clone(), pulse.clone(), terms.connect_timeout);
    let tokio = Tokio::current();
    lapin::Connection::connector(
        uri.clone(),
        stream::runtime(),
        // lapin calls this on its own thread, which no timeout of ours ends:
        // it needs one itself.
        async move |uri: AMQPUri, _| {
            let addresses = addresses(&uri, limit).await?;
            let dial = |address| tokio.tcp_connect_addr(address);
            let stream = first_reached(&addresses, limit, dial).await?;
            cord.attach(stream.get_ref())?;
            let mut stream = AsyncTcpStream::Plain(stream);
            if uri.scheme == AMQPScheme::AMQPS {
                cord.reached(Stage::Tls);
                let tls = stream.into_tls(&uri.authority.host, TLSConfig::default());
                stream = limited(limit, tls).await?;
            }
            cord.reached(Stage::Handshake);
            Ok(AsyncTcpStream::Plain(Sifted::new(stream, pulse.clone())))
        },
        properties,
    )
    .await
}

/// The addresses that the host's name stands for.
async fn addresses(uri: &AMQPUri, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let name = (uri.authority.host.as_str(), uri.authority.port);
    Ok(limited(limit, tokio::net::lookup_host(name)).await?.collect())
}

/// Dials one address after another, each with a share of the time, and leaves a share
/// for what follows: an address that swallows packets does not keep the next from
/// being tried.
async fn first_reached<T, D>(
    addresses: &[SocketAddr],
    limit: Duration,
    dial: impl Fn(SocketAddr) -> D,
) -> io::Result<T>
where
    D: Future<Output = io::Result<T>>,
{
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
    for &address in addresses {
        match limited(share, dial(address)).await {
            Ok(reached) => return Ok(reached),
            Err(error) => {
                tracing::debug!(%address, %error, "not reached");
                last = error;
            }
        }
    }
    Err(last)
}

async fn limited<T>(limit: Duration, io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, io).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Session {
    fn new(
        lapin: lapin::Connection,
        cord: Cord,
        pulse: Pulse,
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
        Self { lapin, cord, pulse, health, events, opened, terms, sizes }
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
    fn channels(&self) -> u16 {
        CHANNELS.min(self.lapin.configuration().channel_max())
    }

    /// What was agreed on with the broker, in words.
    pub(super) fn agreed(&self) -> String {
        let agreed = self.lapin.configuration();
        format!(
            "heartbeats of {} s, frames of {} bytes, {} channels a connection",
            agreed.heartbeat(),
            agreed.frame_max(),
            agreed.channel_max()
        )
    }

    /// Opens a channel, of which a connection has so many and no more.
    pub(super) async fn channel(&self) -> Result<lapin::Channel, Fault> {
        let (opened, most) = (self.opened.fetch_add(1, Ordering::Relaxed), self.channels());
        if opened >= most {
            self.opened.store(most, Ordering::Relaxed);
            return Err(Fault::Closed("its channels are used up".to_owned()));
        }
        self.answer(self.lapin.create_channel()).await
    }

    /// Waits for the broker's answer to a request, as [`Session::while_moving`] does.
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
            let before = self.pulse.moved();
            if let Ok(came) = timeout(patience, awaited.as_mut()).await {
                return Ok(came);
            }
            if self.pulse.moved() - before < MOVING || Instant::now() >= until {
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

    async fn close(&self) {
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
        self.cord.cut();
        events.shutdown().await;
    }
}

impl Drop for Session {
    /// Nobody waits here for the broker, so the socket is cut.
    fn drop(&mut self) {
        self.cord.cut();
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

/// A name as AMQP carries it.
pub(super) fn short(name: &str) -> Result<ShortString, Fault> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(40).collect();
        Fault::Protocol(format!(
            "'{start}…' is longer than the {LONGEST_NAME} bytes of an AMQP name"
        ))
    })
}

#[async_trait]
impl Connection for AmqpConnection {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        declare::topology(&self.session(), topology).await
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        Ok(Box::new(AmqpInlet::open(&self.fresh_session().await?, options).await?))
    }

    async fn consumers(&self, queue: &str) -> Result<Option<u32>, Fault> {
        let session = self.fresh_session().await?;
        let kept = self.looking().take().filter(|channel| channel.status().connected());
        let channel = match kept {
            Some(channel) => channel,
            None => session.channel().await?,
        };
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let looked = channel.queue_declare(short(queue)?, look, FieldTable::default());
        let consumers = session.answer(looked).await?.consumer_count();
        *self.looking() = Some(channel);
        Ok(Some(consumers))
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        Ok(Box::new(AmqpOutlet::open(&self.session()).await?))
    }

    async fn shelf(&self, queue: &str, lease: &str) -> Result<Box<dyn Shelf>, Fault> {
        Ok(Box::new(AmqpShelf::open(&self.session(), queue, lease).await?))
    }

    async fn remove_queue(&self, queue: &str) -> Result<(), Fault> {
        declare::remove(&self.session(), queue).await
    }

    async fn waiting(&self, queue: &str) -> Result<u64, Fault> {
        declare::waiting(&self.session(), queue).await
    }

    async fn rehearse(&self, inlet: &InletOptions, results: &Destination) -> Vec<Check> {
        rehearsal::rehearse(&self.session(), inlet, results).await
    }

    async fn close(&self) {
        self.session().close().await;
    }
}

impl AmqpConnection {
    /// What was agreed on with the broker, in words.
    pub(super) fn agreed(&self) -> String {
        self.session().agreed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_swallows_packets_does_not_keep_the_next_from_being_dialled() {
        let addresses: Vec<SocketAddr> =
            ["192.0.2.1:5672".parse().unwrap(), "127.0.0.1:5672".parse().unwrap()].into();
        let limit = Duration::from_millis(300);
        let dial = async |address: SocketAddr| match address.ip().is_loopback() {
            true => Ok(address),
            false => std::future::pending().await,
        };
        let reached = first_reached(&addresses, limit, dial).await.unwrap();
        assert_eq!(reached, addresses[1]);
        let none = first_reached(&addresses[..1], limit, dial).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::TimedOut);
        assert_eq!(
            first_reached(&[], limit, dial).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
