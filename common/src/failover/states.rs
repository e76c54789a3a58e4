//! Which instance of an endpoint is active, and which state folders may still hold tasks.
//! Pure.

use crate::id::StateId;
use crate::wire::{Presence, Role};
use uuid::Uuid;

/// The knowledge of the service of one state folder of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownState {
    /// The state folder's id.
    pub id: StateId,
    /// The instance that was active on it last, or the first one if none was. A connection
    /// that holds the lease is named for it.
    pub instance: Uuid,
    /// The role in its last presence.
    pub role: Role,
    /// Whether it may have accepted tasks that are not answered yet.
    pub holds: bool,
    /// When an instance on it became active last.
    pub active_since_ms: Option<u64>,
    /// When an instance on another state folder became active after it.
    pub superseded_at_ms: Option<u64>,
    /// When it was given up.
    pub given_up_at_ms: Option<u64>,
}

impl KnownState {
    pub(super) fn is_active(&self) -> bool {
        self.role == Role::Active && self.superseded_at_ms.is_none()
    }

    /// Whether unanswered tasks may be on it: it is not given up.
    pub fn counts(&self) -> bool {
        self.holds && self.given_up_at_ms.is_none()
    }
}

/// The state of the instance that takes tasks, as far as the service knows.
pub fn active(states: &[KnownState]) -> Option<&KnownState> {
    states.iter().find(|state| state.is_active())
}

/// The state of the instance that had the lease last. The broker may hold the lease for a
/// connection that the instance itself has lost.
pub fn holder(states: &[KnownState]) -> Option<&KnownState> {
    let last =
        |state: &&KnownState| state.active_since_ms.is_some() && state.superseded_at_ms.is_none();
    states.iter().find(last)
}

/// The state that a roll call is sent to: an attempt that it does not know is lost. None
/// while another state may hold the attempt.
pub fn to_ask(states: &[KnownState]) -> Option<&KnownState> {
    active(states).filter(|_| !misses_one(states))
}

/// Whether another state than the active one may hold tasks. It is given up when it stays
/// silent.
pub fn misses_one(states: &[KnownState]) -> bool {
    active(states)
        .is_some_and(|active| states.iter().any(|state| state.id != active.id && state.counts()))
}

/// The effect of a presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceEffect {
    /// Another instance is active than before, or the first one is.
    pub took_over: bool,
    /// The states that are given up for it.
    pub given_up: Vec<StateId>,
}

/// Brings the states of an endpoint up to date with a presence.
pub fn apply_presence(
    states: &mut Vec<KnownState>,
    presence: &Presence,
    now_ms: u64,
) -> PresenceEffect {
    let before = active(states).map(|state| (state.id, state.instance));
    let known = states.iter().position(|state| state.id == presence.state_id);
    let index = known.unwrap_or(states.len());
    if known.is_none() {
        states.push(KnownState {
            id: presence.state_id,
            instance: presence.instance,
            role: presence.role,
            holds: false,
            active_since_ms: None,
            superseded_at_ms: None,
            given_up_at_ms: None,
        });
    }
    let Some(state) = states.get_mut(index) else { return PresenceEffect::default() };
    // A presence from an earlier connection may be read late: that the state held nothing
    // then says nothing of the present.
    if presence.role == Role::Standby && presence.is_from_before(state.instance) {
        return PresenceEffect::default();
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
        return PresenceEffect::default();
    }
    let now_active = (presence.state_id, presence.instance);
    if before == Some(now_active) {
        return PresenceEffect::default();
    }
    // An instance on a new state folder that does not share the endpoint replaces the
    // others: their disks are gone. One that was active before takes over again, unless a
    // person says that it replaces them.
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
    PresenceEffect { took_over: true, given_up }
}

/// Gives up states of an endpoint, as a person says that they are lost: one state, or each that
/// may hold tasks. An instance that speaks again is not given up any more. Returns the states
/// that are given up.
pub fn declare_lost(
    states: &mut [KnownState],
    which: Option<StateId>,
    now_ms: u64,
) -> Vec<StateId> {
    let chosen = |state: &&mut KnownState| which.is_none_or(|id| state.id == id) && state.counts();
    let give_up = |state: &mut KnownState| {
        state.given_up_at_ms = Some(now_ms);
        if state.active_since_ms.is_some() {
            state.superseded_at_ms.get_or_insert(now_ms);
        }
        state.id
    };
    states.iter_mut().filter(chosen).map(give_up).collect()
}

#[cfg(test)]
pub(super) mod tests;
