//! A message that the service keeps for a task, as it is shown. Pure.

use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How far a message is that the service keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageState {
    /// No process of the target has taken it yet.
    Kept,
    /// A process of the target took it.
    Taken,
    /// The sender named an attempt, and a newer one is there.
    Superseded,
    /// The target has its outcome, and did not take it.
    Ended,
}

/// A message that the service keeps, or kept, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MessageView {
    /// Its id.
    pub(crate) id: Uuid,
    /// The task that sent it.
    pub(crate) source: TaskId,
    /// The attempt of that.
    pub(crate) source_attempt: u32,
    /// The target.
    pub(crate) to: TaskId,
    /// The addressee.
    pub(crate) addressee: String,
    /// How many bytes it has.
    pub(crate) bytes: u64,
    /// How far it is.
    pub(crate) state: MessageState,
    /// The outcome of a target that did not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// The attempt that took it, or the newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// When it was kept, in milliseconds since the Unix epoch.
    pub(crate) kept_at_ms: u64,
    /// When it was taken, or could not be any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at_ms: Option<u64>,
}
