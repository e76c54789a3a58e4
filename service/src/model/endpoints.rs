//! Endpoints as they are shown to people and programs, and the rule that says how one is. Pure.

use clutch_common::failover::{self as rules, KnownState};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::text::counted::counted;
use clutch_common::topology::QueueKind;
use clutch_common::wire::{InstanceDetails, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a standby counts as waiting after it was heard, in milliseconds. It is heard every
/// 10 s.
const STANDBY_LASTS_MS: u64 = 30_000;

/// How an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndpointStatus {
    /// An instance is connected and takes tasks.
    Online,
    /// An instance is connected, and starts no tasks.
    Draining,
    /// No instance takes tasks; one waits to take over.
    Standby,
    /// No instance is connected.
    Offline,
    /// No instance is connected, and every state folder was given up.
    Lost,
    /// No instance was ever heard.
    NeverSeen,
    /// The broker has no queue for it.
    NoQueue,
    /// The broker cannot be asked.
    Unknown,
}

impl EndpointStatus {
    /// Its words for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Draining => "draining",
            Self::Standby => "standby only",
            Self::Offline => "offline",
            Self::Lost => "lost",
            Self::NeverSeen => "never seen",
            Self::NoQueue => "no queue",
            Self::Unknown => "unknown",
        }
    }
}

/// A state folder of an endpoint, and what its instance told last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StateRecord {
    /// The knowledge of it.
    pub(crate) known: KnownState,
    /// When it was heard first, in milliseconds since the Unix epoch.
    pub(crate) known_since_ms: u64,
    /// When it was heard last.
    pub(crate) heard_at_ms: u64,
    /// The details that its instance told.
    pub(crate) told: Told,
}

/// The details that an instance told last, as they are recorded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The session that told it.
    #[serde(default)]
    pub(crate) instance: Uuid,
    /// The tasks that it had accepted, and the results that it had not delivered.
    #[serde(default)]
    pub(crate) pending: u64,
    /// Its details.
    #[serde(default)]
    pub(crate) details: Option<InstanceDetails>,
    /// How far the clock of its host is behind the service's, in milliseconds: at most so
    /// much, as a message takes its time.
    #[serde(default)]
    pub(crate) clock_offset_ms: Option<i64>,
}

/// An endpoint's queue, as the broker tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueueState {
    /// It could not be asked.
    Unknown,
    /// There is none.
    Missing,
    /// How many messages wait in it, and whether an instance is there, as far as can be told.
    There {
        /// How many messages wait in it.
        waiting: u64,
        /// Whether an instance is there.
        consumed: Option<bool>,
    },
}

/// Says how an endpoint is, and since when.
pub(crate) fn status(
    states: &[StateRecord],
    queue: QueueState,
    drains: bool,
    now_ms: u64,
) -> (EndpointStatus, Option<u64>) {
    let consumed = match queue {
        QueueState::Missing => return (EndpointStatus::NoQueue, None),
        QueueState::Unknown => None,
        QueueState::There { consumed, .. } => consumed,
    };
    let last_heard = states.iter().map(|state| state.heard_at_ms).max();
    let active_since = active(states).and_then(|state| state.known.active_since_ms);
    let all_lost = states.iter().all(|state| state.known.given_up_at_ms.is_some());
    let waits = |state: &&StateRecord| {
        state.known.role == Role::Standby && now_ms < state.heard_at_ms + STANDBY_LASTS_MS
    };
    match consumed {
        Some(true) if drains => (EndpointStatus::Draining, active_since),
        Some(true) => (EndpointStatus::Online, active_since),
        _ if states.is_empty() => (EndpointStatus::NeverSeen, None),
        _ if all_lost => (EndpointStatus::Lost, last_heard),
        None => (EndpointStatus::Unknown, None),
        Some(false) if states.iter().any(|state| waits(&state)) => {
            (EndpointStatus::Standby, last_heard)
        }
        Some(false) => (EndpointStatus::Offline, last_heard),
    }
}

/// The state of the instance that takes tasks, or had the lease last.
pub(crate) fn active(states: &[StateRecord]) -> Option<&StateRecord> {
    let known: Vec<KnownState> = states.iter().map(|state| state.known.clone()).collect();
    let id = rules::active(&known).or_else(|| rules::holder(&known))?.id;
    states.iter().find(|state| state.known.id == id)
}

/// An endpoint in a listing. What is not known is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointSummary {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: EndpointId,
    /// How it is.
    pub(crate) status: EndpointStatus,
    /// Since when: of one that is not connected, when it was heard last.
    pub(crate) since_ms: Option<u64>,
    /// The drain that is in force.
    pub(crate) drain: Option<DrainView>,
    /// How many tasks may run at once.
    pub(crate) slots: Option<u64>,
    /// How many run.
    pub(crate) running: Option<u64>,
    /// How many are accepted and wait for a slot.
    pub(crate) accepted: Option<u64>,
    /// How many messages wait in its queue; several tasks may share one.
    pub(crate) queued: Option<u64>,
    /// How many tasks were submitted to it and have no outcome.
    pub(crate) pending: u64,
    /// When the oldest submission with such tasks was recorded.
    pub(crate) oldest_pending_ms: Option<u64>,
    /// The version of the program.
    pub(crate) version: Option<String>,
    /// The host.
    pub(crate) host: Option<String>,
    /// When it was heard last.
    pub(crate) last_heard_ms: Option<u64>,
}

/// A drain that is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DrainView {
    /// Since when.
    pub(crate) since_ms: Option<u64>,
    /// When tasks that still run are stopped.
    pub(crate) deadline_ms: Option<u64>,
    /// Whether the broker has the message that says so.
    pub(crate) confirmed: bool,
}

/// The role of a state folder for its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateRole {
    /// Its instance takes tasks, or did last.
    Active,
    /// Its instance waits to take over.
    Standby,
    /// Another took over from it.
    Superseded,
    /// It was given up.
    Lost,
}

impl StateRole {
    /// The role of a state.
    pub(crate) fn of(known: &KnownState) -> Self {
        match known.role {
            _ if known.given_up_at_ms.is_some() => Self::Lost,
            Role::Standby => Self::Standby,
            Role::Active if known.superseded_at_ms.is_some() => Self::Superseded,
            Role::Active => Self::Active,
        }
    }

    /// Its words for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
        }
    }
}

/// An instance of an endpoint, or the last one on a state folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct InstanceView {
    /// Its state folder.
    pub(crate) state: StateId,
    /// The role of the state folder.
    pub(crate) role: StateRole,
    /// Whether tasks without an outcome may be on it.
    pub(crate) may_hold: bool,
    /// How many tasks and undelivered results it had when it was heard last.
    pub(crate) pending: u64,
    /// When it was heard first.
    pub(crate) known_since_ms: u64,
    /// When it became active last.
    pub(crate) active_since_ms: Option<u64>,
    /// When another took over from it.
    pub(crate) superseded_at_ms: Option<u64>,
    /// When it was given up.
    pub(crate) given_up_at_ms: Option<u64>,
    /// When it was heard last.
    pub(crate) last_heard_ms: u64,
    /// How far its clock is behind the service's, in milliseconds.
    pub(crate) clock_offset_ms: Option<i64>,
    /// The details that it told.
    pub(crate) details: Option<InstanceDetails>,
}

impl From<&StateRecord> for InstanceView {
    fn from(StateRecord { known, known_since_ms, heard_at_ms, told }: &StateRecord) -> Self {
        Self {
            state: known.id,
            role: StateRole::of(known),
            may_hold: known.counts(),
            pending: told.pending,
            known_since_ms: *known_since_ms,
            active_since_ms: known.active_since_ms,
            superseded_at_ms: known.superseded_at_ms,
            given_up_at_ms: known.given_up_at_ms,
            last_heard_ms: *heard_at_ms,
            clock_offset_ms: told.clock_offset_ms,
            details: told.details.clone(),
        }
    }
}

/// Everything known about one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointDetail {
    /// As it is listed.
    #[serde(flatten)]
    pub(crate) summary: EndpointSummary,
    /// How the broker keeps its queue.
    pub(crate) queue: QueueKind,
    /// When it was provisioned.
    pub(crate) created_at_ms: u64,
    /// How long a state that another took over from may be silent.
    pub(crate) lost_after_ms: u64,
    /// Its state folders, the one that was heard last first.
    pub(crate) instances: Vec<InstanceView>,
    /// How many tasks without an outcome are in each state.
    pub(crate) tasks: BTreeMap<String, u64>,
    /// How many tasks the endpoint is asked for, as they may be lost.
    pub(crate) in_doubt: u64,
    /// How many of them it could not be asked for yet.
    pub(crate) unasked: u64,
    /// Its cancellations.
    #[serde(default)]
    pub(crate) cancels: CancelsView,
}

/// The cancellations of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CancelsView {
    /// How many tasks without an outcome are to be cancelled.
    pub(crate) tasks: u64,
    /// How many messages that cancel tasks the broker does not have yet.
    pub(crate) unsent: u64,
    /// How many such messages the broker has, and keeps until all tasks that they name have
    /// been read.
    pub(crate) in_force: u64,
}

/// The report of a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Removed {
    /// The endpoint's id.
    pub(crate) id: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How many tasks ended as cancelled.
    pub(crate) cancelled: u64,
    /// How many tasks ended as interrupted: an instance may have had them.
    pub(crate) interrupted: u64,
    /// How many messages went with its task queue.
    pub(crate) messages: u64,
}

impl Removed {
    /// The report in words for people.
    pub(crate) fn words(&self) -> String {
        let Self { id, name, cancelled, interrupted, messages } = self;
        let mut words = format!("removed {name} ({id})");
        for (count, outcome) in [(*cancelled, "cancelled"), (*interrupted, "interrupted")] {
            if count > 0 {
                let tasks = counted(count, "task");
                words.push_str(&format!("; {tasks} without an outcome ended as {outcome}"));
            }
        }
        if *messages > 0 {
            words.push_str(&format!("; {} went with its queue", counted(*messages, "message")));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn state(role: Role, heard_at_ms: u64, given_up: bool) -> StateRecord {
        let known = KnownState {
            id: StateId::new(),
            instance: Uuid::nil(),
            role,
            holds: true,
            active_since_ms: (role == Role::Active).then_some(7),
            superseded_at_ms: given_up.then_some(8),
            given_up_at_ms: given_up.then_some(8),
        };
        StateRecord { known, known_since_ms: 5, heard_at_ms, told: Told::default() }
    }

    #[test]
    fn how_an_endpoint_is_follows_from_its_queue_and_its_states() {
        let there = |consumed| QueueState::There { waiting: 3, consumed };
        let active = || state(Role::Active, 900, false);
        let lost = || state(Role::Active, 900, true);
        let waits = || state(Role::Standby, NOW - 5, false);
        let silent = || state(Role::Standby, NOW - STANDBY_LASTS_MS, false);
        for (states, queue, drains, expected) in [
            (vec![active()], there(Some(true)), false, (EndpointStatus::Online, Some(7))),
            (vec![active()], there(Some(true)), true, (EndpointStatus::Draining, Some(7))),
            (vec![active()], there(Some(false)), true, (EndpointStatus::Offline, Some(900))),
            (vec![active()], there(Some(false)), false, (EndpointStatus::Offline, Some(900))),
            (
                vec![active(), waits()],
                there(Some(false)),
                false,
                (EndpointStatus::Standby, Some(NOW - 5)),
            ),
            (
                vec![active(), silent()],
                there(Some(false)),
                false,
                (EndpointStatus::Offline, Some(NOW - STANDBY_LASTS_MS)),
            ),
            (vec![lost()], there(Some(false)), false, (EndpointStatus::Lost, Some(900))),
            (vec![lost()], QueueState::Unknown, false, (EndpointStatus::Lost, Some(900))),
            (vec![lost()], there(Some(true)), false, (EndpointStatus::Online, None)),
            (vec![], there(Some(false)), false, (EndpointStatus::NeverSeen, None)),
            (vec![], there(Some(true)), false, (EndpointStatus::Online, None)),
            (vec![active()], QueueState::Unknown, false, (EndpointStatus::Unknown, None)),
            (vec![active()], there(None), false, (EndpointStatus::Unknown, None)),
            (vec![active()], QueueState::Missing, false, (EndpointStatus::NoQueue, None)),
        ] {
            assert_eq!(status(&states, queue, drains, NOW), expected, "{states:?} {queue:?}");
        }
    }
}
