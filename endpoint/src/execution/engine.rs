//! The engine: decides which task runs when and how many run at once, and records their
//! results. It runs on whatever happens to the link.
//!
//! Promises: the tasks that run take at most `slots` slots; they start in the order that the
//! inbox has; a task that must not run again is marked as started on disk before it
//! starts; every start is recorded where it survives the death of the daemon, and a task
//! with which the daemon died too often is not started again. A task keeps its slot
//! until its result is on disk, so a crash makes at most `slots` tasks run again. A task that
//! takes more slots than there are is rejected when its turn comes, as slots can be lowered
//! while it waits.

use super::events::{Event, EventSink, Events};
use super::executor::{Ended, Executor, Report, RunContext};
use super::live::Live;
use crate::failpoint::{self, Step};
use crate::pending::inbox::{FreeSlots, Held, cores};
use crate::pending::ledger::Ledger;
use crate::pending::poison::{self, Standing};
use crate::pending::stop::{StopReason, StopSignal};
use crate::storage::journal::JournalError;
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::text::counted::counted;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The reason why the engine ended without a stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] JournalError),
    /// A run of a task panicked.
    #[error("running a task ended in a panic: {0}")]
    Panic(#[from] JoinError),
}

/// How many slots there are; all of its clones are one number.
#[derive(Clone, Debug)]
pub(crate) struct SlotCount(Arc<(AtomicUsize, Notify)>);

impl SlotCount {
    /// Creates a count.
    pub(crate) fn new(slots: usize) -> Self {
        Self(Arc::new((AtomicUsize::new(slots), Notify::new())))
    }

    /// Returns the count.
    pub(crate) fn get(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Changes the count. Where it is lowered, tasks that run go on, and those that wait and
    /// take more are rejected in their turn.
    pub(crate) fn set(&self, slots: usize) {
        self.0.0.store(slots, Ordering::Relaxed);
        self.0.1.notify_one();
    }

    /// Waits until the count was changed.
    async fn changed(&self) {
        self.0.1.notified().await;
    }
}

/// Runs tasks from the ledger's inbox.
pub(crate) struct Engine {
    /// Where tasks come from and results go.
    pub(crate) ledger: Arc<Ledger>,
    /// Runs them.
    pub(crate) executor: Arc<dyn Executor>,
    /// Where they tell what they do.
    pub(crate) live: Arc<Live>,
    /// How many slots there are.
    pub(crate) slots: SlotCount,
}

impl Engine {
    /// Runs tasks until `intake` is cancelled and those that run have ended. The signal
    /// `stop` ends those at once.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub(crate) async fn run(
        self,
        intake: CancellationToken,
        stop: StopSignal,
    ) -> Result<(), EngineError> {
        let mut running = RunningRuns::default();
        let mut stopping = JoinSet::new();
        stopping.spawn(stop_tasks(Arc::clone(&self.ledger), stop.clone()));
        loop {
            let stopped = intake.is_cancelled();
            if stopped {
                self.ledger.stop_noting_runs();
            } else {
                self.start(&mut running, &stop);
            }
            if stopped && running.runs.is_empty() {
                return Ok(());
            }
            // In this order, so that the same events give the same run. None
            // starves another: each only wakes, and the loop checks everything.
            let full = running.slots >= self.slots.get();
            tokio::select! {
                biased;
                Some(ended) = running.runs.join_next(), if !running.runs.is_empty() => {
                    running.slots = running.slots.saturating_sub(ended??);
                }
                () = intake.cancelled(), if !stopped => (),
                () = self.may_start(full), if !stopped => (),
            }
        }
    }

    /// Waits until a task may have become ready to start; with all slots in use, until there
    /// are more.
    async fn may_start(&self, full: bool) {
        if full { self.slots.changed().await } else { self.ledger.task_ready().await }
    }

    fn start(&self, running: &mut RunningRuns, stop: &StopSignal) {
        loop {
            let all = self.slots.get();
            let free = all.saturating_sub(running.slots);
            if free == 0 {
                return;
            }
            let Some(held) = self.ledger.take_fitting(FreeSlots { free, all }) else { return };
            // One that takes more slots than there are is rejected, in one of them.
            let takes = cores(&held.task);
            let rejected = takes > all;
            let takes = if rejected { 1 } else { takes };
            running.slots += takes;
            let ledger = Arc::clone(&self.ledger);
            let executor = Arc::clone(&self.executor);
            let events = events(held.task.attempt(), &self.live);
            // Those that have a slot when the signal is given are stopped by `stop_tasks`.
            if let Some(reason) = stop.requested() {
                held.stop.request(reason);
            }
            let run = TaskRun { ledger, executor, held, events };
            running.runs.spawn(async move {
                if rejected {
                    run.reject(all).await?;
                } else {
                    run.finish().await?;
                }
                Ok(takes)
            });
        }
    }
}

/// The runs of tasks that have a slot; each resolves to the number of slots that it took.
#[derive(Default)]
struct RunningRuns {
    runs: JoinSet<Result<usize, JournalError>>,
    /// How many slots they take.
    slots: usize,
}

/// Stops the tasks that run when `stop` is given, and at the deadline of a drain.
async fn stop_tasks(ledger: Arc<Ledger>, stop: StopSignal) {
    let mut done = None;
    loop {
        let deadline = ledger.drains().deadline_ms().filter(|deadline| done != Some(*deadline));
        let due = async {
            match deadline {
                Some(deadline) => {
                    sleep(Duration::from_millis(deadline.saturating_sub(now_ms()))).await;
                }
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = stop.wait() => return ledger.stop(reason),
            () = ledger.drain_changed() => done = None,
            () = due => {
                ledger.stop(StopReason::Drained);
                done = deadline;
            }
        }
    }
}

/// A task that has a slot.
struct TaskRun {
    ledger: Arc<Ledger>,
    executor: Arc<dyn Executor>,
    held: Held,
    events: Events,
}

impl TaskRun {
    /// Runs the task to its end, and records its result. A task that was stopped without an
    /// outcome stays in the inbox.
    async fn finish(self) -> Result<(), JournalError> {
        let Self { ledger, executor, held, events } = self;
        run_one(ledger, executor, held, events).await
    }

    /// Rejects the task, as there are only so many slots.
    async fn reject(self, slots: usize) -> Result<(), JournalError> {
        let Self { ledger, held, .. } = self;
        let reason = no_room(&held.task, slots);
        let result = ledger.not_run(held.task.attempt(), Outcome::Rejected, reason);
        ledger.finish(&held, result).await?.await
    }
}

/// Why a task cannot run where there are only so many slots.
pub(crate) fn no_room(task: &Task, slots: usize) -> String {
    let slots = counted(slots as u64, "slot");
    format!("it needs {} cores, and the endpoint has {slots}: it did not run", task.cores)
}

/// Runs one task to its end, and records its result. A task that was stopped without an
/// outcome stays in the inbox.
async fn run_one(
    ledger: Arc<Ledger>,
    executor: Arc<dyn Executor>,
    held: Held,
    events: Events,
) -> Result<(), JournalError> {
    let attempt = held.task.attempt();
    let result = if held.started && !held.task.rerun {
        let reason = "the endpoint stopped while the task ran, and it must not run again";
        ledger.not_run(attempt, Outcome::Interrupted, reason.to_owned())
    } else if held.task.expired(now_ms()) {
        ledger.not_run(attempt, Outcome::Expired, "it expired before it could start".to_owned())
    } else if held.standing == Standing::Poisoned {
        let reason = poison::reason(&held.task, held.deaths);
        tracing::warn!(task = %attempt, reason, "a task is poisoned");
        ledger.not_run(attempt, Outcome::Poisoned, reason)
    } else {
        if !held.task.rerun {
            ledger.start(&held).await?.await?;
        }
        failpoint::reach(Step::Start);
        let context = RunContext {
            stop: held.stop.clone(),
            events,
            notes: ledger.run_notes(attempt, held.accepted_at_ms),
        };
        match executor.run(&held.task, &context).await {
            Ended::Finished(report) => {
                failpoint::reach(Step::Finish);
                result(&ledger, &held, report)
            }
            Ended::Stopped(reason) => match unfinished(&ledger, &held, reason) {
                Some(result) => result,
                None => return Ok(()),
            },
        }
    };
    tracing::debug!(task = %attempt, outcome = %result.outcome, "finished a task");
    let stored = ledger.finish(&held, result).await?;
    stored.await
}

/// Returns the result of a task that was stopped before it had one; `None` if it stays in
/// the inbox.
fn unfinished(ledger: &Ledger, held: &Held, reason: StopReason) -> Option<TaskResult> {
    let attempt = held.task.attempt();
    let cancelled = || {
        let why = "it was cancelled, and stopped before it had a result";
        Some(ledger.not_run(attempt, Outcome::Cancelled, why.to_owned()))
    };
    match reason {
        // Another reason to stop it came first.
        _ if ledger.is_cancelled(attempt) => cancelled(),
        StopReason::Shutdown => {
            tracing::info!(task = %attempt, "stopped a task; it is kept for the next start");
            None
        }
        StopReason::Drained if held.task.rerun => {
            tracing::info!(task = %attempt, "stopped a task; it is kept until the endpoint is resumed");
            ledger.put_back(held.clone());
            None
        }
        StopReason::Drained => {
            let why = "it was stopped at the deadline of a drain, and must not run again";
            Some(ledger.not_run(attempt, Outcome::Interrupted, why.to_owned()))
        }
        StopReason::Cancelled | StopReason::Walltime => cancelled(),
    }
}

/// Logs the events of a task.
struct EventLog(Attempt);

impl EventSink for EventLog {
    fn take(&self, event: Event<'_>) {
        let task = self.0;
        match event {
            Event::Started { at_ms } => tracing::trace!(%task, at_ms, "a task started"),
            Event::Output { stream, bytes } => {
                let bytes = bytes.len();
                tracing::trace!(%task, ?stream, bytes, "a task wrote output");
            }
        }
    }
}

/// Returns the way of a task's events: to the log, where they are logged, and to `live`.
fn events(task: Attempt, live: &Arc<Live>) -> Events {
    let logged = if tracing::enabled!(tracing::Level::TRACE) {
        Events::to(Arc::new(EventLog(task)))
    } else {
        Events::ignored()
    };
    logged.live(task, Arc::clone(live))
}

fn result(ledger: &Ledger, held: &Held, mut report: Report) -> TaskResult {
    report.truncate();
    TaskResult {
        task_id: held.task.id,
        attempt: held.task.attempt,
        outcome: report.outcome,
        value: report.value,
        exit_code: report.exit_code,
        signal: report.signal,
        reason: report.reason.map(Into::into),
        error: report.error,
        lost: None,
        stdout: report.stdout.bytes.into(),
        stdout_omitted: report.stdout.omitted,
        stderr: report.stderr.bytes.into(),
        stderr_omitted: report.stderr.omitted,
        accepted_at_ms: held.accepted_at_ms,
        started_at_ms: report.started_at_ms,
        ended_at_ms: report.ended_at_ms,
        published_at_ms: None,
        cpu_ms: report.cpu_ms,
        peak_memory_bytes: report.peak_memory_bytes,
        removed_files: report.removed_files.map(|files| *files),
        endpoint_id: ledger.endpoint_id,
        state_id: Some(ledger.state_id),
    }
}

#[cfg(test)]
mod tests;
