//! When an attempt that follows an outcome expires: it may wait for its start as long as the first
//! one might, counted from when it was asked for.
//!
//! Touches the database only. Promises: a task that does not expire, or was never run again, costs
//! no statement.

use super::Result;
use super::engine::{Db, values};
use super::rows::decoded;
use clutch_common::task::Task;

/// Gives the next attempt at the task in a row its time again, from a moment on.
pub(super) fn renew(db: &Db<'_>, seq: i64, from_ms: u64) -> Result<()> {
    let find = "SELECT p.body, t.created_at_ms, s.due_at_ms FROM payloads p \
         JOIN tasks t ON t.seq = p.task LEFT JOIN submissions s ON s.id = t.submission \
         WHERE p.task = ?";
    let found: Option<(String, u64, Option<u64>)> = db.one(find, values![seq])?;
    let Some((body, created_at_ms, due_at_ms)) = found else { return Ok(()) };
    let Some(first_ms) = decoded(seq, &body, 1)?.expires_at_ms else { return Ok(()) };
    let begun_ms = due_at_ms.map_or(created_at_ms, |due| due.max(created_at_ms));
    let expires_at_ms = from_ms.saturating_add(first_ms.saturating_sub(begun_ms));
    let insert = "INSERT INTO renewed_expiries (task, expires_at_ms) VALUES (?, ?) \
         ON CONFLICT (task) DO UPDATE SET expires_at_ms = excluded.expires_at_ms";
    db.run(insert, values![seq, expires_at_ms]).map(drop)
}

/// The task in a row, as it was read from its payload, with the expiry of its attempt.
pub(super) fn current(db: &Db<'_>, seq: i64, task: Task) -> Result<Task> {
    if task.attempt == 1 || task.expires_at_ms.is_none() {
        return Ok(task);
    }
    let find = "SELECT expires_at_ms FROM renewed_expiries WHERE task = ?";
    let renewed = db.one(find, values![seq])?.map(|(expires_at_ms,)| expires_at_ms);
    Ok(Task { expires_at_ms: renewed.or(task.expires_at_ms), ..task })
}
