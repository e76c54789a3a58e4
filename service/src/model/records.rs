//! The recorded facts about tasks, as they are shown to people and programs. Pure.

use super::{Family, LiveTask, PlacementView, TaskState, TimelineStep, Why};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::TaskResult;
use clutch_common::task::{Task, is_one, one_core};
use clutch_common::wire::TaskProgress;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A task in a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TaskSummary {
    /// The task.
    pub(crate) id: TaskId,
    /// The endpoint it is for; the id that stands for its topic while it is of one and not placed.
    pub(crate) endpoint: EndpointId,
    /// The name of the endpoint, where this service provisioned it.
    pub(crate) endpoint_name: Option<String>,
    /// The topic that it was submitted to, if it was to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    /// The submission, where it was submitted through this service.
    pub(crate) key: Option<String>,
    /// Its index in the submission; counts from 0.
    pub(crate) index: Option<u64>,
    /// A name for people.
    pub(crate) name: Option<String>,
    /// The beginning of its command line, for people.
    pub(crate) command: Option<String>,
    /// Where it is.
    pub(crate) state: TaskState,
    /// The attempt that the recorded outcome is from.
    pub(crate) attempt: Option<u32>,
    /// When it was recorded, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// When the broker confirmed it.
    pub(crate) submitted_at_ms: Option<u64>,
    /// When the recorded attempt ended, by the endpoint's clock.
    pub(crate) ended_at_ms: Option<u64>,
    /// How early it starts among tasks that wait; left out where it is normal.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub(crate) priority: Priority,
    /// How many of the endpoint's slots it takes; left out where that is one.
    #[serde(default = "one_core", skip_serializing_if = "is_one")]
    pub(crate) cores: u32,
    /// Its last progress while it runs; not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<TaskProgress>,
}

/// A result as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Recorded {
    /// The result.
    #[serde(flatten)]
    pub(crate) result: TaskResult,
    /// How often it arrived again.
    pub(crate) duplicates: u64,
    /// When it arrived first, in milliseconds since the Unix epoch.
    pub(crate) received_at_ms: u64,
}

impl<'de> Deserialize<'de> for Recorded {
    /// In two passes: what is read through `flatten` cannot keep a text as it is.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Besides {
            duplicates: u64,
            received_at_ms: u64,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let result = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let Besides { duplicates, received_at_ms } =
            serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { result, duplicates, received_at_ms })
    }
}

/// Everything known about one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TaskDetail {
    /// The task as it is listed.
    #[serde(flatten)]
    pub(crate) summary: TaskSummary,
    /// The task as it was published, where this service did.
    pub(crate) task: Option<Task>,
    /// When it is due, if it is scheduled, or was, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due_at_ms: Option<u64>,
    /// When it, and the other tasks of its submission, were released because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) released_at_ms: Option<u64>,
    /// How long after its moment that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) late_ms: Option<u64>,
    /// Where it was placed, if it was submitted to a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<PlacementView>,
    /// When its next attempt is due, while it pauses before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_at_ms: Option<u64>,
    /// Whether its endpoint was asked for it; only for a task that may be lost.
    #[serde(default)]
    pub(crate) asked: Option<Asked>,
    /// The results of all its attempts, first attempt first.
    pub(crate) results: Vec<Recorded>,
    /// How far it is at its endpoint, by the endpoint's last event; not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live: Option<LiveTask>,
    /// Why it has no outcome yet; not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Why>,
    /// The tasks that wait for each other in a ring, from this one on, if it is in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ring: Vec<TaskId>,
    /// How many messages the service keeps until a process of it takes them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) kept_messages: u64,
    /// The task that submitted it, and those that it submitted.
    #[serde(default, skip_serializing_if = "Family::is_empty")]
    pub(crate) family: Family,
    /// The steps of its last attempt, in order; made from the above.
    #[serde(default)]
    pub(crate) timeline: Vec<TimelineStep>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Whether an endpoint was asked what became of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Asked {
    /// When it was asked last.
    pub(crate) asked_at_ms: Option<u64>,
    /// When it had read that, and did not say that the task is lost.
    pub(crate) answered_at_ms: Option<u64>,
}

/// The tasks of an endpoint that have been without a result for long, or may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Missing {
    /// The endpoint's name.
    pub(crate) endpoint: String,
    /// How many there are.
    pub(crate) tasks: u64,
    /// How many of them the endpoint has not said anything about.
    pub(crate) unanswered: u64,
    /// How many of these it was not asked for yet.
    pub(crate) unasked: u64,
    /// When the oldest was submitted.
    pub(crate) since_ms: u64,
    /// The longest time ago that it was asked for one.
    pub(crate) asked_at_ms: Option<u64>,
}

/// A task with its recorded result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TaskOutcome {
    /// The task as it is listed.
    #[serde(flatten)]
    pub(crate) summary: TaskSummary,
    /// The recorded result; nothing while there is none.
    pub(crate) result: Option<Recorded>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_value_is_read_as_it_was_written() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let json = format!(
            r#"{{"task_id":"{id}","attempt":1,"outcome":"succeeded","value":[1.50, null],
                "ended_at_ms":1,"endpoint_id":"{id}","duplicates":2,"received_at_ms":3}}"#
        );
        let recorded: Recorded = serde_json::from_str(&json).unwrap();
        assert_eq!(recorded.result.value.as_ref().unwrap().text(), "[1.50, null]");
        assert_eq!((recorded.duplicates, recorded.received_at_ms), (2, 3));
        let again: Recorded =
            serde_json::from_str(&serde_json::to_string(&recorded).unwrap()).unwrap();
        assert_eq!(again, recorded);
    }
}
