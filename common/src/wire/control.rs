//! The control messages, which are about an endpoint's instances. Pure.
//!
//! Endpoint to service: [`Presence`]. Service to endpoint: [`RollCall`], through the task
//! queue, behind every task that was published before it; a ping and [`Welcome`], through
//! the lease, to the instance that holds it.

use super::envelope::enveloped;
use crate::id::{Attempt, EndpointId, StateId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The AMQP `type` of a message by which an instance tells that it is there.
pub const PRESENCE_TYPE: &str = "clutch.presence";
/// The AMQP `type` of a message that asks which of some attempts are unknown.
pub const ROLL_CALL_TYPE: &str = "clutch.roll_call";
/// The AMQP `type` of a message that asks for a [`Presence`] at once.
pub const PING_TYPE: &str = "clutch.ping";
/// The AMQP `type` of a message that tells an instance how its disk is.
pub const WELCOME_TYPE: &str = "clutch.welcome";

/// The most attempts in one roll call.
pub const ROLL_CALL_MAX: usize = 1000;

/// The role of an instance of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It holds the lease and takes tasks.
    Active,
    /// It waits for the lease. It may still run and deliver what it took
    /// before.
    Standby,
}

/// An instance of an endpoint tells that it is there, and as what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// The disk it keeps its tasks on.
    pub state_id: StateId,
    /// This session of the daemon's with the broker, as [`session_name`] has it;
    /// part of its connections' names there.
    pub instance: Uuid,
    /// Its role.
    pub role: Role,
    /// Whether it was started to share the endpoint with another instance. One
    /// that was not, and is active on a disk of its own, replaces what was
    /// before.
    #[serde(default)]
    pub standby: bool,
    /// Whether a person says that the disks before this one are lost, also where this
    /// one was active before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
    /// How many tasks it has accepted and results it has not delivered.
    pub pending: u64,
    /// Whether messages in its task queue were damaged or missing since it said so
    /// last: which tasks were in them it cannot tell, and is to be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The attempt with the result that the broker confirmed last, of those from this disk:
    /// the service that has no record of it has lost records or results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<Attempt>,
    /// Whether it has read a roll call since it said so last: what it was asked for and
    /// does not say is lost, it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// Whether it has tasks from an earlier run, and waits a moment for a [`Welcome`]
    /// before it runs them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// Its details: once in each session, and when they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<InstanceDetails>,
}

/// The most functions that an instance names in its details.
pub const FUNCTIONS_MAX: usize = 1000;

/// A function that an instance answers calls of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FunctionOffer {
    /// Its name.
    pub name: String,
    /// Its version, where the endpoint's file names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The details that an instance tells of itself, for people and for placing tasks of topics.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct InstanceDetails {
    /// The version of the program.
    pub version: String,
    /// The name of its host.
    pub host: String,
    /// How many tasks may run at once.
    pub slots: u64,
    /// How many of them were free.
    #[serde(default)]
    pub free: u64,
    /// The topics that it is a member of; at most [`TOPICS_MAX`](crate::task::topic::TOPICS_MAX)
    /// are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// The functions that it answers calls of; at most [`FUNCTIONS_MAX`] are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionOffer>,
    /// When the daemon started, in milliseconds since the Unix epoch, by its host's clock.
    pub started_at_ms: u64,
    /// When this was said, by its host's clock.
    pub clock_ms: u64,
    /// Whether it starts no tasks, as it was told to drain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

impl Presence {
    /// Whether this was said before the same state's session of that name began. It
    /// may be read later: each session has a connection of its own. Two runs on a
    /// disk that neither has changed cannot be told apart.
    #[must_use]
    pub fn is_from_before(&self, session: Uuid) -> bool {
        let (this, that) = (self.instance.as_u128(), session.as_u128());
        let same_run = this >> SESSION_BITS == that >> SESSION_BITS;
        age(self.instance) < age(session) || same_run && this < that
    }

    /// Whether another run of the daemon says this than the one that has this session.
    #[must_use]
    pub fn is_of_another_run(&self, session: Uuid) -> bool {
        self.instance.as_u128() >> SESSION_BITS != session.as_u128() >> SESSION_BITS
    }

    /// How many commits the disk had seen when the run began.
    #[must_use]
    pub fn age_at_start(&self) -> u64 {
        u64::try_from(age(self.instance)).unwrap_or(AGE_MAX)
    }
}

/// The bits of a session's name that are its number.
const SESSION_BITS: u32 = 32;
/// Those that are the age of its disk.
const AGE_BITS: u32 = 48;
const AGE_MAX: u64 = (1 << AGE_BITS) - 1;

/// The name of the `number`th session of an instance. `age` is of its disk and
/// grows from run to run, `chance` tells disks apart. In both, only the lower 48 bits
/// count.
#[must_use]
pub fn session_name(chance: u64, age: u64, number: u32) -> Uuid {
    let chance = u128::from(chance) << (AGE_BITS + SESSION_BITS);
    let age = u128::from(age & AGE_MAX) << SESSION_BITS;
    Uuid::from_u128(chance | age | u128::from(number))
}

/// The age of a session's disk when its run began.
fn age(session: Uuid) -> u128 {
    (session.as_u128() >> SESSION_BITS) & u128::from(AGE_MAX)
}

/// Asks an endpoint what became of these attempts. It answers with a result for each
/// that it does not know, with `lost` as
/// [`Unknown`](crate::task::result::Loss::Unknown), and for each with a result that the
/// broker had confirmed: that result again, or `lost` as
/// [`Delivered`](crate::task::result::Loss::Delivered) if it is not kept any more. The
/// others are pending, and their results will come. A [`Presence`] follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RollCall {
    /// The state folder that is asked. Instances on others drop the roll call.
    pub state_id: StateId,
    /// The name of the session of its instance when it was asked. One that is called
    /// otherwise by now drops this, too: another may have read tasks meanwhile.
    pub instance: Uuid,
    /// The attempts; at most [`ROLL_CALL_MAX`].
    pub attempts: Vec<Attempt>,
}

/// Tells an instance that has asked whether its disk went back in time: reaches it by
/// its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The session that has asked.
    pub instance: Uuid,
    /// Whether its disk has seen less than the service knows that it had: it was put back
    /// from a snapshot, and what it holds may have run.
    pub behind: bool,
}

/// Encodes a presence into a body.
#[must_use]
pub fn encode_presence(presence: &Presence) -> Vec<u8> {
    enveloped(PRESENCE_TYPE, presence)
}

/// Encodes a roll call into a body.
#[must_use]
pub fn encode_roll_call(roll_call: &RollCall) -> Vec<u8> {
    enveloped(ROLL_CALL_TYPE, roll_call)
}

/// The body of a ping.
#[must_use]
pub fn encode_ping() -> Vec<u8> {
    enveloped(PING_TYPE, &serde_json::json!({}))
}

/// Encodes a welcome into a body.
#[must_use]
pub fn encode_welcome(welcome: &Welcome) -> Vec<u8> {
    enveloped(WELCOME_TYPE, welcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_a_run_are_in_order_and_runs_whose_disk_has_changed() {
        let order = [(7, 0, 1), (7, 0, u32::MAX), (8, 1, 0), (1, AGE_MAX, 0)];
        let names = order.map(|(chance, age, number)| session_name(chance, age, number));
        for (one, instance) in names.into_iter().enumerate() {
            let presence = Presence {
                endpoint_id: EndpointId::new(),
                state_id: StateId::new(),
                instance,
                role: Role::Standby,
                standby: true,
                replaces: false,
                answered: false,
                asks: false,
                pending: 0,
                lost: false,
                delivered: None,
                details: None,
            };
            for (other, session) in names.into_iter().enumerate() {
                assert_eq!(presence.is_from_before(session), one < other, "{one} {other}");
            }
            let other_run = session_name(9, [0, 0, 1, AGE_MAX][one], u32::MAX);
            assert!(!presence.is_from_before(other_run), "{one}");
        }
    }
}
