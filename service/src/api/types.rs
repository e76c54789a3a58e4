//! The bodies of the API's requests and answers, as `design/0006-api.md` describes them,
//! made from the types of `model`. Pure.

use crate::model::{
    Anomalies, DueTime, EndpointDetail, EndpointSummary, Missing, Page, Progress, QueueHazard,
    RetryPolicy, TaskOutcome, TaskSpec, TaskState, TaskSummary, TopicSummary, TopicView,
};
use clutch_common::id::{EndpointId, StateId, TaskId};
use clutch_common::task::blob::Blob;
use clutch_common::task::result::Outcome;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most tasks that one request may carry.
pub(crate) const MAX_TASKS_PER_REQUEST: usize = 1000;
/// The most tasks that one submission may have.
pub(crate) const MAX_TASKS_PER_SUBMISSION: u64 = 10_000_000;
/// The most tasks that one request may name.
pub(crate) const MAX_TASKS_NAMED: usize = 10_000;
/// The most rows of a page.
pub(crate) const MAX_PAGE: u64 = 1000;
/// The longest key, in characters.
pub(crate) const MAX_KEY: usize = 128;

/// A part of a submission, or all of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SubmitRequest)]
pub(crate) struct SubmitRequest<T = TaskSpec> {
    /// The endpoint's name or id; exactly one of this and `topic` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The topic that the tasks go to: each is given to one of its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub(crate) topic: Option<String>,
    /// The version of the function that members must have; with `topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) function_version: Option<String>,
    /// How long a member may take to start a task, in milliseconds; 60,000 unless given; with
    /// `topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) start_within_ms: Option<u64>,
    /// How long a task may wait until a member is given it, in milliseconds; then it ends as
    /// expired; with `topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) place_within_ms: Option<u64>,
    /// Names the submission; a task of it is known by key and index.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub(crate) key: String,
    /// How many tasks the whole submission has.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub(crate) total: u64,
    /// The index of the first task here; counts from 0.
    #[serde(default)]
    #[schema(maximum = 9_999_999)]
    pub(crate) first: u64,
    /// The tasks.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) tasks: Vec<T>,
    /// When the service runs tasks of the submission again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<RetryPolicy>,
    /// When the tasks are due; at once unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<DueTime>,
    /// How long to wait for their outcomes, in milliseconds. Once all are recorded
    /// the answer comes, whether or not the broker's word is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wait_ms: u64,
    /// Answer only once the broker has confirmed the tasks, and with an error if it does not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) confirmed: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The tasks that are recorded now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmitAnswer {
    /// The endpoint's id; of a topic, the id that stands for it.
    pub(crate) endpoint: EndpointId,
    /// The tasks' ids, in the order of the request.
    pub(crate) ids: Vec<TaskId>,
    /// How many of them this request recorded; the others had been before.
    pub(crate) recorded: u64,
    /// Why those that this request recorded wait; nothing while there is a link to the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<String>,
    /// When they are due, in milliseconds since the Unix epoch, if they are scheduled, or were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due_at_ms: Option<u64>,
    /// The reasons for which the tasks do not run for now, in words for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// How far they are, if that was waited for: of the whole submission, if it
    /// came in this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Progress>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TaskPage {
    /// The tasks.
    pub(crate) tasks: Vec<TaskSummary>,
    /// The value of `before` for the next page; none after the last.
    pub(crate) next: Option<u64>,
}

impl From<Page<TaskSummary>> for TaskPage {
    fn from(page: Page<TaskSummary>) -> Self {
        Self { tasks: page.items, next: page.next }
    }
}

/// All that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MissingPage {
    /// By endpoint.
    pub(crate) missing: Vec<Missing>,
}

/// A page of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResultPage {
    /// The tasks, in the order of their submission.
    pub(crate) results: Vec<TaskOutcome>,
    /// How many tasks there are to be, over all pages.
    pub(crate) total: u64,
    /// How many of these are forgotten, and on no page.
    #[serde(default)]
    pub(crate) forgotten: u64,
    /// The value of `from` for the next page; none after the last.
    pub(crate) next: Option<u64>,
}

/// A piece of a task's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct OutputPiece {
    /// The position of its first byte in the stream. Where it is behind the end of the piece
    /// before, bytes between them are missing.
    pub(crate) from: u64,
    /// The bytes.
    pub(crate) bytes: Blob,
}

/// The output of a task from a position on, as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct OutputAnswer {
    /// Where the task is.
    pub(crate) state: TaskState,
    /// The attempt that the output is from.
    pub(crate) attempt: u32,
    /// The run of that attempt, counted from 1 while it is followed: the attempt was started
    /// again where this grows, and its output begins anew.
    pub(crate) run: u64,
    /// Whether the service has its link to the broker.
    pub(crate) engaged: bool,
    /// The output.
    pub(crate) pieces: Vec<OutputPiece>,
    /// How the process ended, where it did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// Whether the task has its outcome, and this is the last of its output.
    pub(crate) ended: bool,
}

/// The tasks to wait for: exactly one of `key` and `tasks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitRequest {
    /// All tasks of a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// These tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10_000)]
    pub(crate) tasks: Vec<TaskId>,
    /// Answer as soon as the number of tasks done differs from this, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<u64>,
    /// Answer after this many milliseconds at the latest; at most 10 minutes.
    pub(crate) timeout_ms: u64,
}

/// A page of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointPage {
    /// Whether the broker link is up: without it, less is known of each.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// The endpoints, by name.
    pub(crate) endpoints: Vec<EndpointSummary>,
    /// Tasks that wait for each other in a ring, by messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rings: Vec<Vec<TaskId>>,
    /// The value of `after` for the next page; none after the last.
    pub(crate) next: Option<String>,
}

/// One endpoint in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointAnswer {
    /// Whether the broker link is up.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// The endpoint.
    pub(crate) endpoint: EndpointDetail,
}

/// A page of the topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicPage {
    /// Whether the broker link is up: without it, nothing is placed.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// The topics, by name.
    pub(crate) topics: Vec<TopicSummary>,
    /// The value of `after` for the next page; none after the last.
    pub(crate) next: Option<String>,
}

/// One topic in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicAnswer {
    /// Whether the broker link is up.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// The topic.
    pub(crate) topic: TopicView,
}

/// Has an endpoint drain.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainRequest {
    /// How long tasks that run may go on, in milliseconds from the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31_622_400_000_u64)]
    pub(crate) deadline_in_ms: Option<u64>,
}

/// Whether an endpoint is to drain, from a request on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DrainAnswer {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is to drain.
    pub(crate) draining: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub(crate) since_ms: Option<u64>,
    /// When tasks that still run are stopped.
    pub(crate) deadline_ms: Option<u64>,
    /// Whether the request changed anything.
    pub(crate) changed: bool,
    /// Whether the broker has the message that says so.
    pub(crate) confirmed: bool,
    /// Why it does not; it is sent again until it does.
    pub(crate) unsent: Option<String>,
}

/// The tasks to cancel: those that meet every condition. At least one of `tasks`, `key`,
/// `endpoint`, `topic` and `name` is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRequest {
    /// Only these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10_000)]
    pub(crate) tasks: Vec<TaskId>,
    /// Only those of a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Only those that were submitted to an endpoint, by its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Only those that were submitted to a topic; not with `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    /// Only those with this name; each `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Only those in one of these states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<TaskState>)]
    pub(crate) states: Vec<String>,
    /// Whether the tasks that these submitted are cancelled as well, and those that they did.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) with_children: bool,
    /// How long to wait for endpoints that are asked and may answer, in milliseconds; at most
    /// 10 minutes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wait_ms: u64,
}

/// The fates of the tasks to cancel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CancelAnswer {
    /// How many ended as cancelled.
    pub(crate) cancelled: u64,
    /// How many have no outcome yet: their endpoints are asked.
    pub(crate) asked: u64,
    /// How many had another outcome, or came to one before they could be stopped.
    pub(crate) too_late: u64,
    /// The endpoints that were asked.
    pub(crate) endpoints: Vec<AskedEndpoint>,
}

/// An endpoint that was asked to cancel tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AskedEndpoint {
    /// Its id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How many of the tasks have no outcome yet.
    pub(crate) asked: u64,
    /// Whether an instance of it reads its task queue, where that is known.
    pub(crate) online: Option<bool>,
}

/// The ended tasks to forget: exactly one of `key` and `older_than_ms`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgetRequest {
    /// Those of a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Those with an outcome that was recorded longer ago than this, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) older_than_ms: Option<u64>,
    /// Only count them.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// The `next` of the answer before.
    #[serde(default)]
    pub(crate) from: u64,
}

/// The work of a request to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ForgetAnswer {
    /// How many tasks it forgot, or would have.
    pub(crate) tasks: u64,
    /// How many submissions went with the last of their tasks.
    pub(crate) submissions: u64,
    /// How many records of schedules' instants it forgot, with the tasks that they had.
    pub(crate) occurrences: u64,
    /// How many tasks without an outcome it met, which stay.
    pub(crate) unfinished: u64,
    /// The value of `from` for the next request; none once all is done.
    pub(crate) next: Option<u64>,
}

/// Removes an endpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveRequest {
    /// Whether tasks without an outcome end, instead of keeping the endpoint: they are cancelled
    /// where it is online, and otherwise end without it.
    #[serde(default)]
    pub(crate) end_tasks: bool,
    /// How long to wait for an endpoint that is online to end them, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wait_ms: u64,
}

/// Declares an endpoint's state folders lost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LostRequest {
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateId>,
}

/// The state folders that a request declared lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LostAnswer {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// The state folders that are given up by this request.
    pub(crate) states: Vec<StateId>,
    /// How many tasks may be lost with them.
    pub(crate) tasks: u64,
}

/// The tasks to run again: exactly one of `key` and `tasks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryRequest {
    /// These tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10_000)]
    pub(crate) tasks: Vec<TaskId>,
    /// The tasks of a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Only those with one of these outcomes; of a key, all but `succeeded` unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Outcome>)]
    pub(crate) states: Vec<String>,
}

/// How many tasks are run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetryAnswer {
    /// Run again.
    pub(crate) retried: u64,
    /// Not, as they have no outcome.
    pub(crate) open: u64,
    /// Not, as another program submitted them, and what to run is not recorded.
    pub(crate) external: u64,
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Health {
    /// The service's version.
    pub(crate) version: String,
    /// Whether the broker link is up.
    pub(crate) engaged: bool,
    /// Why it is not.
    pub(crate) fault: Option<String>,
    /// Counts of messages that were not outcomes of this service's tasks, since it started.
    #[serde(default)]
    pub(crate) oddities: Anomalies,
    /// Policies and arguments by which the broker takes messages from the queues, where known.
    #[serde(default)]
    pub(crate) policies: Vec<QueueHazard>,
}

/// An error, as problem details (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problem {
    /// The kind of problem, as a URI that is compared and not fetched.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The kind for people.
    pub(crate) title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub(crate) status: u16,
    /// This problem, as a sentence for people.
    pub(crate) detail: String,
    /// The kind as a word for programs: the last part of `type`.
    pub(crate) code: String,
}
