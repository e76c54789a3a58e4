//! Schedules and their occurrences, as they are asked for and shown. Pure.

use super::{RetryPolicy, TaskSpec, TaskState};
use crate::schedule::{PauseCause, Policy, Rule};
use clutch_common::id::TaskId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The longest name of a schedule, in bytes.
const MAX_NAME: usize = 64;

/// The task of a schedule, with the rule of its instants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleSpec {
    /// The name of the endpoint that its tasks go to, or its id.
    pub(crate) endpoint: String,
    /// Which instants it has.
    pub(crate) rule: Rule,
    /// The policy for instants that are missed, or meet an earlier task.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// The task of each instant.
    pub(crate) task: TaskSpec,
    /// When the service runs such a task again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<RetryPolicy>,
}

/// A schedule with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSchedule {
    /// The name, which identifies it.
    pub(crate) name: String,
    /// Its task and its rule.
    pub(crate) spec: ScheduleSpec,
}

impl NamedSchedule {
    /// Checks the bounds of its values.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { name, spec } = self;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            return Err(format!(
                "'{name}' is no name of a schedule: it has 1 to {MAX_NAME} of A-Z a-z 0-9 . - _"
            ));
        }
        spec.rule.check()?;
        spec.policy.check()?;
        spec.task.check()?;
        spec.retry.as_ref().map_or(Ok(()), RetryPolicy::check)
    }
}

/// A change of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScheduleChange {
    /// It is new.
    Added,
    /// It was there, and the same.
    Unchanged,
    /// It was there, and another.
    Replaced,
    /// It is gone, as its owner does not declare it any more.
    Removed,
}

/// A schedule of a set, with the change that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangedSchedule {
    /// Its name.
    pub(crate) name: String,
    /// The change.
    pub(crate) change: ScheduleChange,
    /// In what it differed: the option, the value before, and the value after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<String>,
}

/// The end of a schedule, and its tasks that go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RemovedSchedule {
    /// Its name.
    pub(crate) name: String,
    /// How many of its tasks have no outcome. They go on.
    pub(crate) open: u64,
    /// The first of them, up to 100.
    pub(crate) tasks: Vec<TaskId>,
}

/// A schedule in a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ScheduleSummary {
    /// Its name.
    pub(crate) name: String,
    /// The owner that declares it, if it belongs to a set.
    pub(crate) owner: Option<String>,
    /// Its task and its rule; nothing if they cannot be read.
    pub(crate) spec: Option<ScheduleSpec>,
    /// Why it cannot be read; it does nothing then.
    pub(crate) broken: Option<String>,
    /// When it was added, in milliseconds since the Unix epoch.
    pub(crate) added_at_ms: u64,
    /// When something is due next.
    pub(crate) due_at_ms: Option<u64>,
    /// Since when it is paused.
    pub(crate) paused_ms: Option<i64>,
    /// Why it is paused.
    pub(crate) pause_cause: Option<PauseCause>,
    /// How many tasks its rule made.
    pub(crate) tasks: u64,
    /// How many of its tasks have no outcome.
    pub(crate) running: u64,
    /// How many occurrences failed in a row.
    pub(crate) failures: u32,
    /// Its last occurrence.
    pub(crate) last: Option<Occurrence>,
}

/// A schedule in full.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ScheduleDetail {
    /// The schedule as it is listed.
    #[serde(flatten)]
    pub(crate) summary: ScheduleSummary,
    /// Its next five instants, in milliseconds since the Unix epoch.
    pub(crate) next_ms: Vec<i64>,
    /// Its last twenty occurrences, the newest first.
    pub(crate) occurrences: Vec<Occurrence>,
}

/// The members of a [`ScheduleDetail`] beside those of its summary.
#[derive(Deserialize)]
struct DetailMembers {
    next_ms: Vec<i64>,
    occurrences: Vec<Occurrence>,
}

impl<'de> Deserialize<'de> for ScheduleDetail {
    /// Reads the text twice: the arguments of a call are kept as text, and a flattened member is
    /// not read from text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let summary = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let DetailMembers { next_ms, occurrences } =
            serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { summary, next_ms, occurrences })
    }
}

/// The record of an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Occurrence {
    /// The instant, in milliseconds since the Unix epoch; of several, the first.
    pub(crate) instant_ms: i64,
    /// Of several instants in a row that share the record, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_ms: Option<i64>,
    /// How many instants share the record.
    pub(crate) instants: u64,
    /// `task`, `queued`, `skipped` or `failed`: it became no task.
    pub(crate) end: String,
    /// Why it was skipped, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<TaskId>,
    /// Where that is; nothing once it is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<TaskState>,
    /// Whether a person asked for it.
    pub(crate) by_hand: bool,
    /// When it was recorded.
    pub(crate) recorded_at_ms: u64,
    /// How long after its moment that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) late_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(name: &str, every_ms: i64) -> NamedSchedule {
        let spec = json!({
            "endpoint": "lab",
            "rule": { "recurrence": { "every_ms": every_ms } },
            "task": { "argv": ["true"] },
        });
        NamedSchedule { name: name.to_owned(), spec: serde_json::from_value(spec).unwrap() }
    }

    #[test]
    fn a_schedule_of_a_call_is_read_as_it_was_written() {
        let text = r#"{"name":"a","owner":null,"spec":{"endpoint":"lab","rule":{"recurrence":
            {"every_ms":1000}},"task":{"call":{"function":"f","args":[1.00,{"b":2}]}}},"broken":null,
            "added_at_ms":1,"due_at_ms":null,"paused_ms":null,"pause_cause":null,"tasks":0,
            "running":0,"failures":0,"last":null,"next_ms":[5],"occurrences":[]}"#;
        let detail: ScheduleDetail = serde_json::from_str(text).unwrap();
        let call = detail.summary.spec.as_ref().unwrap().task.call.as_ref().unwrap().to_string();
        assert_eq!((call.as_str(), &detail.next_ms), (r#"f(1.00,{"b":2})"#, &vec![5]));
        let again = serde_json::to_string(&detail).unwrap();
        assert_eq!(serde_json::from_str::<ScheduleDetail>(&again).unwrap(), detail);
        assert!(serde_json::from_str::<ScheduleDetail>("{}").is_err());
    }

    #[test]
    fn a_schedule_out_of_bounds_is_refused() {
        assert_eq!(named("a-b.c_1", 1000).check(), Ok(()));
        for bad in [named("", 1000), named("a b", 1000), named("a", 1)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
