//! The broker's seam: what Clutch asks of a message broker, and how one fails.
//!
//! Everything above this file speaks to [`Transport`], [`Connection`],
//! [`Inlet`], [`Outlet`] and [`QueueBrowser`], and does not know which transport it is
//! on.
//! Nothing of a connection outlives it: a [`Tag`] or a [`Ticket`] means
//! nothing on the next one.

pub mod amqp;
mod browser;
mod check;
mod fault;
pub mod filesystem;
pub mod memory;
pub mod ownership;

pub use browser::{DELIVERY_LIMIT, Death, HeldMessage, QueueBrowser, REJECTED};
pub use check::{Check, Report, Verdict};
pub use fault::Fault;

use crate::text::secret;
use crate::topology::Topology;
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How to reach a broker; the terms that the service chose at provisioning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A peer that is silent for two of these is taken for dead. In whole
    /// seconds, at least one; a broker that asks for less gets less.
    pub heartbeat: Duration,
    /// How long a connection may stay blocked by the broker before that counts
    /// as a fault.
    pub blocked_timeout: Duration,
    /// How long connecting (TCP, TLS and the protocol's handshake) may take.
    pub connect_timeout: Duration,
    /// How long the broker may take to answer a request or confirm a message.
    pub confirm_timeout: Duration,
}

impl Terms {
    /// The range of `heartbeat`: AMQP counts whole seconds, in 16 bits.
    pub const HEARTBEAT: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(u16::MAX as u64);
    /// The range of `blocked_timeout`.
    pub const BLOCKED_TIMEOUT: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            blocked_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(20),
            confirm_timeout: Duration::from_secs(30),
        }
    }
}

/// A broker that can be connected to.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Makes the place that topologies are declared in, where that is for us to
    /// do: a folder, not a broker. Idempotent. Returns the option of the URL by
    /// which others make sure that they are in the same place. A place that is new
    /// takes the place of those that were `earlier` there, which are told by the values
    /// of that option: those that were in one of them go on in the new one.
    async fn prepare(&self, earlier: &[String]) -> Result<Option<(&'static str, String)>, Fault> {
        let _ = earlier;
        Ok(None)
    }

    /// Tries whether the broker can be used and keeps what Clutch relies on.
    /// Leaves nothing behind.
    async fn check(&self) -> Vec<Check> {
        vec![match self.connect("clutch/check").await {
            Ok(connection) => {
                connection.close().await;
                Check::passed("the broker takes a connection")
            }
            Err(fault) => Check::faulty("the broker takes a connection", fault),
        }]
    }

    /// Opens a connection. `name` is what an operator sees at the broker.
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault>;

    /// The address, without secrets, for messages to people.
    fn address(&self) -> String;
}

/// One connection. Consuming and publishing use one each: a broker short of
/// memory or disk blocks a publishing connection as a whole, acknowledgements
/// included.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Declares exchanges, queues and bindings. Idempotent.
    async fn declare(&self, topology: &Topology) -> Result<(), Fault>;

    /// Takes the lease and starts consuming.
    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault>;

    /// How many consume a queue, where the link can tell without asking for the lease:
    /// a broker logs each lease that it refuses as an error.
    async fn consumers(&self, _queue: &str) -> Result<Option<u32>, Fault> {
        Ok(None)
    }

    /// How many messages wait in a queue, and whether a consumer drains it that holds this
    /// lease; [`Fault::Missing`] where there is no such queue. Changes nothing. Several may be
    /// asked for at once.
    async fn look(&self, queue: &str, lease: &str) -> Result<QueueSight, Fault> {
        let _ = lease;
        let consumed = self.consumers(queue).await?.map(|consumers| consumers > 0);
        Ok(QueueSight { waiting: self.waiting(queue).await?, consumed })
    }

    /// Opens a way to publish with confirms.
    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault>;

    /// Takes the lease and starts browsing a queue that no consumer drains.
    async fn browse(&self, queue: &str, lease: &str) -> Result<Box<dyn QueueBrowser>, Fault>;

    /// Removes a queue with what it holds, and its bindings; one that is not there is
    /// gone already. It must have no consumer: to hold its lease makes sure of that.
    async fn remove_queue(&self, queue: &str) -> Result<(), Fault>;

    /// How many messages wait in a queue and were not delivered, as far as can be told for
    /// now; [`Fault::Missing`] where there is no such queue. Changes nothing.
    async fn waiting(&self, queue: &str) -> Result<u64, Fault>;

    /// Tries whether tasks could be read and results be published here, and whether the
    /// lease is free, without doing any of it. Says nothing where that cannot be tried.
    async fn rehearse(&self, _inlet: &InletOptions, _results: &Destination) -> Vec<Check> {
        Vec::new()
    }

    /// Closes the connection in order, waiting a moment for the broker. What
    /// was delivered and not settled goes back to its queue.
    async fn close(&self);
}

/// A queue as it is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSight {
    /// How many messages wait in it and were not delivered.
    pub waiting: u64,
    /// Whether it is consumed, as far as can be told.
    pub consumed: Option<bool>,
}

/// How to consume.
#[derive(Clone, Debug)]
pub struct InletOptions {
    /// The queue.
    pub queue: String,
    /// How many unsettled deliveries the broker may have under way.
    pub prefetch: u16,
    /// The lease to hold while consuming; none for a queue that several may
    /// drain at once.
    pub lease: Option<String>,
    /// Whether deliveries are settled in any order, by [`Inlet::acknowledge_one`]. Only then
    /// is it certain that one of them does not come again though an earlier one does.
    pub one_by_one: bool,
}

/// Names a delivery on the connection it came by; they grow from 1 on.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tag(pub u64);

/// A message that arrived and waits to be settled.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its name for settling it.
    pub tag: Tag,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
}

/// A message as both directions see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Unique per message published.
    pub message_id: Option<String>,
    /// The task it is about, where it is about one.
    pub correlation_id: Option<String>,
    /// The kind of its content ([`crate::wire::TASKS_TYPE`] …).
    pub kind: Option<String>,
    /// When it was made, in milliseconds since the Unix epoch (AMQP keeps
    /// seconds).
    pub timestamp_ms: Option<u64>,
    /// The envelope.
    pub body: Vec<u8>,
    /// The routing key it was published with to an exchange; nothing where it was put
    /// into its queue by the queue's name, and not set by the publisher. The
    /// transport says so: a broker may allow each user keys of its own.
    pub routing_key: Option<String>,
    /// Why it is a dead letter, the last time first; nothing for any other
    /// message. The broker says so: what is published with some has none.
    pub deaths: Vec<Death>,
    /// The damage, where it is not what was published, or where it stands
    /// for messages that are missing: then nothing else in it counts. The transport
    /// says so: what is published with some has none.
    pub damage: Option<String>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The exchange; empty for the default one, which routes by queue name.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

impl Destination {
    /// The [`Message::routing_key`] of a message that goes there.
    fn key_at_an_exchange(&self) -> Option<String> {
        (!self.exchange.is_empty()).then(|| self.routing_key.clone())
    }
}

/// The consuming end of a connection.
#[async_trait]
pub trait Inlet: Send {
    /// Waits for a delivery, and takes up to `max` (at least one) that are
    /// there. Cancelling the wait loses nothing. After a fault, every delivery
    /// that is not settled is the broker's again, to be delivered anew. One with
    /// [`Message::damage`] is to be refused once what was in it is answered for.
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault>;

    /// Waits until the link is lost, for a caller that does not want to receive for
    /// now. Cancelling the wait loses nothing.
    async fn lost(&mut self) -> Fault;

    /// Acknowledges every unsettled delivery up to and including `up_to`; there
    /// may be none.
    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault>;

    /// Acknowledges one delivery, and leaves those before it unsettled. One that is settled
    /// already stays as it is. On an inlet with a lease, a transport may deliver it again
    /// with an earlier one that is not settled.
    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault>;

    /// Refuses one delivery: the broker moves it to the dead-letter queue. One
    /// that is settled already stays as it is.
    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault>;

    /// Returns once what was acknowledged before is off the queue for good:
    /// it is not delivered again. After a fault that is not certain.
    /// A transport on which an acknowledgement is certain when it returns has
    /// nothing to wait for.
    async fn secured(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// The calls: what is published to the default exchange by the name of the
    /// lease that this inlet holds. Each is settled by being taken, and gone with
    /// the lease; a fault says that the lease is lost. To be asked for once.
    /// Nothing ever comes where there is no lease, or on a transport with leases that
    /// need no asking after: the holder's death is noticed at once there.
    fn calls(&mut self) -> Calls {
        stream::pending().boxed()
    }
}

/// The messages to the holder of a lease; it may be waited for beside the
/// deliveries. Cancelling the wait loses nothing.
pub type Calls = BoxStream<'static, Result<Message, Fault>>;

/// Names a published message until it is settled; they grow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// The outcome of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The broker has it, durably, in at least one queue.
    Confirmed,
    /// No queue takes it. The reason is the broker's.
    Returned(String),
    /// The broker refused it (a full queue that rejects publishing).
    Refused,
    /// The broker takes no message of more than so many bytes, and never will take
    /// this one.
    TooLarge(usize),
    /// It may or may not have arrived: publish it again.
    Doubt,
}

/// The publishing end of a connection. Every message is persistent and
/// mandatory.
#[async_trait]
pub trait Outlet: Send {
    /// Sends a message, without waiting for the broker; it is settled later, by
    /// [`Outlet::settled`]. The caller bounds what is open; a folder takes 4,096 messages. A body larger
    /// than [`crate::wire::MAX_BODY`] is a [`Fault::Protocol`], and not sent.
    async fn publish(
        &mut self,
        destination: &Destination,
        message: Message,
    ) -> Result<Ticket, Fault>;

    /// Waits until at least one published message is settled and returns all
    /// that are; when none is open, waits for a fault. Cancelling the wait loses
    /// nothing. A message that is the oldest open one for longer than
    /// [`Terms::confirm_timeout`], and what is under way may take on a slow link, is a [`Fault::ConfirmTimeout`]; while the
    /// broker blocks the connection, [`Terms::blocked_timeout`] counts instead.
    /// After a fault the outlet is no more, and what is open may or may not have
    /// arrived.
    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault>;

    /// How many published messages are not settled.
    fn open(&self) -> usize;

    /// The most bytes of a body that the broker is known to take. It may turn out to
    /// be less, by a [`Settlement::TooLarge`].
    fn limit(&self) -> usize {
        crate::wire::MAX_BODY
    }
}

/// Refuses a message that one broker carries and the next does not, before it is
/// sent: the limits of brokers differ, and one over the limit costs the channel.
fn fits(message: &Message) -> Result<(), Fault> {
    let size = message.body.len();
    if size <= crate::wire::MAX_BODY {
        return Ok(());
    }
    Err(Fault::Protocol(format!(
        "the message has {size} bytes, more than the limit of {}: pass large data by file",
        crate::wire::MAX_BODY
    )))
}

/// A broker URL that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidUrl {
    /// It does not parse.
    #[error(
        "the broker URL cannot be read: {0}; expected something like \
         amqp://user:password@host:5672/vhost or file:///folder"
    )]
    Unreadable(String),
    /// Where the password, or the path, ends is not certain.
    #[error(
        "the broker URL cannot be read: in a user, a password, a vhost or a path, the characters \
         : / ? # [ ] @ % have to be written as a percent sign and their code, such as %40 for @, \
         %2F for / and %23 for #"
    )]
    Unescaped,
    /// An option that is not known, or has no such value.
    #[error("the broker URL has a wrong option: {0}")]
    Option(String),
    /// No transport has that scheme.
    #[error("the broker URL has the scheme '{0}'; expected amqp, amqps or file")]
    Scheme(String),
    /// The broker is to be reached by several processes, and lives in one.
    #[error(
        "the broker URL is '{0}', a broker that lives in one process and that no other one \
         reaches; expected amqp, amqps or file"
    )]
    OneProcess(String),
}

/// Chooses the transport by the URL's scheme.
///
/// # Errors
/// When the URL does not parse or no transport has its scheme. The error never
/// holds the URL's password.
pub fn transport(url: &str, terms: &Terms) -> Result<std::sync::Arc<dyn Transport>, InvalidUrl> {
    let parsed = url::Url::parse(url).map_err(|error| unparsed(url, error))?;
    if is_ambiguous(url, &parsed) {
        return Err(InvalidUrl::Unescaped);
    }
    match parsed.scheme() {
        "amqp" | "amqps" => Ok(std::sync::Arc::new(amqp::Amqp::new(parsed, terms.clone())?)),
        // The parser would take a relative path for one below the root.
        "file" if !url.get("file:".len()..).is_some_and(|path| path.starts_with('/')) => Err(
            InvalidUrl::Unreadable("its path is not absolute; a folder is file:///path".to_owned()),
        ),
        "file" => Ok(std::sync::Arc::new(filesystem::Filesystem::new(&parsed, terms.clone())?)),
        "memory" => Ok(std::sync::Arc::new(memory::Memory::new(&parsed)?)),
        other => Err(InvalidUrl::Scheme(other.to_owned())),
    }
}

/// Why a URL cannot be read. A password that lacks its escapes is taken for a port, and
/// the parser's words would not help.
fn unparsed(url: &str, error: url::ParseError) -> InvalidUrl {
    if authority(url).is_some_and(|(_, rest)| rest.contains('@')) {
        return InvalidUrl::Unescaped;
    }
    InvalidUrl::Unreadable(error.to_string())
}

/// Whether the parser may have cut a password or a path short: a fragment means
/// nothing here, and an `@` after the host is most likely that of the password's end.
fn is_ambiguous(url: &str, parsed: &url::Url) -> bool {
    let is_amqp = matches!(parsed.scheme(), "amqp" | "amqps");
    (parsed.fragment().is_some() && (is_amqp || parsed.scheme() == "file"))
        || (is_amqp && authority(url).is_some_and(|(_, rest)| rest.contains('@')))
}

/// A URL's user, password, host and port; and what comes after them.
fn authority(url: &str) -> Option<(&str, &str)> {
    let (_, after) = url.split_once("://")?;
    Some(after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len())))
}

/// Tries a broker, and tells with each check which broker is meant and, by
/// `advice`, what a person may do about a fault.
pub async fn check(
    transport: &dyn Transport,
    advice: impl Fn(&Fault) -> &'static str,
) -> Vec<Check> {
    let address = transport.address();
    let mut checks = transport.check().await;
    for check in &mut checks {
        check.what = format!("{address}: {}", check.what);
        if let Some(more) = check.fault.as_ref().map(&advice) {
            check.add(more);
        }
    }
    checks
}

/// Chooses the transport to a broker that several processes are to reach.
///
/// # Errors
/// As [`transport`], and when the broker would live in this process alone.
pub fn shared_transport(
    url: &str,
    terms: &Terms,
) -> Result<std::sync::Arc<dyn Transport>, InvalidUrl> {
    if url::Url::parse(url).is_ok_and(|url| url.scheme() == "memory") {
        return Err(InvalidUrl::OneProcess(secret::redacted(url).into_owned()));
    }
    transport(url, terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        transport(url, &Terms::default()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_password_without_its_escapes_is_told_how_to_write_it_and_is_not_shown() {
        for url in [
            "amqp://u:ses/ame@host/v",
            "amqp://u:ses#ame@host/v",
            "amqp://u:ses?ame@host/v",
            "amqp://u:s@ses/ame@host/v",
            "amqp://u:s@ses#ame@host:5672/v",
            "amqp://u:1/ses#ame@host",
            "file:///folder#sesame",
        ] {
            let error = error(url);
            assert!(error.contains("%2F") && error.contains("%23"), "{url}: {error}");
            assert!(!error.contains("ses") && !error.contains("ame@"), "{url}: {error}");
        }
        for url in ["amqp://u:s%40s%2Fa%23@host/v%40", "amqp://u:s@same@host/v", "file:///a@b"] {
            assert_eq!(error(url), "", "{url}");
        }
    }
}
