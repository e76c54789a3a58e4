//! Where tasks are in the records, and how many are ahead of one: what the overlay and the
//! explanation of a wait are made from.
//!
//! Touches the database only. Promises: a look-up takes a step per task; a count takes one
//! per submission with open tasks, and at most [`AHEAD_MAX`] per submission of the task.

use super::engine::{Columns, Db, FromRow, values};
use super::stored_state::StoredState;
use super::{Result, Store};
use crate::model::TaskState;
use clutch_common::id::{EndpointId, TaskId};
use std::collections::BTreeMap;

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
                     c.requested_at_ms FROM tasks t LEFT JOIN cancellations c ON c.task = t.seq \
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

    /// How many tasks of an endpoint were submitted before this one and have no outcome.
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
