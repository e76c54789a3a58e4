//! Moves tasks from state to state. The number of a submission's tasks in each state is
//! kept in the same transaction.

use super::Result;
use super::engine::{Db, values};
use super::stored_state::StoredState;
use std::collections::BTreeMap;

/// How many tasks of each submission came to a state, or left it.
#[derive(Default)]
pub(super) struct StateCounts(BTreeMap<(i64, StoredState), i64>);

impl StateCounts {
    /// Counts tasks of a submission that are new, in a state.
    pub(super) fn add(&mut self, submission: i64, to: StoredState, tasks: i64) {
        *self.0.entry((submission, to)).or_default() += tasks;
    }

    /// Counts a task that went from one state to another. An external task has no
    /// submission, and is not counted.
    pub(super) fn moved(&mut self, submission: Option<i64>, from: StoredState, to: StoredState) {
        let Some(submission) = submission else { return };
        self.add(submission, from, -1);
        self.add(submission, to, 1);
    }

    /// Adds these to the recorded counts.
    pub(super) fn write(&self, db: &Db<'_>) -> Result<()> {
        for ((submission, state), tasks) in self.0.iter().filter(|(_, tasks)| **tasks != 0) {
            let count = "INSERT INTO counts (submission, state, tasks) VALUES (?, ?, ?) \
                 ON CONFLICT (submission, state) DO UPDATE SET tasks = counts.tasks + excluded.tasks";
            db.run(count, values![submission, state.as_str(), tasks])?;
        }
        Ok(())
    }
}

/// Moves the tasks in these rows to a state, those of them that are in one of the states
/// `from`, if the attempt named is their current one.
pub(super) fn set_state(
    db: &Db<'_>,
    tasks: &[(i64, u32)],
    from: &[StoredState],
    to: StoredState,
) -> Result<()> {
    move_tasks(db, tasks, from, to, |_| ())
}

/// The same; calls `moved` with the row of each that was moved.
pub(super) fn move_tasks(
    db: &Db<'_>,
    tasks: &[(i64, u32)],
    from: &[StoredState],
    to: StoredState,
    mut moved: impl FnMut(i64),
) -> Result<()> {
    let mut counts = StateCounts::default();
    let mut find =
        db.prepare("SELECT submission, state, current_attempt FROM tasks WHERE seq = ?")?;
    let mut update = db.prepare("UPDATE tasks SET state = ? WHERE seq = ?")?;
    for (task, attempt) in tasks {
        let found: Option<(Option<i64>, StoredState, u32)> = find.first(values![task])?;
        let Some((submission, state, current)) = found else { continue };
        // At once: the same task may come again.
        if from.contains(&state) && *attempt == current {
            update.execute(values![to.as_str(), task])?;
            counts.moved(submission, state, to);
            moved(*task);
        }
    }
    counts.write(db)
}
