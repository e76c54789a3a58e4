//! What is pending at this endpoint: on disk ([`Journal`]) and the part of it
//! that is in memory ([`Inbox`], [`Outbox`]), kept in step.
//!
//! Every method changes memory at once and hands back a [`Commit`] that
//! resolves when the disk has it. Who needs durability waits for the commit;
//! nobody else does.
//!
//! Tasks may be accepted and held until it is certain that nobody else will have
//! them. Then they are put into the inbox, or else handed back. Those that an
//! earlier life of the daemon held are held again: it is not known what became of
//! them.

use crate::pending::inbox::{Bounds, Held, Inbox};
use crate::pending::outbox::Outbox;
use crate::pending::poison::Standing;
use crate::storage::journal::{
    Accepted, Commit, Deaths, Finished, HandBack, Journal, JournalError, Origin, OutSeq,
    OutboxRecord, Recovered, Running, Seq,
};
use crate::storage::sent::{Recalled, SentLog};
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::wire::{self, Disk};
use futures_util::future::BoxFuture;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Resolves when a result is on disk.
pub(crate) type Stored = BoxFuture<'static, Result<(), JournalError>>;

/// The endpoint's pending work; shared by subscriber, engine and publisher.
pub(crate) struct Ledger {
    /// The durable record.
    pub(crate) journal: Journal,
    /// Tasks accepted and not finished.
    pub(crate) inbox: Inbox,
    /// The newest results.
    pub(crate) outbox: Arc<Outbox>,
    /// Whose ledger it is.
    pub(crate) endpoint_id: EndpointId,
    /// On which disk.
    pub(crate) state_id: StateId,
    /// How that came to be where it is.
    pub(crate) origin: Origin,
    /// How many commits that had seen before.
    pub(crate) age: u64,
    durable: Arc<AtomicU64>,
    /// Where it is noted which tasks run.
    pub(crate) running: Arc<Running>,
    deaths: HashMap<Attempt, Deaths>,
    poison_after: u64,
    undelivered: AtomicU64,
    /// What was delivered, for a while.
    sent: Option<SentLog>,
    /// Released, and maybe on disk still: not to be sent again, nor counted.
    releasing: Arc<Mutex<BTreeSet<OutSeq>>>,
    /// What is accepted and not secured, in order.
    unsecured: Mutex<VecDeque<Unsecured>>,
}

/// A task that may not start yet.
struct Unsecured {
    held: Held,
    /// The highest attempt at it that was known before.
    before: Option<u32>,
}

/// What a ledger is told to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whose ledger it is.
    pub(crate) endpoint_id: EndpointId,
    /// How much the inbox takes.
    pub(crate) bounds: Bounds,
    /// How often the daemon may die while a task runs; 0 for no limit.
    pub(crate) poison_after: u64,
}

impl Ledger {
    /// A ledger over an open journal, with what an earlier life of the daemon
    /// left in it.
    pub(crate) fn new(journal: Journal, found: Recovered, rules: Rules) -> Self {
        let Recovered { state_id, origin, age, durable, tasks, outbox, next_out, deaths, running } =
            found;
        let ledger = Self {
            journal,
            inbox: Inbox::new(rules.bounds),
            outbox: Arc::new(Outbox::new(next_out)),
            endpoint_id: rules.endpoint_id,
            state_id,
            origin,
            age,
            durable,
            running,
            deaths,
            poison_after: rules.poison_after,
            undelivered: AtomicU64::new(outbox),
            sent: None,
            releasing: Arc::default(),
            unsecured: Mutex::default(),
        };
        for Accepted { seq, task, started, unsecured } in tasks {
            let held = ledger.hold(seq, Arc::new(task), started);
            match unsecured {
                Some(unsecured) => ledger.keep_unsecured(held, unsecured.before),
                None => ledger.inbox.put([held]),
            }
        }
        ledger
    }

    /// Has results kept in a log once they are delivered, to be sent again if the
    /// service lost them.
    pub(crate) fn with_sent_log(self, sent: SentLog) -> Self {
        Self { sent: Some(sent), ..self }
    }

    fn hold(&self, seq: Seq, task: Arc<Task>, started: bool) -> Held {
        let deaths = self.deaths.get(&task.attempt()).copied().unwrap_or_default();
        // What was started and must not run again will not.
        let suspicious = if started && !task.rerun { Deaths::default() } else { deaths };
        let standing = Standing::after(suspicious, self.poison_after);
        Held { seq, task, started, deaths, standing }
    }

    /// The disk, as it is now.
    pub(crate) fn disk(&self) -> Disk {
        Disk { state_id: self.state_id, age: self.durable.load(Ordering::Relaxed) }
    }

    /// How many results the broker has not confirmed.
    pub(crate) fn undelivered(&self) -> u64 {
        self.undelivered.load(Ordering::Relaxed)
    }

    /// How many tasks are accepted and not finished, and results not confirmed.
    pub(crate) fn pending(&self) -> u64 {
        self.inbox.tasks() as u64 + self.undelivered()
    }

    /// Whether this attempt, or a later one at the same task, was accepted
    /// before, be it long finished.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) fn knows(&self, attempt: Attempt) -> Result<bool, JournalError> {
        let seen = self.journal.seen(attempt.task_id)?;
        Ok(seen.is_some_and(|highest| highest >= attempt.attempt))
    }

    /// Accepts tasks, which may start at once. An empty list gives a commit
    /// that covers everything accepted before.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn accept(&self, tasks: Vec<Task>) -> Result<Commit, JournalError> {
        let tasks = shared(tasks);
        let (seqs, commit) = self.journal.accept(tasks.clone()).await?;
        self.inbox.put(self.fresh(seqs, tasks));
        Ok(commit)
    }

    /// Accepts tasks, which may start once they are [secured](Ledger::secured).
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn accept_unsecured(&self, tasks: Vec<Task>) -> Result<Commit, JournalError> {
        let before = tasks.iter().map(|task| self.journal.seen(task.id));
        let before = before.collect::<Result<Vec<_>, _>>()?;
        let tasks = shared(tasks);
        let (seqs, commit) = self.journal.accept_unsecured(tasks.clone()).await?;
        for (held, before) in self.fresh(seqs, tasks).zip(before) {
            self.keep_unsecured(held, before);
        }
        Ok(commit)
    }

    fn keep_unsecured(&self, held: Held, before: Option<u32>) {
        self.inbox.reserve(&held.task);
        self.unsecured().push_back(Unsecured { held, before });
    }

    /// The `count` tasks that have been held for longest may start. The disk
    /// learns of it before it learns anything else of them; one that a crash
    /// forgets to be secured held a slot, or did not start.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn secured(&self, count: usize) -> Result<(), JournalError> {
        let seqs = self.unsecured().iter().take(count).map(|one| one.held.seq).collect();
        drop(self.journal.secure(seqs).await?);
        let mut unsecured = self.unsecured();
        let count = count.min(unsecured.len());
        let held: Vec<Held> = unsecured.drain(..count).map(|one| one.held).collect();
        drop(unsecured);
        self.inbox.put_reserved(held);
        Ok(())
    }

    /// Hands back all that waits in the inbox: the disk went back in time, and it may have
    /// run. Nothing of it must have started.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn hand_back_all(&self) -> Result<Stored, JournalError> {
        let waiting = self.inbox.empty().into_iter().map(|held| {
            let attempt = held.task.attempt;
            Unsecured { held, before: (attempt > 1).then(|| attempt - 1) }
        });
        self.unsecured().extend(waiting);
        self.hand_back().await
    }

    /// Hands back what is held: it leaves the inbox, is forgotten, and a result
    /// says so, at once on disk.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn hand_back(&self) -> Result<Stored, JournalError> {
        let tasks: Vec<HandBack> =
            self.unsecured().iter().map(|one| self.handing_back(one)).collect();
        if tasks.is_empty() {
            return Ok(Box::pin(std::future::ready(Ok(()))));
        }
        let results: Vec<_> = tasks.iter().map(|task| Arc::clone(&task.result)).collect();
        let (seqs, commit) = self.journal.hand_back(tasks).await?;
        for one in self.unsecured().drain(..seqs.len()) {
            self.inbox.free(&one.held);
        }
        tracing::warn!(
            tasks = seqs.len(),
            "handing back tasks that are not run here: it is not certain that no other instance is, \
             or was, given them. The service asks which of them are lost"
        );
        self.undelivered.fetch_add(seqs.len() as u64, Ordering::Relaxed);
        for (seq, result) in seqs.iter().zip(results) {
            self.outbox.put(*seq, result);
        }
        let outbox = Arc::clone(&self.outbox);
        Ok(Box::pin(async move {
            commit.await?;
            outbox.on_disk(&seqs);
            Ok(())
        }))
    }

    /// Records why a task was not accepted, as its result.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn reject(
        &self,
        attempt: Attempt,
        reason: String,
    ) -> Result<Stored, JournalError> {
        self.record(None, self.not_run(attempt, Outcome::Rejected, reason)).await
    }

    /// Replaces an accepted task by its result.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn finish(
        &self,
        held: &Held,
        result: TaskResult,
    ) -> Result<Stored, JournalError> {
        let stored = self.record(Some(held), result).await?;
        self.inbox.free(held);
        Ok(stored)
    }

    /// Records that an attempt is not known, and will not be run any more.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn disown(&self, attempt: Attempt) -> Result<Stored, JournalError> {
        let reason = "the endpoint was asked for it and does not know it: it was lost";
        let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
        self.record(None, TaskResult { lost: Some(Loss::Unknown), ..result }).await
    }

    /// Notes that the broker has confirmed these results.
    pub(crate) fn delivered(&self, results: Vec<Arc<Finished>>) {
        if let Some(sent) = &self.sent {
            sent.append(results);
        }
    }

    /// The attempt whose result was delivered last.
    pub(crate) fn delivered_last(&self) -> Option<Attempt> {
        self.sent.as_ref().and_then(SentLog::last)
    }

    /// Has the results of these attempts sent again, as the service lost them: those
    /// that are kept go into the outbox once more, for the others a result says that
    /// they had been delivered. What is pending is left alone. Says how many went.
    ///
    /// # Errors
    /// When the disk failed.
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
            stored.push(self.put_out(None, Arc::new(result)).await?);
        }
        // In order, so that the same events give the same run.
        let gone: BTreeSet<Attempt> = gone.difference(&more).copied().collect();
        for attempt in gone {
            let reason = "it ran to its end and its result was delivered; the endpoint does not \
                 keep that result any more";
            let result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
            let result = TaskResult { lost: Some(Loss::Delivered), ..result };
            stored.push(self.record(None, result).await?);
        }
        Ok((stored.len(), stored))
    }

    /// A result of a task that did not run here.
    pub(crate) fn not_run(&self, attempt: Attempt, outcome: Outcome, reason: String) -> TaskResult {
        TaskResult::not_run(attempt, outcome, reason, self.endpoint_id, now_ms())
    }

    /// Results that are not released, from `from` on, in order, as they are on
    /// disk, some if there are any: at most `max`, at most `max_bytes` unless the
    /// first alone is larger.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn backlog(
        &self,
        mut from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<(OutSeq, Arc<Finished>)>, JournalError> {
        let records = loop {
            let page = self.journal.outbox(from, max, max_bytes).await?;
            let next = page.last().map(|last| OutSeq(last.seq.0 + 1));
            let records = self.not_releasing(from..next.unwrap_or(OutSeq(u64::MAX)), page);
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

    /// Of all that is on disk in a range, what is to be sent. What is no longer
    /// there need not be remembered: nobody may have waited for its release.
    fn not_releasing(&self, range: Range<OutSeq>, page: Vec<OutboxRecord>) -> Vec<OutboxRecord> {
        let mut releasing = lock(&self.releasing);
        let (releases, records) =
            page.into_iter().partition::<Vec<_>, _>(|record| releasing.contains(&record.seq));
        releasing.retain(|seq| !range.contains(seq));
        releasing.extend(releases.iter().map(|record| record.seq));
        records
    }

    /// Forgets results that the broker has confirmed.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn release(&self, records: Vec<OutSeq>) -> Result<Stored, JournalError> {
        let commit = self.journal.release(records.clone()).await?;
        let fresh = {
            let mut releasing = lock(&self.releasing);
            records.iter().filter(|record| releasing.insert(**record)).count()
        };
        self.undelivered.fetch_sub(fresh as u64, Ordering::Relaxed);
        self.outbox.released(&records);
        let releasing = Arc::clone(&self.releasing);
        Ok(Box::pin(async move {
            commit.await?;
            let mut releasing = lock(&releasing);
            for record in &records {
                releasing.remove(record);
            }
            Ok(())
        }))
    }

    /// Tasks that were accepted just now.
    fn fresh(&self, seqs: Vec<Seq>, tasks: Vec<Arc<Task>>) -> impl Iterator<Item = Held> {
        seqs.into_iter().zip(tasks).map(|(seq, task)| self.hold(seq, task, false))
    }

    fn handing_back(&self, one: &Unsecured) -> HandBack {
        let Unsecured { held, before } = one;
        let reason = "the endpoint does not run it: it is not certain that no other instance of the \
             endpoint is, or was, given it";
        let attempt = held.task.attempt();
        let mut result = self.not_run(attempt, Outcome::Interrupted, reason.to_owned());
        result.lost = Some(Loss::HandedBack);
        HandBack { inbox: held.seq, before: *before, result: Arc::new(self.finished(result)) }
    }

    /// A result on its way into the outbox.
    fn finished(&self, mut result: TaskResult) -> Finished {
        result.state_id = Some(self.state_id);
        Finished { attempt: result.attempt(), bytes: wire::encode_result(&result) }
    }

    fn unsecured(&self) -> MutexGuard<'_, VecDeque<Unsecured>> {
        lock(&self.unsecured)
    }

    async fn record(
        &self,
        held: Option<&Held>,
        result: TaskResult,
    ) -> Result<Stored, JournalError> {
        self.put_out(held, Arc::new(self.finished(result))).await
    }

    /// Puts a result into the outbox.
    async fn put_out(
        &self,
        held: Option<&Held>,
        finished: Arc<Finished>,
    ) -> Result<Stored, JournalError> {
        let inbox = held.map(|held| held.seq);
        let (seq, commit) = self.journal.finish(inbox, Arc::clone(&finished)).await?;
        self.undelivered.fetch_add(1, Ordering::Relaxed);
        self.outbox.put(seq, finished);
        let outbox = Arc::clone(&self.outbox);
        Ok(Box::pin(async move {
            commit.await?;
            outbox.on_disk(&[seq]);
            Ok(())
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared(tasks: Vec<Task>) -> Vec<Arc<Task>> {
    tasks.into_iter().map(Arc::new).collect()
}
