//! Gathers confirmed tasks for 20 ms and records them together, where no caller waits for
//! that record. A caller that waits for outcomes does not: most outcomes are recorded first.

use crate::store::{Error, Store};
use clutch_common::system::clock::now_ms;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How long tasks are gathered, and how long their record then waits for the disk sync of
/// another submission.
const DELAY: Duration = Duration::from_millis(20);

/// Confirmed tasks, by row and attempt, that are not recorded yet. Clones share them.
#[derive(Clone)]
pub(super) struct ConfirmBatch(Arc<PendingConfirms>);

struct PendingConfirms {
    store: Store,
    news: watch::Sender<u64>,
    tasks: TaskTracker,
    gathered: Mutex<Vec<(i64, u32)>>,
}

impl ConfirmBatch {
    /// An empty batch. Each batch is recorded by one of `tasks`.
    pub(super) fn new(store: Store, news: watch::Sender<u64>, tasks: TaskTracker) -> Self {
        Self(Arc::new(PendingConfirms { store, news, tasks, gathered: Mutex::default() }))
    }

    /// Adds tasks, and has the batch recorded if these are its first.
    pub(super) fn add(&self, tasks: Vec<(i64, u32)>) {
        let mut gathered = self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let first = gathered.is_empty();
        gathered.extend(tasks);
        if first && !gathered.is_empty() {
            let shared = Arc::clone(&self.0);
            drop(self.0.tasks.spawn(async move { shared.record().await }));
        }
    }
}

impl PendingConfirms {
    async fn record(&self) {
        tokio::time::sleep(DELAY).await;
        let tasks =
            std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        let count = tasks.len();
        if let Err(error) = self.note(tasks).await {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                tasks = count,
                "the broker has confirmed these tasks, but that cannot be recorded: they show as \
                 'waiting' until their results arrive"
            );
        }
    }

    async fn note(&self, tasks: Vec<(i64, u32)>) -> Result<(), Error> {
        if self.store.note_submitted(tasks, now_ms()).await? {
            self.news.send_modify(|count| *count += 1);
        }
        // A submission that is recorded meanwhile syncs for this as well.
        tokio::time::sleep(DELAY).await;
        self.store.durable().await
    }
}
