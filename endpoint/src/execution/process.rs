//! Runs tasks as external processes.
//!
//! A run is one attempt at a task: its first process, the leader, and the tree of all
//! processes that come from it. Touches processes, pipes, and folders below the sandbox
//! root. Promises that a run is over only when no process of its tree is left, or its
//! report says how many could not be ended; and that no shell is involved unless the
//! task names one.

mod cleanup;
mod launch;
mod memory;
pub(crate) mod sandbox;

use super::executor::{Ended, Report, RunContext};
use super::function::python;
use super::live::progress_files;
use super::os::exit_watch::{self, ExitWatch};
use super::os::process_tree::ProcessTree;
use super::os::reaper;
use super::os::spawn::{Leader, Spawner, SystemError};
use super::os::spawn_error::{self, SpawnError};
use super::os::streams::Pipes;
use super::os::terminate::{Terminated, terminate};
use super::task_side::TaskSide;
use super::verdict::Facts;
use crate::messages::token::Token;
use crate::pending::stop::{StopReason, StopSignal};
use crate::system::troubles::Troubles;
use cleanup::{Cleanup, EndCause, Leavings, RunOver, end_cause};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::{Process, Task};
use launch::{Launch, RunningProcess, Started};
use memory::{OomKills, OwnPeak};
use sandbox::{Sandbox, SandboxPolicy, Sandboxes};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use wait4::ResUse;

/// The variable with the number of slots that a task takes.
const CORES: &str = "CLUTCH_CORES";
/// How long the thread that has started a process waits for its end. To wake other
/// threads costs more than most short processes do.
const SHORT_RUN: Duration = Duration::from_millis(20);
/// How long the notice of a leader's exit may take once its tree is gone.
const EXIT_NOTICE: Duration = Duration::from_secs(1);
/// How often a tree is terminated again because a process turned up at the last moment.
const TERMINATIONS: usize = 3;

/// The settings of the process executor.
#[derive(Clone, Debug)]
pub(crate) struct ProcessConfig {
    /// The time between `SIGTERM` and `SIGKILL`.
    pub(crate) grace: Duration,
    /// How many bytes of each output are kept.
    pub(crate) capture_limit: usize,
    /// The policy for sandboxes.
    pub(crate) sandbox: SandboxPolicy,
    /// The folder that sandboxes are made in; made if it does not exist.
    pub(crate) sandbox_root: PathBuf,
    /// The endpoint, as its tasks see it.
    pub(crate) endpoint_id: EndpointId,
    /// The state folder, by which processes of a killed daemon are recognised.
    pub(crate) state_id: StateId,
    /// The state folder that was in this one's place, if it was another one.
    pub(crate) was: Option<StateId>,
    /// Where it is told that processes do not start.
    pub(crate) troubles: Troubles,
    /// Their own side of the endpoint, where they have one.
    pub(crate) side: Option<Arc<TaskSide>>,
}

/// The reason why no process can be run at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The sandbox root could not be made.
    #[error("the folder '{}' for sandboxes could not be made: check its path and permissions", path.display())]
    SandboxRoot {
        /// The folder.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The system refuses what is needed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// The result of a sweep.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Swept {
    /// How many processes of an earlier daemon were ended.
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
    /// See [`SetupError`].
    pub(crate) fn new(config: ProcessConfig) -> Result<Self, SetupError> {
        let spawner = Spawner::new(config.endpoint_id, config.state_id)?;
        let spawner = spawner.telling(config.troubles.clone()).with_side(config.side.clone());
        let spawner = Arc::new(spawner);
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

    /// Returns the spawner of its processes.
    pub(crate) fn spawner(&self) -> Arc<Spawner> {
        Arc::clone(&self.spawner)
    }

    /// Ends the processes that an earlier daemon, killed on the same state folder, left
    /// running, and removes the sandboxes it left if the policy is to remove
    /// them. To be called before the first run.
    pub(crate) async fn sweep_stale(&self) -> Swept {
        let tree = ProcessTree::tagged(self.spawner.tags.for_state());
        let mut ended = terminate(&tree, self.config.grace).await;
        if let Some(was) = self.config.was {
            let tree = ProcessTree::tagged(self.spawner.tags.for_another(was));
            let earlier = terminate(&tree, self.config.grace).await;
            ended.signalled += earlier.signalled;
            ended.survivors.extend(earlier.survivors);
        }
        let (root, policy) = (self.config.sandbox_root.clone(), self.config.sandbox);
        let sandboxes = spawn_blocking(move || sandbox::sweep(&root, policy)).await;
        let survivors = ended.survivors.len();
        Swept {
            processes: ended.signalled - survivors,
            survivors,
            sandboxes: sandboxes.unwrap_or(0),
        }
    }

    /// Runs one process to its end.
    pub(crate) async fn run(&self, task: &Task, process: &Process, context: &RunContext) -> Ended {
        let side = self.spawner.side.as_ref();
        let own = side.map(|side| side.messages.begin(task.attempt(), &context.stop));
        let token = own.as_ref().and_then(|own| own.token);
        let ended = self.run_with(task, process, context, token).await;
        if let Some(own) = own {
            own.over(ended.outcome());
        }
        ended
    }

    async fn run_with(
        &self,
        task: &Task,
        process: &Process,
        context: &RunContext,
        token: Option<Token>,
    ) -> Ended {
        if let Some(reason) = context.stop.requested() {
            return Ended::Stopped(reason);
        }
        let mut wait = self.spawner.shortage.wait();
        loop {
            match self.start(task, process, context, token).await {
                Ok((start, started)) => {
                    wait.over();
                    let over = match started {
                        Started::Over(over) => over,
                        Started::Running(spawned) => match spawned.watched() {
                            Ok(running) => {
                                let walltime = start.walltime;
                                self.supervise(running, process, walltime, &context.stop).await
                            }
                            Err(reason) => return Ended::Finished(Report::not_run(reason)),
                        },
                    };
                    return match over.cause {
                        EndCause::Stopped(reason) if !reason.ends_task() => Ended::Stopped(reason),
                        EndCause::Stopped(_) | EndCause::Exited => {
                            Ended::Finished(self.report(over, &start))
                        }
                    };
                }
                Err(SpawnError::Task(reason)) => return Ended::Finished(Report::not_run(reason)),
                Err(SpawnError::Host(why)) => {
                    if let Err(reason) = wait.pause(&why, &context.stop).await {
                        return Ended::Stopped(reason);
                    }
                }
            }
        }
    }

    /// Starts the process.
    async fn start(
        &self,
        task: &Task,
        process: &Process,
        context: &RunContext,
        token: Option<Token>,
    ) -> Result<(RunStart, Started), SpawnError> {
        let sandbox = match &process.cwd {
            Some(_) => None,
            None => Some(self.sandboxes.of(task.attempt())),
        };
        let with_input = !process.stdin.is_empty();
        let (pipes, child_ends) =
            Pipes::open(with_input, self.config.capture_limit, &context.events)
                .map_err(|error| spawn_error::no_pipes(&error))?;
        let reserve = exit_watch::reserve().map_err(|error| spawn_error::no_pipes(&error))?;
        let tags = &self.spawner.tags;
        let mut command =
            self.spawner.command(&process.argv, &process.env, tags.environment(task.attempt()))?;
        if let Some(folder) =
            sandbox.as_ref().map(Sandbox::path).or(process.cwd.as_ref().map(AsRef::as_ref))
        {
            command.current_dir(folder);
        }
        let tag = tags.for_run(task.attempt());
        if let Some(file) = context.events.progress_file() {
            command.env(progress_files::VARIABLE, file);
        }
        command.env(CORES, task.cores.to_string());
        if let (Some(side), Some(token)) = (&self.spawner.side, token) {
            side.tell(&mut command, token, process.env.get(python::VARIABLE).map(AsRef::as_ref));
        }
        let walltime = task.walltime();
        let start =
            RunStart { walltime, oom_kills: self.oom_kills.count(), started_at_ms: now_ms() };
        let launch = Launch {
            command,
            sandbox,
            tag,
            pipes,
            child_ends,
            reserve,
            started: (start.started_at_ms, context.events.clone()),
            notes: context.notes.clone(),
            wait_limit: walltime.unwrap_or(SHORT_RUN).min(SHORT_RUN),
        };
        let spawner = Arc::clone(&self.spawner);
        let started = spawn_blocking(move || launch.start(&spawner)).await;
        let started = started.map_err(|error| format!("the endpoint is going down: {error}"));
        Ok((start, started??))
    }

    /// Carries a running process's input and output until it is to end, and ends its
    /// whole tree.
    async fn supervise(
        &self,
        running: RunningProcess,
        process: &Process,
        walltime: Option<Duration>,
        stop: &StopSignal,
    ) -> RunOver {
        let RunningProcess { cleanup, watch, mut streams } = running;
        let (cause, ended, left) = {
            let carry = streams.carry(&process.stdin.0);
            let until_over = async {
                let cause = end_cause(&watch, walltime, stop).await;
                let (ended, left) = self.end(cause, cleanup, &watch).await;
                (cause, ended, left)
            };
            tokio::pin!(carry, until_over);
            tokio::select! {
                over = &mut until_over => over,
                () = &mut carry => until_over.await,
            }
        };
        RunOver { cause, ended, left, output: streams.finish() }
    }

    fn report(&self, over: RunOver, start: &RunStart) -> Report {
        let at_walltime = over.cause == EndCause::Stopped(StopReason::Walltime);
        let cancelled = over.cause == EndCause::Stopped(StopReason::Cancelled);
        let exceeded = start.walltime.filter(|_| at_walltime);
        let new_kills = |before: u64| Some(self.oom_kills.count()?.saturating_sub(before));
        let verdict = Facts {
            status: over.left.usage.map(|usage| usage.status),
            exceeded,
            cancelled,
            left_behind: if over.cause == EndCause::Exited { over.ended.signalled } else { 0 },
            survivors: over.ended.survivors.len(),
            oom_kills: match over.left.usage {
                Some(usage) if usage.status.success() => None,
                _ => start.oom_kills.and_then(new_kills),
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
            error: None,
            stdout,
            stderr,
            started_at_ms: Some(start.started_at_ms),
            ended_at_ms: now_ms(),
            cpu_ms: over.left.usage.and_then(|usage| u64::try_from(cpu(usage).as_millis()).ok()),
            peak_memory_bytes: over
                .left
                .usage
                .and_then(|usage| self.own_peak.tell(usage.rusage.maxrss)),
            removed_files: over.left.removed_files.map(Box::new),
        }
    }

    /// Ends what is left of the tree, then reaps the leader.
    async fn end(
        &self,
        cause: EndCause,
        mut cleanup: Cleanup,
        watch: &ExitWatch,
    ) -> (Terminated, Leavings) {
        cleanup.cause = cause;
        let (mut ended, mut over) = (Terminated::default(), cause == EndCause::Exited);
        for _ in 0..TERMINATIONS {
            if over {
                match spawn_blocking(move || cleanup.if_tree_is_gone()).await {
                    Ok(Ok(left)) => return (ended, left),
                    Ok(Err(not_yet)) => cleanup = *not_yet,
                    Err(_) => return (ended, Leavings::default()), // going down
                }
            }
            let again = terminate(&cleanup.tree, self.config.grace).await;
            ended = Terminated {
                signalled: ended.signalled + again.signalled,
                survivors: again.survivors,
            };
            over = ended.survivors.is_empty() && timeout(EXIT_NOTICE, watch.ended()).await.is_ok();
            if !over {
                break;
            }
        }
        if !ended.survivors.is_empty() {
            tracing::error!(
                leader = %cleanup.leader.pid, survivors = ?ended.survivors,
                "processes of a task could not be ended even by SIGKILL: look at the host"
            );
        }
        // The exit of a leader that survives is never noticed.
        let exited = timeout(EXIT_NOTICE, watch.ended()).await.is_ok();
        tracing::trace!(exited, "the process tree is gone");
        let reap = if exited { Leader::reap_ended } else { Leader::reap };
        let left = spawn_blocking(move || cleanup.now(reap)).await.unwrap_or_default();
        (ended, left)
    }
}

/// The facts at the start of a run, for its report.
struct RunStart {
    walltime: Option<Duration>,
    oom_kills: Option<u64>,
    started_at_ms: u64,
}

#[cfg(test)]
mod tests;
