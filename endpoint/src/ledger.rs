//! What is pending at this endpoint: on disk ([`Journal`]) and the part of it
//! that is in memory ([`Inbox`], [`Outbox`]), kept in step.
//!
//! Every method changes memory at once and hands back a [`Commit`] that
//! resolves when the disk has it. Who needs durability waits for the commit;
//! nobody else does.

use crate::inbox::{Bounds, Held, Inbox};
use crate::journal::{
    Accepted, Commit, Deaths, Finished, Journal, JournalError, OutSeq, OutboxRecord, Recovered,
    Running, Seq,
};
use crate::outbox::Outbox;
use crate::poison::Standing;
use clutch_common::clock::now_ms;
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::result::{Outcome, TaskResult};
use clutch_common::task::Task;
use clutch_common::wire;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Where it is noted which tasks run.
    pub(crate) running: Arc<Running>,
    deaths: HashMap<Attempt, Deaths>,
    poison_after: u64,
    undelivered: AtomicU64,
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
        let Recovered { state_id, tasks, outbox, next_out, deaths, running } = found;
        let ledger = Self {
            journal,
            inbox: Inbox::new(rules.bounds),
            outbox: Arc::new(Outbox::new(next_out)),
            endpoint_id: rules.endpoint_id,
            state_id,
            running,
            deaths,
            poison_after: rules.poison_after,
            undelivered: AtomicU64::new(outbox),
        };
        let held = |accepted: Accepted| {
            let Accepted { seq, task, started } = accepted;
            ledger.hold(seq, Arc::new(task), started)
        };
        ledger.inbox.put(tasks.into_iter().map(held));
        ledger
    }

    fn hold(&self, seq: Seq, task: Arc<Task>, started: bool) -> Held {
        let deaths = self.deaths.get(&task.attempt()).copied().unwrap_or_default();
        // What was started and must not run again will not.
        let suspicious = if started && !task.rerun { Deaths::default() } else { deaths };
        let standing = Standing::after(suspicious, self.poison_after);
        Held { seq, task, started, deaths, standing }
    }

    /// How many results the broker has not confirmed.
    pub(crate) fn undelivered(&self) -> u64 {
        self.undelivered.load(Ordering::Relaxed)
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
        let tasks: Vec<Arc<Task>> = tasks.into_iter().map(Arc::new).collect();
        let (seqs, commit) = self.journal.accept(tasks.clone()).await?;
        self.inbox.put(seqs.into_iter().zip(tasks).map(|(seq, task)| self.hold(seq, task, false)));
        Ok(commit)
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

    /// A result of a task that did not run here.
    pub(crate) fn not_run(&self, attempt: Attempt, outcome: Outcome, reason: String) -> TaskResult {
        TaskResult::not_run(attempt, outcome, reason, self.endpoint_id, now_ms())
    }

    /// Results that are not released, from `from` on, in order, as they are on
    /// disk: at most `max`, at most `max_bytes` unless the first alone is larger.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn backlog(
        &self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<(OutSeq, Arc<Finished>)>, JournalError> {
        let records = self.journal.outbox(from, max, max_bytes).await?;
        let shared = |record: OutboxRecord| {
            let OutboxRecord { seq, attempt, bytes } = record;
            (seq, Arc::new(Finished { attempt, bytes }))
        };
        Ok(records.into_iter().map(shared).collect())
    }

    /// Forgets results that the broker has confirmed.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) async fn release(&self, records: Vec<OutSeq>) -> Result<Commit, JournalError> {
        self.undelivered.fetch_sub(records.len() as u64, Ordering::Relaxed);
        self.outbox.on_disk(&records);
        self.journal.release(records).await
    }

    async fn record(
        &self,
        held: Option<&Held>,
        mut result: TaskResult,
    ) -> Result<Stored, JournalError> {
        result.state_id = Some(self.state_id);
        let finished =
            Arc::new(Finished { attempt: result.attempt(), bytes: wire::encode_result(&result) });
        let inbox = held.map(|held| held.seq);
        self.undelivered.fetch_add(1, Ordering::Relaxed);
        let (seq, commit) = self.journal.finish(inbox, Arc::clone(&finished)).await?;
        self.outbox.put(seq, finished);
        let outbox = Arc::clone(&self.outbox);
        Ok(Box::pin(async move {
            commit.await?;
            outbox.on_disk(&[seq]);
            Ok(())
        }))
    }
}
