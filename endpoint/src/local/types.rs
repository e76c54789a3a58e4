//! The requests and answers that travel over the daemon's own socket, as JSON. Pure.

use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::result::Outcome;
use clutch_common::wire::Role;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

/// The answer to `GET /v1/status`. Times are in milliseconds since the Unix epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The version of the program.
    pub(crate) version: String,
    /// The daemon's process.
    pub(crate) pid: u32,
    /// The endpoint.
    pub(crate) endpoint_id: EndpointId,
    /// Its name at the service.
    pub(crate) name: String,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The id of the state folder.
    pub(crate) state_id: StateId,
    /// When the daemon was started.
    pub(crate) started_at_ms: u64,
    /// When this was told.
    pub(crate) now_ms: u64,
    /// The link to the broker.
    pub(crate) link: LinkView,
    /// The role on the present link; none without a link.
    pub(crate) role: Option<Role>,
    /// How many slots there are.
    pub(crate) slots: usize,
    /// How many of them the tasks take that run.
    pub(crate) slots_used: usize,
    /// How many tasks have a slot.
    pub(crate) running: usize,
    /// How many tasks are accepted and not finished, those that run among them.
    pub(crate) accepted: usize,
    /// How many results the broker has not confirmed.
    pub(crate) undelivered: u64,
    /// The free bytes of the state folder's file system; absent if they cannot be read.
    pub(crate) disk_free_bytes: Option<u64>,
    /// The drains in force.
    pub(crate) drains: DrainsView,
    /// The functions that tasks can call.
    pub(crate) functions: Vec<Function>,
    /// The troubles that keep tasks from starting, each as `subject: words`.
    pub(crate) troubles: Vec<String>,
    /// How many control messages were passed by as this version does not know them.
    pub(crate) passed_by: u64,
}

/// The link to the broker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct LinkView {
    /// Whether it is up, and what for.
    pub(crate) state: LinkState,
    /// Since when.
    pub(crate) since_ms: u64,
    /// The broker's address, without the password.
    pub(crate) address: String,
    /// The last fault of a link that is down.
    pub(crate) fault: Option<String>,
    /// The advice to a person about the fault.
    pub(crate) advice: Option<String>,
    /// When it is tried again.
    pub(crate) next_try_ms: Option<u64>,
}

/// Whether the link is up, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LinkState {
    /// It has not been up since the start, and has not failed.
    Connecting,
    /// Tasks are read.
    Engaged,
    /// Another instance reads the tasks.
    StandingBy,
    /// It is down.
    Disengaged,
}

/// The drains in force, by their origin. Each is ended by its own resume.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DrainsView {
    /// By the service.
    pub(crate) service: Option<DrainView>,
    /// By `clutch-endpoint drain`.
    pub(crate) local: Option<DrainView>,
}

/// A drain in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DrainView {
    /// When tasks that still run are stopped.
    pub(crate) deadline_ms: Option<u64>,
}

/// A function and its workers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// How many workers there may be.
    pub(crate) at_most: usize,
    /// How many wait for a call.
    pub(crate) idle: usize,
    /// How many have a call, are started or are being stopped.
    pub(crate) busy: usize,
}

/// The answer to `GET /v1/tasks`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Tasks {
    /// The tasks that are accepted and not finished: those that run, then those that wait.
    pub(crate) tasks: Vec<TaskView>,
    /// How many there are that are not in this answer.
    pub(crate) more: usize,
}

/// A task that is accepted and not finished.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct TaskView {
    /// The task.
    pub(crate) task_id: TaskId,
    /// The attempt at it.
    pub(crate) attempt: u32,
    /// Its name, if it has one.
    pub(crate) name: Option<String>,
    /// Its work: the beginning of its command or call.
    pub(crate) work: String,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Since when its process or call runs, in milliseconds since the Unix epoch.
    pub(crate) since_ms: Option<u64>,
    /// How much of its walltime is left.
    pub(crate) walltime_left_ms: Option<u64>,
    /// Its first process, or the worker that has its call.
    pub(crate) pid: Option<u32>,
    /// Why it waits.
    pub(crate) why: Option<String>,
}

impl TaskView {
    /// The attempt at the task.
    pub(crate) fn id(&self) -> Attempt {
        Attempt { task_id: self.task_id, attempt: self.attempt }
    }
}

/// How far a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It waits for a slot.
    Waiting,
    /// It has a slot, and its process or worker is being started.
    Starting,
    /// Its process or call runs.
    Running,
}

/// The body of `POST /v1/drain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainRequest {
    /// How long tasks that run may still take; for ever if absent.
    #[serde(default)]
    pub(crate) within_ms: Option<u64>,
}

/// The answer to a request that is not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// Why, and what to do.
    pub(crate) error: ErrorWords,
}

/// The words of a refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ErrorWords {
    /// Why, and what to do.
    pub(crate) message: String,
}

/// An error of a task's request: problem details, as RFC 9457 describes them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// The kind, a word for programs.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The fault, and what to do, for people.
    pub(crate) detail: String,
    /// The outcome of a task that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// The attempt that superseded another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// Whether a process may have taken the message all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) may_have_been_taken: bool,
}

/// The answer to `GET /v1/whoami`: a task as it knows itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct WhoAmI {
    /// The task.
    pub(crate) task: TaskId,
    /// The attempt at it.
    pub(crate) attempt: u32,
    /// The endpoint that runs it.
    pub(crate) endpoint: EndpointId,
    /// The endpoint's name.
    pub(crate) endpoint_name: String,
    /// The task's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The task that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<TaskId>,
    /// How many slots it takes.
    pub(crate) cores: u32,
    /// When its walltime is over, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) walltime_ends_ms: Option<u64>,
}

/// The answer to a message that was sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SendAnswer {
    /// The message's id.
    pub(crate) message: Uuid,
    /// The attempt with the process that took it; absent if the service keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delivered: Option<Delivered>,
    /// Whether the service keeps it until it is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) kept: bool,
}

/// A message was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Delivered {
    /// The attempt with the process that took it.
    pub(crate) attempt: u32,
}

/// Why a task is to end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct StopView {
    /// `cancelled`, `walltime`, `shutdown` or `drained`.
    pub(crate) reason: String,
}
