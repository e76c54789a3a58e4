//! Attempts that are unaccounted for: it is not known which state of the endpoint has
//! them, if any. They are listed here, asked for in a roll call, and ended by a result,
//! by the next attempt, or as `interrupted`.

use super::engine::{Db, values};
use super::{Result, Store};
use clutch_common::id::{Attempt, EndpointId, StateId};
use std::collections::BTreeMap;

/// An attempt to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unaccounted {
    /// The task's row.
    pub(crate) task: i64,
    /// The attempt.
    pub(crate) attempt: Attempt,
}

impl Store {
    /// The endpoints with unaccounted attempts that no state was asked for.
    pub(crate) async fn endpoints_to_ask(&self) -> Result<Vec<EndpointId>> {
        self.read("looking for unaccounted attempts", |db| {
            let find = "SELECT DISTINCT endpoint_id FROM unaccounted WHERE asked IS NULL";
            Ok(db.all(find, &[])?.into_iter().map(|(endpoint,)| endpoint).collect())
        })
        .await
    }

    /// Up to `limit` attempts that the endpoint's active state is to be asked for. An
    /// attempt that the broker has not confirmed is left out: a roll call has to come behind
    /// it in the queue. One that is to be cancelled is not published any more, and asked for
    /// as well.
    pub(crate) async fn attempts_to_ask(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Vec<Unaccounted>> {
        self.read("looking for unaccounted attempts", move |db| {
            let find = "SELECT u.task, t.id, u.attempt \
                 FROM unaccounted u JOIN tasks t ON t.seq = u.task \
                 WHERE u.endpoint_id = ? AND u.asked IS NULL AND (t.state = 'submitted' \
                 OR EXISTS (SELECT 1 FROM cancellations c WHERE c.task = u.task)) LIMIT ?";
            let found = db.all(find, values![endpoint, limit as u64])?;
            let read = |(task, task_id, attempt)| Unaccounted {
                task,
                attempt: Attempt { task_id, attempt },
            };
            Ok(found.into_iter().map(read).collect())
        })
        .await
    }

    /// Has every unaccounted attempt asked for again.
    pub(crate) async fn ask_all_again(&self) -> Result<()> {
        self.write("preparing roll calls", |write| {
            let update = "UPDATE unaccounted SET asked = NULL WHERE asked IS NOT NULL";
            write.db.run(update, &[]).map(drop)
        })
        .await
    }
}

/// Adds every attempt that the endpoint was or is being sent and has not answered; returns
/// how many these are.
pub(super) fn add_all(db: &Db<'_>, endpoint: EndpointId) -> Result<u64> {
    let insert = "INSERT INTO unaccounted (task, endpoint_id, attempt) \
         SELECT t.seq, n.id, t.current_attempt FROM tasks t JOIN interned_ids n ON n.n = t.endpoint \
         WHERE n.id = ? AND t.state IN ('submitting', 'submitted') \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL";
    db.run(insert, values![endpoint])
}

/// Adds all attempts of an endpoint once in a transaction, however often there is reason to:
/// no roll call is in between, and it may be many thousand tasks.
#[derive(Default)]
pub(super) struct AddedEndpoints(BTreeMap<EndpointId, u64>);

impl AddedEndpoints {
    /// As [`add_all`].
    pub(super) fn add_all(&mut self, db: &Db<'_>, endpoint: EndpointId) -> Result<u64> {
        if let Some(attempts) = self.0.get(&endpoint) {
            return Ok(*attempts);
        }
        let attempts = add_all(db, endpoint)?;
        self.0.insert(endpoint, attempts);
        Ok(attempts)
    }
}

/// Adds every attempt that any endpoint was or is being sent and has not answered: an answer
/// was damaged or lost, and it is not known from which endpoint. Returns how many these are.
pub(super) fn add_everywhere(db: &Db<'_>) -> Result<u64> {
    let endpoints: Vec<(EndpointId,)> = db.all("SELECT id FROM endpoints", &[])?;
    endpoints.into_iter().map(|(endpoint,)| add_all(db, endpoint)).sum()
}

/// Adds one attempt; it is to be asked for, again if it was before.
pub(super) fn add(db: &Db<'_>, task: i64, endpoint: EndpointId, attempt: u32) -> Result<()> {
    let insert = "INSERT INTO unaccounted (task, endpoint_id, attempt) VALUES (?, ?, ?) \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL";
    db.run(insert, values![task, endpoint, attempt]).map(drop)
}

/// Removes tasks: it is known what became of them.
pub(super) fn remove<'a>(db: &Db<'_>, tasks: impl IntoIterator<Item = &'a i64>) -> Result<()> {
    if is_empty(db)? {
        return Ok(());
    }
    let mut delete = db.prepare("DELETE FROM unaccounted WHERE task = ?")?;
    tasks.into_iter().try_for_each(|task| delete.execute(values![task]).map(drop))
}

/// Marks attempts as asked for: a roll call for them is in the queue of a state.
pub(super) fn mark_asked(
    db: &Db<'_>,
    attempts: &[Unaccounted],
    state: StateId,
    now_ms: u64,
) -> Result<()> {
    let update = "UPDATE unaccounted SET asked = ?, asked_at_ms = ?, answered_at_ms = NULL \
         WHERE task = ? AND attempt = ?";
    let mut update = db.prepare(update)?;
    for Unaccounted { task, attempt } in attempts {
        update.execute(values![&state, now_ms, *task, attempt.attempt])?;
    }
    Ok(())
}

/// Whether this state was asked for an attempt at the task in a row.
pub(super) fn was_asked(db: &Db<'_>, task: i64, attempt: u32, state: StateId) -> Result<bool> {
    let find = "SELECT 1 FROM unaccounted WHERE task = ? AND attempt = ? AND asked = ?";
    db.exists(find, values![task, attempt, &state])
}

/// Has the endpoint's attempts asked for again: another state is active.
pub(super) fn ask_again(db: &Db<'_>, endpoint: EndpointId) -> Result<()> {
    let update = "UPDATE unaccounted SET asked = NULL WHERE endpoint_id = ? AND asked IS NOT NULL";
    db.run(update, values![endpoint]).map(drop)
}

/// Whether there are none, as nearly always.
fn is_empty(db: &Db<'_>) -> Result<bool> {
    Ok(!db.exists("SELECT 1 FROM unaccounted LIMIT 1", &[])?)
}

/// Whether an attempt at one of these tasks is unaccounted for.
pub(super) fn any(db: &Db<'_>, tasks: impl IntoIterator<Item = i64>) -> Result<bool> {
    if is_empty(db)? {
        return Ok(false);
    }
    for task in tasks {
        if db.exists("SELECT 1 FROM unaccounted WHERE task = ?", values![task])? {
            return Ok(true);
        }
    }
    Ok(false)
}
