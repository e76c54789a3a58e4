//! Publishing: sends messages to the broker, and records its answers for tasks.
//!
//! A [`Publisher`] is the one handle for it, and lives as long as the link. The API publishes
//! new tasks through it, the placer ([`place`]) those that wait, [`publish_placed`] tasks of topics,
//! failover control messages.
//! `packing` puts tasks into messages, `window` publishes messages over the session's
//! connection and waits for their confirms, [`AnswerRecorder`] writes into the records what the
//! broker answered for tasks, [`Placements`] knows what stands in their way, [`PublishRoom`]
//! bounds what the API publishes, [`send_urgent`] sends copies of urgent tasks before others.

mod answers;
mod confirm_batch;
mod packing;
mod placed;
mod placements;
mod placer;
mod publisher;
mod room;
mod urgent;
mod window;

pub(crate) use answers::AnswerRecorder;
pub(crate) use placed::publish_placed;
pub(crate) use placements::{Hold, Placements};
pub(crate) use placer::place;
pub(crate) use publisher::{Outgoing, Publisher};
pub(crate) use room::{PublishRoom, RoomTaken};
pub(crate) use urgent::{UrgentSender, send_urgent};
pub(crate) use window::{PublishError, PublishJob, PublishOutcome, publish};

use clutch_common::link::{Destination, Message};
use clutch_common::system::clock::now_ms;
use uuid::Uuid;

/// A control message: one that carries no tasks. It gets an id of its own.
pub(crate) fn control_message(kind: &str, body: Vec<u8>) -> Message {
    Message {
        message_id: Some(Uuid::now_v7().to_string()),
        kind: Some(kind.to_owned()),
        timestamp_ms: Some(now_ms()),
        body,
        ..Message::default()
    }
}

/// A queue as a destination, by way of the default exchange.
pub(crate) fn to_queue(queue: String) -> Destination {
    Destination { exchange: String::new(), routing_key: queue }
}
