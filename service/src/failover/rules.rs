//! Who is active, who is given up, who is to be called, closed and asked. Pure:
//! no clock, no IO; `design/0008-failover.md` says why.

use clutch_common::id::StateId;
use clutch_common::wire::{Presence, Role};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often whoever holds the lease is called while a standby waits for it.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// A standby waits if it was heard within this time. It speaks every 10 s.
const STANDBY_LASTS: Duration = Duration::from_secs(30);
/// How long the active instance may be silent while it is called.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it had for an answer, at the least.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The time between two attempts to close a connection of an endpoint.
const CLOSE_EVERY: Duration = Duration::from_secs(5);

/// What is known of one state of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The state.
    pub(crate) id: StateId,
    /// The last instance on it that was active: the one that its connections
    /// are named for that may hold the lease. Before, the first one.
    pub(crate) instance: Uuid,
    /// What that said it is.
    pub(crate) role: Role,
    /// Whether it may have accepted tasks that are not answered yet.
    pub(crate) holds: bool,
    /// When it became active last; never, if it has not been.
    pub(crate) active_since_ms: Option<u64>,
    /// When another became active after it.
    pub(crate) superseded_at_ms: Option<u64>,
    /// When it was given up.
    pub(crate) given_up_at_ms: Option<u64>,
}

impl State {
    pub(super) fn is_active(&self) -> bool {
        self.role == Role::Active && self.superseded_at_ms.is_none()
    }

    /// Whether what is unanswered may be there still.
    pub(crate) fn counts(&self) -> bool {
        self.holds && self.given_up_at_ms.is_none()
    }
}

/// The state whose instance drains the task queue, as far as is known.
pub(crate) fn active(states: &[State]) -> Option<&State> {
    states.iter().find(|state| state.is_active())
}

/// The state whose instance has, or had last, the lease: it may hold it still,
/// on a connection that it has lost itself.
pub(crate) fn holder(states: &[State]) -> Option<&State> {
    let last = |state: &&State| state.active_since_ms.is_some() && state.superseded_at_ms.is_none();
    states.iter().find(last)
}

/// The state that can tell which attempts are lost: what it does not know is
/// nowhere. There is none while another one may have them.
pub(crate) fn to_ask(states: &[State]) -> Option<&State> {
    active(states).filter(|_| !misses_one(states))
}

/// Whether tasks may be with another state than the active one. It is given up
/// when it stays silent.
pub(crate) fn misses_one(states: &[State]) -> bool {
    active(states)
        .is_some_and(|active| states.iter().any(|state| state.id != active.id && state.counts()))
}

/// What a presence brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Another instance is active than was before, or one is where none was.
    pub(crate) took_over: bool,
    /// States that are given up now.
    pub(crate) given_up: Vec<StateId>,
}

/// Takes in what an instance says of itself.
pub(crate) fn hear(states: &mut Vec<State>, presence: &Presence, now_ms: u64) -> News {
    let before = active(states).map(|state| (state.id, state.instance));
    let known = states.iter().position(|state| state.id == presence.state_id);
    let index = known.unwrap_or(states.len());
    if known.is_none() {
        states.push(State {
            id: presence.state_id,
            instance: presence.instance,
            role: presence.role,
            holds: false,
            active_since_ms: None,
            superseded_at_ms: None,
            given_up_at_ms: None,
        });
    }
    let Some(state) = states.get_mut(index) else { return News::default() };
    // What was said on a connection before may be read late: that it had nothing is
    // not so any more.
    if presence.role == Role::Standby && presence.is_from_before(state.instance) {
        return News::default();
    }
    if presence.role == Role::Active {
        state.instance = presence.instance;
    }
    state.role = presence.role;
    state.given_up_at_ms = None;
    state.holds = match presence.role {
        Role::Active => true,
        Role::Standby => presence.pending > 0,
    };
    if presence.role == Role::Standby {
        return News::default();
    }
    let now_active = (presence.state_id, presence.instance);
    if before == Some(now_active) {
        return News::default();
    }
    // One that comes with a disk of its own and waits for nobody replaces what
    // was: its disk is gone. One that was active before takes over again, unless a
    // person says otherwise.
    let is_new = state.active_since_ms.is_none() && !presence.standby;
    let replaces = is_new || presence.replaces;
    state.active_since_ms = Some(now_ms);
    state.superseded_at_ms = None;
    let mut given_up = Vec::new();
    for other in states.iter_mut().filter(|other| other.id != presence.state_id) {
        other.superseded_at_ms.get_or_insert(now_ms);
        if replaces && other.counts() {
            other.given_up_at_ms = Some(now_ms);
            given_up.push(other.id);
        }
    }
    News { took_over: true, given_up }
}

/// When an endpoint's instances were heard and called, in this session.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// When the session began to listen.
    since: Instant,
    /// All that was sent to the service until then has been read.
    read_up_to: Instant,
    called: Option<Instant>,
    /// The first call that reached whoever holds the lease, of those that came
    /// after the last word of whoever should.
    unanswered: Option<Instant>,
    closed: Option<Instant>,
}

/// When each state was heard last.
pub(crate) type Heard = BTreeMap<StateId, Instant>;

impl Times {
    /// Nothing has been heard or called yet.
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, read_up_to: since, called: None, unanswered: None, closed: None }
    }

    /// All that was sent until then has been read.
    pub(crate) fn read_up_to(&mut self, then: Instant) {
        self.read_up_to = self.read_up_to.max(then);
    }

    /// A call was made at `then`; somebody holds the lease and has got it, or
    /// nobody has (it was returned).
    pub(crate) fn called(
        &mut self,
        then: Instant,
        held: bool,
        holder: Option<&State>,
        heard: &Heard,
    ) {
        self.called = Some(then);
        let heard = holder.and_then(|holder| heard.get(&holder.id)).copied();
        let answered = self.unanswered.is_none_or(|call| heard.is_some_and(|heard| heard >= call));
        if !held {
            self.unanswered = None;
        } else if answered {
            self.unanswered = Some(then);
        }
    }

    /// A connection was closed, or that was tried.
    pub(crate) fn closed(&mut self, then: Instant) {
        self.closed = Some(then);
        self.unanswered = None;
    }

    fn heard(&self, state: &State, heard: &Heard) -> Instant {
        heard.get(&state.id).copied().unwrap_or(self.since).max(self.since)
    }
}

/// What is to be done for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Call whoever holds the lease.
    pub(crate) call: bool,
    /// Close the connection of this instance, which holds the lease and does
    /// not answer.
    pub(crate) close: Option<Uuid>,
    /// Give up these states, which have been silent for too long.
    pub(crate) give_up: Vec<StateId>,
    /// Make sure that what was sent to the service has been read: something
    /// looks silent that may not be.
    pub(crate) read_up: bool,
    /// When to look again, if nothing is heard.
    pub(crate) next: Option<Instant>,
}

impl Plan {
    fn look_at(&mut self, then: Instant) {
        self.next = Some(self.next.map_or(then, |next| next.min(then)));
    }

    /// Whether something is due that was due at `then`. Silence counts only as
    /// far as what was sent has been read.
    fn is_due(&mut self, then: Instant, times: &Times, now: Instant) -> bool {
        if then > now {
            self.look_at(then);
        } else if then > times.read_up_to {
            self.read_up = true;
        }
        then <= times.read_up_to
    }
}

/// What is to be done at `now`.
pub(crate) fn plan(
    states: &[State],
    lost_after: Duration,
    times: &Times,
    heard: &Heard,
    now: Instant,
) -> Plan {
    let mut plan = Plan::default();
    let waiting = states.iter().filter(|state| state.role == Role::Standby);
    let waited = waiting.filter_map(|state| heard.get(&state.id)).max();
    let standby_waits = waited.is_some_and(|at| now < *at + STANDBY_LASTS);
    if standby_waits {
        let due = times.called.map_or(now, |called| called + CALL_EVERY);
        plan.call = due <= now;
        plan.look_at(if plan.call { now + CALL_EVERY } else { due });
    }
    if standby_waits && let Some(holder) = holder(states) {
        let last = times.heard(holder, heard);
        let call = times.unanswered.filter(|call| *call > last);
        let pause = times.closed.map_or(now, |closed| closed + CLOSE_EVERY);
        if pause > now {
            plan.look_at(pause);
        } else if let Some(call) = call
            && plan.is_due((last + SILENCE).max(call + ANSWER_WITHIN), times, now)
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
