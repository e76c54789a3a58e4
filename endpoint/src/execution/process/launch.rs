//! The start of a run, on a thread that may block: makes the sandbox, starts the process
//! and waits a moment for its end.
//!
//! Touches: the process, its pipes and its sandbox. Promises that of a process which
//! could not be started nothing is left.

use super::cleanup::{Cleanup, EndCause, RunOver};
use super::sandbox::{RunEnd, Sandbox};
use crate::execution::events::{Event, Events};
use crate::execution::os::exit_watch::{self, ExitWatch};
use crate::execution::os::process_tree::ProcessTree;
use crate::execution::os::run_tag::RunTag;
use crate::execution::os::spawn::Spawner;
use crate::execution::os::spawn_error::{self, SpawnError};
use crate::execution::os::streams::{ChildEnds, Pipes, Streams};
use crate::execution::os::terminate::Terminated;
use crate::storage::journal::RunNotes;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

/// A process to be started, for the thread that starts it.
pub(super) struct Launch {
    pub(super) command: Command,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) tag: RunTag,
    pub(super) pipes: Pipes,
    pub(super) child_ends: ChildEnds,
    /// Kept until the process needs a handle.
    pub(super) reserve: OwnedFd,
    /// The time of the start, and the events that it is told to.
    pub(super) started: (u64, Events),
    /// Where it is noted that the process runs.
    pub(super) notes: RunNotes,
    /// How long to wait for the end of the process.
    pub(super) wait_limit: Duration,
}

impl Launch {
    /// Makes the sandbox, starts the process in it, and waits a moment for its end.
    pub(super) fn start(self, spawner: &Spawner) -> Result<Started, SpawnError> {
        let Self {
            mut command,
            sandbox,
            tag,
            mut pipes,
            child_ends,
            reserve,
            started,
            notes,
            wait_limit,
        } = self;
        if let Some(sandbox) = &sandbox {
            sandbox.make().map_err(|error| spawn_error::no_folder(sandbox.path(), &error))?;
        }
        let note = notes.begin();
        let leader = match spawner.start(&mut command, child_ends, &tag) {
            Ok(leader) => leader,
            Err(error) => return Err(not_started(&command, sandbox, &error)),
        };
        let (at_ms, events) = started;
        events.emit(Event::Started { at_ms });
        drop(reserve);
        let tree = ProcessTree::of(leader.pid, tag);
        let handle = exit_watch::handle(leader.pid).ok();
        let mut cleanup = Cleanup { cause: EndCause::Exited, leader, tree, sandbox, note };
        if handle.as_ref().is_some_and(|handle| pipes.carry_briefly(handle, wait_limit)) {
            cleanup = match cleanup.if_tree_is_gone() {
                Ok(left) => {
                    let (cause, ended) = (EndCause::Exited, Terminated::default());
                    let output = pipes.finish();
                    return Ok(Started::Over(RunOver { cause, ended, left, output }));
                }
                Err(not_yet) => *not_yet,
            };
        }
        Ok(Started::Running(SpawnedProcess { cleanup, pipes, handle }))
    }
}

/// Finds out why a process could not be started, and closes its sandbox.
fn not_started(command: &Command, sandbox: Option<Sandbox>, error: &io::Error) -> SpawnError {
    let gone = sandbox.as_ref().map(Sandbox::path).filter(|path| !path.is_dir());
    let why = match gone {
        Some(path) => spawn_error::folder_gone(path),
        None => spawn_error::not_started(command, error),
    };
    if let Some(sandbox) = sandbox {
        // It has no files: no process was in it.
        drop(sandbox.close(match why {
            SpawnError::Task(_) => RunEnd::Failed,
            SpawnError::Host(_) => RunEnd::Stopped,
        }));
    }
    why
}

/// A process that was started.
#[allow(clippy::large_enum_variant, reason = "each is moved a few times only")]
pub(super) enum Started {
    /// It has ended.
    Over(RunOver),
    /// It runs.
    Running(SpawnedProcess),
}

/// A process that runs and is not watched by the runtime yet.
pub(super) struct SpawnedProcess {
    pub(super) cleanup: Cleanup,
    pub(super) pipes: Pipes,
    pub(super) handle: Option<OwnedFd>,
}

/// A process that runs and is watched by the runtime.
pub(super) struct RunningProcess {
    pub(super) cleanup: Cleanup,
    pub(super) watch: ExitWatch,
    pub(super) streams: Streams,
}

impl SpawnedProcess {
    /// Has the runtime watch the process. If that is not possible, it is killed.
    pub(super) fn watched(self) -> Result<RunningProcess, String> {
        let watch = ExitWatch::with(self.handle, self.cleanup.leader.pid)
            .map_err(|error| format!("the process could not be watched: {error}"))?;
        let streams = self
            .pipes
            .watched()
            .map_err(|error| format!("the pipes of the process could not be watched: {error}"))?;
        Ok(RunningProcess { cleanup: self.cleanup, watch, streams })
    }
}
