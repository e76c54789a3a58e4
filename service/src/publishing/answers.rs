//! Turns the broker's answers to published tasks into records.
//!
//! [`changes`] decides, and is pure; [`AnswerRecorder`] writes. This is the one place that does
//! either.

use super::confirm_batch::ConfirmBatch;
use super::{Hold, Outgoing, Placements, PublishError};
use crate::store::{Batch, Error, HandOver, Store};
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The changes of records that the answers make, as positions among the published tasks.
#[derive(Debug, Default, PartialEq, Eq)]
struct RecordChanges {
    confirmed: Vec<usize>,
    /// The broker certainly has no copy of them: they wait again.
    waiting: Vec<usize>,
    /// A copy of them may be at the broker.
    in_doubt: Vec<usize>,
    /// No broker takes them.
    too_large: Vec<usize>,
    /// Why some were not taken.
    hold: Option<Hold>,
}

/// Decides what the records are to say about tasks that were published; `again` says of which
/// of them a copy may be at the broker by an earlier publication.
fn changes(outcomes: &[Result<(), PublishError>], again: impl Fn(usize) -> bool) -> RecordChanges {
    let mut changes = RecordChanges::default();
    for (index, outcome) in outcomes.iter().enumerate() {
        let hold = match outcome {
            Ok(()) => {
                changes.confirmed.push(index);
                continue;
            }
            Err(PublishError::TooLarge(_)) => {
                changes.too_large.push(index);
                continue;
            }
            Err(PublishError::Returned(_)) => Hold::NoQueue,
            Err(PublishError::Refused) => Hold::QueueFull,
            Err(PublishError::Unknown(_)) => Hold::Unconfirmed,
        };
        changes.hold = Some(hold);
        if hold == Hold::Unconfirmed || again(index) {
            changes.in_doubt.push(index);
        } else {
            changes.waiting.push(index);
        }
    }
    changes
}

/// Writes the broker's answers into the records. Clones share it; it outlives links.
#[derive(Clone)]
pub(crate) struct AnswerRecorder {
    store: Store,
    /// Bumped when a task in doubt can be asked for.
    news: watch::Sender<u64>,
    /// Bumped when outcomes were recorded.
    commits: watch::Sender<u64>,
    placements: Placements,
    batch: ConfirmBatch,
}

impl AnswerRecorder {
    /// A writer of answers into these records. What it writes later runs as one of `tasks`.
    pub(crate) fn new(
        store: Store,
        news: watch::Sender<u64>,
        commits: watch::Sender<u64>,
        placements: Placements,
        tasks: TaskTracker,
    ) -> Self {
        let batch = ConfirmBatch::new(store.clone(), news.clone(), tasks);
        Self { store, news, commits, placements, batch }
    }

    /// Records the outcomes of publishing these tasks, which are in the same order. If
    /// `batched`, confirms are recorded a little later, together with others.
    pub(super) async fn record(
        &self,
        endpoint: EndpointId,
        batched: bool,
        tasks: &[Outgoing<'_>],
        outcomes: &[Result<(), PublishError>],
    ) -> Result<(), Error> {
        let again = |index: usize| {
            tasks.get(index).is_none_or(|task| {
                task.hand_over == HandOver::Again || self.placements.is_in_doubt(endpoint, task.seq)
            })
        };
        let changes = changes(outcomes, again);
        let those = |at: &[usize]| -> Vec<Outgoing<'_>> {
            at.iter().filter_map(|index| tasks.get(*index).copied()).collect()
        };
        // Before the records, which may fail: a doubt too many does no harm.
        let in_doubt = those(&changes.in_doubt);
        self.placements.doubt(endpoint, in_doubt.iter().map(|task| task.seq));
        match changes.hold {
            Some(why) => self.placements.hold(endpoint, why),
            None => self.placements.release(endpoint),
        }
        let recorded = self.write(endpoint, batched, &changes, those).await;
        match &recorded {
            Ok(()) => {
                let known = [&changes.confirmed, &changes.too_large, &changes.waiting];
                let known = known.into_iter().flat_map(|at| those(at));
                self.placements.clear(endpoint, known.map(|task| task.seq));
            }
            Err(_) => self.placements.doubt(endpoint, tasks.iter().map(|task| task.seq)),
        }
        if changes.hold.is_some() || recorded.is_err() {
            self.placements.tell();
        }
        recorded
    }

    async fn write<'a>(
        &self,
        endpoint: EndpointId,
        batched: bool,
        changes: &RecordChanges,
        those: impl Fn(&[usize]) -> Vec<Outgoing<'a>>,
    ) -> Result<(), Error> {
        let attempts = |at| those(at).iter().map(|task| (task.seq, task.attempt)).collect();
        let confirmed: Vec<(i64, u32)> = attempts(&changes.confirmed);
        if batched {
            self.batch.add(confirmed);
        } else if self.store.mark_submitted(confirmed, now_ms()).await? {
            self.news.send_modify(|count| *count += 1);
        }
        self.store.keep_waiting(attempts(&changes.waiting)).await?;
        self.reject(endpoint, &those(&changes.too_large)).await
    }

    /// Ends tasks that no broker takes.
    async fn reject(&self, endpoint: EndpointId, tasks: &[Outgoing<'_>]) -> Result<(), Error> {
        if tasks.is_empty() {
            return Ok(());
        }
        let results = tasks.iter().map(|task| too_large(endpoint, task)).collect();
        let batch = Arc::new(Batch { results, ..Batch::default() });
        self.store.record(batch, now_ms(), |_| ()).await?;
        self.store.durable().await?;
        self.commits.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// The result of a task that is too large for the broker.
fn too_large(endpoint: EndpointId, task: &Outgoing<'_>) -> TaskResult {
    let reason = format!(
        "the broker takes no message as large as this task ({} bytes): pass large data by file, or \
         have its max_message_size raised",
        task.body.len()
    );
    let attempt = Attempt { task_id: task.id, attempt: task.attempt };
    TaskResult::not_run(attempt, Outcome::Rejected, reason, endpoint, now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind of answer.
    fn answers() -> [Result<(), PublishError>; 5] {
        [
            Ok(()),
            Err(PublishError::Unknown("the link was lost".to_owned())),
            Err(PublishError::TooLarge(1)),
            Err(PublishError::Returned("NO_ROUTE".to_owned())),
            Err(PublishError::Refused),
        ]
    }

    #[test]
    fn a_task_waits_again_only_if_no_copy_of_it_can_be_at_the_broker() {
        let hold = Some(Hold::QueueFull);
        let (confirmed, too_large) = (vec![0], vec![2]);
        let expected =
            RecordChanges { confirmed, waiting: vec![3, 4], in_doubt: vec![1], too_large, hold };
        assert_eq!(changes(&answers(), |_| false), expected);
        let (confirmed, too_large) = (vec![0], vec![2]);
        let expected =
            RecordChanges { confirmed, waiting: vec![4], in_doubt: vec![1, 3], too_large, hold };
        assert_eq!(changes(&answers(), |index| index == 3), expected);
    }

    #[test]
    fn an_endpoint_that_takes_its_tasks_is_not_held() {
        assert_eq!(changes(&answers()[..1], |_| true).hold, None);
        assert_eq!(changes(&answers()[2..3], |_| true).hold, None, "others may fit");
        assert_eq!(changes(&answers()[..2], |_| false).hold, Some(Hold::Unconfirmed));
        assert_eq!(changes(&answers()[..4], |_| false).hold, Some(Hold::NoQueue));
    }
}
