//! The workers of one function: started when they are needed, kept warm, the one
//! that was used last taken first.
//!
//! Touches its workers only. Promises that no more of them have a call, wait for
//! one or leave after one than the function may have; that whatever a
//! worker does is an outcome of the task it has, and of no other; and that the
//! result of a call is told when nobody is left of a worker that is to go.

use super::protocol::{self, Answer};
use super::recipe::Recipe;
use super::worker::{Farewell, Heard, Remains, Unready, Worker, how};
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
pub(crate) struct Terms {
    /// How they are made.
    pub(crate) recipe: Recipe,
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
    terms: Terms,
    spawner: Arc<Spawner>,
    places: Arc<Semaphore>,
    /// Those that wait for a call, the last one used last.
    idle: Mutex<Vec<Worker>>,
    /// Those that are on their way out; each has its place until it is gone.
    leaving: Mutex<JoinSet<()>>,
}

/// What a worker is asked, and the place of whoever answers.
struct Asked<'a> {
    attempt: Attempt,
    call: &'a Call,
    walltime: Option<Duration>,
    stop: &'a CancellationToken,
    place: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// Without a worker yet.
    pub(super) fn new(terms: Terms, spawner: Arc<Spawner>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(terms.concurrency)),
            terms,
            spawner,
            idle: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// How many workers there are at most.
    pub(super) fn concurrency(&self) -> usize {
        self.terms.concurrency
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
        let mut asked = Asked { attempt, call, walltime, stop: &stop, place };
        while let Some(worker) = self.warm() {
            if let Some(ended) = self.serve(worker, &mut asked).await {
                return ended;
            }
        }
        let worker = match self.start(&stop).await {
            Ok(worker) => worker,
            Err(Unready::Stopped | Unready::Host(_)) => return Ended::Stopped,
            Err(Unready::Failed(why, stderr)) => {
                tracing::warn!(function = call.function, why, "a worker is not ready");
                return Ended::Finished(Report { stderr, ..Report::not_run(why) });
            }
        };
        self.serve(worker, &mut asked).await.unwrap_or(Ended::Stopped)
    }

    /// A new worker, as soon as the host has what it takes.
    async fn start(&self, stop: &CancellationToken) -> Result<Worker, Unready> {
        let mut wait = self.spawner.patience.wait();
        loop {
            match Worker::start(&self.spawner, &self.terms.recipe, stop).await {
                Err(Unready::Host(why)) => {
                    if !wait.pause(&why, stop).await {
                        return Err(Unready::Stopped);
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
    fn warm(&self) -> Option<Worker> {
        loop {
            let mut worker = self.idle().pop()?;
            if worker.is_quiet() {
                return Some(worker);
            }
            self.bury(worker);
        }
    }

    /// Has a worker answer. None if it had been about to end, or had something else to
    /// say, and did not hear what was asked; that does not happen to one that has
    /// answered nothing yet.
    async fn serve(&self, mut worker: Worker, asked: &mut Asked<'_>) -> Option<Ended> {
        let started_at_ms = now_ms();
        let until = asked.walltime.and_then(|walltime| Instant::now().checked_add(walltime));
        let report =
            |outcome| Report { started_at_ms: Some(started_at_ms), ..Report::blank(outcome) };
        let number = worker.next_call();
        let line = protocol::request(number, asked.attempt, asked.call);
        let (farewell, noise) = match worker.exchange(&line, until, asked.stop).await {
            Heard::Line(line) => match protocol::answer(&line, number) {
                Ok(answer) => {
                    let stderr = worker.cut_stderr();
                    self.put_back(worker, asked.place.take());
                    return Some(Ended::Finished(answered(answer, stderr, report)));
                }
                Err(why) => (Farewell::Stop, Some(why)),
            },
            Heard::Noise(why) => (Farewell::Stop, Some(why)),
            Heard::Gone if worker.served > 0 && worker.is_deaf() => {
                self.bury(worker);
                return None;
            }
            Heard::Gone => (Farewell::Gone, None),
            Heard::Late => (Farewell::Stop, None),
            Heard::Stopped => {
                worker.end(Farewell::Stop, self.terms.recipe.grace).await;
                return Some(Ended::Stopped);
            }
        };
        let late = farewell == Farewell::Stop && noise.is_none();
        let (pid, has_served) = (worker.pid(), worker.served > 0);
        let remains = worker.end(farewell, self.terms.recipe.grace).await;
        if let Some(why) = &noise
            && has_served
            && remains.unread
        {
            let function = &self.terms.recipe.function;
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
        remains: Remains,
        noise: Option<String>,
        report: impl Fn(Outcome) -> Report,
    ) -> Report {
        let verdict = facts.verdict();
        if verdict.outcome == Outcome::TimedOut {
            let reason = verdict.reason;
            return Report { reason, stderr: remains.stderr, ..report(Outcome::TimedOut) };
        }
        let named = self.terms.recipe.named();
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
    fn put_back(&self, mut worker: Worker, place: Option<OwnedSemaphorePermit>) {
        worker.served += 1;
        let worn = self.terms.recycle_after.is_some_and(|limit| worker.served >= limit);
        let fat = || {
            let limit = self.terms.memory_limit?;
            worker.memory().filter(|memory| *memory > limit)
        };
        let function = &self.terms.recipe.function;
        if worn {
            tracing::debug!(function, calls = worker.served, "a worker has served its time");
        } else if let Some(memory) = fat() {
            tracing::info!(function, memory, "a worker takes too much memory and is replaced");
        } else {
            self.idle().push(worker);
            return;
        }
        self.retire(worker, Farewell::Retire, place);
    }

    /// Sees off a worker that died while it waited, or that said what nobody had
    /// asked for.
    fn bury(&self, worker: Worker) {
        let (function, pid) = (&self.terms.recipe.function, worker.pid());
        tracing::warn!(function, %pid, "a worker ended, or spoke up, while it had no call; it is replaced");
        self.retire(worker, Farewell::Gone, None);
    }

    fn retire(&self, worker: Worker, farewell: Farewell, place: Option<OwnedSemaphorePermit>) {
        let grace = self.terms.recipe.grace;
        let mut leaving = lock(&self.leaving);
        while leaving.try_join_next().is_some() {}
        leaving.spawn(async move {
            worker.end(farewell, grace).await;
            drop(place);
        });
    }

    /// Looks after those that wait: sees off the dead.
    pub(super) fn tend(&self) {
        let dead: Vec<Worker> = {
            let mut idle = self.idle();
            idle.extract_if(.., |worker| !worker.is_quiet()).collect()
        };
        dead.into_iter().for_each(|worker| self.bury(worker));
    }

    /// Starts a worker and sees it off.
    ///
    /// # Errors
    /// Why it is not ready, in words, and what it wrote.
    pub(super) async fn try_out(&self) -> Result<(), (String, Captured)> {
        match Worker::start(&self.spawner, &self.terms.recipe, &CancellationToken::new()).await {
            Ok(worker) => {
                worker.end(Farewell::Retire, self.terms.recipe.grace).await;
                Ok(())
            }
            Err(Unready::Failed(why, stderr)) => Err((why, stderr)),
            Err(Unready::Host(why)) => Err((why, Captured::default())),
            Err(Unready::Stopped) => Ok(()),
        }
    }

    /// Sees all workers off. Nothing is called any more.
    pub(super) async fn close(&self) {
        self.places.close();
        let idle = std::mem::take(&mut *self.idle());
        let grace = self.terms.recipe.grace;
        join_all(idle.into_iter().map(|worker| worker.end(Farewell::Retire, grace))).await;
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
