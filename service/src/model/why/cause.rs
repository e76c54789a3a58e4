//! The causes for which a task has no outcome, as words for programs. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cause for which a task waits, as a word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitCause {
    /// It is due later.
    Scheduled,
    /// The service has no link to the broker.
    NoLink,
    /// The broker has no queue for the endpoint.
    NoQueue,
    /// The endpoint's queue is full.
    QueueFull,
    /// No endpoint is a member of its topic.
    NoMember,
    /// No member of its topic has its function.
    NoFunction,
    /// No member of its topic has its function in the version that it asks for.
    NoVersion,
    /// No member that can do it takes work.
    NoMemberReady,
    /// Each member that can do it and takes work holds as much as its credit.
    NoCredit,
    /// It is about to be placed at a member of its topic.
    Placing,
    /// A member of its topic was given it, and has not claimed it.
    Unclaimed,
    /// A retry is not due yet.
    RetryPause,
    /// The task is on its way to the broker.
    Submitting,
    /// A cancellation is requested and not answered.
    CancelRequested,
    /// Another instance of the endpoint may have the task.
    InDoubt,
    /// The endpoint was never heard.
    NeverSeen,
    /// The endpoint is offline.
    Offline,
    /// Only an instance that stands by is there.
    StandbyOnly,
    /// The endpoint drains.
    Draining,
    /// The disk of the endpoint is full.
    DiskFull,
    /// The function's workers are starting or broken.
    Workers,
    /// The endpoint's inbox is full.
    InboxFull,
    /// Other tasks are ahead at the broker.
    TasksAhead,
    /// All slots are busy, or as many as leave too few for it.
    SlotsBusy,
    /// It needs more slots than the endpoint has.
    NeedsCores,
    /// The task will expire soon.
    ExpiresSoon,
    /// The endpoint is reading or starting it, as far as is known.
    AboutToStart,
    /// It runs.
    Running,
}

/// Why a task has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Why {
    /// The cause.
    pub(crate) cause: WaitCause,
    /// The sentence for people.
    pub(crate) words: String,
}
