//! The steering of endpoints: the numbers of the messages that steer one, and whether it is
//! to drain (`design/0017`).
//!
//! Touches the database only. Promises: the numbers of an endpoint only grow; what was
//! recorded is to be sent until the broker is recorded to have it.

use super::engine::{Columns, Db, FromRow, values};
use super::{Result, Store};
use clutch_common::id::EndpointId;
use clutch_common::wire::{Drain, Resume, Steering};

/// Whether an endpoint is to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainStanding {
    /// The number of the last drain or resume; 0 if there was none.
    pub(crate) number: u64,
    /// Whether it is to drain.
    pub(crate) draining: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub(crate) since_ms: Option<u64>,
    /// The end of the patience with tasks that run.
    pub(crate) deadline_ms: Option<u64>,
    /// Whether the broker has the message that says so.
    pub(crate) confirmed: bool,
}

impl DrainStanding {
    /// The message that says so to an endpoint.
    pub(crate) fn message(&self, endpoint: EndpointId) -> PendingDrain {
        let Self { number, deadline_ms, .. } = *self;
        let steering = if self.draining {
            Steering::Drain(Drain { number, deadline_ms })
        } else {
            Steering::Resume(Resume { number })
        };
        PendingDrain { endpoint, number, steering }
    }
}

impl FromRow for DrainStanding {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            number: columns.next()?,
            draining: columns.next()?,
            since_ms: columns.next()?,
            deadline_ms: columns.next()?,
            confirmed: columns.next()?,
        })
    }
}

/// A change that a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainChange {
    /// Start no more tasks, and stop those that run at a time, if one is given.
    Drain {
        /// The end of the patience with tasks that run.
        deadline_ms: Option<u64>,
    },
    /// Start tasks again.
    Resume,
}

/// A drain or a resume that the broker is not known to have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PendingDrain {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// Its number.
    pub(crate) number: u64,
    /// The message.
    pub(crate) steering: Steering,
}

/// The columns of a [`DrainStanding`], in its order.
pub(super) const STANDING: &str =
    "drain_number, draining, drain_since_ms, drain_deadline_ms, drain_confirmed FROM endpoints ";

impl Store {
    /// Records that an endpoint is to drain, or to start tasks again. Returns what holds from
    /// then on, and whether that is a change; nothing if the endpoint is not known.
    pub(crate) async fn change_drain(
        &self,
        id: EndpointId,
        change: DrainChange,
        now_ms: u64,
    ) -> Result<Option<(DrainStanding, bool)>> {
        self.write("recording whether the endpoint drains", move |write| {
            let Some(before) = standing(write.db, id)? else { return Ok(None) };
            let (draining, deadline_ms) = match change {
                DrainChange::Drain { deadline_ms } => (true, deadline_ms),
                DrainChange::Resume => (false, None),
            };
            if (before.draining, before.deadline_ms) == (draining, deadline_ms) {
                return Ok(Some((before, false)));
            }
            let number = next_number(write.db, id)?;
            let kept = before.since_ms.filter(|_| before.draining);
            let since_ms = draining.then(|| kept.unwrap_or(now_ms));
            let update = "UPDATE endpoints SET drain_number = ?, draining = ?, \
                 drain_since_ms = ?, drain_deadline_ms = ?, drain_confirmed = 0 WHERE id = ?";
            write.db.run(update, values![number, draining, since_ms, deadline_ms, id])?;
            let after = DrainStanding { number, draining, since_ms, deadline_ms, confirmed: false };
            Ok(Some((after, true)))
        })
        .await
    }

    /// The drains and resumes that the broker is not known to have.
    pub(crate) async fn pending_drains(&self) -> Result<Vec<PendingDrain>> {
        self.read("looking for endpoints to drain", |db| {
            let find = "SELECT id FROM endpoints WHERE drain_confirmed = 0 ORDER BY id";
            let found: Vec<(EndpointId,)> = db.all(find, &[])?;
            let mut pending = Vec::new();
            for (endpoint,) in found {
                pending.extend(standing(db, endpoint)?.map(|standing| standing.message(endpoint)));
            }
            Ok(pending)
        })
        .await
    }

    /// Records that the broker has the drain or resume of this number, if it is the last one.
    pub(crate) async fn drain_confirmed(&self, id: EndpointId, number: u64) -> Result<()> {
        self.write("recording that the broker has a drain", move |write| {
            let update = "UPDATE endpoints SET drain_confirmed = 1 \
                 WHERE id = ? AND drain_number = ?";
            write.db.run(update, values![id, number]).map(drop)
        })
        .await
    }
}

/// Takes the next number for a message that steers an endpoint.
pub(super) fn next_number(db: &Db<'_>, endpoint: EndpointId) -> Result<u64> {
    let update = "UPDATE endpoints SET steering_number = steering_number + 1 WHERE id = ? \
         RETURNING steering_number";
    let (number,) = db.only(update, values![endpoint])?;
    Ok(number)
}

/// Has the drain that is in force sent again: the queue that had it may have been removed.
pub(super) fn send_again(db: &Db<'_>, endpoint: EndpointId) -> Result<()> {
    let update = "UPDATE endpoints SET drain_confirmed = 0 WHERE id = ? AND draining = 1";
    db.run(update, values![endpoint]).map(drop)
}

fn standing(db: &Db<'_>, id: EndpointId) -> Result<Option<DrainStanding>> {
    db.one(&format!("SELECT {STANDING}WHERE id = ?"), values![id])
}
