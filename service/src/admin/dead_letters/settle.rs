//! Puts dead letters back or drops them, one at a time. A letter is removed only
//! after the broker has certainly taken what takes its place: a crash in between
//! leaves both, which does no harm, since tasks and results are known by attempt.

use super::letter::{Letter, Stake};
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::link::{
    Destination, Fault, HeldMessage, Message, Outlet, QueueBrowser, Settlement,
};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::topology;
use clutch_common::wire;
use serde::Serialize;
use uuid::Uuid;

/// How often a message is published while its arrival is in doubt.
const TRIES: usize = 5;
/// How many results are told in one message.
const RESULTS_PER_MESSAGE: usize = 10_000;
/// The reason in the result of a dropped task.
const DROPPED: &str = "its message was dropped from the dead letters";

/// The end of an action on a letter.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "done")]
pub(crate) enum Done {
    /// It is back in its queue.
    Requeued,
    /// It is gone; these tasks end as cancelled.
    Dropped {
        /// The tasks.
        cancelled: Vec<Attempt>,
    },
    /// It is where it was; why.
    Kept {
        /// The reason, in words.
        why: String,
    },
}

fn kept(why: impl Into<String>) -> Done {
    Done::Kept { why: why.into() }
}

/// Puts a letter back into the queue that it came from.
///
/// # Errors
/// A fault of either connection; the letter may be in both places then.
pub(crate) async fn requeue(
    browser: &mut dyn QueueBrowser,
    outlet: &mut dyn Outlet,
    held: HeldMessage,
    letter: &Letter,
) -> Result<Done, Fault> {
    let Some(queue) = &letter.queue else {
        return Ok(kept("it does not say which queue it came from"));
    };
    if let Some(damage) = &held.message.damage {
        return Ok(kept(format!("{damage}; its content was asked for when it was refused")));
    }
    if letter.bytes > wire::MAX_BODY {
        return Ok(kept(format!(
            "it has {} bytes, and no message of more than {} is sent",
            letter.bytes,
            wire::MAX_BODY
        )));
    }
    let to = way_back(queue, held.message.routing_key.as_deref());
    let message = Message { deaths: Vec::new(), ..held.message };
    if let Some(why) = place(outlet, &to, message).await? {
        return Ok(kept(why));
    }
    browser.remove(held.tag).await?;
    Ok(Done::Requeued)
}

/// Where a letter is put back. A message of an endpoint is published with that endpoint's routing
/// key, which proves its sender; every other one goes to its queue by name.
fn way_back(queue: &str, key: Option<&str>) -> Destination {
    match key {
        Some(key) if queue == topology::RESULTS_QUEUE && key.ends_with(".results") => Destination {
            exchange: topology::RESULTS_EXCHANGE.to_owned(),
            routing_key: key.to_owned(),
        },
        _ => Destination { exchange: String::new(), routing_key: queue.to_owned() },
    }
}

/// Drops a letter for good. Results as cancelled are published for its open tasks before. If
/// something would be lost, the letter is dropped only if `yes`.
///
/// # Errors
/// A fault of either connection; the letter may still be there, with its tasks cancelled.
pub(crate) async fn discard(
    browser: &mut dyn QueueBrowser,
    outlet: &mut dyn Outlet,
    held: &HeldMessage,
    letter: &Letter,
    yes: bool,
) -> Result<Done, Fault> {
    let mut cancelled = Vec::new();
    match letter.stake() {
        Stake::Nothing => {}
        Stake::Tasks(Some(endpoint), attempts) => {
            if !yes {
                return Ok(kept(format!(
                    "{} without an outcome would end as cancelled; requeue it, or drop it with --yes",
                    named(&attempts)
                )));
            }
            if let Some(why) = cancel(outlet, endpoint, &attempts).await? {
                return Ok(kept(why));
            }
            cancelled = attempts;
        }
        Stake::Tasks(None, attempts) if !yes => {
            return Ok(kept(format!(
                "{} would have no outcome, since their endpoint is not known; requeue it, or drop \
                 it with --yes",
                named(&attempts)
            )));
        }
        Stake::Results if !yes => {
            return Ok(kept(
                "a result in it may be recorded nowhere else, and its task would have no outcome; \
                 requeue it for a service that can read it, or drop it with --yes",
            ));
        }
        Stake::Tasks(None, _) | Stake::Results => {}
    }
    browser.remove(held.tag).await?;
    Ok(Done::Dropped { cancelled })
}

/// Some tasks, by name as far as they are few.
fn named(attempts: &[Attempt]) -> String {
    match attempts {
        [one] => format!("task {}", one.task_id),
        [first, rest @ ..] => format!("task {} and {} more", first.task_id, rest.len()),
        [] => "nothing".to_owned(),
    }
}

/// Tells the service that these attempts will not run. Where one did, and its
/// result was recorded, that stands.
async fn cancel(
    outlet: &mut dyn Outlet,
    endpoint: EndpointId,
    attempts: &[Attempt],
) -> Result<Option<String>, Fault> {
    let to = Destination {
        exchange: topology::RESULTS_EXCHANGE.to_owned(),
        routing_key: topology::results_key(endpoint),
    };
    for part in attempts.chunks(RESULTS_PER_MESSAGE) {
        let results = part.iter().map(|attempt| {
            let reason = DROPPED.to_owned();
            TaskResult::not_run(*attempt, Outcome::Cancelled, reason, endpoint, now_ms())
        });
        let results: Vec<Vec<u8>> = results.map(|result| wire::encode_result(&result)).collect();
        let message = Message {
            message_id: Some(Uuid::now_v7().to_string()),
            correlation_id: if let [one] = part { Some(one.task_id.to_string()) } else { None },
            kind: Some(wire::RESULTS_TYPE.to_owned()),
            timestamp_ms: Some(now_ms()),
            body: wire::pack_results(endpoint, &results),
            ..Message::default()
        };
        if let Some(why) = place(outlet, &to, message).await? {
            return Ok(Some(format!("its tasks cannot be told to be cancelled: {why}")));
        }
    }
    Ok(None)
}

/// Publishes a message and waits until the broker has it for certain; in words, why
/// it has not.
async fn place(
    outlet: &mut dyn Outlet,
    to: &Destination,
    message: Message,
) -> Result<Option<String>, Fault> {
    let Destination { routing_key: key, .. } = to;
    for _ in 0..TRIES {
        let ticket = outlet.publish(to, message.clone()).await?;
        let settlement = loop {
            let mut settled = outlet.settled().await?.into_iter();
            if let Some((_, settlement)) = settled.find(|(other, _)| *other == ticket) {
                break settlement;
            }
        };
        match settlement {
            Settlement::Confirmed => return Ok(None),
            Settlement::Returned(reason) => {
                return Ok(Some(format!(
                    "no queue takes '{key}' any more ({reason}); provision its endpoint again, or \
                     drop it"
                )));
            }
            Settlement::Refused => {
                return Ok(Some(format!("the queue for '{key}' is full: try again later")));
            }
            Settlement::TooLarge(limit) => {
                return Ok(Some(format!(
                    "the broker takes no message of more than {limit} bytes: raise its \
                     max_message_size, or drop it"
                )));
            }
            Settlement::Doubt => {}
        }
    }
    Ok(Some(format!("the broker does not say whether '{key}' has it: try again")))
}

#[cfg(test)]
mod tests;
