//! Reads tasks and results: listings by keyset, progress, one task in full.

use super::rows::{
    self, RESULT_COLUMNS, RESULT_TABLES, ResultRow, SUMMARY_COLUMNS, SUMMARY_TABLES, SummaryRow,
    all, one, parsed,
};
use super::{Age, Result, Store, doubts, failed, missing, signed, unsigned};
use crate::model::{Page, Progress, Recorded, TaskDetail, TaskOutcome, TaskState, TaskSummary};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::result::Outcome;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use std::collections::BTreeSet;

/// As the index `tasks_rare` has it.
pub(super) const RARE: &str =
    " AND t.state <> 'submitting' AND t.state <> 'submitted' AND t.state <> 'succeeded'";
/// A page of results stops growing at this many bytes of output.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How many tasks are few.
const FEW: usize = 16;

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only those of this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    /// Only those in this state.
    pub(crate) state: Option<TaskState>,
    /// Only those of this submission.
    pub(crate) submission: Option<i64>,
    /// Only those that come after the page with this `next`.
    pub(crate) before: Option<u64>,
    /// At most this many.
    pub(crate) limit: u64,
}

/// A condition that all tasks in a state meet, in the words of the index that holds
/// them, so that it is used.
pub(super) fn index_of(state: TaskState) -> &'static str {
    match state {
        TaskState::Submitting | TaskState::Submitted | TaskState::Done(Outcome::Succeeded) => "",
        TaskState::Returned | TaskState::Refused | TaskState::Resubmitting | TaskState::Done(_) => {
            RARE
        }
    }
}

impl Store {
    /// Lists tasks, newest first; those of one submission by falling index.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn tasks(&self, filter: &Filter) -> Result<Page<TaskSummary>> {
        let filter = filter.clone();
        self.read("listing tasks", move |db| tasks(db, &filter)).await
    }

    /// The submission with that key.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn submission(&self, key: &str) -> Result<Option<i64>> {
        const DOING: &str = "looking up the submission";
        let key = key.to_owned();
        self.read(DOING, move |db| {
            let find = "SELECT id FROM submissions WHERE key = ?";
            one(db, find, [key], |row| row.get(0)).map_err(failed(DOING))
        })
        .await
    }

    /// How far a submission is.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn submission_progress(&self, submission: i64, age: Age) -> Result<Progress> {
        const DOING: &str = "counting a submission's tasks";
        self.read_few(DOING, age, move |db| {
            let find = "SELECT s.total, c.state, c.tasks FROM submissions s \
                 LEFT JOIN counts c ON c.submission = s.id AND c.tasks > 0 WHERE s.id = ?";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let rows: Vec<(i64, Option<String>, Option<i64>)> =
                all(db, find, [submission], read).map_err(failed(DOING))?;
            let total = rows.first().map_or(0, |row| unsigned(row.0));
            let states = rows
                .into_iter()
                .filter_map(|(_, state, tasks)| state.zip(tasks))
                .map(|(state, tasks)| Ok((parsed(&state)?, unsigned(tasks))))
                .collect::<Result<Vec<_>>>()?;
            Ok(Progress::of(total, states))
        })
        .await
    }

    /// How far these tasks are; and those of them that nobody knows.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn tasks_progress(
        &self,
        tasks: &[TaskId],
        age: Age,
    ) -> Result<(Progress, Vec<TaskId>)> {
        const DOING: &str = "looking up tasks";
        let tasks: BTreeSet<TaskId> = tasks.iter().copied().collect();
        let age = if tasks.len() > FEW { Age::Any } else { age };
        self.read_few(DOING, age, move |db| {
            let (mut states, mut unknown) = (Vec::with_capacity(tasks.len()), Vec::new());
            for task in &tasks {
                let find = "SELECT state FROM tasks WHERE id = ?";
                let found = one(db, find, [rows::id(task)], |row| row.get::<_, String>(0));
                match found.map_err(failed(DOING))? {
                    Some(state) => states.push((parsed(&state)?, 1)),
                    None => unknown.push(*task),
                }
            }
            Ok((Progress::of(tasks.len() as u64, states), unknown))
        })
        .await
    }

    /// Everything known about a task.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn task(&self, id: TaskId) -> Result<Option<TaskDetail>> {
        self.read("reading a task", move |db| task(db, id)).await
    }

    /// How many tasks a submission has, and their results in order, from index `from` on:
    /// up to `limit` tasks, or fewer where they have much output.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn results(
        &self,
        submission: i64,
        from: u64,
        limit: u64,
    ) -> Result<(u64, Page<TaskOutcome>)> {
        self.read("reading results", move |db| results(db, submission, from, limit)).await
    }
}

fn tasks(db: &Connection, filter: &Filter) -> Result<Page<TaskSummary>> {
    const DOING: &str = "listing tasks";
    // A submission belongs to one endpoint, so that its own index serves
    // best; the `+` keeps the planner from another.
    let (order, endpoint) = match filter.submission {
        Some(_) => ("t.idx", "+t.endpoint"),
        None => ("t.seq", "t.endpoint"),
    };
    let mut sql = format!("SELECT {SUMMARY_COLUMNS}{SUMMARY_TABLES}WHERE TRUE");
    let mut values: Vec<Value> = Vec::new();
    if let Some(submission) = filter.submission {
        sql.push_str(" AND t.submission = ?");
        values.push(submission.into());
    }
    if let Some(id) = filter.endpoint {
        sql.push_str(&format!(" AND {endpoint} = (SELECT n FROM names WHERE id = ?)"));
        values.push(id.to_string().into());
    }
    if let Some(state) = filter.state {
        sql.push_str(&format!(" AND t.state = ?{}", index_of(state)));
        values.push(state.as_str().to_owned().into());
    }
    if let Some(before) = filter.before {
        sql.push_str(&format!(" AND {order} < ?"));
        values.push(signed(before).into());
    }
    sql.push_str(&format!(" ORDER BY {order} DESC LIMIT ?"));
    values.push(signed(filter.limit).into());
    let rows = all(db, &sql, params_from_iter(values), SummaryRow::read).map_err(failed(DOING))?;
    let full = rows.len() as u64 == filter.limit;
    let last = rows.last().filter(|_| full);
    let by_index = filter.submission.is_some();
    let next = last.and_then(|row| if by_index { row.idx } else { Some(row.seq) });
    let items = rows.into_iter().map(SummaryRow::summary).collect::<Result<_>>()?;
    Ok(Page { items, next: next.map(unsigned) })
}

fn task(db: &Connection, id: TaskId) -> Result<Option<TaskDetail>> {
    const DOING: &str = "reading a task";
    let find = format!("SELECT {SUMMARY_COLUMNS}{SUMMARY_TABLES}WHERE t.id = ?");
    let row = one(db, &find, [rows::id(&id)], SummaryRow::read).map_err(failed(DOING))?;
    let Some(row) = row else { return Ok(None) };
    let seq = row.seq;
    let find = "SELECT p.body, t.current_attempt FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.seq = ?";
    let payload: Option<(String, u32)> =
        one(db, find, [seq], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed(DOING))?;
    let task = payload.map(|(body, attempt)| doubts::task(seq, &body, attempt)).transpose()?;
    let find = format!(
        "SELECT {RESULT_COLUMNS} FROM results r {RESULT_TABLES}\
         WHERE r.n BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295 ORDER BY r.n"
    );
    let results = all(db, &find, [seq], ResultRow::read).map_err(failed(DOING))?;
    let results: Vec<Recorded> =
        results.into_iter().map(|row| row.recorded(id)).collect::<Result<_>>()?;
    let asked = missing::asked(db, seq).map_err(failed(DOING))?;
    Ok(Some(TaskDetail { summary: row.summary()?, task, asked, results }))
}

fn results(
    db: &Connection,
    submission: i64,
    from: u64,
    limit: u64,
) -> Result<(u64, Page<TaskOutcome>)> {
    const DOING: &str = "reading results";
    let find = "SELECT total FROM submissions WHERE id = ?";
    let total = one(db, find, [submission], |row| row.get(0)).map_err(failed(DOING))?;
    let find = format!(
        "SELECT {SUMMARY_COLUMNS}, {RESULT_COLUMNS}{SUMMARY_TABLES}{RESULT_TABLES}\
         WHERE t.submission = ? AND t.idx >= ? ORDER BY t.idx LIMIT ?"
    );
    let mut statement = db.prepare_cached(&find).map_err(failed(DOING))?;
    let rows = statement.query_map(params![submission, signed(from), signed(limit)], |row| {
        let outcome: Option<String> = row.get("r_outcome")?;
        let result = outcome.map(|_| ResultRow::read(row)).transpose()?;
        Ok((SummaryRow::read(row)?, result))
    });
    let mut page = Page { items: Vec::new(), next: None };
    let mut bytes = 0;
    for row in rows.map_err(failed(DOING))? {
        let (summary, result) = row.map_err(failed(DOING))?;
        let summary = summary.summary()?;
        let result = result.map(|row| row.recorded(summary.id)).transpose()?;
        let following = summary.index.map(|index| index + 1);
        bytes += result.as_ref().map_or(0, |one| one.result.output());
        page.items.push(TaskOutcome { summary, result });
        if page.items.len() as u64 == limit || bytes >= PAGE_BYTES {
            page.next = following;
            break;
        }
    }
    Ok((unsigned(total.unwrap_or(0)), page))
}
