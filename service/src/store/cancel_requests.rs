//! The requests to cancel tasks, by task, for the statements that record results, losses and
//! retries.
//!
//! Touches the database only.

use super::Result;
use super::engine::{Db, values};
use clutch_common::id::EndpointId;

/// Whether the cancellation of the task in a row was requested.
pub(super) fn is_requested(db: &Db<'_>, task: i64) -> Result<bool> {
    db.exists("SELECT 1 FROM cancellations WHERE task = ?", values![task])
}

/// Removes the requests for tasks that have their outcome.
pub(super) fn remove<'a>(db: &Db<'_>, tasks: impl IntoIterator<Item = &'a i64>) -> Result<()> {
    if !db.exists("SELECT 1 FROM cancellations LIMIT 1", &[])? {
        return Ok(());
    }
    let mut delete = db.prepare("DELETE FROM cancellations WHERE task = ?")?;
    tasks.into_iter().try_for_each(|task| delete.execute(values![task]).map(drop))
}

/// Has an endpoint's messages sent again: the queue that had them may have been removed.
pub(super) fn send_again(db: &Db<'_>, endpoint: EndpointId) -> Result<()> {
    db.run("UPDATE cancels SET confirmed = 0 WHERE endpoint_id = ?", values![endpoint]).map(drop)
}

/// Forgets the messages of an endpoint that is removed.
pub(super) fn forget(db: &Db<'_>, endpoint: EndpointId) -> Result<()> {
    db.run("DELETE FROM cancels WHERE endpoint_id = ?", values![endpoint]).map(drop)
}
