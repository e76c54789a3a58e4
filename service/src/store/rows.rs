//! Rows of tasks and results as the database returns them, the conditions that several
//! statements share, and how ids, states and payloads are kept. Pure.

use super::engine::{Column, Columns, Dialect, FromRow, Row, Value, column};
use super::stored_state::StoredState;
use super::{Error, Result};
use crate::model::{Recorded, TaskSummary, Told};
use clutch_common::id::{EndpointId, ServiceId, StateId, TaskId};
use clutch_common::task::Task;
use clutch_common::task::blob::Blob;
use clutch_common::task::priority::Priority;
use clutch_common::task::removed_files::RemovedFiles;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::topology::QueueKind;
use std::fmt::Display;
use std::str::FromStr;
use uuid::Uuid;

/// The states of tasks that have no outcome.
pub(super) const OPEN_STATES: &str =
    "('scheduled', 'unplaced', 'waiting', 'paused', 'submitting', 'submitted')";

/// The details of an instance, as they are kept; none where another build wrote some that this
/// one cannot read.
pub(super) fn told(text: Option<&str>) -> Told {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The condition of the index `tasks_in_uncommon_states`.
pub(super) const UNCOMMON_STATES: &str =
    " AND t.state <> 'submitting' AND t.state <> 'submitted' AND t.state <> 'succeeded'";

/// A condition that all tasks in a state meet, in the words of the index that serves it.
pub(super) fn index_condition(state: StoredState) -> &'static str {
    match state {
        StoredState::Submitting
        | StoredState::Submitted
        | StoredState::Done(Outcome::Succeeded) => "",
        StoredState::Scheduled
        | StoredState::InTopic
        | StoredState::Waiting
        | StoredState::Paused
        | StoredState::Done(_) => UNCOMMON_STATES,
    }
}

/// The columns of a [`SummaryRow`], from [`summary_tables`].
pub(super) const SUMMARY_COLUMNS: &str = "t.seq, t.id, n.id, e.name, tp.name, s.key, t.idx, t.name, \
     t.command, t.state, t.attempt, t.created_at_ms, t.submitted_at_ms, r.ended_at_ms, \
     t.priority, t.cores";

/// The tables of [`SUMMARY_COLUMNS`]; `r` is the result that decided the task's state.
pub(super) fn summary_tables(dialect: &Dialect) -> String {
    format!(
        " FROM tasks t LEFT JOIN interned_ids n ON n.n = t.endpoint \
         LEFT JOIN endpoints e ON e.id = n.id LEFT JOIN topics tp ON tp.n = t.topic \
         LEFT JOIN submissions s ON s.id = t.submission \
         LEFT JOIN results r ON {} ",
        dialect.is_decisive_result
    )
}

/// The columns of a [`ResultRow`], from `results r` and [`RESULT_TABLES`].
pub(super) const RESULT_COLUMNS: &str = "r.outcome, r.attempt, r.exit_code, r.signal, r.reason, \
     r.stdout_omitted, r.stderr_omitted, r.accepted_at_ms, r.started_at_ms, r.ended_at_ms, \
     r.published_at_ms, r.cpu_ms, r.peak_memory_bytes, re.id, rs.id, r.received_at_ms, r.duplicates, r.stdout, \
     r.stderr, r.value, r.removed_files, r.error";

/// The tables of [`RESULT_COLUMNS`] besides `results r`.
pub(super) const RESULT_TABLES: &str = " LEFT JOIN interned_ids re ON re.n = r.endpoint \
     LEFT JOIN interned_ids rs ON rs.n = r.state ";

/// A task as it is listed, and its row.
pub(super) struct SummaryRow {
    pub(super) seq: u64,
    pub(super) summary: TaskSummary,
}

impl FromRow for SummaryRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            summary: TaskSummary {
                id: columns.next()?,
                endpoint: columns.next()?,
                endpoint_name: columns.next()?,
                topic: columns.next()?,
                key: columns.next()?,
                index: columns.next()?,
                name: columns.next()?,
                command: columns.next()?,
                state: columns.next::<StoredState>()?.shown(),
                attempt: columns.next()?,
                created_at_ms: columns.next()?,
                submitted_at_ms: columns.next()?,
                ended_at_ms: columns.next()?,
                priority: columns.next()?,
                cores: columns.next()?,
                progress: None,
            },
        })
    }
}

/// A result of a task that is still to be named; nothing in a row of a task without one.
pub(super) struct ResultRow(Option<Recorded>);

impl FromRow for ResultRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let Some(outcome) = columns.next()? else { return Ok(Self(None)) };
        let result = TaskResult {
            task_id: TaskId(Uuid::nil()),
            outcome,
            attempt: columns.next()?,
            exit_code: columns.next()?,
            signal: columns.next()?,
            reason: columns.next::<Option<String>>()?.map(Into::into),
            error: None,
            lost: None,
            stdout_omitted: columns.next()?,
            stderr_omitted: columns.next()?,
            accepted_at_ms: columns.next()?,
            started_at_ms: columns.next()?,
            ended_at_ms: columns.next()?,
            published_at_ms: columns.next()?,
            cpu_ms: columns.next()?,
            peak_memory_bytes: columns.next()?,
            removed_files: None,
            endpoint_id: columns.next()?,
            state_id: columns.next()?,
            stdout: Blob::default(),
            stderr: Blob::default(),
            value: None,
        };
        let (received_at_ms, duplicates) = (columns.next()?, columns.next()?);
        let result = TaskResult {
            stdout: Blob(columns.next()?),
            stderr: Blob(columns.next()?),
            value: columns.next::<Option<String>>()?.as_deref().map(parsed).transpose()?,
            removed_files: columns
                .next::<Option<String>>()?
                .map(|text| files(&text))
                .transpose()?,
            error: columns
                .next::<Option<String>>()?
                .as_deref()
                .map(parsed)
                .transpose()?
                .map(Box::new),
            ..result
        };
        Ok(Self(Some(Recorded { result, duplicates, received_at_ms })))
    }
}

impl ResultRow {
    /// The result, which is one of this task.
    pub(super) fn of(self, task_id: TaskId) -> Option<Recorded> {
        let recorded = self.0?;
        Some(Recorded { result: TaskResult { task_id, ..recorded.result }, ..recorded })
    }
}

column! {
    Priority, integer, value => priority(value)?;
    EndpointId, text, value => parsed(&value)?;
    StateId, text, value => parsed(&value)?;
    ServiceId, text, value => parsed(&value)?;
    Uuid, text, value => parsed(&value)?;
    StoredState, text, value => parsed(&value)?;
    Outcome, text, value => parsed(&value)?;
    TaskId, bytes, value => task_id(&value)?;
}

impl From<&EndpointId> for Value<'_> {
    fn from(id: &EndpointId) -> Self {
        id.to_string().into()
    }
}

impl From<EndpointId> for Value<'_> {
    fn from(id: EndpointId) -> Self {
        id.to_string().into()
    }
}

impl From<&StateId> for Value<'_> {
    fn from(id: &StateId) -> Self {
        id.to_string().into()
    }
}

impl<'a> From<&'a TaskId> for Value<'a> {
    fn from(id: &'a TaskId) -> Self {
        Value::Bytes(id.0.as_bytes())
    }
}

fn task_id(bytes: &[u8]) -> Result<TaskId> {
    let id = Uuid::from_slice(bytes);
    id.map(TaskId).map_err(|error| Error::Unreadable(format!("{bytes:?} is no id: {error}")))
}

/// Reads a value kept as text.
pub(super) fn parsed<T: FromStr>(text: &str) -> Result<T>
where
    T::Err: Display,
{
    text.parse().map_err(|error| Error::Unreadable(format!("'{text}': {error}")))
}

/// Reads the files of a sandbox, kept as JSON.
fn files(text: &str) -> Result<RemovedFiles> {
    serde_json::from_str(text)
        .map_err(|error| Error::Unreadable(format!("files of a sandbox '{text}': {error}")))
}

/// Reads a priority.
fn priority(rank: i64) -> Result<Priority> {
    let unknown = || Error::Unreadable(format!("{rank} is not a priority"));
    Priority::of_rank(rank).ok_or_else(unknown)
}

/// Reads a kind of queue.
pub(super) fn queue_kind(text: &str) -> Result<QueueKind> {
    [QueueKind::Classic, QueueKind::Quorum]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| Error::Unreadable(format!("'{text}' is not a kind of queue")))
}

/// Reads the payload of the task in a row, for an attempt.
pub(super) fn decoded(seq: i64, body: &str, attempt: u32) -> Result<Task> {
    let task: Task = serde_json::from_str(body)
        .map_err(|error| Error::Unreadable(format!("the task in row {seq}: {error}")))?;
    Ok(Task { attempt, ..task })
}

/// The payload of a task, as it is kept and published.
pub(super) fn encoded(task: &Task) -> Result<String> {
    serde_json::to_string(task).map_err(|error| Error::Unreadable(error.to_string()))
}
