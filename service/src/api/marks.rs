//! Tasks that the broker has confirmed, until that is recorded: many at once, a
//! little later, where nobody waits for it. Whoever waits for outcomes does not, and
//! most are there first.

use super::Api;
use crate::store::Error;
use clutch_common::system::clock::now_ms;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long they gather, and how long they then wait for somebody else's sync.
const AFTER: Duration = Duration::from_millis(20);

/// Rows of tasks.
#[derive(Clone, Default)]
pub(super) struct Marks(Arc<Mutex<Vec<i64>>>);

impl Marks {
    /// Has these recorded; a service that stops waits for that.
    pub(super) fn add(&self, api: &Api, tasks: impl IntoIterator<Item = i64>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = gathered.is_empty();
        gathered.extend(tasks);
        if first && !gathered.is_empty() {
            let (api, marks) = (api.clone(), self.clone());
            drop(api.placing.clone().spawn(async move { marks.record(&api).await }));
        }
    }

    async fn record(&self, api: &Api) {
        tokio::time::sleep(AFTER).await;
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let count = tasks.len();
        if let Err(error) = note(api, tasks).await {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                tasks = count,
                "the broker has these tasks, and that could not be recorded: they show as \
                 'submitting' until their outcomes come"
            );
        }
    }
}

async fn note(api: &Api, tasks: Vec<i64>) -> Result<(), Error> {
    if api.store.note_submitted(tasks, now_ms()).await? {
        api.news.send_modify(|count| *count += 1);
    }
    // A submission that is recorded meanwhile syncs for this as well.
    tokio::time::sleep(AFTER).await;
    api.store.durable().await
}
