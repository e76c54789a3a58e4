//! The relatives of a task: the one that submitted it, and those that it and its children
//! submitted. Pure.

use super::TaskState;
use clutch_common::id::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A relative of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Relative {
    /// The task.
    pub(crate) id: TaskId,
    /// The task that submitted it.
    pub(crate) parent: Option<TaskId>,
    /// Where it is.
    pub(crate) state: TaskState,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The beginning of its command line, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

/// The relatives of a task that are shown with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Family {
    /// The id of the task that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_id: Option<TaskId>,
    /// The parent itself, unless it is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Relative>,
    /// The tasks that it submitted, and those that they did, each after its parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) descendants: Vec<Relative>,
    /// Whether there are more of these than are shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
}

impl Family {
    /// Whether the task has no relative.
    pub(crate) fn is_empty(&self) -> bool {
        self.parent_id.is_none() && self.descendants.is_empty()
    }
}
