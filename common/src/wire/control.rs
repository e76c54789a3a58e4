//! The messages that are about an endpoint's instances, not about one task: who
//! is there, who has what, who should answer. Pure.
//!
//! Endpoint to service: [`Presence`]. Service to endpoint: [`RollCall`], through
//! the task queue, behind every task that was published before it; and a ping,
//! through the lease, to whoever holds it.

use super::{
    Head, Results, Tasks, VERSION, encode, expect, head, results, sound_results, sound_tasks, tasks,
};
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

/// What an instance of an endpoint is doing.
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
    /// What it is doing.
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
    /// The attempt whose result the broker confirmed last, of those from this disk:
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

/// What the `number`th session of an instance is called. `age` is of its disk and
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
/// that it does not know, whose `lost` is
/// [`Unknown`](crate::task::result::Loss::Unknown), and for each whose result the broker
/// had confirmed: that result again, or `lost` as
/// [`Delivered`](crate::task::result::Loss::Delivered) if it is not kept any more. The
/// others are pending, and their results will come. A [`Presence`] follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RollCall {
    /// The disk that is asked. Anybody else who reads this drops it.
    pub state_id: StateId,
    /// What the instance on it was called when it was asked. One that is called
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

/// What is said to the holder of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// It is asked whether it is there.
    Ping,
    /// It is told how its disk is.
    Welcome(Welcome),
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    version: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

/// A message to an endpoint, read.
#[derive(PartialEq, Debug)]
pub enum ToEndpoint {
    /// Tasks, and what among them could not be read.
    Tasks(Tasks),
    /// A roll call.
    RollCall(RollCall),
}

/// A message to the service, read.
#[derive(PartialEq, Debug)]
pub enum ToService {
    /// Results, and what among them could not be read.
    Results(Results),
    /// An instance is there.
    Presence(Presence),
    /// What the service sent to itself.
    Ping,
}

/// Encodes a presence into a body.
#[must_use]
pub fn encode_presence(presence: &Presence) -> Vec<u8> {
    encode(&Envelope { version: VERSION, kind: PRESENCE_TYPE, content: presence })
}

/// Encodes a roll call into a body.
#[must_use]
pub fn encode_roll_call(roll_call: &RollCall) -> Vec<u8> {
    encode(&Envelope { version: VERSION, kind: ROLL_CALL_TYPE, content: roll_call })
}

/// The body of a ping.
#[must_use]
pub fn encode_ping() -> Vec<u8> {
    encode(&Envelope { version: VERSION, kind: PING_TYPE, content: &serde_json::json!({}) })
}

/// Encodes a welcome into a body.
#[must_use]
pub fn encode_welcome(welcome: &Welcome) -> Vec<u8> {
    encode(&Envelope { version: VERSION, kind: WELCOME_TYPE, content: welcome })
}

/// Decodes what is said to the holder of a lease; nothing if it is neither.
#[must_use]
pub fn decode_call(body: &[u8]) -> Option<Call> {
    let head = head(body);
    if is_a(&head, PING_TYPE) {
        return Some(Call::Ping);
    }
    is_a(&head, WELCOME_TYPE).then(|| content(body).ok().map(Call::Welcome)).flatten()
}

/// Decodes the body of a message in a task queue, as
/// [`decode_tasks`](super::decode_tasks) does where it is not a roll call.
#[must_use]
pub fn decode_to_endpoint(body: &[u8], correlation_id: Option<&str>) -> ToEndpoint {
    if let Some(tasks) = sound_tasks(body) {
        return ToEndpoint::Tasks(tasks);
    }
    let head = head(body);
    let head = if is_a(&head, ROLL_CALL_TYPE) {
        match content(body) {
            Ok(roll_call) => return ToEndpoint::RollCall(roll_call),
            Err(error) => Err(format!("the {ROLL_CALL_TYPE} cannot be read: {error}")),
        }
    } else {
        head
    };
    ToEndpoint::Tasks(tasks(head, body, correlation_id))
}

/// Decodes the body of a message in the results queue, as
/// [`decode_results`](super::decode_results) does where it is nothing else.
#[must_use]
pub fn decode_to_service(body: &[u8]) -> ToService {
    if let Some(results) = sound_results(body) {
        return ToService::Results(results);
    }
    let head = head(body);
    if is_a(&head, PING_TYPE) {
        return ToService::Ping;
    }
    let head = if is_a(&head, PRESENCE_TYPE) {
        match content(body) {
            Ok(presence) => return ToService::Presence(presence),
            Err(error) => Err(format!("the {PRESENCE_TYPE} cannot be read: {error}")),
        }
    } else {
        head
    };
    ToService::Results(results(head, body))
}

fn is_a(head: &Result<Head, String>, kind: &str) -> bool {
    head.as_ref().is_ok_and(|head| expect(head, kind).is_ok())
}

fn content<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TaskId;

    #[test]
    fn presences_and_roll_calls_survive_the_wire_and_are_told_from_the_rest() {
        let presence = Presence {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            instance: Uuid::new_v4(),
            role: Role::Standby,
            standby: true,
            replaces: false,
            answered: false,
            asks: false,
            pending: 7,
            lost: true,
            delivered: Some(Attempt { task_id: TaskId::new(), attempt: 3 }),
        };
        let body = encode_presence(&presence);
        assert_eq!(decode_to_service(&body), ToService::Presence(presence));
        let ToEndpoint::Tasks(tasks) = decode_to_endpoint(&body, None) else { panic!("{body:?}") };
        assert!(tasks.unreadable[0].reason.contains("clutch.presence"));

        let attempt = Attempt { task_id: TaskId::new(), attempt: 2 };
        let roll_call = RollCall {
            state_id: StateId::new(),
            instance: Uuid::from_u128(7),
            attempts: vec![attempt],
        };
        let body = encode_roll_call(&roll_call);
        assert_eq!(decode_to_endpoint(&body, None), ToEndpoint::RollCall(roll_call));
        let ToService::Results(results) = decode_to_service(&body) else { panic!("{body:?}") };
        assert_eq!(results.unreadable.len(), 1);
    }

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
            };
            for (other, session) in names.into_iter().enumerate() {
                assert_eq!(presence.is_from_before(session), one < other, "{one} {other}");
            }
            let other_run = session_name(9, [0, 0, 1, AGE_MAX][one], u32::MAX);
            assert!(!presence.is_from_before(other_run), "{one}");
        }
    }

    #[test]
    fn the_order_of_an_envelopes_fields_does_not_matter() {
        let state_id = StateId::new();
        let (instance, comment) = (Uuid::from_u128(7), "0".repeat(100));
        let body = format!(
            r#"{{"comment":"{comment}","attempts":[],"instance":"{instance}","state_id":"{state_id}","type":"clutch.roll_call","version":1}}"#
        );
        let expected = ToEndpoint::RollCall(RollCall { state_id, instance, attempts: vec![] });
        assert_eq!(decode_to_endpoint(body.as_bytes(), None), expected);
    }

    #[test]
    fn a_ping_is_a_ping_and_nothing_else_is() {
        assert_eq!(decode_call(&encode_ping()), Some(Call::Ping));
        let welcome = Welcome { instance: Uuid::nil(), behind: true };
        assert_eq!(decode_call(&encode_welcome(&welcome)), Some(Call::Welcome(welcome)));
        assert_eq!(decode_to_service(&encode_ping()), ToService::Ping);
        for other in [&b"{}"[..], b"nonsense", br#"{"version":2,"type":"clutch.ping"}"#] {
            assert_eq!(decode_call(other), None);
        }
    }

    #[test]
    fn one_that_cannot_be_read_gets_a_reason() {
        let body = br#"{"version":1,"type":"clutch.roll_call","attempts":3}"#;
        let ToEndpoint::Tasks(tasks) = decode_to_endpoint(body, None) else { panic!("read") };
        assert!(tasks.unreadable[0].reason.contains("clutch.roll_call"));
    }
}
