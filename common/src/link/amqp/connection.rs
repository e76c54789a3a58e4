//! Opens AMQP connections, and offers what can be done on one.

use super::browser::AmqpBrowser;
use super::classify::{self, Stage};
use super::inlet::AmqpInlet;
use super::outlet::AmqpOutlet;
use super::session::AmqpSession;
use super::short_name::short;
use super::sizes::Sizes;
use super::socket::SocketHandle;
use super::stream::{self, SanitizedStream, Traffic};
use super::{declare, rehearsal};
use crate::link::{
    Check, Connection, Destination, Fault, Inlet, InletOptions, Outlet, QueueBrowser, QueueSight,
    Terms,
};
use crate::topology::Topology;
use async_rs::Tokio;
use async_rs::traits::Reactor as _;
use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::tcp::TLSConfig;
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, ConnectionProperties};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// The largest frame we take, in bytes. lapin keeps 32 of these for each
/// direction of a connection.
pub(super) const FRAME_MAX: u32 = 32 * 1024;

/// How many channels there are on a connection at once, at most.
const NEEDED: u16 = 3;

/// A [`Connection`] to a broker.
pub(super) struct AmqpConnection {
    uri: AMQPUri,
    terms: Terms,
    sizes: Arc<Sizes>,
    name: String,
    session: Mutex<Arc<AmqpSession>>,
    /// The channels to look at queues by, while they are not in use.
    looking: Mutex<Vec<Channel>>,
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

    fn session(&self) -> Arc<AmqpSession> {
        Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn looking(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, or a new one in its place when its channels are used up: a
    /// lease may be asked for without end. As long as anything lives on the old
    /// one, that stays.
    async fn fresh_session(&self) -> Result<Arc<AmqpSession>, Fault> {
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
) -> Result<AmqpSession, Fault> {
    let (socket, traffic) = (SocketHandle::default(), Traffic::default());
    match timeout(terms.connect_timeout, handshake(uri, terms, name, &socket, &traffic)).await {
        Ok(Ok(lapin)) => {
            traffic.agreed(lapin.configuration().frame_max());
            let channels = lapin.configuration().channel_max();
            if channels < NEEDED {
                socket.cut();
                let allowed =
                    format!("it allows {channels} channel a connection, {NEEDED} are needed");
                return Err(Fault::Limited(allowed));
            }
            Ok(AmqpSession::new(lapin, socket, traffic, terms.clone(), Arc::clone(sizes)))
        }
        Ok(Err(error)) => {
            socket.cut();
            Err(classify::connecting(&error, socket.stage()))
        }
        Err(_) => {
            socket.cut();
            let within = humantime::format_duration(terms.connect_timeout);
            Err(Fault::Unreachable(match socket.stage() {
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
    socket: &SocketHandle,
    traffic: &Traffic,
) -> lapin::Result<lapin::Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "clutch".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let (socket, traffic, limit) = (socket.clone(), traffic.clone(), terms.connect_timeout);
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
            socket.attach(stream.get_ref())?;
            let mut stream = AsyncTcpStream::Plain(stream);
            if uri.scheme == AMQPScheme::AMQPS {
                socket.reached(Stage::Tls);
                let tls = stream.into_tls(&uri.authority.host, TLSConfig::default());
                stream = limited(limit, tls).await?;
            }
            socket.reached(Stage::Handshake);
            Ok(AsyncTcpStream::Plain(SanitizedStream::new(stream, traffic.clone())))
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

#[async_trait]
impl Connection for AmqpConnection {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        declare::topology(&self.session(), topology).await
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        Ok(Box::new(AmqpInlet::open(&self.fresh_session().await?, options).await?))
    }

    async fn consumers(&self, queue: &str) -> Result<Option<u32>, Fault> {
        Ok(Some(self.declared(queue).await?.consumer_count()))
    }

    async fn look(&self, queue: &str, _lease: &str) -> Result<QueueSight, Fault> {
        let declared = self.declared(queue).await?;
        let consumed = Some(declared.consumer_count() > 0);
        Ok(QueueSight { waiting: declared.message_count().into(), consumed })
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        Ok(Box::new(AmqpOutlet::open(&self.session()).await?))
    }

    async fn browse(&self, queue: &str, lease: &str) -> Result<Box<dyn QueueBrowser>, Fault> {
        Ok(Box::new(AmqpBrowser::open(&self.session(), queue, lease).await?))
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
    /// The broker's answer to a declaration that changes nothing. Each goes by a channel of
    /// its own, which is kept for the next; the broker closes one if there is no such queue.
    async fn declared(&self, queue: &str) -> Result<lapin::Queue, Fault> {
        let session = self.fresh_session().await?;
        let kept = {
            let mut kept = self.looking();
            kept.retain(|channel| channel.status().connected());
            kept.pop()
        };
        let channel = match kept {
            Some(channel) => channel,
            None => session.channel().await?,
        };
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let looked = channel.queue_declare(short(queue)?, look, FieldTable::default());
        let declared = session.answer(looked).await?;
        self.looking().push(channel);
        Ok(declared)
    }

    /// The limits agreed on with the broker, in words.
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
