//! Statements with what they return, rows as the database returns them, and what these
//! mean.

use super::{Error, Result, failed, unsigned};
use crate::model::{Recorded, TaskSummary};
use clutch_common::id::TaskId;
use clutch_common::task::blob::Blob;
use clutch_common::task::result::TaskResult;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, Row, ToSql};
use std::fmt::Display;
use std::str::FromStr;
use uuid::Uuid;

/// The columns of a [`SummaryRow`], from [`SUMMARY_TABLES`].
pub(super) const SUMMARY_COLUMNS: &str = "t.seq, t.id, n.id AS endpoint_id, e.name AS endpoint_name, \
     s.key, t.idx, t.name, t.command, t.state, t.attempt, t.created_at_ms, t.submitted_at_ms, \
     r.ended_at_ms";

/// Where [`SUMMARY_COLUMNS`] come from; `r` is the recorded result.
pub(super) const SUMMARY_TABLES: &str = " FROM tasks t LEFT JOIN names n ON n.n = t.endpoint \
     LEFT JOIN endpoints e ON e.id = n.id LEFT JOIN submissions s ON s.id = t.submission \
     LEFT JOIN results r ON r.n = (t.seq << 32) | t.attempt ";

/// The columns of a [`ResultRow`], from `results r` and [`RESULT_TABLES`].
pub(super) const RESULT_COLUMNS: &str = "r.n AS r_n, r.outcome AS r_outcome, \
     r.exit_code AS r_exit_code, r.signal AS r_signal, r.reason AS r_reason, \
     r.stdout_omitted AS r_stdout_omitted, r.stderr_omitted AS r_stderr_omitted, \
     r.started_at_ms AS r_started_at_ms, r.ended_at_ms AS r_ended_at_ms, r.cpu_ms AS r_cpu_ms, \
     r.peak_memory_bytes AS r_peak_memory_bytes, re.id AS r_endpoint_id, \
     rs.id AS r_state_id, r.received_at_ms AS r_received_at_ms, \
     r.duplicates AS r_duplicates, r.stdout AS r_stdout, r.stderr AS r_stderr, \
     r.value AS r_value";

/// What [`RESULT_COLUMNS`] come from besides `results r`.
pub(super) const RESULT_TABLES: &str = "LEFT JOIN names re ON re.n = r.endpoint \
     LEFT JOIN names rs ON rs.n = r.state ";

/// How many rows one statement inserts: a statement costs about as much as five rows,
/// and only a few sizes, so that all stay compiled.
const ROWS_AT_ONCE: [usize; 3] = [64, 8, 1];

/// Inserts rows in order. `into` is a table with the columns that get a value, as in
/// `tasks (seq, id)`; `bind` binds those of one row.
pub(super) fn insert<R>(
    db: &Connection,
    into: &str,
    mut rows: &[R],
    bind: impl Fn(&mut Values<'_, '_>, &R) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let columns = into.matches(',').count() + 1;
    let row = format!("({})", vec!["?"; columns].join(", "));
    for size in ROWS_AT_ONCE.into_iter().filter(|size| *size <= rows.len()) {
        let values = vec![row.as_str(); size].join(", ");
        let mut statement = db.prepare_cached(&format!("INSERT INTO {into} VALUES {values}"))?;
        while let Some((some, rest)) = rows.split_at_checked(size) {
            let mut values = Values { statement: &mut statement, bound: 0 };
            some.iter().try_for_each(|row| bind(&mut values, row))?;
            statement.raw_execute()?;
            rows = rest;
        }
    }
    Ok(())
}

/// The values of a statement, which are bound one after the other.
pub(super) struct Values<'a, 'db> {
    statement: &'a mut CachedStatement<'db>,
    bound: usize,
}

impl Values<'_, '_> {
    /// Binds the next value.
    pub(super) fn bind(&mut self, value: impl ToSql) -> rusqlite::Result<&mut Self> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)?;
        Ok(self)
    }
}

/// Runs a statement, and says how many rows it changed.
pub(super) fn run(db: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<usize> {
    db.prepare_cached(sql)?.execute(values)
}

/// Runs a statement with each of these values.
pub(super) fn run_all<V: Params>(
    db: &Connection,
    sql: &str,
    all: impl IntoIterator<Item = V>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    all.into_iter().try_for_each(|values| statement.execute(values).map(drop))
}

/// The first row that a statement returns, if there is one.
pub(super) fn one<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    db.prepare_cached(sql)?.query_row(values, read).optional()
}

/// All rows that a statement returns.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map(values, read)?.collect()
}

pub(super) struct SummaryRow {
    pub(super) seq: i64,
    id: Vec<u8>,
    endpoint_id: String,
    endpoint_name: Option<String>,
    key: Option<String>,
    pub(super) idx: Option<i64>,
    name: Option<String>,
    command: Option<String>,
    state: String,
    attempt: Option<u32>,
    created_at_ms: i64,
    submitted_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
}

impl SummaryRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get("seq")?,
            id: row.get("id")?,
            endpoint_id: row.get("endpoint_id")?,
            endpoint_name: row.get("endpoint_name")?,
            key: row.get("key")?,
            idx: row.get("idx")?,
            name: row.get("name")?,
            command: row.get("command")?,
            state: row.get("state")?,
            attempt: row.get("attempt")?,
            created_at_ms: row.get("created_at_ms")?,
            submitted_at_ms: row.get("submitted_at_ms")?,
            ended_at_ms: row.get("ended_at_ms")?,
        })
    }

    pub(super) fn summary(self) -> Result<TaskSummary> {
        Ok(TaskSummary {
            id: task_id(&self.id)?,
            endpoint: parsed(&self.endpoint_id)?,
            endpoint_name: self.endpoint_name,
            key: self.key,
            index: self.idx.map(unsigned),
            name: self.name,
            command: self.command,
            state: parsed(&self.state)?,
            attempt: self.attempt,
            created_at_ms: unsigned(self.created_at_ms),
            submitted_at_ms: self.submitted_at_ms.map(unsigned),
            ended_at_ms: self.ended_at_ms.map(unsigned),
        })
    }
}

pub(super) struct ResultRow {
    r_n: i64,
    r_outcome: String,
    r_exit_code: Option<i32>,
    r_signal: Option<i32>,
    r_reason: Option<String>,
    r_stdout_omitted: i64,
    r_stderr_omitted: i64,
    r_started_at_ms: Option<i64>,
    r_ended_at_ms: i64,
    r_cpu_ms: Option<i64>,
    r_peak_memory_bytes: Option<i64>,
    r_endpoint_id: String,
    r_state_id: Option<String>,
    r_received_at_ms: i64,
    r_duplicates: i64,
    r_stdout: Vec<u8>,
    r_stderr: Vec<u8>,
    r_value: Option<String>,
}

impl ResultRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            r_n: row.get("r_n")?,
            r_outcome: row.get("r_outcome")?,
            r_exit_code: row.get("r_exit_code")?,
            r_signal: row.get("r_signal")?,
            r_reason: row.get("r_reason")?,
            r_stdout_omitted: row.get("r_stdout_omitted")?,
            r_stderr_omitted: row.get("r_stderr_omitted")?,
            r_started_at_ms: row.get("r_started_at_ms")?,
            r_ended_at_ms: row.get("r_ended_at_ms")?,
            r_cpu_ms: row.get("r_cpu_ms")?,
            r_peak_memory_bytes: row.get("r_peak_memory_bytes")?,
            r_endpoint_id: row.get("r_endpoint_id")?,
            r_state_id: row.get("r_state_id")?,
            r_received_at_ms: row.get("r_received_at_ms")?,
            r_duplicates: row.get("r_duplicates")?,
            r_stdout: row.get("r_stdout")?,
            r_stderr: row.get("r_stderr")?,
            r_value: row.get("r_value")?,
        })
    }

    pub(super) fn recorded(self, task_id: TaskId) -> Result<Recorded> {
        Ok(Recorded {
            result: TaskResult {
                task_id,
                attempt: attempt(self.r_n),
                outcome: parsed(&self.r_outcome)?,
                exit_code: self.r_exit_code,
                signal: self.r_signal,
                reason: self.r_reason.map(Into::into),
                lost: None,
                value: self.r_value.as_deref().map(parsed).transpose()?,
                stdout: Blob(self.r_stdout),
                stdout_omitted: unsigned(self.r_stdout_omitted),
                stderr: Blob(self.r_stderr),
                stderr_omitted: unsigned(self.r_stderr_omitted),
                started_at_ms: self.r_started_at_ms.map(unsigned),
                ended_at_ms: unsigned(self.r_ended_at_ms),
                cpu_ms: self.r_cpu_ms.map(unsigned),
                peak_memory_bytes: self.r_peak_memory_bytes.map(unsigned),
                endpoint_id: parsed(&self.r_endpoint_id)?,
                state_id: self.r_state_id.as_deref().map(parsed).transpose()?,
            },
            duplicates: unsigned(self.r_duplicates),
            received_at_ms: unsigned(self.r_received_at_ms),
        })
    }
}

/// The last row that `tasks` has.
pub(super) fn last(db: &Connection, doing: &'static str) -> Result<i64> {
    let last = one(db, "SELECT max(seq) FROM tasks", [], |row| row.get::<_, Option<i64>>(0));
    Ok(last.map_err(failed(doing))?.flatten().unwrap_or(0))
}

/// Reads a value kept as text.
pub(super) fn parsed<T: FromStr>(text: &str) -> Result<T>
where
    T::Err: Display,
{
    text.parse().map_err(|error| Error::Unreadable(format!("'{text}': {error}")))
}

/// A task's id, to be kept or looked for.
pub(super) fn id(task: &TaskId) -> &[u8] {
    task.0.as_bytes()
}

/// A task's id, as it is kept.
pub(super) fn task_id(bytes: &[u8]) -> Result<TaskId> {
    let id = Uuid::from_slice(bytes);
    id.map(TaskId).map_err(|error| Error::Unreadable(format!("{bytes:?} is no id: {error}")))
}

/// The row of an attempt's result.
pub(super) fn result_row(task: i64, attempt: u32) -> i64 {
    (task << 32) | i64::from(attempt)
}

/// The attempt whose result is in a row.
pub(super) fn attempt(row: i64) -> u32 {
    (row & i64::from(u32::MAX)) as u32
}
