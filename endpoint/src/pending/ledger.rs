//! The ledger: the endpoint's pending work, in memory ([`Pending`]) and on disk
//! ([`Journal`]), kept in step. Subscriber, engine and publisher share it.
//!
//! A method that changes something waits until the journal has room for the change; then
//! memory is changed and the change handed over in one step. It returns a future that
//! resolves when the change is durable, for callers that need that.

mod claiming;
mod looking;
mod steering;

use super::inbox::{FreeSlots, Held};
use super::outbox::Next;
use super::{Limits, Pending, Wakes};
use crate::storage::disk_queue::Change;
use crate::storage::journal::{
    Commit, Finished, Journal, JournalError, Origin, OutSeq, OutboxRecord, Recovered, RunNotes,
    Running,
};
use crate::storage::sent::{Recalled, SentLog};
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::wire::{self, Disk};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Resolves when a result is on disk.
pub(crate) type Stored = BoxFuture<'static, Result<(), JournalError>>;

/// The endpoint's pending work.
pub(crate) struct Ledger {
    /// The endpoint that it is of.
    pub(crate) endpoint_id: EndpointId,
    /// The state folder that it is in.
    pub(crate) state_id: StateId,
    /// How the folder came to be where it is.
    pub(crate) origin: Origin,
    /// How many commits the folder had seen at the start.
    pub(crate) age: u64,
    journal: Journal,
    shared: Arc<Shared>,
    durable: Arc<AtomicU64>,
    running: Arc<Running>,
    /// The wall clock by which attempts of topics are claimed.
    clock: claiming::WallClock,
    /// Results that were delivered, for a while.
    sent: Option<SentLog>,
}

/// The part of the ledger that is shared with futures which outlive a call.
struct Shared {
    pending: Mutex<Pending>,
    engine: Notify,
    subscriber: Notify,
    publisher: Notify,
    drain: Notify,
    first: Notify,
    claims: Notify,
    /// Tasks that waited have been cancelled.
    withdrawn: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides something, and wakes the parts that it concerns.
    fn decide<T>(&self, decide: impl FnOnce(&mut Pending) -> T) -> T {
        let mut pending = self.lock();
        let decided = decide(&mut pending);
        let Wakes { engine, subscriber, publisher, drain, first, claims } = pending.take_wakes();
        drop(pending);
        for (wakes, part) in [
            (engine, &self.engine),
            (subscriber, &self.subscriber),
            (publisher, &self.publisher),
            (drain, &self.drain),
            (first, &self.first),
            (claims, &self.claims),
        ] {
            if wakes {
                part.notify_one();
            }
        }
        decided
    }
}

impl Ledger {
    /// A ledger over an open journal, with the work that an earlier life of the daemon
    /// left in it.
    pub(crate) fn new(
        journal: Journal,
        mut found: Recovered,
        endpoint_id: EndpointId,
        limits: Limits,
    ) -> Self {
        let pending = Mutex::new(Pending::restore(&mut found, limits));
        let [engine, subscriber, publisher, drain, first, claims, withdrawn] =
            std::array::from_fn(|_| Notify::new());
        let shared =
            Shared { pending, engine, subscriber, publisher, drain, first, claims, withdrawn };
        let ledger = Self {
            endpoint_id,
            state_id: found.state_id,
            origin: found.origin,
            age: found.age,
            journal,
            shared: Arc::new(shared),
            clock: Arc::new(now_ms),
            durable: found.durable,
            running: found.running,
            sent: None,
        };
        ledger.shared.decide(|_| ());
        ledger
    }

    /// Has results kept in a log once they are delivered, to be sent again if the
    /// service lost them.
    pub(crate) fn with_sent_log(self, sent: SentLog) -> Self {
        Self { sent: Some(sent), ..self }
    }

    /// The disk, as it is now.
    pub(crate) fn disk(&self) -> Disk {
        Disk { state_id: self.state_id, age: self.durable.load(Ordering::Relaxed) }
    }

    /// How many tasks are accepted and not finished.
    pub(crate) fn tasks(&self) -> usize {
        self.shared.lock().tasks()
    }

    /// How many tasks wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().waiting()
    }

    /// How many results the broker has not confirmed.
    pub(crate) fn undelivered(&self) -> u64 {
        self.shared.lock().undelivered()
    }

    /// How many tasks are accepted and not finished, and results not confirmed.
    pub(crate) fn pending(&self) -> u64 {
        let pending = self.shared.lock();
        pending.tasks() as u64 + pending.undelivered()
    }

    /// Whether this attempt, or a later one at the same task, was accepted
    /// before, be it long finished.
    pub(crate) fn knows(&self, attempt: Attempt) -> Result<bool, JournalError> {
        let seen = self.journal.seen(attempt.task_id)?;
        Ok(seen.is_some_and(|highest| highest >= attempt.attempt))
    }

    /// Accepts tasks, which may start at once; those that are cancelled have a result
    /// instead. An empty list gives a commit that covers everything accepted before.
    pub(crate) async fn accept(&self, tasks: Vec<Task>) -> Result<Stored, JournalError> {
        let tasks = tasks.into_iter().map(Arc::new).collect();
        let now_ms = now_ms();
        let cancelled = |attempt| self.cancelled(attempt);
        let (outs, commit) =
            self.submit(|pending| pending.accept(tasks, now_ms, cancelled)).await?;
        Ok(self.stored(outs, commit))
    }

    /// Accepts tasks, which may start once they are [secured](Ledger::secured).
    pub(crate) async fn accept_unsecured(&self, tasks: Vec<Task>) -> Result<Stored, JournalError> {
        let with_before = |task: Task| Ok((self.journal.seen(task.id)?, Arc::new(task)));
        let tasks = tasks.into_iter().map(with_before).collect::<Result<_, _>>()?;
        let now_ms = now_ms();
        let cancelled = |attempt| self.cancelled(attempt);
        let (outs, commit) =
            self.submit(|pending| pending.accept_unsecured(tasks, now_ms, cancelled)).await?;
        Ok(self.stored(outs, commit))
    }

    /// Lets the `count` tasks start that have been unsecured for longest. The disk notes
    /// that before any later change of them; if a crash forgets that a task was secured, the
    /// task held a slot, or did not start.
    pub(crate) async fn secured(&self, count: usize) -> Result<(), JournalError> {
        let ((), commit) = self.submit(|pending| ((), pending.secure(count))).await?;
        drop(commit);
        Ok(())
    }

    /// Hands back all tasks that wait in the inbox: the disk went back in time, and they may
    /// have run. None of them must have started.
    pub(crate) async fn hand_back_all(&self) -> Result<Stored, JournalError> {
        self.shared.decide(Pending::unsecure_waiting);
        self.hand_back().await
    }

    /// Hands back the unsecured tasks: they leave the inbox, are forgotten, and a result
    /// says so, in one commit.
    pub(crate) async fn hand_back(&self) -> Result<Stored, JournalError> {
        if !self.shared.lock().has_unsecured() {
            return Ok(Box::pin(std::future::ready(Ok(()))));
        }
        let result = |attempt| {
            let reason = "the endpoint does not run it: it is not certain that no other instance of \
                 the endpoint is, or was, given it";
            let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
            self.finished(TaskResult { lost: Some(Loss::HandedBack), ..result })
        };
        let (outs, commit) = self.submit(|pending| pending.hand_back(result)).await?;
        tracing::warn!(
            tasks = outs.len(),
            "handing back tasks that are not run here: it is not certain that no other instance is, \
             or was, given them. The service asks which of them are lost"
        );
        Ok(self.stored(outs, commit))
    }

    /// Records why a task was not accepted, as its result.
    pub(crate) async fn reject(
        &self,
        attempt: Attempt,
        reason: String,
    ) -> Result<Stored, JournalError> {
        let result = self.not_run(attempt, Outcome::Rejected, reason);
        self.record(self.finished(result)).await
    }

    /// Marks a task as started: once that is durable, a crash will find it
    /// [`started`](crate::storage::disk_queue::Accepted::started).
    pub(crate) async fn start(&self, held: &Held) -> Result<Commit, JournalError> {
        let changes = vec![Change::Start { seq: held.seq }];
        let ((), commit) = self.submit(|_| ((), changes)).await?;
        Ok(commit)
    }

    /// Replaces an accepted task by its result. That it is cancelled is sent once it is on disk.
    pub(crate) async fn finish(
        &self,
        held: &Held,
        result: TaskResult,
    ) -> Result<Stored, JournalError> {
        let cancelled = result.outcome == Outcome::Cancelled;
        let result = self.finished(result);
        let finish = |pending: &mut Pending| {
            let (out, change) = pending.finish(Some(held), result);
            if cancelled {
                pending.hold_back(out);
            }
            (out, vec![change])
        };
        let (out, commit) = self.submit(finish).await?;
        Ok(self.stored(vec![out], commit))
    }

    /// Records that an attempt is not known, and will not be run any more.
    pub(crate) async fn disown(&self, attempt: Attempt) -> Result<Stored, JournalError> {
        let reason = "the endpoint was asked for it and does not know it: it was lost";
        let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
        let result = TaskResult { lost: Some(Loss::Unknown), ..result };
        self.record(self.finished(result)).await
    }

    /// Notes that the broker has confirmed these results.
    pub(crate) fn delivered(&self, results: Vec<Arc<Finished>>) {
        if let Some(sent) = &self.sent {
            sent.append(results);
        }
    }

    /// The attempt of the result that was delivered last.
    pub(crate) fn delivered_last(&self) -> Option<Attempt> {
        self.sent.as_ref().and_then(SentLog::last)
    }

    /// Has the results of these attempts sent again, as the service lost them: results in the
    /// sent log go into the outbox once more, and for each other attempt a result says that
    /// its own had been delivered. Attempts that are pending are left alone. Returns how many
    /// results are sent.
    pub(crate) async fn send_again(
        &self,
        attempts: HashSet<Attempt>,
    ) -> Result<(usize, Vec<Stored>), JournalError> {
        if attempts.is_empty() {
            return Ok((0, Vec::new()));
        }
        let held = self.journal.held(attempts.clone()).await?;
        let mut gone: HashSet<Attempt> = attempts.difference(&held).copied().collect();
        let Recalled { found, more } = match &self.sent {
            Some(sent) => sent.recall(gone.clone()).await,
            None => Recalled::default(),
        };
        let mut stored = Vec::with_capacity(gone.len());
        for result in found {
            gone.remove(&result.attempt);
            stored.push(self.record(Arc::new(result)).await?);
        }
        // In order, so that the same events give the same run.
        let gone: BTreeSet<Attempt> = gone.difference(&more).copied().collect();
        for attempt in gone {
            let reason = "it ran to its end and its result was delivered; the endpoint does not \
                 keep that result any more";
            let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
            let result = TaskResult { lost: Some(Loss::Delivered), ..result };
            stored.push(self.record(self.finished(result)).await?);
        }
        Ok((stored.len(), stored))
    }

    /// A result of a task that did not run here.
    pub(crate) fn not_run(&self, attempt: Attempt, outcome: Outcome, reason: String) -> TaskResult {
        TaskResult::not_run(attempt, outcome, reason, self.endpoint_id, now_ms())
    }

    /// Where the results from `next` on are: at most `max` of those in memory, at most
    /// `max_bytes` unless the first alone is larger.
    pub(crate) fn results(&self, next: OutSeq, max: usize, max_bytes: usize) -> Next {
        self.shared.lock().results(next, max, max_bytes)
    }

    /// The results on disk that are not released, from `from` on, in order, some if there
    /// are any: at most `max`, at most `max_bytes` unless the first alone is larger.
    pub(crate) async fn backlog(
        &self,
        mut from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<(OutSeq, Arc<Finished>)>, JournalError> {
        let records = loop {
            let page = self.journal.outbox(from, max, max_bytes).await?;
            let next = page.last().map(|last| OutSeq(last.seq.0 + 1));
            let range = from..next.unwrap_or(OutSeq(u64::MAX));
            let records = self.shared.decide(|pending| pending.unreleased(range, page));
            match next {
                Some(next) if records.is_empty() => from = next,
                Some(_) | None => break records,
            }
        };
        let shared = |record: OutboxRecord| {
            let OutboxRecord { seq, attempt, bytes } = record;
            (seq, Arc::new(Finished { attempt, bytes }))
        };
        Ok(records.into_iter().map(shared).collect())
    }

    /// Forgets results that the broker has confirmed.
    pub(crate) async fn release(&self, results: Vec<OutSeq>) -> Result<Stored, JournalError> {
        let ((), commit) = self.submit(|pending| ((), pending.release(&results))).await?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::pin(async move {
            commit.await?;
            shared.decide(|pending| pending.released(&results));
            Ok(())
        }))
    }

    /// Has no more calls of these functions run than they allow. To be told before the first
    /// task is taken.
    pub(crate) fn limit(&self, functions: BTreeMap<String, usize>) {
        self.shared.decide(|pending| pending.limit(functions));
    }

    /// Lets no task start until [`Ledger::open`].
    pub(crate) fn shut(&self) {
        self.shared.decide(Pending::shut);
    }

    /// Lets tasks start.
    pub(crate) fn open(&self) {
        self.shared.decide(Pending::open);
    }

    /// Whether no task may start, and one waits for that.
    pub(crate) fn holds_back(&self) -> bool {
        self.shared.lock().holds_back()
    }

    /// Takes the task that is to start next, if it fits.
    pub(crate) fn take_fitting(&self, slots: FreeSlots) -> Option<Held> {
        let mut pending = self.shared.lock();
        let held = pending.take_fitting(slots);
        let claims = pending.take_claims_wake();
        drop(pending);
        if claims {
            self.shared.claims.notify_one();
        }
        held
    }

    /// Takes the task that is to start next.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Option<Held> {
        self.take_fitting(FreeSlots::ENOUGH)
    }

    /// Waits until a task may have become ready to start since the last call.
    pub(crate) async fn task_ready(&self) {
        self.shared.engine.notified().await;
    }

    /// Waits until a result may have been added since the last call.
    pub(crate) async fn result_ready(&self) {
        self.shared.publisher.notified().await;
    }

    /// Waits until there is room in the inbox, and returns for how many small tasks.
    pub(crate) async fn room(&self) -> usize {
        loop {
            let room = self.shared.lock().room();
            if room > 0 {
                return room;
            }
            self.shared.subscriber.notified().await;
        }
    }

    /// Returns the right to note, where it survives the death of the daemon, that the process
    /// or call of a task runs.
    pub(crate) fn run_notes(&self, attempt: Attempt, accepted_at_ms: Option<u64>) -> RunNotes {
        RunNotes::of(&self.running, attempt, accepted_at_ms)
    }

    /// The daemon is to stop: however it ends from now on, no task is to blame.
    pub(crate) fn stop_noting_runs(&self) {
        self.running.stop();
    }

    /// Commits what was handed over, and closes the journal.
    pub(crate) async fn close(&self) {
        self.journal.close().await;
    }

    /// A result on its way into the outbox.
    fn finished(&self, mut result: TaskResult) -> Arc<Finished> {
        result.state_id = Some(self.state_id);
        let (attempt, bytes) = (result.attempt(), wire::encode_result(&result));
        Arc::new(Finished { attempt, bytes })
    }

    /// Puts the result of a task into the outbox that is not in the inbox.
    async fn record(&self, result: Arc<Finished>) -> Result<Stored, JournalError> {
        let finish = |pending: &mut Pending| {
            let (out, change) = pending.finish(None, result);
            (out, vec![change])
        };
        let (out, commit) = self.submit(finish).await?;
        Ok(self.stored(vec![out], commit))
    }

    /// Decides something, and hands the changes that it makes to the journal in the same
    /// step: the disk makes them in the order in which they were decided.
    async fn submit<T>(
        &self,
        decide: impl FnOnce(&mut Pending) -> (T, Vec<Change>),
    ) -> Result<(T, Commit), JournalError> {
        let room = self.journal.reserve().await?;
        Ok(self.shared.decide(|pending| {
            let (decided, changes) = decide(pending);
            (decided, room.submit(changes))
        }))
    }

    /// Resolves when results are on disk, and notes that.
    fn stored(&self, outs: Vec<OutSeq>, commit: Commit) -> Stored {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            commit.await?;
            if !outs.is_empty() {
                shared.decide(|pending| pending.on_disk(&outs));
            }
            Ok(())
        })
    }
}
