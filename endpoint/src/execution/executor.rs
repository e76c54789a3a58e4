//! What runs a task: the seam between the engine and whatever does the work.
//!
//! Only types and one trait. Touches nothing. Promises that a run has no
//! error of its own: whatever happens to a task is an [`Ended`].

use super::capture::Captured;
use async_trait::async_trait;
use clutch_common::task::Task;
use clutch_common::task::json::Json;
use clutch_common::task::result::Outcome;
use tokio_util::sync::CancellationToken;

/// Runs tasks, any number of them at the same time.
#[async_trait]
pub(crate) trait Executor: Send + Sync {
    /// Runs one attempt at `task` to its end. When `stop` is cancelled the
    /// work is ended early, its processes included. The future is to be
    /// polled to its end: dropping it abandons the work in an undefined state.
    async fn run(&self, task: &Task, stop: CancellationToken) -> Ended;

    /// Ends what is kept from one task to the next. Nothing is run any more.
    async fn close(&self) {}
}

/// How a run ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Ended {
    /// The task came to an end of its own, or to its walltime.
    Finished(Report),
    /// `stop` was cancelled before the task was over. Its processes are gone;
    /// what that means for the task is the caller's decision.
    Stopped,
}

/// What is known about a task that came to its end.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Report {
    /// `Succeeded`, `Failed`, `TimedOut`, or `Rejected` of a call that cannot be
    /// made here.
    pub(crate) outcome: Outcome,
    /// What a function returned.
    pub(crate) value: Option<Json>,
    /// The exit code, where the process exited.
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended the process, where one did.
    pub(crate) signal: Option<i32>,
    /// Why, in words, wherever exit code and signal do not say it all.
    pub(crate) reason: Option<String>,
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
}
