//! The pool of workers of one function: started when they are needed, kept for the next
//! call, the last one used taken first.
//!
//! Touches its workers only. Promises that there are never more workers than the function
//! may have, those that are being stopped included; that anything a worker does is an
//! outcome of the task it has, and of no other; and that where a call ends its worker,
//! the result is given when no process of the worker is left.

use super::busy::BusyWorkers;
use super::protocol::{self, CallAnswer};
use super::worker::{Reply, StartError, StopMode, Worker, WorkerEnd, describe_exit};
use super::worker_spec::WorkerSpec;
use crate::execution::capture::Captured;
use crate::execution::events::Event;
use crate::execution::executor::{Ended, Report, RunContext};
use crate::execution::os::spawn::Spawner;
use crate::execution::verdict::{CANCELLED, Facts};
use crate::pending::stop::{StopReason, StopSignal};
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::Outcome;
use clutch_common::task::{Call, Task};
use futures_util::future::join_all;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The settings of a function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionConfig {
    /// How its workers are started.
    pub(crate) spec: WorkerSpec,
    /// How many there are at most.
    pub(crate) concurrency: usize,
    /// After how many calls a worker is replaced.
    pub(crate) recycle_after: Option<u64>,
    /// Above how much resident memory, in bytes, it is replaced after a call.
    pub(crate) memory_limit: Option<u64>,
}

/// The workers of a function.
#[derive(Debug)]
pub(super) struct Pool {
    config: FunctionConfig,
    spawner: Arc<Spawner>,
    /// One permit for each worker that there may be.
    permits: Arc<Semaphore>,
    /// Workers that wait for a call, the last one used last.
    idle: Mutex<Vec<Worker>>,
    busy: BusyWorkers,
    /// Workers that are being stopped; each has its permit until it is gone.
    stopping: Mutex<JoinSet<()>>,
}

/// A call to be made, and the permit for the worker that makes it.
struct CallRequest<'a> {
    attempt: Attempt,
    call: &'a Call,
    walltime: Option<Duration>,
    context: &'a RunContext,
    permit: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// Creates a pool without workers.
    pub(super) fn new(config: FunctionConfig, spawner: Arc<Spawner>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(config.concurrency)),
            config,
            spawner,
            idle: Mutex::default(),
            busy: BusyWorkers::default(),
            stopping: Mutex::default(),
        }
    }

    /// Returns how many workers there are at most.
    pub(super) fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    /// Returns how many workers wait for a call, and how many do something else.
    pub(super) fn idle_and_busy(&self) -> (usize, usize) {
        let busy = self.config.concurrency.saturating_sub(self.permits.available_permits());
        (self.idle().len(), busy)
    }

    /// Returns the calls that workers have, each with the worker's process.
    pub(super) fn calls(&self) -> Vec<(Attempt, u32)> {
        self.busy.calls()
    }

    /// Runs one call to its end.
    pub(super) async fn run(&self, task: &Task, call: &Call, context: &RunContext) -> Ended {
        const GOING_DOWN: Ended = Ended::Stopped(StopReason::Shutdown);
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
            reason = context.stop.wait() => return Ended::Stopped(reason),
        };
        let Ok(permit) = permit else { return GOING_DOWN };
        let (attempt, walltime, permit) = (task.attempt(), task.walltime(), Some(permit));
        let mut request = CallRequest { attempt, call, walltime, context, permit };
        while let Some(worker) = self.take_idle() {
            if let Some(ended) = self.call(worker, &mut request).await {
                return ended;
            }
        }
        let troubles = &self.spawner.troubles;
        let subject = self.config.spec.trouble();
        troubles.begin(&subject, "a worker is starting");
        let started = self.start(&context.stop).await;
        match &started {
            Err(StartError::Failed(why, _)) => {
                troubles.begin(&subject, &format!("its workers do not start: {why}"));
            }
            _ => troubles.end(&subject),
        }
        let worker = match started {
            Ok(worker) => worker,
            Err(StartError::Stopped(reason)) => return Ended::Stopped(reason),
            Err(StartError::Host(_)) => return GOING_DOWN,
            Err(StartError::Failed(why, stderr)) => {
                tracing::warn!(function = call.function, why, "a worker is not ready");
                return Ended::Finished(Report { stderr, ..Report::not_run(why) });
            }
        };
        self.call(worker, &mut request).await.unwrap_or(GOING_DOWN)
    }

    /// Starts a worker, as soon as the host has what it takes.
    async fn start(&self, stop: &StopSignal) -> Result<Worker, StartError> {
        let mut wait = self.spawner.shortage.wait();
        loop {
            match Worker::start(&self.spawner, &self.config.spec, stop).await {
                Err(StartError::Host(why)) => {
                    wait.pause(&why, stop).await.map_err(StartError::Stopped)?;
                }
                started => {
                    wait.over();
                    return started;
                }
            }
        }
    }

    /// Takes a worker that waits for a call; those that turn out to be dead are stopped.
    fn take_idle(&self) -> Option<Worker> {
        loop {
            let mut worker = self.idle().pop()?;
            if worker.is_idle() {
                return Some(worker);
            }
            self.stop_dead(worker);
        }
    }

    /// Has a worker make a call. Returns `None` where the worker ended, or wrote something
    /// else, before it read the request, so that another one can make the call; that is
    /// never assumed of a worker that has not answered any call yet.
    async fn call(&self, worker: Worker, request: &mut CallRequest<'_>) -> Option<Ended> {
        let side = worker.token().zip(self.spawner.side.as_ref());
        let own = side.map(|(worker, side)| {
            side.messages.begin_call(request.attempt, &request.context.stop, worker)
        });
        let ended = self.answer(worker, request).await;
        if let Some(own) = own {
            own.over(ended.as_ref().and_then(Ended::outcome));
        }
        ended
    }

    async fn answer(&self, mut worker: Worker, request: &mut CallRequest<'_>) -> Option<Ended> {
        let started_at_ms = now_ms();
        let until = request.walltime.and_then(|walltime| Instant::now().checked_add(walltime));
        let report =
            |outcome| Report { started_at_ms: Some(started_at_ms), ..Report::blank(outcome) };
        let number = worker.next_call();
        let _busy = self.busy.note(worker.pid(), request.attempt);
        let line = protocol::request(number, request.attempt, request.call);
        request.context.events.emit(Event::Started { at_ms: started_at_ms });
        let noted = request.context.notes.begin();
        let RunContext { stop, events, .. } = request.context;
        let (mode, violation) = match worker.exchange(&line, until, stop, events).await {
            Reply::Line(line) => match protocol::answer(&line, number) {
                Ok(answer) => {
                    drop(noted);
                    let stderr = worker.take_stderr();
                    self.give_back(worker, request.permit.take());
                    return Some(Ended::Finished(answered(answer, stderr, report)));
                }
                Err(why) => (StopMode::Terminate, Some(why)),
            },
            Reply::Invalid(why) => (StopMode::Terminate, Some(why)),
            Reply::Exited if worker.answered > 0 && worker.request_unread() => {
                self.stop_dead(worker);
                return None;
            }
            Reply::Exited => (StopMode::Exited, None),
            Reply::TimedOut => (StopMode::Terminate, None),
            Reply::Stopped(reason) => {
                let end = worker.stop(StopMode::Terminate, self.config.spec.grace).await;
                if !reason.ends_task() {
                    return Some(Ended::Stopped(reason));
                }
                let reason = Some(CANCELLED.to_owned());
                let cancelled = report(Outcome::Cancelled);
                return Some(Ended::Finished(Report { reason, stderr: end.stderr, ..cancelled }));
            }
        };
        let late = mode == StopMode::Terminate && violation.is_none();
        let (pid, has_answered) = (worker.pid(), worker.answered > 0);
        let end = worker.stop(mode, self.config.spec.grace).await;
        if let Some(why) = &violation
            && has_answered
            && end.unread
        {
            let function = &self.config.spec.function;
            tracing::warn!(function, %pid, why, "a worker wrote a line before it read a call; it is replaced");
            return None;
        }
        let facts = Facts {
            status: end.usage.map(|usage| usage.status),
            exceeded: request.walltime.filter(|_| late),
            survivors: end.tree.survivors.len(),
            ..Facts::default()
        };
        Some(Ended::Finished(self.failure(&facts, end, violation, report)))
    }

    /// Reports a call that ended its worker.
    fn failure(
        &self,
        facts: &Facts,
        end: WorkerEnd,
        violation: Option<String>,
        report: impl Fn(Outcome) -> Report,
    ) -> Report {
        let verdict = facts.verdict();
        if verdict.outcome == Outcome::TimedOut {
            let reason = verdict.reason;
            return Report { reason, stderr: end.stderr, ..report(Outcome::TimedOut) };
        }
        let named = self.config.spec.named();
        let reason = match violation {
            Some(why) => format!(
                "{named} does not keep to the protocol: {why}. It was replaced; only answers may go \
                 to its standard output"
            ),
            None => {
                let besides = verdict.reason.map(|why| format!("; {why}")).unwrap_or_default();
                format!("{named} ended before it answered: {}{besides}", describe_exit(&end))
            }
        };
        Report {
            exit_code: verdict.exit_code,
            signal: verdict.signal,
            reason: Some(reason),
            stderr: end.stderr,
            ..report(Outcome::Failed)
        }
    }

    /// Keeps a worker for the next call, or stops it where it has reached a limit.
    fn give_back(&self, mut worker: Worker, permit: Option<OwnedSemaphorePermit>) {
        worker.answered += 1;
        let recycled = self.config.recycle_after.is_some_and(|limit| worker.answered >= limit);
        let above_memory_limit = || {
            let limit = self.config.memory_limit?;
            worker.memory().filter(|memory| *memory > limit)
        };
        let function = &self.config.spec.function;
        if recycled {
            tracing::debug!(function, calls = worker.answered, "a worker is recycled");
        } else if let Some(memory) = above_memory_limit() {
            tracing::info!(function, memory, "a worker takes too much memory and is replaced");
        } else {
            self.idle().push(worker);
            return;
        }
        self.stop(worker, StopMode::Retire, permit);
    }

    /// Stops a worker that died, or wrote something, while it had no call.
    fn stop_dead(&self, worker: Worker) {
        let (function, pid) = (&self.config.spec.function, worker.pid());
        tracing::warn!(function, %pid, "a worker ended, or wrote a line, while it had no call; it is replaced");
        self.stop(worker, StopMode::Exited, None);
    }

    fn stop(&self, worker: Worker, mode: StopMode, permit: Option<OwnedSemaphorePermit>) {
        let grace = self.config.spec.grace;
        let mut stopping = lock(&self.stopping);
        while stopping.try_join_next().is_some() {}
        stopping.spawn(async move {
            worker.stop(mode, grace).await;
            drop(permit);
        });
    }

    /// Stops the workers that died while they waited for a call.
    pub(super) fn stop_dead_workers(&self) {
        let dead: Vec<Worker> = {
            let mut idle = self.idle();
            idle.extract_if(.., |worker| !worker.is_idle()).collect()
        };
        dead.into_iter().for_each(|worker| self.stop_dead(worker));
    }

    /// Starts a worker and stops it.
    ///
    /// # Errors
    /// It is not ready: why, in words, and what it wrote.
    pub(super) async fn try_out(&self) -> Result<(), (String, Captured)> {
        match Worker::start(&self.spawner, &self.config.spec, &StopSignal::new()).await {
            Ok(worker) => {
                worker.stop(StopMode::Retire, self.config.spec.grace).await;
                Ok(())
            }
            Err(StartError::Failed(why, stderr)) => Err((why, stderr)),
            Err(StartError::Host(why)) => Err((why, Captured::default())),
            Err(StartError::Stopped(_)) => Ok(()),
        }
    }

    /// Stops all workers. No call is made after it.
    pub(super) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        let grace = self.config.spec.grace;
        join_all(idle.into_iter().map(|worker| worker.stop(StopMode::Retire, grace))).await;
        let mut stopping = std::mem::take(&mut *lock(&self.stopping));
        while stopping.join_next().await.is_some() {}
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        lock(&self.idle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answered(answer: CallAnswer, stderr: Captured, report: impl Fn(Outcome) -> Report) -> Report {
    match answer {
        CallAnswer::Value(value) => {
            Report { value: Some(value), stderr, ..report(Outcome::Succeeded) }
        }
        CallAnswer::Error(reason, error) => {
            Report { reason: Some(reason), error, stderr, ..report(Outcome::Failed) }
        }
    }
}

#[cfg(test)]
mod tests;
