//! Messages between tasks, at the service (`design/0020`): the rules of which task may reach which,
//! the way of a message, and the answer to its sender.
//!
//! The collector hands over what endpoints say ([`Posts`]), the [`Router`] decides by the records
//! and publishes to control queues. `decision` is pure and says what becomes of a request or a
//! verdict, `backlog` bounds what waits for an endpoint that reads nothing, `outcomes` holds the
//! questions for outcomes that are not there yet, `children` records the tasks that tasks submit.
//!
//! Promises: the records alone decide, so that a service which starts again knows as much as
//! before (`kept` messages are recorded for that); the collector acknowledges a message once what follows from it is published, or after
//! [`PATIENCE`], since the endpoint that asks sends further copies; recording results waits for
//! none of this.

mod backlog;
mod children;
mod decision;
mod kept;
mod mail;
mod outbox;
mod outcomes;
mod posts;
mod router;
#[cfg(test)]
mod tests;

pub(crate) use mail::Mail;
pub(crate) use posts::{Incoming, PostSettled, Posts, posts};
pub(crate) use router::{Router, RouterParts};

use clutch_common::task::kinship::MessageRule;
use std::time::Duration;

/// How long a message may wait for the broker's confirm of what follows from it until it counts
/// as done.
const PATIENCE: Duration = Duration::from_secs(5);

/// The rules that a service is started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Which tasks may send to which.
    pub(crate) messages: MessageRule,
    /// The names of endpoints that children of tasks at other ones may go to.
    pub(crate) children_at: Vec<String>,
}
