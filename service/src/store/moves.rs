//! Tasks go from state to state, and how many of a submission are in each is
//! counted in the same transaction, by whoever changes their state.

use super::rows::{parsed, run};
use super::{Result, failed};
use crate::model::TaskState;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeMap;

/// How many tasks of each submission have come to a state, or left it.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<(i64, TaskState), i64>);

impl Moves {
    /// So many tasks of a submission are new, in a state.
    pub(super) fn come(&mut self, submission: i64, to: TaskState, tasks: i64) {
        *self.0.entry((submission, to)).or_default() += tasks;
    }

    /// A task has gone from one state to another. Those of strangers, which have no
    /// submission, are not counted.
    pub(super) fn gone(&mut self, submission: Option<i64>, from: TaskState, to: TaskState) {
        let Some(submission) = submission else { return };
        self.come(submission, from, -1);
        self.come(submission, to, 1);
    }

    /// Counts them.
    pub(super) fn write(&self, db: &Connection) -> Result<()> {
        for ((submission, state), tasks) in self.0.iter().filter(|(_, tasks)| **tasks != 0) {
            let count = "INSERT INTO counts (submission, state, tasks) VALUES (?, ?, ?) \
                 ON CONFLICT (submission, state) DO UPDATE SET tasks = tasks + excluded.tasks";
            run(db, count, params![submission, state.as_str(), tasks])
                .map_err(failed("counting a submission's tasks"))?;
        }
        Ok(())
    }
}

/// Moves those of the tasks in these rows that are in one of some states to
/// another, and counts them.
pub(super) fn shift(
    db: &Connection,
    tasks: &[i64],
    from: &[TaskState],
    to: TaskState,
    doing: &'static str,
) -> Result<()> {
    let mut moves = Moves::default();
    let prepare = |sql| db.prepare_cached(sql).map_err(failed(doing));
    let mut find = prepare("SELECT submission, state FROM tasks WHERE seq = ?")?;
    let mut update = prepare("UPDATE tasks SET state = ? WHERE seq = ?")?;
    for task in tasks {
        let found = find.query_row([task], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
        let Some((submission, state)) = found.optional().map_err(failed(doing))? else { continue };
        let state = parsed(&state)?;
        // At once: the same task may come again.
        if from.contains(&state) {
            update.execute(params![to.as_str(), task]).map_err(failed(doing))?;
            moves.gone(submission, state, to);
        }
    }
    moves.write(db)
}
