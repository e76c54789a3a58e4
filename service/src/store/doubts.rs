//! Attempts of which it is not known who has them: listed, asked for, and ended
//! by a result, by another attempt, or as `interrupted`.

use super::listing::RARE;
use super::moves::shift;
use super::rows::{all, one, parsed, run, task_id};
use super::submissions::encoded;
use super::{Error, Result, Store, failed, signed};
use crate::model::TaskState;
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::task::Task;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// How many new attempts are read at once, and how many bytes of them.
const RESUBMITTED_AT_ONCE: i64 = 1000;
const RESUBMITTED_BYTES: usize = 16 * 1024 * 1024;

/// An attempt to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The task's row.
    pub(crate) task: i64,
    /// The attempt.
    pub(crate) attempt: Attempt,
}

/// A new attempt at a task, to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resubmission {
    /// Its row.
    pub(crate) seq: i64,
    /// Where it goes.
    pub(crate) endpoint: EndpointId,
    /// The task, with the number of the attempt.
    pub(crate) task: Task,
    /// It, as it travels.
    pub(crate) body: String,
}

impl Store {
    /// The endpoints that have doubts nobody was asked for.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn doubtful(&self) -> Result<Vec<EndpointId>> {
        const DOING: &str = "looking for doubts";
        self.read(DOING, |db| {
            let find = "SELECT DISTINCT endpoint_id FROM doubts WHERE asked IS NULL";
            let ids = all(db, find, [], |row| row.get::<_, String>(0)).map_err(failed(DOING))?;
            ids.iter().map(|id| parsed(id)).collect()
        })
        .await
    }

    /// Up to `limit` attempts that the endpoint's active state is to be asked
    /// for. One whose publishing is not confirmed is not yet: a roll call has to
    /// come behind it in the queue.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn to_ask(&self, endpoint: EndpointId, limit: usize) -> Result<Vec<Doubt>> {
        const DOING: &str = "looking for doubts";
        self.read(DOING, move |db| {
            let find = "SELECT d.task, t.id, d.attempt FROM doubts d JOIN tasks t ON t.seq = d.task \
                 WHERE d.endpoint_id = ? AND d.asked IS NULL AND t.state = 'submitted' LIMIT ?";
            let values = params![endpoint.to_string(), signed(limit as u64)];
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let rows: Vec<(i64, Vec<u8>, u32)> =
                all(db, find, values, read).map_err(failed(DOING))?;
            let doubt = |(task, id, attempt): (i64, Vec<u8>, u32)| {
                Ok(Doubt { task, attempt: Attempt { task_id: task_id(&id)?, attempt } })
            };
            rows.into_iter().map(doubt).collect()
        })
        .await
    }

    /// Records that a state was asked for these: a roll call is in its queue.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn asked(
        &self,
        doubts: Vec<Doubt>,
        state: StateId,
        now_ms: u64,
    ) -> Result<()> {
        const DOING: &str = "recording a roll call";
        self.write(DOING, move |write| {
            let state = state.to_string();
            for Doubt { task, attempt } in doubts {
                let update = "UPDATE doubts SET asked = ?, asked_at_ms = ?, answered_at_ms = NULL \
                     WHERE task = ? AND attempt = ?";
                run(&write.db, update, params![state, signed(now_ms), task, attempt.attempt])
                    .map_err(failed(DOING))?;
            }
            Ok(())
        })
        .await
    }

    /// Every doubt is to be asked for again, whoever was asked before.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn ask_again(&self) -> Result<()> {
        const DOING: &str = "preparing roll calls";
        self.write(DOING, |write| {
            let update = "UPDATE doubts SET asked = NULL WHERE asked IS NOT NULL";
            run(&write.db, update, []).map_err(failed(DOING))?;
            Ok(())
        })
        .await
    }

    /// New attempts that are to be published, of endpoints not named: some, as
    /// they may be large.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn to_resubmit(&self, not_for: &[EndpointId]) -> Result<Vec<Resubmission>> {
        const DOING: &str = "looking for tasks to submit again";
        let not_for: Vec<String> = not_for.iter().map(EndpointId::to_string).collect();
        self.read(DOING, move |db| to_resubmit(db, &not_for, DOING)).await
    }

    /// Records that the broker has these attempts.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn resubmitted(&self, done: Vec<(i64, u32)>) -> Result<()> {
        const DOING: &str = "recording that the broker has the new attempts";
        self.write(DOING, move |write| {
            for (task, attempt) in done {
                let find = "SELECT 1 FROM tasks WHERE seq = ? AND current_attempt = ?";
                let found = one(&write.db, find, params![task, attempt], |_| Ok(()));
                if found.map_err(failed(DOING))?.is_some() {
                    let from = [TaskState::Resubmitting];
                    shift(&write.db, &[task], &from, TaskState::Submitted, DOING)?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn to_resubmit(
    db: &Connection,
    not_for: &[String],
    doing: &'static str,
) -> Result<Vec<Resubmission>> {
    let find = format!(
        "SELECT t.seq, n.id, t.current_attempt, p.body FROM tasks t \
         JOIN names n ON n.n = t.endpoint JOIN payloads p ON p.task = t.seq \
         WHERE t.state = 'resubmitting'{RARE} \
         AND n.id NOT IN (SELECT value FROM json_each(?)) ORDER BY t.seq LIMIT ?"
    );
    let not_for = serde_json::Value::from(not_for).to_string();
    let mut statement = db.prepare_cached(&find).map_err(failed(doing))?;
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(i64, String, u32, String)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let rows = statement.query_map(params![not_for, RESUBMITTED_AT_ONCE], read);
    let mut found = Vec::new();
    let mut bytes = 0;
    for row in rows.map_err(failed(doing))? {
        let (seq, endpoint, attempt, body) = row.map_err(failed(doing))?;
        let task = task(seq, &body, attempt)?;
        let body = encoded(&task)?;
        bytes += body.len();
        found.push(Resubmission { seq, endpoint: parsed(&endpoint)?, task, body });
        if bytes >= RESUBMITTED_BYTES {
            break;
        }
    }
    Ok(found)
}

/// A task as its current attempt is published.
pub(super) fn task(seq: i64, body: &str, attempt: u32) -> Result<Task> {
    let task: Task = serde_json::from_str(body)
        .map_err(|error| Error::Unreadable(format!("the task in row {seq}: {error}")))?;
    Ok(Task { attempt, ..task })
}

/// Puts all in doubt that the endpoint was or is being sent, and has not
/// answered; says how much that is.
pub(super) fn doubt_all(db: &Connection, endpoint: EndpointId) -> Result<u64> {
    let insert = "INSERT INTO doubts (task, endpoint_id, attempt) \
         SELECT t.seq, n.id, t.current_attempt FROM tasks t JOIN names n ON n.n = t.endpoint \
         WHERE n.id = ? AND t.state IN ('submitting', 'submitted', 'resubmitting') \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL";
    let doubted = run(db, insert, [endpoint.to_string()]);
    Ok(doubted.map_err(failed("putting tasks in doubt"))? as u64)
}

/// Has everything of an endpoint put in doubt once in a transaction, however often there
/// is reason to: no roll call is in between, and it may be many thousand tasks.
#[derive(Default)]
pub(super) struct Once(BTreeMap<EndpointId, u64>);

impl Once {
    /// As [`doubt_all`].
    pub(super) fn all(&mut self, db: &Connection, endpoint: EndpointId) -> Result<u64> {
        if let Some(in_doubt) = self.0.get(&endpoint) {
            return Ok(*in_doubt);
        }
        let in_doubt = doubt_all(db, endpoint)?;
        self.0.insert(endpoint, in_doubt);
        Ok(in_doubt)
    }
}

/// Puts all in doubt that any endpoint was or is being sent, and has not answered: an
/// answer was damaged or lost, and it is not known whose. Says how much that is.
pub(super) fn doubt_everywhere(db: &Connection) -> Result<u64> {
    const DOING: &str = "putting tasks in doubt";
    let ids = all(db, "SELECT id FROM endpoints", [], |row| row.get::<_, String>(0));
    let mut doubted = 0;
    for id in ids.map_err(failed(DOING))? {
        doubted += doubt_all(db, parsed(&id)?)?;
    }
    Ok(doubted)
}

/// Puts one attempt in doubt; it is to be asked for, again if it was before.
pub(super) fn doubt(db: &Connection, task: i64, endpoint: &str, attempt: u32) -> Result<()> {
    let insert = "INSERT INTO doubts (task, endpoint_id, attempt) VALUES (?, ?, ?) \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL";
    run(db, insert, params![task, endpoint, attempt]).map_err(failed("putting a task in doubt"))?;
    Ok(())
}

/// There is no doubt about these tasks any more.
pub(super) fn end<'a>(db: &Connection, tasks: impl IntoIterator<Item = &'a i64>) -> Result<()> {
    const DOING: &str = "ending doubts";
    if none(db, DOING)? {
        return Ok(());
    }
    for task in tasks {
        run(db, "DELETE FROM doubts WHERE task = ?", [task]).map_err(failed(DOING))?;
    }
    Ok(())
}

/// The endpoint's doubts are to be asked for again: another state is active.
pub(super) fn ask_again(db: &Connection, endpoint: EndpointId) -> Result<()> {
    let update = "UPDATE doubts SET asked = NULL WHERE endpoint_id = ? AND asked IS NOT NULL";
    run(db, update, [endpoint.to_string()]).map_err(failed("preparing roll calls"))?;
    Ok(())
}

/// Whether nothing is in doubt, as nearly always.
fn none(db: &Connection, doing: &'static str) -> Result<bool> {
    let found = one(db, "SELECT 1 FROM doubts LIMIT 1", [], |_| Ok(())).map_err(failed(doing))?;
    Ok(found.is_none())
}

/// Whether one of these tasks is in doubt.
pub(super) fn any(db: &Connection, tasks: &[i64]) -> Result<bool> {
    const DOING: &str = "looking for doubts";
    if none(db, DOING)? {
        return Ok(false);
    }
    for task in tasks {
        let find = "SELECT 1 FROM doubts WHERE task = ?";
        if one(db, find, [task], |_| Ok(())).map_err(failed(DOING))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
