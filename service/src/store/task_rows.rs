//! Where tasks are in the records, and how many are ahead of one: what the overlay and the
//! explanation of a wait are made from.
//!
//! Touches the database only. Promises: a look-up takes a step per task; a count takes one
//! per submission with open tasks, at most [`AHEAD_MAX`] in the submission of the task, and one
//! for each task of the endpoint that has another priority than normal.

use super::engine::{Columns, Db, FromRow, values};
use super::stored_state::StoredState;
use super::{Result, Store};
use crate::model::TaskState;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Tasks ahead within the task's own submission are counted up to here.
const AHEAD_MAX: u64 = 100_000;

/// Where a task is in the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskPlace {
    /// Its row.
    pub(crate) row: u64,
    /// Its submission.
    pub(crate) submission: Option<i64>,
    /// Its index in that.
    pub(crate) index: Option<u64>,
    /// Its state.
    pub(crate) state: TaskState,
    /// The attempt under way, or the last one.
    pub(crate) attempt: u32,
    /// When its cancellation was requested, if it was and is not answered.
    pub(crate) cancel_requested_ms: Option<u64>,
    /// Its priority.
    pub(crate) priority: Priority,
}

impl FromRow for TaskPlace {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            row: columns.next()?,
            submission: columns.next()?,
            index: columns.next()?,
            state: columns.next::<StoredState>()?.shown(),
            attempt: columns.next()?,
            cancel_requested_ms: columns.next()?,
            priority: columns.next()?,
        })
    }
}

impl Store {
    /// Where those of these tasks are that are known.
    pub(crate) async fn task_places(
        &self,
        tasks: Vec<TaskId>,
    ) -> Result<BTreeMap<TaskId, TaskPlace>> {
        self.read("looking up tasks", move |db| {
            let mut places = BTreeMap::new();
            for task in tasks {
                let find = "SELECT t.seq, t.submission, t.idx, t.state, t.current_attempt, \
                     c.requested_at_ms, t.priority FROM tasks t LEFT JOIN cancellations c ON c.task = t.seq \
                     WHERE t.id = ?";
                if let Some(place) = db.one::<TaskPlace>(find, values![&task])? {
                    places.insert(task, place);
                }
            }
            Ok(places)
        })
        .await
    }

    /// The endpoint that a task is for.
    pub(crate) async fn endpoint_of(&self, task: TaskId) -> Result<Option<EndpointId>> {
        self.read("looking up a task's endpoint", move |db| {
            let find = "SELECT n.id FROM tasks t JOIN interned_ids n ON n.n = t.endpoint \
                 WHERE t.id = ?";
            Ok(db.one(find, values![&task])?.map(|(endpoint,)| endpoint))
        })
        .await
    }

    /// How many submitted tasks of an endpoint without an outcome are ahead of this one: those of
    /// its priority that were submitted before it, and those of a higher one.
    pub(crate) async fn tasks_ahead(&self, endpoint: EndpointId, task: &TaskPlace) -> Result<u64> {
        let task = task.clone();
        self.read("counting the tasks ahead", move |db| tasks_ahead(db, endpoint, &task)).await
    }

    /// The walltimes of tasks, in milliseconds, where they have one.
    pub(crate) async fn walltimes(&self, tasks: Vec<TaskId>) -> Result<Vec<Option<u64>>> {
        self.read("reading walltimes", move |db| {
            let mut walltimes = Vec::with_capacity(tasks.len());
            for task in &tasks {
                let find = "SELECT t.seq, p.body FROM tasks t JOIN payloads p ON p.task = t.seq \
                     WHERE t.id = ?";
                let found: Option<(i64, String)> = db.one(find, values![task])?;
                let task = found.map(|(seq, body)| super::rows::decoded(seq, &body, 1));
                walltimes.push(task.transpose()?.and_then(|task| task.walltime_ms));
            }
            Ok(walltimes)
        })
        .await
    }

    /// The endpoints that have submitted tasks without an outcome, up to so many.
    pub(crate) async fn endpoints_with_open_tasks(&self, limit: u32) -> Result<Vec<EndpointId>> {
        self.read("looking for endpoints with open tasks", move |db| {
            let find = "SELECT DISTINCT s.endpoint_id FROM counts c \
                 JOIN submissions s ON s.id = c.submission \
                 WHERE c.state = 'submitted' AND c.tasks > 0 LIMIT ?";
            Ok(db.all(find, values![limit])?.into_iter().map(|(endpoint,)| endpoint).collect())
        })
        .await
    }
}

fn tasks_ahead(db: &Db<'_>, endpoint: EndpointId, task: &TaskPlace) -> Result<u64> {
    let normal = match task.priority.rank() {
        ..0 => {
            let (before, after) = (before(db, endpoint, task)?, after(db, endpoint, task)?);
            let others = with_priorities(db, endpoint, |_| true, 0..=i64::MAX)?;
            // It is among them itself, unless it is not submitted.
            let itself = u64::from(task.state == TaskState::Submitted);
            (before + after + itself).saturating_sub(others)
        }
        0 => {
            let row = i64::try_from(task.row).unwrap_or(i64::MAX);
            let others = with_priorities(db, endpoint, |_| true, 0..=row)?;
            before(db, endpoint, task)?.saturating_sub(others)
        }
        1.. => 0,
    };
    let higher = with_priorities(db, endpoint, |level| level > task.priority, 0..=i64::MAX)?;
    let row = i64::try_from(task.row).unwrap_or(i64::MAX);
    let same = with_priorities(db, endpoint, |level| level == task.priority, 0..=row - 1)?;
    Ok(normal + higher + same)
}

/// How many submitted tasks came before a task.
fn before(db: &Db<'_>, endpoint: EndpointId, task: &TaskPlace) -> Result<u64> {
    let Some((submission, index)) = task.submission.zip(task.index) else { return Ok(0) };
    let find = "SELECT CAST(coalesce(sum(c.tasks), 0) AS BIGINT) FROM submissions s \
         JOIN counts c ON c.submission = s.id \
         WHERE s.endpoint_id = ? AND s.id < ? AND c.state = 'submitted'";
    let before: Option<(u64,)> = db.one(find, values![endpoint, submission])?;
    let find = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE submission = ? AND idx < ? \
         AND state = 'submitted' ORDER BY idx DESC LIMIT ?) AS ahead";
    let within: Option<(u64,)> = db.one(find, values![submission, index, AHEAD_MAX])?;
    Ok(before.map_or(0, |(tasks,)| tasks) + within.map_or(0, |(tasks,)| tasks))
}

/// How many submitted tasks came after a task.
fn after(db: &Db<'_>, endpoint: EndpointId, task: &TaskPlace) -> Result<u64> {
    let Some((submission, index)) = task.submission.zip(task.index) else { return Ok(0) };
    let find = "SELECT CAST(coalesce(sum(c.tasks), 0) AS BIGINT) FROM submissions s \
         JOIN counts c ON c.submission = s.id \
         WHERE s.endpoint_id = ? AND s.id > ? AND c.state = 'submitted'";
    let after: Option<(u64,)> = db.one(find, values![endpoint, submission])?;
    let find = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE submission = ? AND idx > ? \
         AND state = 'submitted' ORDER BY idx LIMIT ?) AS later";
    let within: Option<(u64,)> = db.one(find, values![submission, index, AHEAD_MAX])?;
    Ok(after.map_or(0, |(tasks,)| tasks) + within.map_or(0, |(tasks,)| tasks))
}

/// How many submitted tasks, in these rows, have a priority of this kind; normal ones do not
/// count.
fn with_priorities(
    db: &Db<'_>,
    endpoint: EndpointId,
    counts: impl Fn(Priority) -> bool,
    rows: RangeInclusive<i64>,
) -> Result<u64> {
    let find = "SELECT count(*) FROM (SELECT 1 FROM tasks t \
         WHERE t.endpoint = (SELECT n FROM interned_ids WHERE id = ?) AND t.priority <> 0 \
         AND t.priority = ? AND t.seq >= ? AND t.seq <= ? AND t.state = 'submitted' LIMIT ?) \
         AS ahead";
    let mut found = 0;
    let levels = Priority::ALL.into_iter().filter(|level| !level.is_normal() && counts(*level));
    for level in levels {
        let (first, last) = (*rows.start(), *rows.end());
        let values = values![endpoint, level.rank(), first, last, AHEAD_MAX];
        found += db.only::<(u64,)>(find, values)?.0;
    }
    Ok(found)
}
