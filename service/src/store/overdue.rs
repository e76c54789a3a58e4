//! Tasks that were submitted long ago and have no result: put in doubt, so that their
//! endpoints are asked for them, and again after growing pauses (`design/0014`).
//!
//! Touches the database only. Promises: no more than [`DOUBTS_MAX`] of an endpoint's
//! tasks are in doubt by this, the oldest first; a look costs what the submissions with
//! open tasks cost.

use super::doubts::doubt;
use super::rows::{all, run};
use super::{Result, Store, failed, signed, unsigned};
use clutch_common::id::EndpointId;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most tasks of an endpoint that are in doubt when more are put there.
const DOUBTS_MAX: u64 = 10_000;

/// What of an endpoint was put in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// How many of its tasks are newly in doubt, or to be asked for again.
    pub(crate) tasks: u64,
    /// When the oldest of these was submitted.
    pub(crate) since_ms: u64,
}

/// A task that is overdue.
struct Row {
    seq: i64,
    endpoint: String,
    attempt: u32,
    submitted_at_ms: i64,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            endpoint: row.get(1)?,
            attempt: row.get(2)?,
            submitted_at_ms: row.get(3)?,
        })
    }
}

impl Store {
    /// Puts tasks in doubt that were submitted at least `ask_after` ago and have no
    /// result; and has those asked for again that were asked for before, when at least
    /// as much time has passed since as had passed until then.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn doubt_overdue(
        &self,
        ask_after: Duration,
        now_ms: u64,
    ) -> Result<Vec<Overdue>> {
        const DOING: &str = "looking for tasks that are not answered";
        let ask_after = i64::try_from(ask_after.as_millis()).unwrap_or(i64::MAX);
        let now = signed(now_ms);
        let (fresh, again) = self
            .read(DOING, move |db| {
                let fresh = fresh(db, now.saturating_sub(ask_after)).map_err(failed(DOING))?;
                let again = again(db, ask_after, now).map_err(failed(DOING))?;
                Ok((fresh, again))
            })
            .await?;
        if fresh.is_empty() && again.is_empty() {
            return Ok(Vec::new());
        }
        self.write(DOING, move |write| {
            for row in fresh.iter().chain(&again) {
                if is_open(&write.db, row).map_err(failed(DOING))? {
                    doubt(&write.db, row.seq, &row.endpoint, row.attempt)?;
                }
            }
            summary(fresh.iter().chain(&again))
        })
        .await
    }
}

/// Whether the attempt is still under way: a result may have come since it was read.
fn is_open(db: &Connection, row: &Row) -> rusqlite::Result<bool> {
    let find = "SELECT 1 FROM tasks WHERE seq = ? AND state = 'submitted' AND current_attempt = ?";
    db.prepare_cached(find)?.exists(params![row.seq, row.attempt])
}

/// Tasks that are not in doubt yet, the oldest first, as many of each endpoint as may be.
fn fresh(db: &Connection, submitted_until_ms: i64) -> rusqlite::Result<Vec<Row>> {
    let count = "SELECT endpoint_id, count(*) FROM doubts GROUP BY endpoint_id";
    let counts: Vec<(String, i64)> = all(db, count, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut doubts: BTreeMap<String, u64> =
        counts.into_iter().map(|(endpoint, count)| (endpoint, unsigned(count))).collect();
    let find = "SELECT t.seq, n.id, t.current_attempt, t.submitted_at_ms FROM counts c \
         JOIN tasks t ON t.submission = c.submission JOIN names n ON n.n = t.endpoint \
         WHERE c.state = 'submitted' AND c.tasks > 0 AND t.state = 'submitted' \
         AND t.submitted_at_ms <= ? AND NOT EXISTS (SELECT 1 FROM doubts d WHERE d.task = t.seq)";
    let mut statement = db.prepare_cached(find)?;
    let mut found = Vec::new();
    for row in statement.query_map([submitted_until_ms], Row::read)? {
        let row = row?;
        let count = doubts.entry(row.endpoint.clone()).or_default();
        if *count < DOUBTS_MAX {
            *count += 1;
            found.push(row);
        }
    }
    Ok(found)
}

/// Tasks that were asked for, so long ago that they are asked for again.
fn again(db: &Connection, ask_after: i64, now: i64) -> rusqlite::Result<Vec<Row>> {
    let find = "SELECT t.seq, d.endpoint_id, d.attempt, t.submitted_at_ms FROM doubts d \
         JOIN tasks t ON t.seq = d.task WHERE d.asked IS NOT NULL AND t.submitted_at_ms IS NOT NULL \
         AND d.asked_at_ms + max(?, d.asked_at_ms - t.submitted_at_ms) <= ?";
    all(db, find, [ask_after, now], Row::read)
}

fn summary<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<Vec<Overdue>> {
    let mut found: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for row in rows {
        let (tasks, since) = found.entry(&row.endpoint).or_insert((0, row.submitted_at_ms));
        *tasks += 1;
        *since = row.submitted_at_ms.min(*since);
    }
    let overdue = |(endpoint, (tasks, since)): (&str, (u64, i64))| {
        Ok(Overdue { endpoint: super::rows::parsed(endpoint)?, tasks, since_ms: unsigned(since) })
    };
    found.into_iter().map(overdue).collect()
}

/// Whether a result, or what else ends an attempt, is recorded for the attempt that a
/// state says it delivered last. A task that is not known here counts as missing.
pub(super) fn is_missing(
    db: &Connection,
    attempt: clutch_common::id::Attempt,
) -> rusqlite::Result<bool> {
    let find = "SELECT t.current_attempt, t.state, \
         EXISTS (SELECT 1 FROM results r WHERE r.n = (t.seq << 32) | ?2), \
         EXISTS (SELECT 1 FROM doubts d WHERE d.task = t.seq) FROM tasks t WHERE t.id = ?1";
    let id = super::rows::id(&attempt.task_id);
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(u32, String, bool, bool)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let mut statement = db.prepare_cached(find)?;
    let mut found = statement.query_map(params![id, attempt.attempt], read)?;
    let Some(task) = found.next() else { return Ok(true) };
    let (current, state, recorded, in_doubt) = task?;
    Ok(!recorded && !in_doubt && current == attempt.attempt && state == "submitted")
}

/// Notes the attempt that was missed in a state; says whether it was not noted before.
pub(super) fn miss(
    db: &Connection,
    endpoint: &str,
    state: &str,
    attempt: &str,
) -> rusqlite::Result<bool> {
    let update = "UPDATE states SET missed = ?1 WHERE endpoint_id = ?2 AND id = ?3 \
         AND missed IS NOT ?1";
    Ok(run(db, update, params![attempt, endpoint, state])? > 0)
}

#[cfg(test)]
mod tests;
