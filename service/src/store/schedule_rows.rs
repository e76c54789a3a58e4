//! A schedule's row: how it is read and written.
//!
//! Touches the database only.

use super::engine::{Columns, Db, FromRow, values};
use super::{Error, Result};
use crate::model::{ScheduleSpec, ScheduleSummary};
use crate::schedule::ScheduleState;

/// A schedule as it is recorded.
pub(super) struct ScheduleRow {
    pub(super) name: String,
    pub(super) owner: Option<String>,
    spec: String,
    state: String,
    pub(super) due_at_ms: Option<u64>,
    broken: Option<String>,
    added_at_ms: u64,
}

/// The columns of a [`ScheduleRow`].
pub(super) const COLUMNS: &str = "name, owner, spec, state, due_at_ms, broken, added_at_ms";

impl FromRow for ScheduleRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            name: columns.next()?,
            owner: columns.next()?,
            spec: columns.next()?,
            state: columns.next()?,
            due_at_ms: columns.next()?,
            broken: columns.next()?,
            added_at_ms: columns.next()?,
        })
    }
}

impl ScheduleRow {
    /// Its rule with its task, and how far it is, or why that cannot be read.
    pub(super) fn parts(&self) -> std::result::Result<(ScheduleSpec, ScheduleState), String> {
        let spec = serde_json::from_str(&self.spec).map_err(|error| format!("spec: {error}"))?;
        let state = serde_json::from_str(&self.state).map_err(|error| format!("state: {error}"))?;
        Ok((spec, state))
    }

    /// The row as a listing has it, and how far the schedule is.
    pub(super) fn summary(self) -> (ScheduleSummary, Option<ScheduleState>) {
        let (spec, state, broken) = match self.parts() {
            Ok((spec, state)) => (Some(spec), Some(state), self.broken),
            Err(reason) => (None, None, Some(reason)),
        };
        let known = state.clone().unwrap_or_default();
        let summary = ScheduleSummary {
            name: self.name,
            owner: self.owner,
            spec,
            broken,
            added_at_ms: self.added_at_ms,
            due_at_ms: self.due_at_ms,
            paused_ms: known.paused_ms,
            pause_cause: known.pause_cause,
            tasks: known.tasks,
            running: known.running,
            failures: known.failures,
            last: None,
        };
        (summary, state)
    }
}

/// A moment as the rules of schedules have it.
pub(super) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The schedule of a name.
pub(super) fn find(db: &Db<'_>, name: &str) -> Result<Option<ScheduleRow>> {
    db.one(&format!("SELECT {COLUMNS} FROM schedules WHERE name = ?"), values![name])
}

/// Records how far a schedule is, and when to look at it again.
pub(super) fn save(
    db: &Db<'_>,
    name: &str,
    state: &ScheduleState,
    due_at_ms: Option<u64>,
) -> Result<()> {
    let update = "UPDATE schedules SET state = ?, due_at_ms = ? WHERE name = ?";
    db.run(update, values![encoded(state)?, due_at_ms, name]).map(drop)
}

/// A value as a column keeps it.
pub(super) fn encoded(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Unreadable(error.to_string()))
}
