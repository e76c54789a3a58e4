//! Rows as the database returns them, and what they mean.

use super::{Error, Result, json_list, unsigned};
use crate::api::types::{Recorded, TaskSummary};
use clutch_common::blob::Blob;
use clutch_common::id::TaskId;
use clutch_common::result::TaskResult;
use sqlx::FromRow;
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

#[derive(FromRow)]
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

#[derive(FromRow)]
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
    pub(super) fn recorded(self, task_id: TaskId) -> Result<Recorded> {
        Ok(Recorded {
            result: TaskResult {
                task_id,
                attempt: attempt(self.r_n),
                outcome: parsed(&self.r_outcome)?,
                exit_code: self.r_exit_code,
                signal: self.r_signal,
                reason: self.r_reason,
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

/// Reads a value kept as text.
pub(super) fn parsed<T: FromStr>(text: &str) -> Result<T>
where
    T::Err: Display,
{
    text.parse().map_err(|error| Error::Unreadable(format!("'{text}': {error}")))
}

/// A task's id, as it is kept.
pub(super) fn task_id(bytes: &[u8]) -> Result<TaskId> {
    let id = Uuid::from_slice(bytes);
    id.map(TaskId).map_err(|error| Error::Unreadable(format!("{bytes:?} is no id: {error}")))
}

/// Ids as one bound value, for `IN (SELECT unhex(value) FROM json_each(?))`.
pub(super) fn id_list(ids: impl IntoIterator<Item = TaskId>) -> Result<String> {
    json_list(ids.into_iter().map(|id| id.0.simple().to_string()))
}

/// The row of an attempt's result.
pub(super) fn result_row(task: i64, attempt: u32) -> i64 {
    (task << 32) | i64::from(attempt)
}

/// The attempt whose result is in a row.
pub(super) fn attempt(row: i64) -> u32 {
    (row & i64::from(u32::MAX)) as u32
}
