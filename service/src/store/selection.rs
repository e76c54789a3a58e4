//! Selects the tasks of a request to cancel or to run again, slice by slice, so that no
//! statement holds up others for long.
//!
//! Touches the database only, and reads it. Promises: goes through the submissions that the
//! request is about, and, if it is about tasks without an outcome, only through those that
//! have some; each task is selected at most once.

use super::engine::{Columns, Db, FromRow, Value, values};
use super::{Result, Store};
use crate::model::NamePattern;
use clutch_common::id::{Attempt, EndpointId, TaskId};
use std::ops::ControlFlow;

/// The state in the database of a task that the broker has.
const SUBMITTED: &str = "submitted";

/// The tasks that a request is about: those that meet every condition.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskSelection {
    /// Only these; none means all.
    pub(crate) tasks: Vec<TaskId>,
    /// Only those of this submission.
    pub(crate) submission: Option<i64>,
    /// Only those of this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    /// Only those with such a name.
    pub(crate) name: Option<NamePattern>,
    /// Only those in one of these states; none means all.
    pub(crate) states: Vec<String>,
}

/// A selected task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectedTask {
    /// Its row.
    pub(crate) seq: i64,
    /// Its last attempt.
    pub(crate) attempt: Attempt,
    /// Whether the broker has it, so that it may have been accepted, or run.
    pub(crate) submitted: bool,
}

/// How far a selection was read.
#[derive(Clone, Debug)]
pub(crate) struct SelectionCursor {
    selection: TaskSelection,
    /// The submissions that are left, the next one last; nothing if tasks are named.
    submissions: Vec<i64>,
    /// The next index in the submission, or among the tasks that are named.
    from: u64,
}

/// A task of a submission.
struct Candidate {
    seq: i64,
    attempt: Attempt,
    index: u64,
    name: Option<String>,
    state: String,
}

impl FromRow for Candidate {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            attempt: Attempt { task_id: columns.next()?, attempt: columns.next()? },
            index: columns.next()?,
            name: columns.next()?,
            state: columns.next()?,
        })
    }
}

impl Store {
    /// Begins to select tasks. Where neither tasks nor a submission are named, all submissions
    /// that have tasks without an outcome are gone through.
    pub(crate) async fn select(&self, selection: TaskSelection) -> Result<SelectionCursor> {
        self.read("selecting tasks", move |db| {
            let submissions =
                if selection.tasks.is_empty() { submissions(db, &selection)? } else { Vec::new() };
            Ok(SelectionCursor { selection, submissions, from: 0 })
        })
        .await
    }

    /// The next tasks, at most `limit`; none after the last.
    pub(crate) async fn next_selected(
        &self,
        mut cursor: SelectionCursor,
        limit: usize,
    ) -> Result<(SelectionCursor, Vec<SelectedTask>)> {
        self.read("selecting tasks", move |db| {
            let found = if cursor.selection.tasks.is_empty() {
                of_submissions(db, &mut cursor, limit)?
            } else {
                named(db, &mut cursor, limit)?
            };
            Ok((cursor, found))
        })
        .await
    }
}

/// The submissions to go through, the first one last.
fn submissions(db: &Db<'_>, selection: &TaskSelection) -> Result<Vec<i64>> {
    let mut find = "SELECT s.id FROM submissions s WHERE TRUE".to_owned();
    let mut values: Vec<Value<'_>> = Vec::new();
    match selection.submission {
        Some(submission) => {
            find.push_str(" AND s.id = ?");
            values.push(submission.into());
        }
        None => find.push_str(
            " AND EXISTS (SELECT 1 FROM counts c WHERE c.submission = s.id AND c.tasks > 0 \
             AND c.state IN ('scheduled', 'unplaced', 'waiting', 'paused', 'submitting', 'submitted'))",
        ),
    }
    if let Some(endpoint) = selection.endpoint {
        find.push_str(" AND s.endpoint_id = ?");
        values.push(endpoint.into());
    }
    find.push_str(" ORDER BY s.id DESC");
    let found: Vec<(i64,)> = db.all(&find, &values)?;
    Ok(found.into_iter().map(|(submission,)| submission).collect())
}

/// The names that the database has for a state.
fn stored(state: &str) -> Vec<&str> {
    match state {
        "waiting" => vec!["unplaced", "waiting", "paused", "submitting"],
        // What an endpoint's events tell is not in the database.
        "accepted" | "running" => vec!["submitted"],
        other => vec![other],
    }
}

/// A condition on the state of a task, and its values.
fn state_condition(states: &[String]) -> (String, Vec<Value<'_>>) {
    if states.is_empty() {
        return (String::new(), Vec::new());
    }
    let names: Vec<&str> = states.iter().flat_map(|state| stored(state)).collect();
    let places = vec!["?"; names.len()].join(", ");
    (format!(" AND t.state IN ({places})"), names.into_iter().map(Value::from).collect())
}

fn of_submissions(
    db: &Db<'_>,
    cursor: &mut SelectionCursor,
    limit: usize,
) -> Result<Vec<SelectedTask>> {
    let TaskSelection { name, states, .. } = &cursor.selection;
    let (condition, condition_values) = state_condition(states);
    let find = format!(
        "SELECT t.seq, t.id, t.current_attempt, t.idx, t.name, t.state FROM tasks t \
         WHERE t.submission = ? AND t.idx >= ?{condition} ORDER BY t.idx"
    );
    let mut found = Vec::new();
    while let Some(submission) = cursor.submissions.last() {
        let mut values: Vec<Value<'_>> = vec![submission.into(), cursor.from.into()];
        values.extend(condition_values.iter().cloned());
        let mut next = None;
        db.each(&find, &values, |Candidate { seq, attempt, index, name: own, state }| {
            if matches(name.as_ref(), own.as_deref()) {
                let submitted = state == SUBMITTED;
                found.push(SelectedTask { seq, attempt, submitted });
            }
            if found.len() < limit {
                return Ok(ControlFlow::Continue(()));
            }
            next = Some(index + 1);
            Ok(ControlFlow::Break(()))
        })?;
        match next {
            Some(index) => {
                cursor.from = index;
                break;
            }
            None => {
                cursor.submissions.pop();
                cursor.from = 0;
            }
        }
    }
    Ok(found)
}

/// Whether a task has such a name, where one is asked for.
fn matches(pattern: Option<&NamePattern>, name: Option<&str>) -> bool {
    pattern.is_none_or(|pattern| name.is_some_and(|name| pattern.matches(name)))
}

/// A task that is named.
struct NamedTask {
    seq: i64,
    attempt: u32,
    state: String,
    name: Option<String>,
    submission: Option<i64>,
    endpoint: EndpointId,
}

impl FromRow for NamedTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            attempt: columns.next()?,
            state: columns.next()?,
            name: columns.next()?,
            submission: columns.next()?,
            endpoint: columns.next()?,
        })
    }
}

impl NamedTask {
    /// Whether it meets the conditions.
    fn meets(&self, selection: &TaskSelection) -> bool {
        let TaskSelection { submission, endpoint, name, states, .. } = selection;
        let in_state = |state: &String| stored(state).contains(&self.state.as_str());
        (states.is_empty() || states.iter().any(in_state))
            && submission.is_none_or(|submission| Some(submission) == self.submission)
            && endpoint.is_none_or(|endpoint| endpoint == self.endpoint)
            && matches(name.as_ref(), self.name.as_deref())
    }
}

/// The tasks that are named.
fn named(db: &Db<'_>, cursor: &mut SelectionCursor, limit: usize) -> Result<Vec<SelectedTask>> {
    let find = "SELECT t.seq, t.current_attempt, t.state, t.name, t.submission, n.id \
         FROM tasks t JOIN interned_ids n ON n.n = t.endpoint WHERE t.id = ?";
    let mut found = Vec::new();
    let from = usize::try_from(cursor.from).unwrap_or(usize::MAX);
    for task_id in cursor.selection.tasks.iter().skip(from) {
        if found.len() == limit {
            break;
        }
        cursor.from += 1;
        let task: Option<NamedTask> = db.one(find, values![task_id])?;
        if let Some(task) = task.filter(|task| task.meets(&cursor.selection)) {
            let attempt = Attempt { task_id: *task_id, attempt: task.attempt };
            let submitted = task.state == SUBMITTED;
            found.push(SelectedTask { seq: task.seq, attempt, submitted });
        }
    }
    Ok(found)
}
