//! The workers of one function: started when they are needed, kept warm, the one
//! that was used last taken first.
//!
//! Touches its workers only. Promises that no more of them have a call, wait for
//! one or leave after one than the function may have; that whatever a
//! worker does is an outcome of the task it has, and of no other; and that the
//! result of a call is told when nobody is left of a worker that is to go.

use super::protocol::{self, Answer};
use super::worker::{Reply, StartError, StopMode, Worker, WorkerEnd, how};
use super::worker_spec::WorkerSpec;
use crate::execution::capture::Captured;
use crate::execution::executor::{Ended, Report};
use crate::execution::os::spawn::Spawner;
use crate::execution::verdict::Facts;
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
use tokio_util::sync::CancellationToken;

/// What is asked of the workers of a function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionConfig {
    /// How they are made.
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
    places: Arc<Semaphore>,
    /// Those that wait for a call, the last one used last.
    idle: Mutex<Vec<Worker>>,
    /// Those that are on their way out; each has its place until it is gone.
    leaving: Mutex<JoinSet<()>>,
}

/// What a worker is asked, and the place of whoever answers.
struct CallRequest<'a> {
    attempt: Attempt,
    call: &'a Call,
    walltime: Option<Duration>,
    stop: &'a CancellationToken,
    place: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// Without a worker yet.
    pub(super) fn new(config: FunctionConfig, spawner: Arc<Spawner>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.concurrency)),
            config,
            spawner,
            idle: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// How many workers there are at most.
    pub(super) fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    /// Runs one call to its end.
    pub(super) async fn run(&self, task: &Task, call: &Call, stop: CancellationToken) -> Ended {
        let place = tokio::select! {
            biased;
            place = Arc::clone(&self.places).acquire_owned() => place,
            () = stop.cancelled() => return Ended::Stopped,
        };
        let Ok(place) = place else { return Ended::Stopped }; // going down
        let (attempt, walltime, place) = (task.attempt(), task.walltime(), Some(place));
        let mut asked = CallRequest { attempt, call, walltime, stop: &stop, place };
        while let Some(worker) = self.take_idle() {
            if let Some(ended) = self.serve(worker, &mut asked).await {
                return ended;
            }
        }
        let worker = match self.start(&stop).await {
            Ok(worker) => worker,
            Err(StartError::Stopped | StartError::Host(_)) => return Ended::Stopped,
            Err(StartError::Failed(why, stderr)) => {
                tracing::warn!(function = call.function, why, "a worker is not ready");
                return Ended::Finished(Report { stderr, ..Report::not_run(why) });
            }
        };
        self.serve(worker, &mut asked).await.unwrap_or(Ended::Stopped)
    }

    /// A new worker, as soon as the host has what it takes.
    async fn start(&self, stop: &CancellationToken) -> Result<Worker, StartError> {
        let mut wait = self.spawner.shortage.wait();
        loop {
            match Worker::start(&self.spawner, &self.config.spec, stop).await {
                Err(StartError::Host(why)) => {
                    if !wait.pause(&why, stop).await {
                        return Err(StartError::Stopped);
                    }
                }
                started => {
                    wait.over();
                    return started;
                }
            }
        }
    }

    /// A worker that waits; those that turn out to be dead are seen off.
    fn take_idle(&self) -> Option<Worker> {
        loop {
            let mut worker = self.idle().pop()?;
            if worker.is_idle() {
                return Some(worker);
            }
            self.reap(worker);
        }
    }

    /// Has a worker answer. None if it had been about to end, or had something else to
    /// say, and did not hear what was asked; that does not happen to one that has
    /// answered nothing yet.
    async fn serve(&self, mut worker: Worker, asked: &mut CallRequest<'_>) -> Option<Ended> {
        let started_at_ms = now_ms();
        let until = asked.walltime.and_then(|walltime| Instant::now().checked_add(walltime));
        let report =
            |outcome| Report { started_at_ms: Some(started_at_ms), ..Report::blank(outcome) };
        let number = worker.next_call();
        let line = protocol::request(number, asked.attempt, asked.call);
        let (mode, noise) = match worker.exchange(&line, until, asked.stop).await {
            Reply::Line(line) => match protocol::answer(&line, number) {
                Ok(answer) => {
                    let stderr = worker.cut_stderr();
                    self.give_back(worker, asked.place.take());
                    return Some(Ended::Finished(answered(answer, stderr, report)));
                }
                Err(why) => (StopMode::Terminate, Some(why)),
            },
            Reply::Invalid(why) => (StopMode::Terminate, Some(why)),
            Reply::Exited if worker.served > 0 && worker.request_unread() => {
                self.reap(worker);
                return None;
            }
            Reply::Exited => (StopMode::Exited, None),
            Reply::TimedOut => (StopMode::Terminate, None),
            Reply::Stopped => {
                worker.end(StopMode::Terminate, self.config.spec.grace).await;
                return Some(Ended::Stopped);
            }
        };
        let late = mode == StopMode::Terminate && noise.is_none();
        let (pid, has_served) = (worker.pid(), worker.served > 0);
        let remains = worker.end(mode, self.config.spec.grace).await;
        if let Some(why) = &noise
            && has_served
            && remains.unread
        {
            let function = &self.config.spec.function;
            tracing::warn!(function, %pid, why, "a worker spoke before it read a call; it is replaced");
            return None;
        }
        let facts = Facts {
            status: remains.usage.map(|usage| usage.status),
            exceeded: asked.walltime.filter(|_| late),
            survivors: remains.ending.survivors.len(),
            ..Facts::default()
        };
        Some(Ended::Finished(self.lost(&facts, remains, noise, report)))
    }

    /// The report on a call that took its worker with it.
    fn lost(
        &self,
        facts: &Facts,
        remains: WorkerEnd,
        noise: Option<String>,
        report: impl Fn(Outcome) -> Report,
    ) -> Report {
        let verdict = facts.verdict();
        if verdict.outcome == Outcome::TimedOut {
            let reason = verdict.reason;
            return Report { reason, stderr: remains.stderr, ..report(Outcome::TimedOut) };
        }
        let named = self.config.spec.named();
        let reason = match noise {
            Some(why) => format!(
                "{named} does not keep to the protocol: {why}. It was replaced; only answers may go \
                 to its standard output"
            ),
            None => {
                let besides = verdict.reason.map(|why| format!("; {why}")).unwrap_or_default();
                format!("{named} ended before it answered: {}{besides}", how(&remains))
            }
        };
        Report {
            exit_code: verdict.exit_code,
            signal: verdict.signal,
            reason: Some(reason),
            stderr: remains.stderr,
            ..report(Outcome::Failed)
        }
    }

    /// Has a worker wait for the next call, or replaced when one comes.
    fn give_back(&self, mut worker: Worker, place: Option<OwnedSemaphorePermit>) {
        worker.served += 1;
        let worn = self.config.recycle_after.is_some_and(|limit| worker.served >= limit);
        let fat = || {
            let limit = self.config.memory_limit?;
            worker.memory().filter(|memory| *memory > limit)
        };
        let function = &self.config.spec.function;
        if worn {
            tracing::debug!(function, calls = worker.served, "a worker has served its time");
        } else if let Some(memory) = fat() {
            tracing::info!(function, memory, "a worker takes too much memory and is replaced");
        } else {
            self.idle().push(worker);
            return;
        }
        self.retire(worker, StopMode::Retire, place);
    }

    /// Sees off a worker that died while it waited, or that said what nobody had
    /// asked for.
    fn reap(&self, worker: Worker) {
        let (function, pid) = (&self.config.spec.function, worker.pid());
        tracing::warn!(function, %pid, "a worker ended, or spoke up, while it had no call; it is replaced");
        self.retire(worker, StopMode::Exited, None);
    }

    fn retire(&self, worker: Worker, mode: StopMode, place: Option<OwnedSemaphorePermit>) {
        let grace = self.config.spec.grace;
        let mut leaving = lock(&self.leaving);
        while leaving.try_join_next().is_some() {}
        leaving.spawn(async move {
            worker.end(mode, grace).await;
            drop(place);
        });
    }

    /// Looks after those that wait: sees off the dead.
    pub(super) fn tend(&self) {
        let dead: Vec<Worker> = {
            let mut idle = self.idle();
            idle.extract_if(.., |worker| !worker.is_idle()).collect()
        };
        dead.into_iter().for_each(|worker| self.reap(worker));
    }

    /// Starts a worker and sees it off.
    ///
    /// # Errors
    /// Why it is not ready, in words, and what it wrote.
    pub(super) async fn try_out(&self) -> Result<(), (String, Captured)> {
        match Worker::start(&self.spawner, &self.config.spec, &CancellationToken::new()).await {
            Ok(worker) => {
                worker.end(StopMode::Retire, self.config.spec.grace).await;
                Ok(())
            }
            Err(StartError::Failed(why, stderr)) => Err((why, stderr)),
            Err(StartError::Host(why)) => Err((why, Captured::default())),
            Err(StartError::Stopped) => Ok(()),
        }
    }

    /// Sees all workers off. Nothing is called any more.
    pub(super) async fn close(&self) {
        self.places.close();
        let idle = std::mem::take(&mut *self.idle());
        let grace = self.config.spec.grace;
        join_all(idle.into_iter().map(|worker| worker.end(StopMode::Retire, grace))).await;
        let mut leaving = std::mem::take(&mut *lock(&self.leaving));
        while leaving.join_next().await.is_some() {}
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        lock(&self.idle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answered(answer: Answer, stderr: Captured, report: impl Fn(Outcome) -> Report) -> Report {
    match answer {
        Answer::Value(value) => Report { value: Some(value), stderr, ..report(Outcome::Succeeded) },
        Answer::Error(error) => Report { reason: Some(error), stderr, ..report(Outcome::Failed) },
    }
}

#[cfg(test)]
mod tests;
