//! Turns the broker's answers to published tasks into records.
//!
//! [`changes`] decides, and is pure; [`AnswerRecorder`] writes. This is the one place that does
//! either.

use super::confirm_batch::ConfirmBatch;
use super::{Outgoing, PublishError};
use crate::model::TaskState;
use crate::store::{Error, Store};
use clutch_common::system::clock::now_ms;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Why tasks are published: the same answer makes different records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publication {
    /// A caller submitted them. A task that the broker does not have is shown so, and the
    /// caller submits it again.
    Submission {
        /// Whether a confirm may be recorded a little later, together with others.
        batched: bool,
    },
    /// Their attempt was lost, and this is the next one. The service publishes again what the
    /// broker does not have, except a task that is too large for the broker.
    NextAttempt,
}

/// The changes of records that the answers make, as positions among the published tasks.
#[derive(Debug, Default, PartialEq, Eq)]
struct RecordChanges {
    confirmed: Vec<usize>,
    returned: Vec<usize>,
    refused: Vec<usize>,
}

/// Decides what the records are to say about tasks that were published.
fn changes(publication: Publication, outcomes: &[Result<(), PublishError>]) -> RecordChanges {
    let mut changes = RecordChanges::default();
    for (index, outcome) in outcomes.iter().enumerate() {
        match (outcome, publication) {
            (Ok(()), _) => changes.confirmed.push(index),
            (Err(PublishError::TooLarge(_)), _)
            | (Err(PublishError::Refused), Publication::Submission { .. }) => {
                changes.refused.push(index);
            }
            (Err(PublishError::Returned(_)), Publication::Submission { .. }) => {
                changes.returned.push(index);
            }
            (Err(PublishError::Returned(_) | PublishError::Refused), Publication::NextAttempt)
            | (Err(PublishError::Unknown(_)), _) => {}
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
    batch: ConfirmBatch,
}

impl AnswerRecorder {
    /// A writer of answers into these records. What it writes later runs as one of `tasks`.
    pub(crate) fn new(store: Store, news: watch::Sender<u64>, tasks: TaskTracker) -> Self {
        let batch = ConfirmBatch::new(store.clone(), news.clone(), tasks);
        Self { store, news, batch }
    }

    /// Records the outcomes of publishing these tasks, which are in the same order.
    pub(super) async fn record(
        &self,
        publication: Publication,
        tasks: &[Outgoing<'_>],
        outcomes: &[Result<(), PublishError>],
    ) -> Result<(), Error> {
        let RecordChanges { confirmed, returned, refused } = changes(publication, outcomes);
        let those = |at: Vec<usize>| at.into_iter().filter_map(|index| tasks.get(index));
        let seqs = |at| those(at).map(|task| task.seq).collect::<Vec<i64>>();
        match publication {
            Publication::Submission { batched: true } => self.batch.add(seqs(confirmed)),
            Publication::Submission { batched: false } => {
                if self.store.mark_submitted(seqs(confirmed), now_ms()).await? {
                    self.news.send_modify(|count| *count += 1);
                }
            }
            Publication::NextAttempt => {
                let attempts = those(confirmed).map(|task| (task.seq, task.attempt)).collect();
                self.store.resubmitted(attempts).await?;
            }
        }
        self.store.mark_unplaced(seqs(returned), TaskState::Returned).await?;
        self.store.mark_unplaced(seqs(refused), TaskState::Refused).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind of answer.
    fn answers() -> [Result<(), PublishError>; 5] {
        [
            Ok(()),
            Err(PublishError::Returned("NO_ROUTE".to_owned())),
            Err(PublishError::Refused),
            Err(PublishError::TooLarge(1)),
            Err(PublishError::Unknown("the link was lost".to_owned())),
        ]
    }

    #[test]
    fn a_submitted_task_that_the_broker_does_not_have_is_shown_so() {
        for batched in [false, true] {
            let expected =
                RecordChanges { confirmed: vec![0], returned: vec![1], refused: vec![2, 3] };
            assert_eq!(changes(Publication::Submission { batched }, &answers()), expected);
        }
    }

    #[test]
    fn a_next_attempt_is_published_again_unless_it_is_too_large() {
        let expected = RecordChanges { confirmed: vec![0], returned: vec![], refused: vec![3] };
        assert_eq!(changes(Publication::NextAttempt, &answers()), expected);
    }
}
