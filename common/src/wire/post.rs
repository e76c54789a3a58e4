//! The messages by which a task that runs at one endpoint reaches a task at another one, and
//! asks the service for more. Pure.
//!
//! A [`TaskRequest`] goes from the endpoint of the task that asks to the service, a [`Deliver`]
//! from there to the endpoint of the *target*, the task that a message is for. That one answers
//! with a [`TargetVerdict`], and the service tells the first endpoint a [`RequestAnswer`]. A
//! *copy* is one of several requests with the same content, numbered from 1: the endpoint that
//! asks sends further ones until it has a final answer, so that nothing between the two has to
//! remember any. A message is *taken* when a process of the target has acknowledged it.

use super::envelope::enveloped;
use super::message_body::MessageBody;
use crate::id::{Attempt, EndpointId, StateId, TaskId};
use crate::task::json::Json;
use crate::task::reason::Reason;
use crate::task::result::Outcome;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The AMQP `type` of a [`TaskRequest`].
pub const REQUEST_TYPE: &str = "clutch.request";
/// The AMQP `type` of a [`Deliver`].
pub const DELIVER_TYPE: &str = "clutch.deliver";
/// The AMQP `type` of a [`TargetVerdict`].
pub const VERDICT_TYPE: &str = "clutch.verdict";
/// The AMQP `type` of a [`RequestAnswer`].
pub const ANSWER_TYPE: &str = "clutch.answer";

/// The most bytes of a message's body. As base64 it is within
/// [`MAX_BODY`](super::MAX_BODY).
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// The longest name of an addressee, in bytes.
pub const MAX_ADDRESSEE: usize = 128;
/// How long a send waits for its target to take the message, where it does not say.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(90);
/// How long the endpoint that sends waits for the verdict after that.
pub const VERDICT_GRACE: Duration = Duration::from_secs(10);

/// Whether an addressee can have this name.
#[must_use]
pub fn is_addressee(name: &str) -> bool {
    (1..=MAX_ADDRESSEE).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Asks the service for something, in the name of a task that runs at an endpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The endpoint that asks, and is to be answered.
    pub endpoint_id: EndpointId,
    /// Its state folder.
    pub state_id: StateId,
    /// The request's id: the same in each copy. That of a send is the message's.
    pub request: Uuid,
    /// The number of the copy; 1 is the first of an id that was not used before. An id that the
    /// task chose may have been: its copies are numbered from the sender's clock in seconds on, so
    /// that they are later than all before.
    pub copy: u32,
    /// The attempt that asks, as its endpoint knows it.
    pub source: Attempt,
    /// The wish.
    pub ask: Ask,
}

/// The wish of a task that the service is asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Have a message delivered.
    Send(TaskMessage),
    /// Submit tasks as children of the one that asks: a request as the service's API takes it.
    /// The id of the request is the submission's key.
    Submit(Json),
    /// Tell the outcome of a task, once it has one.
    Outcome {
        /// The task.
        task: TaskId,
        /// How long to wait for it, in milliseconds.
        wait_ms: u64,
    },
}

/// A message to a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The target.
    pub to: TaskId,
    /// The attempt of the target that alone may take it, where the sender names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The name that the receiving task chose.
    pub addressee: String,
    /// The bytes, as they are written.
    pub body: MessageBody,
    /// How much longer its sender waits for it to be taken, in milliseconds.
    pub wait_ms: u64,
    /// Whether the service is to keep it until it is taken, and the sender does not wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mailbox: bool,
}

/// Brings a message to the endpoint of its target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Deliver {
    /// The message's id.
    pub message: Uuid,
    /// The number of the copy.
    pub copy: u32,
    /// The attempt that sent it.
    pub source: Attempt,
    /// The endpoint to answer; none if the service keeps the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_to: Option<EndpointId>,
    /// The message.
    pub content: TaskMessage,
}

/// The word of a target's endpoint about one copy of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetVerdict {
    /// The endpoint that gives it.
    pub endpoint_id: EndpointId,
    /// Its state folder.
    pub state_id: StateId,
    /// The message's id.
    pub message: Uuid,
    /// The number of the last copy that it is about.
    pub copy: u32,
    /// The number of the first copy that it is about: earlier ones may have come to an earlier
    /// run of the endpoint, which may have let a process take them.
    pub since: u32,
    /// The attempt that sent the message.
    pub source: Attempt,
    /// The endpoint to answer; none if the service keeps the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_to: Option<EndpointId>,
    /// The target.
    pub to: TaskId,
    /// The attempt that the sender named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The fate of the message.
    pub verdict: Judgement,
}

/// The fate of a message at its target's endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It waits there for a process to take it.
    Held,
    /// A process of this attempt took it.
    Taken(u32),
    /// No process took it within the wait.
    NotListening,
    /// The endpoint does not have the target.
    NotHere,
    /// The target has ended there, and did not take it.
    Ended(Outcome),
    /// The sender named an attempt, and this newer one is there.
    Superseded(u32),
    /// Too much waits for the target, or at its endpoint.
    NoRoom,
}

/// The service's answer to a copy of a [`TaskRequest`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RequestAnswer {
    /// The request's id.
    pub request: Uuid,
    /// The number of the last copy that it answers.
    pub copy: u32,
    /// The number of the first copy that it answers, as the verdict says it; the same as `copy`
    /// where the service answers by itself.
    pub since: u32,
    /// The attempt that asked.
    pub source: Attempt,
    /// The answer.
    pub answer: Reply,
}

/// The words for the task that asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Not final: the target's endpoint holds the message.
    Held,
    /// Not final: the target has not been started yet, and this copy was held nowhere.
    NotStarted,
    /// A process of this attempt of the target took the message.
    Delivered(u32),
    /// The service keeps the message until the target takes it or ends.
    Kept,
    /// No such task.
    Unknown,
    /// The target has this outcome, and did not take the message.
    Finished(Outcome),
    /// The sender named an attempt, and this newer one is there.
    Superseded(u32),
    /// No process of the target took the message within the wait.
    NotListening,
    /// Too much waits for the target, or at its endpoint.
    NoRoom,
    /// The rules do not let the task do this, in words.
    Forbidden(Reason),
    /// The request cannot be done, in words.
    Refused(Reason),
    /// These tasks were submitted.
    Submitted(Vec<TaskId>),
    /// The task that was asked for has its outcome: the task as the service's API shows it.
    Ended(Json),
    /// The task that was asked for has no outcome within the wait.
    NotEnded,
}

impl Reply {
    /// Whether no other answer to the request can follow.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Held | Self::NotStarted)
    }
}

/// A message of the results queue that is on its way between tasks.
#[derive(Clone, PartialEq, Debug)]
pub enum PostToService {
    /// A task asks for something.
    Request(TaskRequest),
    /// The word of a target's endpoint.
    Verdict(TargetVerdict),
}

impl PostToService {
    /// The endpoint that says it.
    #[must_use]
    pub const fn endpoint(&self) -> EndpointId {
        match self {
            Self::Request(request) => request.endpoint_id,
            Self::Verdict(verdict) => verdict.endpoint_id,
        }
    }

    /// Whether it is a copy of a message that the service does not keep: its sender sends further
    /// copies until there is an answer.
    #[must_use]
    pub const fn is_copy(&self) -> bool {
        match self {
            Self::Request(TaskRequest { ask: Ask::Send(message), .. }) => !message.mailbox,
            Self::Request(_) | Self::Verdict(_) => false,
        }
    }
}

/// A message of a control queue that is on its way between tasks.
#[derive(Clone, PartialEq, Debug)]
pub enum PostToEndpoint {
    /// A message for a task that is there.
    Deliver(Deliver),
    /// The answer to a task that is there.
    Answer(RequestAnswer),
}

impl PostToEndpoint {
    /// The AMQP `type` of the message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Deliver(_) => DELIVER_TYPE,
            Self::Answer(_) => ANSWER_TYPE,
        }
    }

    /// Encodes the message into a body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Deliver(deliver) => encode_deliver(deliver),
            Self::Answer(answer) => encode_answer(answer),
        }
    }
}

/// Encodes a request into a body.
#[must_use]
pub fn encode_request(request: &TaskRequest) -> Vec<u8> {
    enveloped(REQUEST_TYPE, request)
}

/// Encodes the delivery of a message into a body.
#[must_use]
pub fn encode_deliver(deliver: &Deliver) -> Vec<u8> {
    enveloped(DELIVER_TYPE, deliver)
}

/// Encodes a verdict into a body.
#[must_use]
pub fn encode_verdict(verdict: &TargetVerdict) -> Vec<u8> {
    enveloped(VERDICT_TYPE, verdict)
}

/// Encodes an answer into a body.
#[must_use]
pub fn encode_answer(answer: &RequestAnswer) -> Vec<u8> {
    enveloped(ANSWER_TYPE, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::is_begun;
    use crate::wire::{MAX_BODY, Steering, ToService, decode_steering, decode_to_service};

    fn attempt() -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: 2 }
    }

    fn message(body: &[u8]) -> TaskMessage {
        TaskMessage {
            to: TaskId::new(),
            attempt: Some(3),
            addressee: "in".to_owned(),
            body: MessageBody::of(body),
            wait_ms: 90_000,
            mailbox: false,
        }
    }

    fn request(ask: Ask) -> TaskRequest {
        TaskRequest {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            request: Uuid::new_v4(),
            copy: 1,
            source: attempt(),
            ask,
        }
    }

    fn verdict(verdict: Judgement) -> TargetVerdict {
        TargetVerdict {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            message: Uuid::new_v4(),
            copy: 4,
            since: 1,
            source: attempt(),
            answer_to: Some(EndpointId::new()),
            to: TaskId::new(),
            attempt: None,
            verdict,
        }
    }

    fn answer(answer: Reply) -> RequestAnswer {
        RequestAnswer { request: Uuid::new_v4(), copy: 1, since: 1, source: attempt(), answer }
    }

    /// A body as another program may write it: with its fields in another order.
    fn rearranged(body: &[u8]) -> Vec<u8> {
        let mut fields: serde_json::Map<_, _> = serde_json::from_slice(body).unwrap();
        let version = fields.remove("version").unwrap();
        let rest = serde_json::to_string(&fields).unwrap();
        format!(r#"{},"version":{version}}}"#, rest.strip_suffix('}').unwrap()).into_bytes()
    }

    #[test]
    fn what_the_service_reads_is_what_was_written() {
        let asks = [
            Ask::Send(message(b"text")),
            Ask::Send(message(&[0xff, 0])),
            Ask::Submit(r#"{"tasks":[{"argv":["true"]}]}"#.parse().unwrap()),
            Ask::Outcome { task: TaskId::new(), wait_ms: 5 },
        ];
        for ask in asks {
            let request = request(ask);
            let body = encode_request(&request);
            assert!(is_begun(&body, REQUEST_TYPE), "it is read in one pass");
            let read = ToService::Post(PostToService::Request(request));
            assert_eq!(decode_to_service(&body), read);
            assert_eq!(decode_to_service(&rearranged(&body)), read);
        }
        for judgement in [
            Judgement::Held,
            Judgement::Taken(1),
            Judgement::NotListening,
            Judgement::NotHere,
            Judgement::Ended(Outcome::Failed),
            Judgement::Superseded(2),
            Judgement::NoRoom,
        ] {
            let verdict = verdict(judgement);
            let body = encode_verdict(&verdict);
            let read = ToService::Post(PostToService::Verdict(verdict));
            assert_eq!(decode_to_service(&body), read);
            assert_eq!(decode_to_service(&rearranged(&body)), read);
        }
    }

    #[test]
    fn what_an_endpoint_reads_is_what_was_written() {
        let deliver = Deliver {
            message: Uuid::new_v4(),
            copy: 1,
            source: attempt(),
            answer_to: None,
            content: message(b"x"),
        };
        let answers = [
            Reply::Held,
            Reply::NotStarted,
            Reply::Delivered(1),
            Reply::Finished(Outcome::Cancelled),
            Reply::Forbidden("because".into()),
            Reply::Submitted(vec![TaskId::new()]),
            Reply::Ended(r#"{"a":1.5}"#.parse().unwrap()),
        ];
        let answers = answers.into_iter().map(|reply| PostToEndpoint::Answer(answer(reply)));
        for post in answers.chain([PostToEndpoint::Deliver(deliver)]) {
            let body = post.encode();
            assert_eq!(decode_steering(&body), Ok(Steering::Post(post.clone())));
            assert_eq!(decode_steering(&rearranged(&body)), Ok(Steering::Post(post.clone())));
            let later = String::from_utf8(body).unwrap().replacen(":1,", ":2,", 1);
            assert_eq!(decode_steering(later.as_bytes()).unwrap_err().kind, post.kind().into());
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_by_and_says_why() {
        let body = format!(r#"{{"version":1,"type":"{REQUEST_TYPE}","request":7}}"#);
        let ToService::Unknown(unknown) = decode_to_service(body.as_bytes()) else {
            panic!("it was read")
        };
        assert_eq!(&*unknown.kind, REQUEST_TYPE);
        assert!(unknown.reason.contains("cannot be read"), "{}", unknown.reason);
    }

    #[test]
    fn the_largest_message_fits_whatever_its_bytes_are() {
        for byte in [b'a', b'\n', 1, 0xff] {
            let content = message(&vec![byte; MAX_MESSAGE]);
            let size = encode_request(&request(Ask::Send(content))).len();
            assert!(size < MAX_BODY, "{byte}: {size}");
        }
    }

    #[test]
    fn an_addressee_has_a_length_and_no_control_characters() {
        for good in ["in", "é", &"a".repeat(MAX_ADDRESSEE)] {
            assert!(is_addressee(good), "{good}");
        }
        for bad in ["", "a\nb", &"a".repeat(MAX_ADDRESSEE + 1)] {
            assert!(!is_addressee(bad), "{bad}");
        }
    }
}
