//! Who of an endpoint's instances is active, who has what, and what is submitted
//! again, as `design/0008-failover.md` has it.
//!
//! [`clutch_common::failover`] decides; `watch` calls, closes and gives up; `recovery` asks and
//! submits again; `liveness` is how the collector reaches both. All of it lives and
//! dies with the session, and starts anew from the records.

mod liveness;
mod recovery;
mod roll_call_pause;
mod watch;

pub(crate) use liveness::Liveness;
pub(crate) use recovery::recover;
pub(crate) use watch::{ConnectionCloser, watch};

use crate::publishing::control_message;
use clutch_common::link::Message;
use clutch_common::wire;

/// A message to the results queue. When the service reads it, it has read all that was in
/// the queue before, and looks at its records anew.
pub(crate) fn barrier() -> Message {
    ping()
}

/// A message to a lease queue, whose consumer answers it with a presence message; to the
/// results queue, a [`barrier`].
fn ping() -> Message {
    control_message(wire::PING_TYPE, wire::encode_ping())
}

#[cfg(test)]
mod tests;
