//! Tasks that were submitted long ago and have no result: they become unaccounted for, so
//! that their endpoints are asked for them, and again after growing pauses (`design/0014`).
//!
//! Touches the database only. Promises: no more than [`UNACCOUNTED_MAX`] tasks of an
//! endpoint become unaccounted for by this, the oldest first; a look goes through the
//! submissions that have open tasks, and through no other tasks.

use super::engine::{Columns, Db, FromRow, values};
use super::forgetting::Horizon;
use super::{Result, Store, unaccounted};
use clutch_common::id::{Attempt, EndpointId};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// An endpoint with this many unaccounted attempts gets no more by this.
pub(super) const UNACCOUNTED_MAX: u64 = 10_000;

/// The tasks of an endpoint that are overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// How many tasks are newly unaccounted for, or to be asked for again.
    pub(crate) tasks: u64,
    /// When the oldest of these was submitted.
    pub(crate) since_ms: u64,
}

/// A task that is overdue.
struct OverdueTask {
    seq: i64,
    endpoint: EndpointId,
    attempt: u32,
    submitted_at_ms: u64,
}

impl FromRow for OverdueTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            endpoint: columns.next()?,
            attempt: columns.next()?,
            submitted_at_ms: columns.next()?,
        })
    }
}

impl Store {
    /// Has tasks asked for that were submitted at least `ask_after` ago and have no result. A
    /// task is asked for again when as much time has passed since as had passed until then.
    pub(crate) async fn ask_for_overdue(
        &self,
        ask_after: Duration,
        now_ms: u64,
    ) -> Result<Vec<Overdue>> {
        const DOING: &str = "looking for tasks that are not answered";
        let ask_after = u64::try_from(ask_after.as_millis()).unwrap_or(u64::MAX);
        let read = move |db: &Db<'_>| {
            let mut tasks = first_time(db, now_ms.saturating_sub(ask_after))?;
            tasks.extend(again(db, ask_after, now_ms)?);
            Ok(tasks)
        };
        let tasks = self.read(DOING, read).await?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        self.write(DOING, move |write| {
            for task in &tasks {
                if is_open(write.db, task)? {
                    unaccounted::add(write.db, task.seq, task.endpoint, task.attempt)?;
                }
            }
            Ok(summary(&tasks))
        })
        .await
    }
}

/// Whether the attempt is still under way: a result may have come since it was read.
fn is_open(db: &Db<'_>, task: &OverdueTask) -> Result<bool> {
    let find = "SELECT 1 FROM tasks WHERE seq = ? AND state = 'submitted' AND current_attempt = ?";
    db.exists(find, values![task.seq, task.attempt])
}

/// Open tasks that are not unaccounted for, the oldest of each submission first. The join is
/// a `CROSS JOIN`: the other way round, it would go through every task there is.
pub(super) const FIRST_TIME: &str = "SELECT t.seq, n.id, t.current_attempt, t.submitted_at_ms FROM counts c CROSS JOIN tasks t \
     JOIN interned_ids n ON n.n = t.endpoint WHERE t.submission = c.submission \
     AND c.state = 'submitted' AND c.tasks > 0 AND t.state = 'submitted' \
     AND t.submitted_at_ms <= ? \
     AND NOT EXISTS (SELECT 1 FROM unaccounted u WHERE u.task = t.seq) \
     ORDER BY c.submission, t.idx";

/// Open tasks that are not unaccounted for, as many of each endpoint as may become so.
fn first_time(db: &Db<'_>, submitted_until_ms: u64) -> Result<Vec<OverdueTask>> {
    let count = "SELECT endpoint_id, count(*) FROM unaccounted GROUP BY endpoint_id";
    let counts: Vec<(EndpointId, u64)> = db.all(count, &[])?;
    let mut counts: BTreeMap<EndpointId, u64> = counts.into_iter().collect();
    let mut found = Vec::new();
    db.each(FIRST_TIME, values![submitted_until_ms], |task: OverdueTask| {
        let count = counts.entry(task.endpoint).or_default();
        if *count < UNACCOUNTED_MAX {
            *count += 1;
            found.push(task);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Tasks to be asked for again: since their last roll call both `ask_after` and the time from
/// submission to that roll call have passed.
fn again(db: &Db<'_>, ask_after: u64, now_ms: u64) -> Result<Vec<OverdueTask>> {
    let find = "SELECT t.seq, u.endpoint_id, u.attempt, t.submitted_at_ms \
         FROM unaccounted u JOIN tasks t ON t.seq = u.task \
         WHERE u.asked IS NOT NULL AND t.submitted_at_ms IS NOT NULL \
         AND u.asked_at_ms <= ?1 AND u.asked_at_ms + u.asked_at_ms - t.submitted_at_ms <= ?2";
    db.all(find, values![now_ms.saturating_sub(ask_after), now_ms])
}

fn summary(tasks: &[OverdueTask]) -> Vec<Overdue> {
    let mut found: BTreeMap<EndpointId, Overdue> = BTreeMap::new();
    for &OverdueTask { endpoint, submitted_at_ms, .. } in tasks {
        let one = found.entry(endpoint).or_insert(Overdue {
            endpoint,
            tasks: 0,
            since_ms: submitted_at_ms,
        });
        one.tasks += 1;
        one.since_ms = one.since_ms.min(submitted_at_ms);
    }
    found.into_values().collect()
}

/// Whether an attempt that a state reports delivered has no result here, and is not ended or
/// asked for otherwise. An attempt at a task that is not known here counts as missing, unless
/// the task may have been forgotten.
pub(super) fn is_missing(db: &Db<'_>, attempt: Attempt) -> Result<bool> {
    let find = format!(
        "SELECT CASE WHEN t.current_attempt = ?2 AND t.state = 'submitted' \
         AND NOT EXISTS (SELECT 1 FROM results r WHERE {} AND r.attempt = ?2) \
         AND NOT EXISTS (SELECT 1 FROM unaccounted u WHERE u.task = t.seq) \
         THEN 1 ELSE 0 END FROM tasks t WHERE t.id = ?1",
        db.dialect().is_result
    );
    let found = db.one::<(bool,)>(&find, values![&attempt.task_id, attempt.attempt])?;
    match found {
        Some((missing,)) => Ok(missing),
        None => Ok(!Horizon::read(db)?.may_have_had(attempt.task_id)),
    }
}

/// Records the delivered attempt that is missing, for a state; returns whether that was not
/// recorded before.
pub(super) fn record_missing(
    db: &Db<'_>,
    (endpoint, state): (EndpointId, clutch_common::id::StateId),
    attempt: Attempt,
) -> Result<bool> {
    let update = "UPDATE states SET missed = ?1 WHERE endpoint_id = ?2 AND id = ?3 \
         AND missed IS DISTINCT FROM ?1";
    Ok(db.run(update, values![attempt.to_string(), endpoint, &state])? > 0)
}
