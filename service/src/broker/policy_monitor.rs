//! Looks for what takes messages from our queues at the broker besides us, and keeps
//! what was found for the API and the log.
//!
//! Asks the broker's management API when a session begins and then now and then, where
//! that can be asked at all. Changes nothing there.

use crate::broker::management::Management;
use crate::model::QueueHazard;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The most that are told of at once: one policy may be on every queue.
const TOLD: usize = 10;

/// The hazards that were found last; none where the management API cannot be asked.
#[derive(Debug, Default)]
pub(crate) struct PolicyMonitor(Mutex<Vec<QueueHazard>>);

impl PolicyMonitor {
    /// The hazards that were found last.
    pub(crate) fn found(&self) -> Vec<QueueHazard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at once and then every so often; never returns.
    pub(crate) async fn watch(&self, management: Option<&Management>, every: Duration) {
        let Some(management) = management else { return std::future::pending().await };
        loop {
            match management.hazards().await {
                Ok(found) => self.note(found),
                Err(reason) => tracing::debug!(reason, "policies on the queues are not known"),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Keeps what was found, and tells of what was not there before.
    fn note(&self, found: Vec<QueueHazard>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<&QueueHazard> = found.iter().filter(|hazard| !kept.contains(hazard)).collect();
        for hazard in new.iter().take(TOLD) {
            tracing::warn!(
                what = hazard.words,
                "something at the broker takes messages from a queue"
            );
        }
        if let Some(more) = new.len().checked_sub(TOLD).filter(|more| *more > 0) {
            tracing::warn!(more, "there are more such queues: `clutch-service doctor` lists them");
        }
        if found.is_empty() && !kept.is_empty() {
            tracing::info!("nothing takes messages from the queues any more");
        }
        *kept = found;
    }
}
