//! Runs tasks as external processes.
//!
//! Touches: processes, pipes, and folders below the sandbox root. Promises
//! that a run is over only when no process of it is left (or that it says
//! which could not be ended), that no shell is involved unless a task names
//! one.

mod memory;
pub(crate) mod sandbox;

use super::capture::Captured;
use super::executor::{Ended, Report};
use super::os::exit_watch::{self, ExitWatch};
use super::os::process_tree::ProcessTree;
use super::os::reaper;
use super::os::run_tag::RunTag;
use super::os::spawn::{Leader, Spawner, SystemError};
use super::os::spawn_error::{self, SpawnError};
use super::os::streams::{ChildEnds, Pipes, Streams};
use super::os::terminate::{self, Terminated};
use super::verdict::Facts;

use clutch_common::id::{EndpointId, StateId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::{Process, Task};
use memory::{OomKills, OwnPeak};
use sandbox::{RunEnd, Sandbox, SandboxPolicy, Sandboxes};
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wait4::ResUse;

/// How long the thread that has started a process waits for its end. Waking others
/// costs more than most short processes do.
const SHORT_RUN: Duration = Duration::from_millis(20);
/// How long the end of a leader may take to be told when its tree is gone.
const EXIT_NOTICE: Duration = Duration::from_secs(1);
/// How often a tree is ended again of which somebody turned up at the last moment.
const TERMINATION_ROUNDS: usize = 3;

/// The terms processes are run on.
#[derive(Clone, Debug)]
pub(crate) struct ProcessConfig {
    /// The time between `SIGTERM` and `SIGKILL`.
    pub(crate) grace: Duration,
    /// How many bytes of each output are kept.
    pub(crate) capture_limit: usize,
    /// What becomes of a task's sandbox.
    pub(crate) sandbox: SandboxPolicy,
    /// The folder that sandboxes are made in; made if it does not exist.
    pub(crate) sandbox_root: PathBuf,
    /// The endpoint, as its tasks see it.
    pub(crate) endpoint_id: EndpointId,
    /// The state folder: how processes of a killed endpoint are recognised.
    pub(crate) state_id: StateId,
    /// The state folder that was in this one's place, if it was another one.
    pub(crate) was: Option<StateId>,
}

/// Why no processes can be run at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The sandbox root could not be made.
    #[error("the folder '{}' for sandboxes could not be made: check its path and permissions", path.display())]
    SandboxRoot {
        /// The folder.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The system refuses what is needed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// What a sweep found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Swept {
    /// How many processes of an earlier endpoint were ended.
    pub(crate) processes: usize,
    /// How many could not be ended.
    pub(crate) survivors: usize,
    /// How many sandboxes of earlier tasks were removed.
    pub(crate) sandboxes: usize,
}

/// Runs tasks as external processes.
#[derive(Debug)]
pub(crate) struct ProcessExecutor {
    config: ProcessConfig,
    sandboxes: Sandboxes,
    spawner: Arc<Spawner>,
    oom_kills: OomKills,
    own_peak: OwnPeak,
    /// Reaps orphans.
    _reaping: JoinSet<()>,
}

impl ProcessExecutor {
    /// Makes the sandbox root. To be called within a tokio runtime.
    ///
    /// # Errors
    /// What cannot be done.
    pub(crate) fn new(config: ProcessConfig) -> Result<Self, SetupError> {
        let spawner = Arc::new(Spawner::new(config.endpoint_id, config.state_id)?);
        let root = &config.sandbox_root;
        let sandboxes = Sandboxes::below(root, config.sandbox)
            .map_err(|source| SetupError::SandboxRoot { path: root.clone(), source })?;
        let (oom_kills, own_peak) = (OomKills::find(), OwnPeak::default());
        let mut reaping = JoinSet::new();
        match signal(SignalKind::child()) {
            Ok(ended) => drop(reaping.spawn(reaper::keep_reaping(ended))),
            Err(error) => tracing::warn!(%error, "orphans are reaped at the end of tasks only"),
        }
        Ok(Self { config, sandboxes, spawner, oom_kills, own_peak, _reaping: reaping })
    }

    /// What its processes are started with.
    pub(crate) fn spawner(&self) -> Arc<Spawner> {
        Arc::clone(&self.spawner)
    }

    /// Ends what an earlier endpoint, killed on the same state folder, left
    /// running, and removes the sandboxes it left if the policy is to remove
    /// them. To be called before the first run.
    pub(crate) async fn sweep_stale(&self) -> Swept {
        let tree = ProcessTree::marked(self.spawner.tags.for_state());
        let mut ending = terminate::terminate(&tree, self.config.grace).await;
        if let Some(was) = self.config.was {
            let tree = ProcessTree::marked(self.spawner.tags.for_another(was));
            let earlier = terminate::terminate(&tree, self.config.grace).await;
            ending.told += earlier.told;
            ending.survivors.extend(earlier.survivors);
        }
        let (root, policy) = (self.config.sandbox_root.clone(), self.config.sandbox);
        let sandboxes = spawn_blocking(move || sandbox::sweep(&root, policy)).await;
        let survivors = ending.survivors.len();
        Swept { processes: ending.told - survivors, survivors, sandboxes: sandboxes.unwrap_or(0) }
    }

    /// Starts the process, or says why that is not possible.
    async fn start(
        &self,
        task: &Task,
        process: &Process,
    ) -> Result<(RunStart, Started), SpawnError> {
        let sandbox = match &process.cwd {
            Some(_) => None,
            None => Some(self.sandboxes.of(task.attempt())),
        };
        let (pipes, child_ends) = Pipes::open(!process.stdin.is_empty(), self.config.capture_limit)
            .map_err(|error| spawn_error::no_pipes(&error))?;
        let spare = exit_watch::spare().map_err(|error| spawn_error::no_pipes(&error))?;
        let tags = &self.spawner.tags;
        let mut command =
            self.spawner.command(&process.argv, &process.env, tags.environment(task.attempt()))?;
        if let Some(folder) =
            sandbox.as_ref().map(Sandbox::path).or(process.cwd.as_ref().map(AsRef::as_ref))
        {
            command.current_dir(folder);
        }
        let tag = tags.for_run(task.attempt());
        let walltime = task.walltime();
        let terms =
            RunStart { walltime, oom_kills: self.oom_kills.count(), started_at_ms: now_ms() };
        let limit = walltime.unwrap_or(SHORT_RUN).min(SHORT_RUN);
        let spawner = Arc::clone(&self.spawner);
        let ends = (pipes, child_ends, spare);
        let start = spawn_blocking(move || start(&spawner, command, sandbox, tag, ends, limit));
        let started = start.await.map_err(|error| format!("the endpoint is going down: {error}"));
        Ok((terms, started??))
    }

    /// Sees a running process through to the end of its whole tree.
    async fn see_through(
        &self,
        running: WatchedRun,
        process: &Process,
        walltime: Option<Duration>,
        stop: &CancellationToken,
    ) -> EndedRun {
        let WatchedRun { close, watch, mut streams } = running;
        let (cause, ending, usage) = {
            let carry = streams.carry(&process.stdin.0);
            let until_over = async {
                let cause = cause(&watch, walltime, stop).await;
                let (ending, usage) = self.end(cause, close, &watch).await;
                (cause, ending, usage)
            };
            tokio::pin!(carry, until_over);
            tokio::select! {
                over = &mut until_over => over,
                () = &mut carry => until_over.await,
            }
        };
        EndedRun { cause, ending, usage, output: streams.finish() }
    }

    fn report(&self, over: EndedRun, terms: &RunStart) -> Report {
        let exceeded = terms.walltime.filter(|_| over.cause == EndCause::Walltime);
        let new_kills = |before: u64| Some(self.oom_kills.count()?.saturating_sub(before));
        let verdict = Facts {
            status: over.usage.map(|usage| usage.status),
            exceeded,
            left_behind: if exceeded.is_none() { over.ending.told } else { 0 },
            survivors: over.ending.survivors.len(),
            oom_kills: match over.usage {
                Some(usage) if usage.status.success() => None,
                _ => terms.oom_kills.and_then(new_kills),
            },
        }
        .verdict();
        let (stdout, stderr) = over.output;
        let cpu = |usage: ResUse| usage.rusage.utime.saturating_add(usage.rusage.stime);
        Report {
            outcome: verdict.outcome,
            value: None,
            exit_code: verdict.exit_code,
            signal: verdict.signal,
            reason: verdict.reason,
            stdout,
            stderr,
            started_at_ms: Some(terms.started_at_ms),
            ended_at_ms: now_ms(),
            cpu_ms: over.usage.and_then(|usage| u64::try_from(cpu(usage).as_millis()).ok()),
            peak_memory_bytes: over.usage.and_then(|usage| self.own_peak.tell(usage.rusage.maxrss)),
        }
    }

    /// Ends whatever there is left to end, then reaps the leader.
    async fn end(
        &self,
        cause: EndCause,
        mut close: Cleanup,
        watch: &ExitWatch,
    ) -> (Terminated, Option<ResUse>) {
        close.cause = cause;
        let (mut ending, mut over) = (Terminated::default(), cause == EndCause::End);
        for _ in 0..TERMINATION_ROUNDS {
            if over {
                match spawn_blocking(move || close.if_nobody_is_left()).await {
                    Ok(Ok(usage)) => return (ending, usage),
                    Ok(Err(not_yet)) => close = not_yet,
                    Err(_) => return (ending, None), // going down
                }
            }
            let ended = terminate::terminate(&close.tree, self.config.grace).await;
            ending = Terminated { told: ending.told + ended.told, survivors: ended.survivors };
            over = ending.survivors.is_empty() && timeout(EXIT_NOTICE, watch.ended()).await.is_ok();
            if !over {
                break;
            }
        }
        if !ending.survivors.is_empty() {
            tracing::error!(
                leader = %close.leader.pid, survivors = ?ending.survivors,
                "processes of a task could not be ended even by SIGKILL: look at the host"
            );
        }
        // A leader that survives will never be told.
        let told = timeout(EXIT_NOTICE, watch.ended()).await;
        tracing::trace!(told = told.is_ok(), "the tree is gone");
        let reap = if told.is_ok() { Leader::reap_ended } else { Leader::reap };
        let usage = spawn_blocking(move || close.now(reap)).await.unwrap_or(None);
        (ending, usage)
    }
}

impl ProcessExecutor {
    /// Runs one process to its end.
    pub(crate) async fn run(
        &self,
        task: &Task,
        process: &Process,
        stop: CancellationToken,
    ) -> Ended {
        if stop.is_cancelled() {
            return Ended::Stopped;
        }
        let mut wait = self.spawner.shortage.wait();
        loop {
            match self.start(task, process).await {
                Ok((terms, started)) => {
                    wait.over();
                    let over = match started {
                        Started::Over(over) => over,
                        Started::Running(launched) => match launched.watched() {
                            Ok(running) => {
                                self.see_through(running, process, terms.walltime, &stop).await
                            }
                            Err(reason) => return Ended::Finished(Report::not_run(reason)),
                        },
                    };
                    return match over.cause {
                        EndCause::Stop => Ended::Stopped,
                        EndCause::End | EndCause::Walltime => {
                            Ended::Finished(self.report(over, &terms))
                        }
                    };
                }
                Err(SpawnError::Task(reason)) => return Ended::Finished(Report::not_run(reason)),
                Err(SpawnError::Host(why)) => {
                    if !wait.pause(&why, &stop).await {
                        return Ended::Stopped;
                    }
                }
            }
        }
    }
}

/// What a run is reported with.
struct RunStart {
    walltime: Option<Duration>,
    oom_kills: Option<u64>,
    started_at_ms: u64,
}

/// A process that was started.
enum Started {
    /// And has ended.
    Over(EndedRun),
    /// And runs.
    Running(Spawned),
}

/// A process that runs, with all that is held for it.
struct Spawned {
    close: Cleanup,
    pipes: Pipes,
    handle: Option<OwnedFd>,
}

/// A process that runs and is watched.
struct WatchedRun {
    close: Cleanup,
    watch: ExitWatch,
    streams: Streams,
}

impl Spawned {
    /// Has the runtime watch it. If that is not possible, it is killed.
    fn watched(self) -> Result<WatchedRun, String> {
        let watch = ExitWatch::with(self.handle, self.close.leader.pid)
            .map_err(|error| format!("the process could not be watched: {error}"))?;
        let streams = self
            .pipes
            .watched()
            .map_err(|error| format!("the pipes of the process could not be watched: {error}"))?;
        Ok(WatchedRun { close: self.close, watch, streams })
    }
}

/// Why a run is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EndCause {
    /// The leader has ended.
    End,
    Walltime,
    Stop,
}

/// A run whose tree is gone.
struct EndedRun {
    cause: EndCause,
    ending: Terminated,
    usage: Option<ResUse>,
    /// Standard output and standard error.
    output: (Captured, Captured),
}

/// What is done when a run is over.
#[derive(Debug)]
struct Cleanup {
    cause: EndCause,
    leader: Leader,
    tree: ProcessTree,
    sandbox: Option<Sandbox>,
}

impl Cleanup {
    /// Closes, unless somebody of the tree is still there.
    fn if_nobody_is_left(mut self) -> Result<Option<ResUse>, Self> {
        match self.leader.reap_alone(&self.tree) {
            Some(usage) => Ok(self.done(usage)),
            None => Err(self),
        }
    }

    fn now(mut self, reap: fn(&mut Leader) -> Option<ResUse>) -> Option<ResUse> {
        let usage = reap(&mut self.leader);
        self.done(usage)
    }

    fn done(&self, usage: Option<ResUse>) -> Option<ResUse> {
        let success = usage.is_some_and(|usage| usage.status.success());
        let run = match self.cause {
            EndCause::Stop => RunEnd::Stopped,
            EndCause::End if success => RunEnd::Succeeded,
            EndCause::End | EndCause::Walltime => RunEnd::Failed,
        };
        if let Some(sandbox) = &self.sandbox {
            sandbox.close(run);
        }
        usage
    }
}

/// Waits for a reason to end.
async fn cause(
    watch: &ExitWatch,
    walltime: Option<Duration>,
    stop: &CancellationToken,
) -> EndCause {
    let expiry = async {
        match walltime {
            Some(walltime) => sleep(walltime).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = watch.ended() => EndCause::End,
        () = stop.cancelled() => EndCause::Stop,
        () = expiry => EndCause::Walltime,
    }
}

/// Makes the sandbox, starts the process in it, and stays with it for a moment.
fn start(
    spawner: &Spawner,
    mut command: Command,
    sandbox: Option<Sandbox>,
    tag: RunTag,
    (mut pipes, child_ends, spare): (Pipes, ChildEnds, OwnedFd),
    limit: Duration,
) -> Result<Started, SpawnError> {
    if let Some(sandbox) = &sandbox {
        sandbox.make().map_err(|error| spawn_error::no_folder(sandbox.path(), &error))?;
    }
    let leader = match spawner.start(&mut command, child_ends, &tag) {
        Ok(leader) => leader,
        Err(error) => {
            let gone = sandbox.as_ref().map(Sandbox::path).filter(|path| !path.is_dir());
            let why = match gone {
                Some(path) => spawn_error::folder_gone(path),
                None => spawn_error::not_started(&command, &error),
            };
            if let Some(sandbox) = sandbox {
                sandbox.close(match why {
                    SpawnError::Task(_) => RunEnd::Failed,
                    SpawnError::Host(_) => RunEnd::Stopped,
                });
            }
            return Err(why);
        }
    };
    drop(spare);
    let tree = ProcessTree::of(leader.pid, tag);
    let handle = exit_watch::handle(leader.pid).ok();
    let mut close = Cleanup { cause: EndCause::End, leader, tree, sandbox };
    if handle.as_ref().is_some_and(|handle| pipes.carry_briefly(handle, limit)) {
        close = match close.if_nobody_is_left() {
            Ok(usage) => {
                let (cause, ending) = (EndCause::End, Terminated::default());
                return Ok(Started::Over(EndedRun {
                    cause,
                    ending,
                    usage,
                    output: pipes.finish(),
                }));
            }
            Err(not_yet) => not_yet,
        };
    }
    Ok(Started::Running(Spawned { close, pipes, handle }))
}

#[cfg(test)]
mod tests;
