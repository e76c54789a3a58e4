//! The seam between the engine, which chooses tasks, and the executors, which run them.
//!
//! Only types and one trait. Touches nothing. An executor gets a task and a
//! [`RunContext`], tells events to its sink, obeys its stop signal, and returns an
//! [`Ended`]. Promises that a run has no error of its own: a task that cannot be
//! started has a [`Report`] too.

use super::capture::Captured;
use super::events::Events;
use crate::pending::stop::{StopReason, StopSignal};
use crate::storage::journal::RunNotes;
use async_trait::async_trait;
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::task::call_error::CallError;
use clutch_common::task::json::Json;
use clutch_common::task::removed_files::RemovedFiles;
use clutch_common::task::result::Outcome;

/// Runs tasks, any number of them at the same time.
#[async_trait]
pub(crate) trait Executor: Send + Sync {
    /// Runs one attempt at `task` to its end. After a stop signal the run is ended early,
    /// its processes included. The future is to be polled to its end: dropping it
    /// abandons the run in an undefined state.
    async fn run(&self, task: &Task, context: &RunContext) -> Ended;

    /// Ends what is kept from one task to the next. Nothing is run after it.
    async fn close(&self) {}
}

/// The context of a run: how it is stopped, and where its events go.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunContext {
    /// The signal to end early.
    pub(crate) stop: StopSignal,
    /// Where its events go.
    pub(crate) events: Events,
    /// Where it is noted that its process or call runs: a death of the daemon meanwhile
    /// counts against the task.
    pub(crate) notes: RunNotes,
}

/// The end of a run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Ended {
    /// The task has an outcome: it ended by itself, or was stopped for a reason that
    /// [ends it](StopReason::ends_task).
    Finished(Report),
    /// The run was stopped, and the task has no outcome. Its processes are gone; what
    /// becomes of the task is the caller's decision.
    Stopped(StopReason),
}

impl Ended {
    /// The outcome, if the task has one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Finished(report) => Some(report.outcome),
            Self::Stopped(_) => None,
        }
    }
}

/// The report on a task that has ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Report {
    /// `Succeeded`, `Failed`, `TimedOut`, or `Rejected` for a call of a function that
    /// this endpoint does not have.
    pub(crate) outcome: Outcome,
    /// The value that a function returned.
    pub(crate) value: Option<Json>,
    /// The exit code, where the process exited.
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended the process, where one did.
    pub(crate) signal: Option<i32>,
    /// Why, in words, where exit code and signal do not say it all.
    pub(crate) reason: Option<String>,
    /// The shape of a failed call's error, where the worker tells it.
    pub(crate) error: Option<Box<CallError>>,
    /// Standard output.
    pub(crate) stdout: Captured,
    /// Standard error.
    pub(crate) stderr: Captured,
    /// When the process started, in milliseconds since the Unix epoch; `None`
    /// if it could not be started.
    pub(crate) started_at_ms: Option<u64>,
    /// When all of its processes were gone, in milliseconds since the Unix
    /// epoch.
    pub(crate) ended_at_ms: u64,
    /// CPU time of the process and the children it waited for, user and
    /// system, in milliseconds.
    pub(crate) cpu_ms: Option<u64>,
    /// Peak resident memory of the largest of those processes, in bytes;
    /// `None` where it is too small to be told from the endpoint's own.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// The files that were removed with its sandbox, if there were any.
    pub(crate) removed_files: Option<Box<RemovedFiles>>,
}

impl Report {
    /// Creates a report of an outcome, as of now, and of nothing else.
    pub(crate) fn blank(outcome: Outcome) -> Self {
        Self {
            outcome,
            value: None,
            exit_code: None,
            signal: None,
            reason: None,
            error: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            started_at_ms: None,
            ended_at_ms: now_ms(),
            cpu_ms: None,
            peak_memory_bytes: None,
            removed_files: None,
        }
    }

    /// Creates the report of a task that could not be started.
    pub(crate) fn not_run(reason: String) -> Self {
        Self { reason: Some(reason), ..Self::blank(Outcome::Failed) }
    }
}
