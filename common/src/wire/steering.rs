//! The messages by which the service steers an endpoint: they travel through the queue
//! `<ID>.control`, which the active instance reads before any task and while it works. Pure.
//!
//! A message *in force* is one that the next instance has to obey as well: the reader keeps
//! it unacknowledged, so that the broker delivers it again to each new session. A
//! [`Cancel`] is in force until a [`CancelMark`] that covers it comes through the task queue, a
//! [`Drain`] until a [`Resume`] with a higher number. The others are acknowledged once they
//! are obeyed.

use super::VERSION;
use super::envelope::{enveloped, packed};
use super::post::PostToEndpoint;
use crate::id::Attempt;
use crate::task::Task;
use serde::{Deserialize, Serialize};

/// The AMQP `type` of a [`Cancel`].
pub const CANCEL_TYPE: &str = "clutch.cancel";
/// The AMQP `type` of a [`Drain`].
pub const DRAIN_TYPE: &str = "clutch.drain";
/// The AMQP `type` of a [`Resume`].
pub const RESUME_TYPE: &str = "clutch.resume";
/// The AMQP `type` of a [`Follow`].
pub const FOLLOW_TYPE: &str = "clutch.follow";
/// The AMQP `type` of a [`ReportRequest`].
pub const REPORT_TYPE: &str = "clutch.report";
/// The AMQP `type` of an [`UrgentCopies`].
pub const URGENT_TYPE: &str = "clutch.urgent";
/// The AMQP `type` of a [`CancelMark`].
pub const MARK_TYPE: &str = "clutch.mark";

/// The most attempts in one [`Cancel`].
pub const CANCEL_MAX: usize = 1000;

/// Cancels attempts, and with each the earlier attempts at the same task. Each one that
/// waits ends as `cancelled` without being started, and each one that runs is stopped and
/// ends as `cancelled`; one that has ended stays as it is. One that the endpoint does not
/// know is answered with `lost` as [`Unknown`](crate::task::result::Loss::Unknown), and does
/// not start if it comes later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// Its number: the service counts the steering messages of an endpoint from 1.
    pub number: u64,
    /// The attempts; at most [`CANCEL_MAX`].
    pub attempts: Vec<Attempt>,
}

/// Has the endpoint start no more tasks and read no more of them. Tasks that run go on, and
/// accepted tasks stay where they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// Its number.
    pub number: u64,
    /// The end of the patience with tasks that run, in milliseconds since the Unix epoch:
    /// those that still run then are stopped, and run again after a [`Resume`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Ends each [`Drain`] with a lower number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Its number.
    pub number: u64,
}

/// Has the endpoint publish the output of a running attempt as events for a while, from a
/// position on, or as much of that as it still keeps. Sent again to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Follow {
    /// The attempt.
    pub attempt: Attempt,
    /// How many bytes of standard output the caller has.
    pub stdout_from: u64,
    /// How many bytes of standard error the caller has.
    pub stderr_from: u64,
    /// How long to publish, in milliseconds from the reading of this message.
    pub for_ms: u64,
}

/// Has the endpoint publish a complete [`Events`](super::Events) at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportRequest {}

/// Brings copies of urgent tasks that are in the task queue as well, so that they overtake what
/// is before them there. Each may be left out: the task comes through its queue in any case, and
/// an endpoint runs an attempt once.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UrgentCopies {
    /// The tasks.
    pub copies: Vec<Task>,
}

/// Packs tasks, each encoded by [`encode_task`](super::encode_task), into the body of an
/// [`UrgentCopies`].
#[must_use]
pub fn pack_urgent<T: AsRef<[u8]>>(tasks: &[T]) -> Vec<u8> {
    packed(&format!(r#"{{"version":{VERSION},"type":"{URGENT_TYPE}","copies":["#), tasks)
}

/// Comes through the task queue behind every task that was published before it. Each
/// [`Cancel`] up to a number is no longer in force: all tasks that it names, and that were
/// in the task queue, have been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CancelMark {
    /// The number of the last cancel that it covers.
    pub up_to: u64,
}

/// A message of a control queue.
#[derive(Clone, PartialEq, Debug)]
pub enum Steering {
    /// Cancels attempts.
    Cancel(Cancel),
    /// Starts no more tasks.
    Drain(Drain),
    /// Starts tasks again.
    Resume(Resume),
    /// Publishes the output of a task.
    Follow(Follow),
    /// Publishes all of its state.
    Report(ReportRequest),
    /// Accepts tasks before others.
    Urgent(UrgentCopies),
    /// Brings a message to a task, or an answer.
    Post(PostToEndpoint),
}

impl Steering {
    /// The AMQP `type` of the message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cancel(_) => CANCEL_TYPE,
            Self::Drain(_) => DRAIN_TYPE,
            Self::Resume(_) => RESUME_TYPE,
            Self::Follow(_) => FOLLOW_TYPE,
            Self::Report(_) => REPORT_TYPE,
            Self::Urgent(_) => URGENT_TYPE,
            Self::Post(post) => post.kind(),
        }
    }

    /// Encodes the message into a body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Cancel(cancel) => enveloped(CANCEL_TYPE, cancel),
            Self::Drain(drain) => enveloped(DRAIN_TYPE, drain),
            Self::Resume(resume) => enveloped(RESUME_TYPE, resume),
            Self::Follow(follow) => enveloped(FOLLOW_TYPE, follow),
            Self::Report(report) => enveloped(REPORT_TYPE, report),
            Self::Urgent(copies) => enveloped(URGENT_TYPE, copies),
            Self::Post(post) => post.encode(),
        }
    }
}

/// Encodes a mark into a body.
#[must_use]
pub fn encode_mark(mark: &CancelMark) -> Vec<u8> {
    enveloped(MARK_TYPE, mark)
}
