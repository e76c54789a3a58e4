//! Removes an endpoint for good: its queues at the broker, and its name from the records. What
//! its tasks came to stays recorded. Every step can be repeated.
//!
//! Promises: nothing is removed while an instance runs, as the lease is held meanwhile; each
//! task has its outcome before the queues go.

use crate::model::Removed;
use crate::store::{Batch, Endpoint, Store, StoredState};
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::link::{Connection, Fault};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::text::counted::counted;
use clutch_common::topology;
use std::sync::Arc;

/// How many tasks are ended in one transaction.
const ENDED_AT_ONCE: u32 = 1000;
/// The reason of tasks that no instance had.
const NEVER_RAN: &str = "its endpoint was removed before it ran";
/// The reason of tasks that an instance may have had.
const MAY_HAVE_RUN: &str =
    "its endpoint was removed before it had an outcome: whether it ran is not known";

/// Why an endpoint was not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetireError {
    /// An instance of it runs.
    #[error(
        "an instance of the endpoint is running: stop it, and those that stand by, and run this \
         again ({0})"
    )]
    Running(Fault),
    /// Work is pending.
    #[error("{0}")]
    Pending(String),
    /// The broker cannot be used.
    #[error("{0}")]
    Broker(#[from] Fault),
    /// The records cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// Removes an endpoint while its lease keeps every instance of it out. Tasks without an outcome
/// end first, if that is asked for.
pub(crate) async fn retire(
    store: &Store,
    connection: &dyn Connection,
    endpoint: &Endpoint,
    end_tasks: bool,
) -> Result<Removed, RetireError> {
    let Endpoint { id, name, .. } = endpoint;
    let queue = topology::tasks_queue(*id);
    // The browser holds the lease until the end.
    let mut browser = match connection.browse(&queue, &topology::lease_queue(*id)).await {
        Ok(browser) => Some(browser),
        Err(Fault::Missing(_)) => None,
        Err(fault @ Fault::Locked(_)) => return Err(RetireError::Running(fault)),
        Err(fault) => return Err(fault.into()),
    };
    let messages = match &mut browser {
        Some(browser) => browser.waiting().await?,
        None => 0,
    };
    let open = store.count_open(*id).await?;
    if !end_tasks && (open > 0 || messages > 0) {
        return Err(RetireError::Pending(format!(
            "{name} is not removed: {} without an outcome, and {} in its queue. Wait for them; or \
             have the tasks end, and the messages go, with --end-tasks",
            counted(open, "task"),
            counted(messages, "message"),
        )));
    }
    let (cancelled, interrupted) = end(store, *id).await?;
    for queue in [queue, topology::control_queue(*id)] {
        connection.remove_queue(&queue).await?;
    }
    if !store.remove_endpoint(*id).await? {
        return Err(RetireError::Pending(format!(
            "a task was submitted to {name} meanwhile: stop the submissions to it, and run this \
             again"
        )));
    }
    Ok(Removed { id: *id, name: name.clone(), cancelled, interrupted, messages })
}

/// Ends every task that has no outcome; returns how many ended as cancelled, and as interrupted.
async fn end(store: &Store, endpoint: EndpointId) -> Result<(u64, u64), RetireError> {
    let record = store.endpoint_record(endpoint).await?;
    let states = record.map(|record| record.states).unwrap_or_default();
    let ran = states.iter().any(|state| state.known.active_since_ms.is_some());
    let (mut cancelled, mut interrupted) = (0, 0);
    loop {
        let open = store.open_attempts(endpoint, ENDED_AT_ONCE).await?;
        if open.is_empty() {
            return Ok((cancelled, interrupted));
        }
        let now = now_ms();
        let ended = |(attempt, state): (Attempt, StoredState)| {
            let (outcome, reason) = if ran && may_be_there(state) {
                (Outcome::Interrupted, MAY_HAVE_RUN)
            } else {
                (Outcome::Cancelled, NEVER_RAN)
            };
            TaskResult::not_run(attempt, outcome, reason.to_owned(), endpoint, now)
        };
        let results: Vec<TaskResult> = open.into_iter().map(ended).collect();
        let lost = results.iter().filter(|one| one.outcome == Outcome::Interrupted).count() as u64;
        let batch = Arc::new(Batch { results, ..Batch::default() });
        let recorded = store.record(batch, now, |_| ()).await?.recorded;
        store.durable().await?;
        if recorded == 0 {
            let words = "tasks without an outcome could not be ended: run this again".to_owned();
            return Err(RetireError::Pending(words));
        }
        interrupted += lost;
        cancelled += recorded.saturating_sub(lost);
    }
}

/// Whether an instance may have the attempt of a task in this state.
fn may_be_there(state: StoredState) -> bool {
    matches!(state, StoredState::Submitting | StoredState::Submitted)
}
