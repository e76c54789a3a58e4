//! Who of an endpoint's instances is active, who has what, and what is submitted
//! again, as `design/0008-failover.md` has it.
//!
//! `rules` decides; `watch` calls, closes and gives up; `recovery` asks and
//! submits again; `ear` is how the collector reaches both. All of it lives and
//! dies with the session, and starts anew from the records.

mod ear;
mod pace;
mod recovery;
pub(crate) mod retention;
pub(crate) mod rules;
mod watch;

pub(crate) use ear::Ear;
pub(crate) use recovery::recover;
pub(crate) use watch::{Closer, watch};

use crate::publishing::placing::place;
use crate::publishing::submitter::{Fate, Job};
use clutch_common::link::{Destination, Message};
use clutch_common::system::clock::now_ms;
use clutch_common::{topology, wire};
use tokio::sync::mpsc;
use uuid::Uuid;

/// A message that whoever reads the results queue takes for a sign that all
/// before it has been read, and that the records are worth a look.
pub(crate) fn mark() -> (Destination, Message, String) {
    let id = Uuid::now_v7().to_string();
    (to_queue(topology::RESULTS_QUEUE.to_owned()), ping(id.clone()), id)
}

fn ping(id: String) -> Message {
    Message {
        message_id: Some(id),
        kind: Some(wire::PING_TYPE.to_owned()),
        timestamp_ms: Some(now_ms()),
        body: wire::encode_ping(),
        ..Message::default()
    }
}

fn to_queue(queue: String) -> Destination {
    Destination { exchange: String::new(), routing_key: queue }
}

/// Has one message published, and waits for the broker's word on it.
async fn place_one(jobs: &mpsc::Sender<Job>, destination: Destination, message: Message) -> Fate {
    let fates = place(jobs, destination, vec![message]).await;
    fates.into_iter().next().unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests;
