//! The end of a run: its cause, and what is reaped and removed then.
//!
//! Touches: the leader's zombie and the sandbox.

use super::sandbox::{RunEnd, Sandbox};
use crate::execution::capture::Captured;
use crate::execution::os::exit_watch::ExitWatch;
use crate::execution::os::process_tree::ProcessTree;
use crate::execution::os::spawn::Leader;
use crate::execution::os::terminate::Terminated;
use crate::pending::stop::{StopReason, StopSignal};
use crate::storage::journal::Note;
use clutch_common::task::removed_files::RemovedFiles;
use std::future::pending;
use std::time::Duration;
use tokio::time::sleep;
use wait4::ResUse;

/// The cause of the end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EndCause {
    /// The leader has exited.
    Exited,
    /// It is stopped.
    Stopped(StopReason),
}

/// The usage of a leader that is reaped, and the files that went with its sandbox.
#[derive(Default)]
pub(super) struct Leavings {
    pub(super) usage: Option<ResUse>,
    pub(super) removed_files: Option<RemovedFiles>,
}

/// A run that is over: no process of its tree is left, or none can be ended.
pub(super) struct RunOver {
    pub(super) cause: EndCause,
    pub(super) ended: Terminated,
    pub(super) left: Leavings,
    /// Standard output and standard error.
    pub(super) output: (Captured, Captured),
}

/// The leader to be reaped and the sandbox to be removed when a run is over.
#[derive(Debug)]
pub(super) struct Cleanup {
    pub(super) cause: EndCause,
    pub(super) leader: Leader,
    pub(super) tree: ProcessTree,
    pub(super) sandbox: Option<Sandbox>,
    /// Dropped when the end of the run is seen.
    pub(super) note: Option<Note>,
}

impl Cleanup {
    /// Cleans up, unless a process of the tree is still there.
    pub(super) fn if_tree_is_gone(mut self) -> Result<Leavings, Box<Self>> {
        match self.leader.reap_alone(&self.tree) {
            Some(usage) => {
                drop(self.note.take());
                Ok(self.close_sandbox(usage, Sandbox::close_deserted))
            }
            None => Err(Box::new(self)),
        }
    }

    pub(super) fn now(mut self, reap: fn(&mut Leader) -> Option<ResUse>) -> Leavings {
        let usage = reap(&mut self.leader);
        drop(self.note.take());
        self.close_sandbox(usage, Sandbox::close)
    }

    fn close_sandbox(
        &self,
        usage: Option<ResUse>,
        close: fn(&Sandbox, RunEnd) -> Option<RemovedFiles>,
    ) -> Leavings {
        let success = usage.is_some_and(|usage| usage.status.success());
        let end = match self.cause {
            EndCause::Exited if success => RunEnd::Succeeded,
            EndCause::Stopped(reason) if !reason.ends_task() => RunEnd::Stopped,
            EndCause::Exited | EndCause::Stopped(_) => RunEnd::Failed,
        };
        let removed_files = self.sandbox.as_ref().and_then(|sandbox| close(sandbox, end));
        Leavings { usage, removed_files }
    }
}

/// Waits for a reason to end.
pub(super) async fn end_cause(
    watch: &ExitWatch,
    walltime: Option<Duration>,
    stop: &StopSignal,
) -> EndCause {
    let expiry = async {
        match walltime {
            Some(walltime) => sleep(walltime).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = watch.ended() => EndCause::Exited,
        reason = stop.wait() => EndCause::Stopped(reason),
        () = expiry => EndCause::Stopped(StopReason::Walltime),
    }
}
