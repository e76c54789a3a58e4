//! Pending work as it is told to the service while it goes on. Changes nothing.

use super::Ledger;
use crate::pending::look::Look;
use crate::storage::journal::{NotedRun, Seq};
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::Task;
use std::sync::Arc;

impl Ledger {
    /// The runs that go on, but for those of built-in functions.
    pub(crate) fn runs(&self) -> Vec<NotedRun> {
        self.running.runs()
    }

    /// Pending work, and of the tasks without a slot at most `max`, from a sequence number on.
    pub(crate) fn look(&self, from: Seq, max: usize) -> Look {
        self.shared.lock().look(from, max)
    }

    /// For how many copies of urgent tasks there is room.
    pub(crate) fn room_for_copies(&self) -> usize {
        self.shared.lock().room_for_copies()
    }

    /// The highest attempt at a task that is accepted and not finished.
    pub(crate) fn find(&self, task: TaskId) -> Option<Arc<Task>> {
        self.shared.lock().attempts_at(task).max_by_key(|found| found.attempt).map(Arc::clone)
    }

    /// An attempt that is accepted and not finished.
    pub(crate) fn find_attempt(&self, attempt: Attempt) -> Option<Arc<Task>> {
        let pending = self.shared.lock();
        pending
            .attempts_at(attempt.task_id)
            .find(|found| found.attempt() == attempt)
            .map(Arc::clone)
    }

    /// Waits until a task is pending. Nothing wakes it while there is none.
    pub(crate) async fn until_pending(&self) {
        while self.tasks() == 0 {
            self.shared.first.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use clutch_common::task::result::Outcome;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn an_idle_endpoint_is_not_woken_and_the_first_task_wakes_it() {
        let (_disk, ledger) = testing::ledger(10);
        let mut waits = Box::pin(ledger.until_pending());
        assert!(waits.as_mut().now_or_never().is_none());
        ledger.accept(Vec::new()).await.unwrap().await.unwrap();
        assert!(waits.as_mut().now_or_never().is_none(), "nothing came");
        ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
        assert!(waits.as_mut().now_or_never().is_some());
        let held = ledger.take().unwrap();
        assert_eq!(ledger.look(Seq(0), 10).running, 1);
        let result = ledger.not_run(held.task.attempt(), Outcome::Failed, "x".to_owned());
        ledger.finish(&held, result).await.unwrap().await.unwrap();
        let mut waits = Box::pin(ledger.until_pending());
        assert!(waits.as_mut().now_or_never().is_none(), "all is done");
    }

    #[tokio::test]
    async fn an_attempt_is_found_until_it_is_finished() {
        let (_disk, ledger) = testing::ledger(10);
        let (first, other) = (testing::task(), testing::task());
        let second = Task { attempt: 2, ..first.clone() };
        ledger.accept(vec![first.clone(), other, second.clone()]).await.unwrap().await.unwrap();
        let held = ledger.take().unwrap();
        assert_eq!(held.task.attempt(), first.attempt());
        assert_eq!(ledger.find(first.id).unwrap().attempt, 2, "the highest");
        assert_eq!(ledger.find_attempt(first.attempt()).unwrap().attempt, 1);
        let result = ledger.not_run(first.attempt(), Outcome::Failed, "x".to_owned());
        ledger.finish(&held, result).await.unwrap().await.unwrap();
        assert!(ledger.find_attempt(first.attempt()).is_none());
        assert!(ledger.find_attempt(second.attempt()).is_some());
        assert!(ledger.find(TaskId::new()).is_none());
    }

    #[tokio::test]
    async fn a_look_names_the_tasks_that_wait_in_order_and_no_more_than_asked_for() {
        let (_disk, ledger) = testing::ledger(10);
        let tasks: Vec<_> = (0..5).map(|_| testing::task()).collect();
        ledger.accept(tasks.clone()).await.unwrap().await.unwrap();
        ledger.take().unwrap();
        let look = ledger.look(Seq(0), 3);
        let waiting: Vec<_> = look.waiting.iter().map(|waiting| waiting.attempt).collect();
        assert_eq!(waiting, [1, 2, 3].map(|n: usize| tasks[n].attempt()));
        assert_eq!((look.running, look.accepted, look.inbox_full), (1, 4, false));
        let next = Seq(look.waiting[2].seq.0 + 1);
        assert_eq!(ledger.look(next, 3).waiting[0].attempt, tasks[4].attempt());
        assert!(look.waiting.iter().all(|waiting| waiting.accepted_at_ms.is_some()));
    }
}
