//! The result of an attempt at a task. Pure.

use crate::id::{Attempt, EndpointId, StateId, TaskId};
use crate::task::blob::Blob;
use crate::task::call_error::CallError;
use crate::task::json::{self, Json};
use crate::task::reason::Reason;
use crate::task::removed_files::RemovedFiles;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The one recorded end of a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The process exited with code 0; the function returned.
    Succeeded,
    /// The process exited with another code, died by a signal, or could not
    /// be started; the function or its worker failed.
    Failed,
    /// The process, or the function's worker, was stopped at its walltime.
    TimedOut,
    /// The task was cancelled.
    Cancelled,
    /// The task could not be accepted; it did not run.
    Rejected,
    /// The task's expiry came before its start; it did not run.
    Expired,
    /// The endpoint crashed while the task ran, and it must not run again.
    Interrupted,
    /// The task took its endpoint down too many times.
    Poisoned,
}

impl Outcome {
    /// Every outcome, in the order of the contract.
    pub const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Rejected,
        Self::Expired,
        Self::Interrupted,
        Self::Poisoned,
    ];

    /// The name it has on the wire, in the API and in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Poisoned => "poisoned",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| format!("'{text}' is not an outcome"))
    }
}

/// Why an attempt that an endpoint reports as [`Outcome::Interrupted`] may not be
/// the end of its task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The instance accepted it, did not start it, and lost the link before the
    /// broker had its acknowledgement for certain: another instance may have
    /// it, or no instance has. The instance has forgotten it.
    HandedBack,
    /// The instance was asked for it by a roll call and does not know it. It
    /// would not run it any more.
    Unknown,
    /// The instance was asked for it by a roll call: it ran to its end, the broker
    /// confirmed its result, and the endpoint does not keep that result any more.
    Delivered,
    /// The instance did not claim it in time ([`TopicTerms`](crate::task::topic::TopicTerms)),
    /// and will not start it.
    NotStarted,
    /// The instance does not offer its topic or its function, and has not started it.
    NotOffered,
}

impl Loss {
    /// Whether the instance says of itself that the attempt, which is of a topic, never started.
    #[must_use]
    pub const fn is_of_a_placement(self) -> bool {
        matches!(self, Self::NotStarted | Self::NotOffered)
    }
}

/// The result of one attempt at one task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskResult {
    /// The task.
    pub task_id: TaskId,
    /// The attempt this is the result of.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code, where the process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the process, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, in words, wherever exit code and signal do not say it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The shape of a failed call's error, where the worker tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<CallError>>,
    /// How it came that the attempt is lost or unaccounted for, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    /// The value that the function returned, `null` too; none of a process.
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Standard output; head and tail around a mark where it was too long.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub stdout: Blob,
    /// How many bytes of standard output were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stdout_omitted: u64,
    /// Standard error; head and tail around a mark where it was too long.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub stderr: Blob,
    /// How many bytes of standard error were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stderr_omitted: u64,
    /// When the endpoint accepted the attempt, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at_ms: Option<u64>,
    /// When the process started, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When the attempt ended, in milliseconds since the Unix epoch.
    pub ended_at_ms: u64,
    /// When the endpoint handed the result to its link, in milliseconds since the Unix epoch.
    /// The message that brings the result says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at_ms: Option<u64>,
    /// CPU time of the process and the children it waited for, user and
    /// system, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Peak resident memory of the largest process, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The files that were removed with the sandbox that it worked in, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_files: Option<RemovedFiles>,
    /// The endpoint that ran it.
    pub endpoint_id: EndpointId,
    /// The state folder that the endpoint kept it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_id: Option<StateId>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl TaskResult {
    /// A result of a task that did not run.
    #[must_use]
    pub fn not_run(
        attempt: Attempt,
        outcome: Outcome,
        reason: String,
        endpoint_id: EndpointId,
        now_ms: u64,
    ) -> Self {
        Self {
            task_id: attempt.task_id,
            attempt: attempt.attempt,
            outcome,
            exit_code: None,
            signal: None,
            reason: Some(reason.into()),
            error: None,
            lost: None,
            value: None,
            stdout: Blob::default(),
            stdout_omitted: 0,
            stderr: Blob::default(),
            stderr_omitted: 0,
            accepted_at_ms: None,
            started_at_ms: None,
            ended_at_ms: now_ms,
            published_at_ms: None,
            cpu_ms: None,
            peak_memory_bytes: None,
            removed_files: None,
            endpoint_id,
            state_id: None,
        }
    }

    /// How much it brings, in bytes: what was written, and what was returned.
    #[must_use]
    pub fn output(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.text().len());
        self.stdout.0.len() + self.stderr.0.len() + value
    }

    /// The attempt this is the result of.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt { task_id: self.task_id, attempt: self.attempt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_null_is_a_value_and_none_is_not() {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        let bare = TaskResult::not_run(attempt, Outcome::Failed, "x".into(), EndpointId::new(), 1);
        for value in [None, Some("null"), Some("[1.0, 2]")] {
            let value = value.map(|text| text.parse::<Json>().unwrap());
            let result = TaskResult { value, ..bare.clone() };
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(json.contains("value"), result.value.is_some());
            assert_eq!(serde_json::from_str::<TaskResult>(&json).unwrap(), result);
        }
    }

    #[test]
    fn outcomes_have_one_spelling_everywhere() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
