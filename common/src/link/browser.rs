//! Browsing a queue that no consumer drains: dead letters. What a broker says of
//! why a letter is one, and the end of a connection that takes letters one by one.

use super::{Fault, Message, Tag};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// The [`Death::reason`] of a message that its consumer refused.
pub const REJECTED: &str = "rejected";
/// The [`Death::reason`] of a message that came back to its queue too often.
pub const DELIVERY_LIMIT: &str = "delivery_limit";

/// How a message became a dead letter, or did so once again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The queue it was in.
    pub queue: String,
    /// Why, in the broker's word: [`REJECTED`], [`DELIVERY_LIMIT`], `maxlen`,
    /// `expired`.
    pub reason: String,
    /// When it did for the first time, in milliseconds since the Unix epoch (AMQP
    /// keeps seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// How often it did.
    pub count: u64,
}

impl Message {
    /// Notes that it became a dead letter. A queue and a reason that are known
    /// are counted, as `RabbitMQ` does.
    pub(super) fn died(&mut self, queue: &str, reason: &str, at_ms: Option<u64>) {
        let known =
            self.deaths.iter().position(|death| death.queue == queue && death.reason == reason);
        let mut death = known.map(|place| self.deaths.remove(place)).unwrap_or_else(|| Death {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            at_ms,
            count: 0,
        });
        death.count += 1;
        self.deaths.insert(0, death);
    }
}

/// A message that is held while it is looked at.
#[derive(Clone, Debug)]
pub struct HeldMessage {
    /// Its name for removing it.
    pub tag: Tag,
    /// The message.
    pub message: Message,
    /// Everything else that came with it, such as AMQP's headers.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Looks through a queue from its oldest message on, as far as the queue has an
/// order, and takes single messages out of it. The browser holds what it
/// has shown: no other consumer is given it. When the browser is dropped, or its
/// connection ends, what it has not removed is back in the queue, where it was.
#[async_trait]
pub trait QueueBrowser: Send {
    /// The next message that waits; none where no more do.
    async fn next(&mut self) -> Result<Option<HeldMessage>, Fault>;

    /// Removes a message that is held, for good: certain when this returns, and
    /// in doubt after a fault. One that is not held stays as it is.
    async fn remove(&mut self, tag: Tag) -> Result<(), Fault>;

    /// How many messages wait that [`QueueBrowser::next`] has not shown, as far as the
    /// broker can tell for now.
    async fn waiting(&mut self) -> Result<u64, Fault>;
}
