//! An event of the feed: something that happened to a task or an endpoint. Pure.

use super::{EndpointStatus, TaskState};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::wire::TaskProgress;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FeedKind {
    /// The task was recorded, and waits.
    Recorded,
    /// The task waits again: its next attempt, or one that the broker did not take.
    Waiting,
    /// The broker has the task.
    Submitted,
    /// The endpoint has the task, and it waits there for a slot.
    Accepted,
    /// The task has a slot of the endpoint.
    Running,
    /// The task told progress.
    Progress,
    /// The outcome of the task is recorded: its `state` says which.
    Outcome,
    /// The endpoint is in another way than before: its `status` says how.
    Endpoint,
}

impl FeedKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 8] = [
        Self::Recorded,
        Self::Waiting,
        Self::Submitted,
        Self::Accepted,
        Self::Running,
        Self::Progress,
        Self::Outcome,
        Self::Endpoint,
    ];

    /// The name it has in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Waiting => "waiting",
            Self::Submitted => "submitted",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Progress => "progress",
            Self::Outcome => "outcome",
            Self::Endpoint => "endpoint",
        }
    }
}

impl fmt::Display for FeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FeedKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
            format!("'{text}' is no kind of event; expected {}", names.join(", "))
        })
    }
}

/// Something that happened to a task or an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FeedEvent {
    /// The kind.
    pub(crate) kind: FeedKind,
    /// When the service noticed, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// The endpoint, or that of the task.
    pub(crate) endpoint: EndpointId,
    /// Its name, where this service provisioned it.
    pub(crate) endpoint_name: Option<String>,
    /// How the endpoint is, of an event of an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<EndpointStatus>,
    /// The task, of an event of a task.
    #[serde(flatten)]
    pub(crate) of: Option<FeedTask>,
}

/// The task of an event, as it was then.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FeedTask {
    /// The task.
    pub(crate) task: TaskId,
    /// Its submission, where it was submitted through this service.
    pub(crate) key: Option<String>,
    /// Its index in the submission.
    pub(crate) index: Option<u64>,
    /// A name for people.
    pub(crate) name: Option<String>,
    /// Its state.
    pub(crate) state: TaskState,
    /// The attempt that is under way, or that the outcome is from.
    pub(crate) attempt: u32,
    /// Its progress, of an event of that kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<TaskProgress>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_spelling() {
        for kind in FeedKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("ended".parse::<FeedKind>().unwrap_err().contains("outcome"));
    }
}
