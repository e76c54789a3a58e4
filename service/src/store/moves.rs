//! Tasks go from state to state, and how many of a submission are in each is
//! counted in the same transaction, by whoever changes their state.

use super::rows::parsed;
use super::{Result, failed, json_list, query};
use crate::api::types::TaskState;
use sqlx::QueryBuilder;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use std::collections::BTreeMap;

/// How many tasks of each submission have come to a state, or left it.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<(i64, TaskState), i64>);

impl Moves {
    /// So many tasks of a submission are new, in a state.
    pub(super) fn come(&mut self, submission: i64, to: TaskState, tasks: i64) {
        *self.0.entry((submission, to)).or_default() += tasks;
    }

    /// So many tasks have gone from one state to another. Those of strangers, which
    /// have no submission, are not counted.
    pub(super) fn gone(
        &mut self,
        submission: Option<i64>,
        from: TaskState,
        to: TaskState,
        tasks: i64,
    ) {
        let Some(submission) = submission else { return };
        self.come(submission, from, -tasks);
        self.come(submission, to, tasks);
    }

    /// Counts them.
    pub(super) async fn write(self, db: &mut SqliteConnection) -> Result<()> {
        let mut sql = query("");
        if self.push(&mut sql) {
            sql.build().execute(db).await.map_err(failed("counting a submission's tasks"))?;
        }
        Ok(())
    }

    /// Adds the statement that counts them; tells whether there is anything to count.
    pub(super) fn push(self, sql: &mut QueryBuilder<Sqlite>) -> bool {
        let moved: Vec<_> = self.0.into_iter().filter(|(_, tasks)| *tasks != 0).collect();
        if moved.is_empty() {
            return false;
        }
        sql.push("INSERT INTO counts (submission, state, tasks) ");
        sql.push_values(moved, |mut values, ((submission, state), tasks)| {
            values.push_bind(submission).push_bind(state.as_str()).push_bind(tasks);
        });
        sql.push(" ON CONFLICT (submission, state) DO UPDATE SET tasks = tasks + excluded.tasks;");
        true
    }
}

/// Moves those of the tasks in these rows that are in one of some states to
/// another, and counts them.
pub(super) async fn shift(
    db: &mut SqliteConnection,
    rows: &[i64],
    from: &[TaskState],
    to: TaskState,
    doing: &'static str,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (rows, from) = (json_list(rows)?, json_list(from)?);
    // The state from before is told by nothing but a look at it.
    let leaving: Vec<(Option<i64>, String, i64)> = sqlx::query_as(
        "SELECT submission, state, count(*) FROM tasks \
         WHERE seq IN (SELECT value FROM json_each(?1)) \
         AND state IN (SELECT value FROM json_each(?2)) GROUP BY submission, state",
    )
    .bind(&rows)
    .bind(&from)
    .fetch_all(&mut *db)
    .await
    .map_err(failed(doing))?;
    let mut moves = Moves::default();
    for (submission, state, tasks) in leaving {
        moves.gone(submission, parsed(&state)?, to, tasks);
    }
    moves.write(db).await?;
    sqlx::query(
        "UPDATE tasks SET state = ?3 WHERE seq IN (SELECT value FROM json_each(?1)) \
         AND state IN (SELECT value FROM json_each(?2))",
    )
    .bind(&rows)
    .bind(&from)
    .bind(to.as_str())
    .execute(&mut *db)
    .await
    .map_err(failed(doing))?;
    Ok(())
}
