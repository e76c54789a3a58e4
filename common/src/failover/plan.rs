//! Plans what the service does about an endpoint's instances: ping, close, give up.
//! Pure.
//!
//! Silence counts only as far as the service has read its results queue: a presence that
//! waits there unread is no silence.

use super::states::{KnownState, active, holder};
use crate::id::StateId;
use crate::wire::Role;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often the holder of the lease is pinged while a standby waits for it.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a standby counts as waiting after its last presence. It sends one every 10 s.
const STANDBY_LASTS: Duration = Duration::from_secs(30);
/// How long the holder of the lease may be silent while it is pinged.
const SILENCE: Duration = Duration::from_secs(3);
/// The least time that the holder has to answer a ping.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The time between two attempts to close a connection of an endpoint.
const CLOSE_EVERY: Duration = Duration::from_secs(5);

/// When the holder of an endpoint's lease was pinged and disconnected, in this session of
/// the service with the broker.
#[derive(Clone, Debug)]
pub struct PingTimes {
    /// When the session began.
    since: Instant,
    /// The service has read every message that was sent to it until then.
    read_up_to: Instant,
    pinged: Option<Instant>,
    /// The first ping delivered to the holder of the lease since the instance that should
    /// hold it was last heard.
    unanswered: Option<Instant>,
    closed: Option<Instant>,
}

/// When each state was heard last.
pub type Heard = BTreeMap<StateId, Instant>;

impl PingTimes {
    /// A session that begins at `since`: nothing was pinged yet.
    pub fn new(since: Instant) -> Self {
        Self { since, read_up_to: since, pinged: None, unanswered: None, closed: None }
    }

    /// Notes that every message sent until `then` has been read.
    pub fn read_up_to(&mut self, then: Instant) {
        self.read_up_to = self.read_up_to.max(then);
    }

    /// Notes a ping at `then`; `delivered` says whether the lease has a holder. Without one
    /// the broker returns the ping.
    pub fn pinged(
        &mut self,
        then: Instant,
        delivered: bool,
        holder: Option<&KnownState>,
        heard: &Heard,
    ) {
        self.pinged = Some(then);
        let heard = holder.and_then(|holder| heard.get(&holder.id)).copied();
        let answered = self.unanswered.is_none_or(|ping| heard.is_some_and(|heard| heard >= ping));
        if !delivered {
            self.unanswered = None;
        } else if answered {
            self.unanswered = Some(then);
        }
    }

    /// Notes that the holder's connection was closed, or that this was tried.
    pub fn closed(&mut self, then: Instant) {
        self.closed = Some(then);
        self.unanswered = None;
    }

    fn heard(&self, state: &KnownState, heard: &Heard) -> Instant {
        heard.get(&state.id).copied().unwrap_or(self.since).max(self.since)
    }
}

/// The actions due for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ping the holder of the lease.
    pub ping: bool,
    /// Close the connection of this instance, which holds the lease and does not answer.
    pub close: Option<Uuid>,
    /// Give up these states, which have been silent for too long.
    pub give_up: Vec<StateId>,
    /// Read all that was sent to the service: an instance looks silent, and its presence
    /// may be unread.
    pub read_up: bool,
    /// When to plan again, if nothing is heard until then.
    pub next: Option<Instant>,
}

impl Plan {
    fn look_at(&mut self, then: Instant) {
        self.next = Some(self.next.map_or(then, |next| next.min(then)));
    }

    /// Whether what falls due at `then` is due now.
    fn is_due(&mut self, then: Instant, times: &PingTimes, now: Instant) -> bool {
        if then > now {
            self.look_at(then);
        } else if then > times.read_up_to {
            self.read_up = true;
        }
        then <= times.read_up_to
    }
}

/// Says what the service is to do for an endpoint at `now`.
pub fn plan(
    states: &[KnownState],
    lost_after: Duration,
    times: &PingTimes,
    heard: &Heard,
    now: Instant,
) -> Plan {
    let mut plan = Plan::default();
    let waiting = states.iter().filter(|state| state.role == Role::Standby);
    let waited = waiting.filter_map(|state| heard.get(&state.id)).max();
    let standby_waits = waited.is_some_and(|at| now < *at + STANDBY_LASTS);
    if standby_waits {
        let due = times.pinged.map_or(now, |pinged| pinged + PING_EVERY);
        plan.ping = due <= now;
        plan.look_at(if plan.ping { now + PING_EVERY } else { due });
    }
    if standby_waits && let Some(holder) = holder(states) {
        let last = times.heard(holder, heard);
        let ping = times.unanswered.filter(|ping| *ping > last);
        let pause = times.closed.map_or(now, |closed| closed + CLOSE_EVERY);
        if pause > now {
            plan.look_at(pause);
        } else if let Some(ping) = ping
            && plan.is_due((last + SILENCE).max(ping + ANSWER_WITHIN), times, now)
        {
            plan.close = Some(holder.instance);
        }
    }
    let Some(active) = active(states) else { return plan };
    for state in states.iter().filter(|state| state.id != active.id && state.counts()) {
        if plan.is_due(times.heard(state, heard) + lost_after, times, now) {
            plan.give_up.push(state.id);
        }
    }
    plan
}

#[cfg(test)]
mod tests;
