//! Tells the messages of a queue apart by the `type` in their envelope. Pure.
//!
//! A *control message* is about an endpoint's instances and carries neither tasks nor
//! results. One of a kind or version that this build does not read becomes an
//! [`UnknownControl`]: its reader logs, counts and acknowledges it, since nothing is lost
//! with it. Whatever else cannot be read is taken for tasks (in a task queue) or results
//! (in the results queue), and goes to the dead letters.

use super::claims::{CLAIMS_TYPE, Claims};
use super::control::{
    PING_TYPE, PRESENCE_TYPE, Presence, ROLL_CALL_TYPE, RollCall, WELCOME_TYPE, Welcome,
};
use super::envelope::{Head, head, is_begun};
use super::events::{EVENTS_TYPE, Events};
use super::post::{
    ANSWER_TYPE, DELIVER_TYPE, PostToEndpoint, PostToService, REQUEST_TYPE, VERDICT_TYPE,
};
use super::results::{Results, results, sound_results};
use super::steering::{
    CANCEL_TYPE, CancelMark, DRAIN_TYPE, FOLLOW_TYPE, MARK_TYPE, REPORT_TYPE, RESUME_TYPE,
    Steering, URGENT_TYPE,
};
use super::tasks::{Tasks, sound_tasks, tasks};
use super::{MAX_BODY, RESULTS_TYPE, TASKS_TYPE};
use crate::task::reason::Reason;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// The prefix of the types of all messages.
const NAMESPACE: &str = "clutch.";

/// A message in a task queue.
#[derive(PartialEq, Debug)]
pub enum ToEndpoint {
    /// Tasks, and what among them could not be read.
    Tasks(Tasks),
    /// A roll call.
    RollCall(RollCall),
    /// A mark behind tasks that were cancelled.
    CancelMark(CancelMark),
    /// A control message that this build cannot act on.
    Unknown(UnknownControl),
}

/// A message in the results queue.
#[derive(PartialEq, Debug)]
pub enum ToService {
    /// Results, and what among them could not be read.
    Results(Results),
    /// An instance's presence.
    Presence(Presence),
    /// A ping, which the service sent to itself.
    Ping,
    /// Claims of attempts.
    Claims(Claims),
    /// A message on the way between tasks.
    Post(PostToService),
    /// A control message that this build cannot act on.
    Unknown(UnknownControl),
}

/// A message to the instance that holds its endpoint's lease.
#[derive(PartialEq, Debug)]
pub enum ToLeaseHolder {
    /// The service asks for a presence.
    Ping,
    /// The service tells the instance how its disk is.
    Welcome(Welcome),
    /// A message that this build cannot act on.
    Unknown(UnknownControl),
}

/// A control message of a kind or version that its reader does not know, or with content
/// that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownControl {
    /// The type in its envelope; empty if it has none.
    pub kind: Reason,
    /// Why it cannot be acted on.
    pub reason: Reason,
}

/// Decodes the body of a message in a task queue. `correlation_id` is the message's
/// property of that name, as for [`decode_tasks`](super::decode_tasks).
#[must_use]
pub fn decode_to_endpoint(body: &[u8], correlation_id: Option<&str>) -> ToEndpoint {
    if let Some(tasks) = sound_tasks(body) {
        return ToEndpoint::Tasks(tasks);
    }
    let head = head(body);
    let Some(control) = control(&head, body) else {
        return ToEndpoint::Tasks(tasks(head, body, correlation_id));
    };
    let decoded = match control.kind() {
        ROLL_CALL_TYPE => content(control, body).map(ToEndpoint::RollCall),
        MARK_TYPE => content(control, body).map(ToEndpoint::CancelMark),
        _ => Err(unknown(control, "this build does not read it in a task queue")),
    };
    decoded.unwrap_or_else(ToEndpoint::Unknown)
}

/// Decodes the body of a message in the results queue.
#[must_use]
pub fn decode_to_service(body: &[u8]) -> ToService {
    let posted = as_written(body, REQUEST_TYPE)
        .map(PostToService::Request)
        .or_else(|| as_written(body, VERDICT_TYPE).map(PostToService::Verdict));
    if let Some(posted) = posted {
        return ToService::Post(posted);
    }
    if let Some(results) = sound_results(body) {
        return ToService::Results(results);
    }
    let head = head(body);
    let Some(control) = control(&head, body) else {
        return ToService::Results(results(head, body));
    };
    let decoded = match control.kind() {
        PING_TYPE => content(control, body).map(|Empty {}| ToService::Ping),
        PRESENCE_TYPE => content(control, body).map(ToService::Presence),
        CLAIMS_TYPE => content(control, body).map(ToService::Claims),
        REQUEST_TYPE => content(control, body).map(PostToService::Request).map(ToService::Post),
        VERDICT_TYPE => content(control, body).map(PostToService::Verdict).map(ToService::Post),
        _ => Err(unknown(control, "this build does not read it in the results queue")),
    };
    decoded.unwrap_or_else(ToService::Unknown)
}

/// Decodes the body of a message to the holder of a lease. None of them can bring a task or
/// a result: the queue is the holder's own, and is gone with it.
#[must_use]
pub fn decode_to_lease_holder(body: &[u8]) -> ToLeaseHolder {
    let head = match readable_head(body) {
        Ok(head) => head,
        Err(unknown) => return ToLeaseHolder::Unknown(unknown),
    };
    let decoded = match head.kind() {
        PING_TYPE => content(&head, body).map(|Empty {}| ToLeaseHolder::Ping),
        WELCOME_TYPE => content(&head, body).map(ToLeaseHolder::Welcome),
        _ => Err(unknown(&head, "this build does not read it at a lease")),
    };
    decoded.unwrap_or_else(ToLeaseHolder::Unknown)
}

/// Decodes the body of a message in a control queue.
///
/// # Errors
/// When this build cannot act on it: nothing is lost with it.
pub fn decode_steering(body: &[u8]) -> Result<Steering, UnknownControl> {
    let posted = as_written(body, DELIVER_TYPE)
        .map(PostToEndpoint::Deliver)
        .or_else(|| as_written(body, ANSWER_TYPE).map(PostToEndpoint::Answer));
    if let Some(posted) = posted {
        return Ok(Steering::Post(posted));
    }
    let head = readable_head(body)?;
    match head.kind() {
        CANCEL_TYPE => content(&head, body).map(Steering::Cancel),
        DRAIN_TYPE => content(&head, body).map(Steering::Drain),
        RESUME_TYPE => content(&head, body).map(Steering::Resume),
        FOLLOW_TYPE => content(&head, body).map(Steering::Follow),
        REPORT_TYPE => content(&head, body).map(Steering::Report),
        URGENT_TYPE => content(&head, body).map(Steering::Urgent),
        DELIVER_TYPE => content(&head, body).map(PostToEndpoint::Deliver).map(Steering::Post),
        ANSWER_TYPE => content(&head, body).map(PostToEndpoint::Answer).map(Steering::Post),
        _ => Err(unknown(&head, "this build does not read it in a control queue")),
    }
}

/// Decodes the body of a message in the events queue.
///
/// # Errors
/// When this build cannot read it: events may be lost.
pub fn decode_events(body: &[u8]) -> Result<Events, UnknownControl> {
    let head = readable_head(body)?;
    match head.kind() {
        EVENTS_TYPE => content(&head, body),
        _ => Err(unknown(&head, "this build does not read it in the events queue")),
    }
}

/// The head of a body that can bring neither a task nor a result.
fn readable_head(body: &[u8]) -> Result<Head, UnknownControl> {
    head(body).map_err(|reason| UnknownControl { kind: Reason::from(""), reason: reason.into() })
}

/// The head of a control message; nothing if the body is something else, or may be.
fn control<'h>(head: &'h Result<Head, String>, body: &[u8]) -> Option<&'h Head> {
    let head = head.as_ref().ok()?;
    let kind = head.kind();
    let is_control = kind.starts_with(NAMESPACE) && kind != TASKS_TYPE && kind != RESULTS_TYPE;
    (is_control && !has_parts(body)).then_some(head)
}

/// Whether an envelope has a list of tasks or results. No control message has; tasks of a
/// misspelt type have, and must not be acknowledged unread.
fn has_parts(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Parts {
        tasks: Option<IgnoredAny>,
        results: Option<IgnoredAny>,
    }
    let parts = serde_json::from_slice::<Parts>(body);
    !matches!(parts, Ok(Parts { tasks: None, results: None }))
}

/// The content of a message of this type, if the body is as this build writes it: read in one
/// pass, since messages of tasks may be large.
fn as_written<T: DeserializeOwned>(body: &[u8], kind: &str) -> Option<T> {
    if body.len() > MAX_BODY || !is_begun(body, kind) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// The content of a message without any.
#[derive(Deserialize)]
struct Empty {}

/// Reads the content of a control message of a known kind.
fn content<T: DeserializeOwned>(head: &Head, body: &[u8]) -> Result<T, UnknownControl> {
    head.expect_version().map_err(|reason| unknown(head, &reason))?;
    serde_json::from_slice(body)
        .map_err(|error| unknown(head, &format!("its content cannot be read: {error}")))
}

fn unknown(head: &Head, reason: &str) -> UnknownControl {
    UnknownControl { kind: head.kind().into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Attempt, EndpointId, StateId, TaskId};
    use crate::task::json::Json;
    use crate::task::priority::Priority;
    use crate::task::{Call, Task, Work};
    use crate::wire::{
        AttemptEvent, Cancel, Drain, Follow, FunctionOffer, InstanceDetails, Load, MessageWait,
        OutputEvent, Phase, ReportRequest, Resume, Role, StreamName, TaskProgress, UrgentCopies,
        encode_events, encode_mark, encode_ping, encode_presence, encode_roll_call, encode_task,
        encode_tasks, encode_welcome, pack_urgent,
    };
    use uuid::Uuid;

    fn presence() -> Presence {
        Presence {
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
            details: Some(InstanceDetails {
                version: "1.2.3".to_owned(),
                host: "node-1".to_owned(),
                slots: 8,
                free: 3,
                topics: vec!["cloud".to_owned()],
                functions: vec![FunctionOffer { name: "add".to_owned(), version: None }],
                started_at_ms: 5,
                clock_ms: 6,
                draining: true,
            }),
        }
    }

    fn roll_call() -> RollCall {
        let attempts = vec![Attempt { task_id: TaskId::new(), attempt: 2 }];
        RollCall { state_id: StateId::new(), instance: Uuid::from_u128(7), attempts }
    }

    /// A body as a later build writes it.
    fn later(body: &[u8]) -> Vec<u8> {
        let body = String::from_utf8(body.to_vec()).unwrap();
        body.replacen(r#""version":1"#, r#""version":2"#, 1).into_bytes()
    }

    /// Why a task queue's message is passed by; nothing if it is not.
    fn passed_by_at_endpoint(body: &[u8]) -> Option<UnknownControl> {
        match decode_to_endpoint(body, None) {
            ToEndpoint::Unknown(unknown) => Some(unknown),
            ToEndpoint::Tasks(_) | ToEndpoint::RollCall(_) | ToEndpoint::CancelMark(_) => None,
        }
    }

    /// Why a results queue's message is passed by; nothing if it is not.
    fn passed_by_at_service(body: &[u8]) -> Option<UnknownControl> {
        match decode_to_service(body) {
            ToService::Unknown(unknown) => Some(unknown),
            ToService::Results(_)
            | ToService::Presence(_)
            | ToService::Ping
            | ToService::Claims(_)
            | ToService::Post(_) => None,
        }
    }

    #[test]
    fn each_kind_is_read_where_it_belongs() {
        let (presence, roll_call) = (presence(), roll_call());
        let welcome = Welcome { instance: Uuid::nil(), behind: true };
        let body = encode_roll_call(&roll_call);
        assert_eq!(decode_to_endpoint(&body, None), ToEndpoint::RollCall(roll_call));
        let body = encode_presence(&presence);
        assert_eq!(decode_to_service(&body), ToService::Presence(presence));
        assert_eq!(decode_to_service(&encode_ping()), ToService::Ping);
        assert_eq!(decode_to_lease_holder(&encode_ping()), ToLeaseHolder::Ping);
        let body = encode_welcome(&welcome);
        assert_eq!(decode_to_lease_holder(&body), ToLeaseHolder::Welcome(welcome));
    }

    #[test]
    fn a_control_message_of_a_later_version_or_an_unknown_kind_is_passed_by() {
        let cancel = br#"{"version":1,"type":"clutch.cancel_all","attempts":[]}"#.to_vec();
        let other = br#"{"version":7,"type":"clutch.other","tasks":null,"shape":[[1]]}"#.to_vec();
        let versionless = br#"{"type":"clutch.roll_call"}"#.to_vec();
        for body in [later(&encode_roll_call(&roll_call())), cancel, other, versionless] {
            let kind = passed_by_at_endpoint(&body).unwrap().kind;
            assert!(kind.starts_with("clutch."), "{kind}");
            assert_eq!(passed_by_at_service(&body).unwrap().kind, kind);
        }
        let reason = passed_by_at_service(&later(&encode_presence(&presence()))).unwrap().reason;
        assert!(reason.contains("version 2, this build reads version 1"), "{reason}");
        assert!(passed_by_at_service(&later(&encode_ping())).is_some());
    }

    #[test]
    fn a_control_message_in_the_wrong_queue_or_with_other_content_is_passed_by() {
        assert!(passed_by_at_endpoint(&encode_presence(&presence())).is_some());
        assert!(passed_by_at_service(&encode_roll_call(&roll_call())).is_some());
        let body = br#"{"version":1,"type":"clutch.roll_call","attempts":3}"#;
        let unknown = passed_by_at_endpoint(body).unwrap();
        assert_eq!(&*unknown.kind, ROLL_CALL_TYPE);
        assert!(unknown.reason.contains("expected a sequence"), "{}", unknown.reason);
    }

    #[test]
    fn what_may_carry_tasks_or_results_is_never_passed_by() {
        let tasks = r#"{"version":1,"type":"clutch.tasks","tasks":[{"id":1}]}"#;
        for body in [
            tasks.replace("clutch.tasks", "clutch.task"),
            tasks.replace("clutch.tasks", "jobs"),
            tasks.replace("clutch.tasks", "clutch.results"),
            tasks.replace(":1,", ":2,"),
            tasks.replace("tasks\":[", "results\":["),
            tasks.replace(r#""tasks":"#, r#""tasks":[],"tasks":"#).replace("h.tasks", "h.jobs"),
            r#"{"version":1,"type":"other"}"#.to_owned(),
            r#"{"version":1}"#.to_owned(),
            r#"{"version":1,"type":"clutch.cancel""#.to_owned(),
            "nonsense".to_owned(),
        ] {
            assert_eq!(passed_by_at_endpoint(body.as_bytes()), None, "{body}");
            assert_eq!(passed_by_at_service(body.as_bytes()), None, "{body}");
        }
        let later = later(&encode_tasks(&[]));
        let ToEndpoint::Tasks(tasks) = decode_to_endpoint(&later, None) else {
            panic!("passed by")
        };
        assert!(tasks.unreadable[0].reason.contains("version 2"), "{tasks:?}");
    }

    #[test]
    fn nothing_else_at_a_lease_is_taken_for_a_ping() {
        for other in [&b"{}"[..], b"nonsense", br#"{"version":2,"type":"clutch.ping"}"#] {
            let decoded = decode_to_lease_holder(other);
            assert!(matches!(decoded, ToLeaseHolder::Unknown(_)), "{decoded:?}");
        }
    }

    #[test]
    fn each_kind_of_steering_is_read_as_it_was_written() {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 2 };
        let call = Call::new("f", "[1.0]".parse().unwrap());
        let task = Task { priority: Priority::High, ..Task::of(attempt.task_id, Work::Call(call)) };
        let all = [
            Steering::Cancel(Cancel { number: 3, attempts: vec![attempt] }),
            Steering::Drain(Drain { number: 4, deadline_ms: Some(5) }),
            Steering::Drain(Drain { number: 4, deadline_ms: None }),
            Steering::Resume(Resume { number: 5 }),
            Steering::Follow(Follow { attempt, stdout_from: 7, stderr_from: 0, for_ms: 30_000 }),
            Steering::Report(ReportRequest {}),
            Steering::Urgent(UrgentCopies { copies: vec![task.clone()] }),
        ];
        let packed = pack_urgent(&[encode_task(&task)]);
        assert_eq!(packed, all[6].encode(), "as a service packs it");
        for message in all {
            let body = message.encode();
            assert_eq!(decode_steering(&body), Ok(message.clone()));
            assert!(String::from_utf8(body.clone()).unwrap().contains(message.kind()));
            assert_eq!(decode_steering(&later(&body)).unwrap_err().kind, message.kind().into());
            assert!(passed_by_at_endpoint(&body).is_some(), "it is no message of a task queue");
        }
        let mark = CancelMark { up_to: 3 };
        assert_eq!(decode_to_endpoint(&encode_mark(&mark), None), ToEndpoint::CancelMark(mark));
        assert!(decode_steering(&encode_mark(&mark)).is_err());
        assert!(decode_steering(b"nonsense").is_err());
    }

    #[test]
    fn events_are_read_as_they_were_written() {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        let progress = TaskProgress {
            fraction: Some(0.5),
            message: Some("half".to_owned()),
            data: Some(Json::empty_array()),
            at_ms: 9,
        };
        let events = Events {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            instance: Uuid::from_u128(3),
            at_ms: 10,
            complete: true,
            load: Some(Load { slots: 4, running: 1, ..Load::default() }),
            attempts: vec![AttemptEvent {
                attempt,
                phase: Phase::Running,
                since_ms: 8,
                accepted_at_ms: None,
                progress: Some(progress),
                waits_for: None,
                waits: vec![MessageWait {
                    since_ms: 7,
                    addressees: vec!["in".to_owned()],
                    to: None,
                    from: Some(TaskId::new()),
                }],
            }],
            output: vec![OutputEvent {
                attempt,
                stream: StreamName::Stderr,
                from: 3,
                bytes: vec![0xff, 0].into(),
            }],
        };
        let body = encode_events(&events);
        assert_eq!(decode_events(&body), Ok(events));
        assert!(decode_events(&later(&body)).is_err());
        assert!(decode_events(&encode_ping()).is_err());
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
}
