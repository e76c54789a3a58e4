//! Failover, the service's side of `design/0008-failover.md`: finds out which instance of an
//! endpoint is active and which attempts are lost, and submits these again.
//!
//! [`clutch_common::failover`] decides. `watch` pings the instances that hold leases, has stale
//! connections closed and gives silent states up. `recovery` sends roll calls and publishes the
//! next attempts. `drains` tells endpoints to drain, `cancelling` which tasks to cancel.
//! `liveness` tells what the collector heard. All of it ends with the session, and starts again
//! from the records.

mod cancelling;
mod drains;
mod liveness;
mod recovery;
mod roll_call_pause;
mod watch;

pub(crate) use cancelling::cancel;
pub(crate) use drains::send_drain;
pub(crate) use liveness::{LastHeard, Liveness};
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

/// A message to a lease queue, which the consumer answers with a presence message; in the results
/// queue, it is a [`barrier`].
fn ping() -> Message {
    control_message(wire::PING_TYPE, wire::encode_ping())
}

#[cfg(test)]
mod tests;
