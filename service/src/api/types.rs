//! What travels between the API and its clients, as `design/0006-api.md`
//! describes it. Pure.

mod spec;

pub(crate) use spec::TaskSpec;

use crate::broker::counts::Oddities;
use crate::broker::management::Harm;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::Task;
use clutch_common::task::result::{Outcome, TaskResult};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The most tasks that one request may carry.
pub(crate) const MAX_TASKS_PER_REQUEST: usize = 1000;
/// The most tasks that one submission may have.
pub(crate) const MAX_TASKS_PER_SUBMISSION: u64 = 10_000_000;
/// The most tasks that one request may name.
pub(crate) const MAX_TASKS_NAMED: usize = 10_000;
/// The most rows of a page.
pub(crate) const MAX_PAGE: u64 = 1000;
/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 128;

/// Where a task is on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TaskState {
    /// Recorded; the broker has not confirmed it.
    Submitting,
    /// The broker has no queue for it, and does not have it.
    Returned,
    /// The broker's queue is full, and it does not have it.
    Refused,
    /// The broker has it.
    Submitted,
    /// The attempt that was submitted is lost; the broker has not confirmed the
    /// next one.
    Resubmitting,
    /// Its outcome is recorded.
    Done(Outcome),
}

impl TaskState {
    /// The states of a task that the broker is not known to have.
    pub(crate) const UNSUBMITTED: [Self; 3] = [Self::Submitting, Self::Returned, Self::Refused];

    /// What the name alone does not say to people.
    #[must_use]
    pub(crate) fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Submitting => Some("recorded; the broker has not confirmed it"),
            Self::Returned => Some(
                "the broker has no queue for the endpoint: `clutch-service provision` declares \
                 it; then submit again with the same --key",
            ),
            Self::Refused => Some(
                "the queue of the endpoint is full, or the task larger than the broker takes: \
                 submit again with the same --key when there is room, or pass large data by file",
            ),
            Self::Resubmitting => Some(
                "the endpoint has lost the attempt that was submitted; the next one is being \
                 submitted",
            ),
            Self::Submitted | Self::Done(_) => None,
        }
    }

    /// The name it has in the API and in the database.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::Returned => "returned",
            Self::Refused => "refused",
            Self::Submitted => "submitted",
            Self::Resubmitting => "resubmitting",
            Self::Done(outcome) => outcome.as_str(),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "submitting" => Ok(Self::Submitting),
            "returned" => Ok(Self::Returned),
            "refused" => Ok(Self::Refused),
            "submitted" => Ok(Self::Submitted),
            "resubmitting" => Ok(Self::Resubmitting),
            other => other.parse().map(Self::Done).map_err(|_| {
                let outcomes: Vec<&str> = Outcome::ALL.iter().map(|one| one.as_str()).collect();
                format!(
                    "'{other}' is not a state; expected submitting, returned, refused, submitted, \
                     resubmitting, {}",
                    outcomes.join(", ")
                )
            }),
        }
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A part of a submission, or all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitRequest<T = TaskSpec> {
    /// The endpoint's name or id.
    pub(crate) endpoint: String,
    /// Names the submission; a task of it is known by key and index.
    pub(crate) key: String,
    /// How many tasks the whole submission has.
    pub(crate) total: u64,
    /// The index of the first task here; counts from 0.
    #[serde(default)]
    pub(crate) first: u64,
    /// The tasks.
    pub(crate) tasks: Vec<T>,
    /// How long to wait for their outcomes, in milliseconds. Once all are recorded
    /// the answer comes, whether or not the broker's word is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wait_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The tasks that the broker now has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubmitAnswer {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// The tasks' ids, in the order of the request.
    pub(crate) ids: Vec<TaskId>,
    /// How many of them this request published; the others had been before.
    pub(crate) published: u64,
    /// How far they are, if that was waited for: of the whole submission, if it
    /// came in this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Progress>,
}

/// A task in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskSummary {
    /// The task.
    pub(crate) id: TaskId,
    /// The endpoint it is for.
    pub(crate) endpoint: EndpointId,
    /// That endpoint's name, where this service provisioned it.
    pub(crate) endpoint_name: Option<String>,
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
    /// The attempt whose result is the recorded one.
    pub(crate) attempt: Option<u32>,
    /// When it was recorded, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// When the broker confirmed it.
    pub(crate) submitted_at_ms: Option<u64>,
    /// When the recorded attempt ended, by the endpoint's clock.
    pub(crate) ended_at_ms: Option<u64>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskPage {
    /// The tasks.
    pub(crate) tasks: Vec<TaskSummary>,
    /// What to pass as `before` for the next page; nothing after the last.
    pub(crate) next: Option<u64>,
}

/// A result as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskDetail {
    /// The task as it is listed.
    #[serde(flatten)]
    pub(crate) summary: TaskSummary,
    /// The task as it was published, where this service did.
    pub(crate) task: Option<Task>,
    /// What is known of it where it has been without a result for long, or may be lost.
    #[serde(default)]
    pub(crate) asked: Option<Asked>,
    /// The results of all its attempts, first attempt first.
    pub(crate) results: Vec<Recorded>,
}

/// Whether an endpoint was asked what became of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// When it was asked last.
    pub(crate) asked_at_ms: Option<u64>,
    /// When it had read that, and did not say that the task is lost.
    pub(crate) answered_at_ms: Option<u64>,
}

/// The tasks of an endpoint that have been without a result for long, or may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// All that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MissingPage {
    /// By endpoint.
    pub(crate) missing: Vec<Missing>,
}

/// A task with its recorded result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskOutcome {
    /// The task as it is listed.
    #[serde(flatten)]
    pub(crate) summary: TaskSummary,
    /// The recorded result; nothing while there is none.
    pub(crate) result: Option<Recorded>,
}

/// A page of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultPage {
    /// The tasks, in the order of their submission.
    pub(crate) results: Vec<TaskOutcome>,
    /// How many tasks there are to be, over all pages.
    pub(crate) total: u64,
    /// What to pass as `from` for the next page; nothing after the last.
    pub(crate) next: Option<u64>,
}

/// What to wait for: exactly one of `key` and `tasks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitRequest {
    /// All tasks of a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// These tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tasks: Vec<TaskId>,
    /// Answer as soon as the number of tasks done differs from this, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<u64>,
    /// Answer after this many milliseconds at the latest; at most 10 minutes.
    pub(crate) timeout_ms: u64,
}

/// How far a set of tasks is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// How many tasks there are to be.
    pub(crate) total: u64,
    /// How many have a recorded outcome.
    pub(crate) done: u64,
    /// How many of those succeeded.
    pub(crate) succeeded: u64,
    /// How many are in each state.
    pub(crate) states: BTreeMap<String, u64>,
}

impl Progress {
    /// The progress of `total` tasks, of which so many are in each state.
    pub(crate) fn of(total: u64, states: impl IntoIterator<Item = (TaskState, u64)>) -> Self {
        let mut progress = Self { total, ..Self::default() };
        for (state, count) in states {
            if let TaskState::Done(outcome) = state {
                progress.done += count;
                progress.succeeded += if outcome == Outcome::Succeeded { count } else { 0 };
            }
            *progress.states.entry(state.as_str().to_owned()).or_default() += count;
        }
        progress
    }

    /// Whether every task has its outcome.
    #[must_use]
    pub(crate) fn complete(&self) -> bool {
        self.done >= self.total
    }

    /// How many tasks the broker is not known to have: not recorded yet, or
    /// recorded and not confirmed.
    #[must_use]
    pub(crate) fn unsubmitted(&self) -> u64 {
        let recorded: u64 = self.states.values().sum();
        let count = |state: TaskState| self.states.get(state.as_str()).copied().unwrap_or(0);
        let unsubmitted = TaskState::UNSUBMITTED.map(count).iter().sum();
        self.total.saturating_sub(recorded.saturating_sub(unsubmitted))
    }

    /// Whether every task that was submitted has its outcome.
    #[must_use]
    pub(crate) fn settled(&self) -> bool {
        self.done + self.unsubmitted() >= self.total
    }
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The service's version.
    pub(crate) version: String,
    /// Whether the broker link is up.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// What came since it started and is no outcome of a task of its own.
    #[serde(default)]
    pub(crate) oddities: Oddities,
    /// What takes messages from the queues at the broker, where that can be known.
    #[serde(default)]
    pub(crate) policies: Vec<Harm>,
}

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    /// The error.
    pub(crate) error: ErrorDetail,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    /// A word for programs.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_spelling() {
        let all = TaskState::UNSUBMITTED
            .into_iter()
            .chain([TaskState::Submitted, TaskState::Resubmitting])
            .chain(Outcome::ALL.map(TaskState::Done));
        for state in all {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("lost".parse::<TaskState>().unwrap_err().contains("timed_out"));
    }

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

    #[test]
    fn progress_counts_outcomes_and_is_complete_with_the_last() {
        let mut states = vec![
            (TaskState::Submitted, 1),
            (TaskState::Done(Outcome::Succeeded), 2),
            (TaskState::Done(Outcome::Failed), 3),
        ];
        let progress = Progress::of(6, states.clone());
        assert_eq!((progress.done, progress.succeeded, progress.complete()), (5, 2, false));
        states[0].0 = TaskState::Done(Outcome::Expired);
        assert!(Progress::of(6, states).complete());
    }

    #[test]
    fn a_submission_that_was_cut_off_is_settled_with_the_last_that_was_submitted() {
        for state in TaskState::UNSUBMITTED {
            let mut states = vec![(state, 1), (TaskState::Submitted, 2)];
            let progress = Progress::of(10, states.clone());
            assert_eq!((progress.unsubmitted(), progress.settled()), (8, false));
            states[1].0 = TaskState::Done(Outcome::Succeeded);
            let progress = Progress::of(10, states);
            assert_eq!((progress.unsubmitted(), progress.settled()), (8, true));
            assert!(!progress.complete());
        }
    }
}
