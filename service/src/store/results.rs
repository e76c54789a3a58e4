//! Records results: the first of each attempt wins, later ones are counted.

use super::rows::parsed;
use super::{Result, Store, failed, json_list, query, signed};
use crate::api::types::TaskState;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::result::TaskResult;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use std::collections::BTreeMap;

/// How many rows one statement inserts: 17 values each.
const ROWS_PER_INSERT: usize = 50;

/// What became of a batch of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Attempts that had no result before.
    pub(crate) recorded: u64,
    /// Results that had come before.
    pub(crate) duplicates: u64,
    /// Results of tasks that were submitted by somebody else.
    pub(crate) strangers: u64,
}

/// What is known of a task that a result is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    seq: i64,
    /// The attempt whose result is the recorded one.
    recorded: Option<u32>,
    /// The attempts that have a result.
    attempts: Vec<u32>,
}

/// What a batch changes, in memory, before it is written.
#[derive(Default)]
struct Changes<'a> {
    strangers: Vec<(i64, &'a TaskResult)>,
    results: Vec<(i64, &'a TaskResult)>,
    duplicates: BTreeMap<(i64, u32), i64>,
    /// The result to record, by row of the task.
    states: BTreeMap<i64, &'a TaskResult>,
}

impl Store {
    /// Records results, all or none. The first result of an attempt is kept; a
    /// later attempt's is recorded over an earlier one's, never the other way
    /// round.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn record(&self, results: &[TaskResult], now_ms: u64) -> Result<Tally> {
        const DOING: &str = "recording results";
        let mut tx = self.begin(DOING).await?;
        let mut known = known(&mut tx, results).await?;
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM tasks")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        let changes = decide(results, &mut known, last);
        write(&mut tx, &changes, now_ms).await?;
        tx.commit().await.map_err(failed(DOING))?;
        Ok(Tally {
            recorded: changes.results.len() as u64,
            duplicates: changes.duplicates.values().map(|count| count.unsigned_abs()).sum(),
            strangers: changes.strangers.len() as u64,
        })
    }
}

/// Goes through a batch in order. `last` is the last row that `tasks` has.
fn decide<'a>(
    results: &'a [TaskResult],
    known: &mut BTreeMap<TaskId, Known>,
    mut last: i64,
) -> Changes<'a> {
    let mut changes = Changes::default();
    for result in results {
        let Attempt { task_id, attempt } = result.attempt();
        let task = known.entry(task_id).or_insert_with(|| {
            last += 1;
            changes.strangers.push((last, result));
            Known { seq: last, recorded: None, attempts: Vec::new() }
        });
        if task.attempts.contains(&attempt) {
            *changes.duplicates.entry((task.seq, attempt)).or_default() += 1;
            continue;
        }
        task.attempts.push(attempt);
        changes.results.push((task.seq, result));
        if task.recorded.is_none_or(|recorded| recorded < attempt) {
            task.recorded = Some(attempt);
            changes.states.insert(task.seq, result);
        }
    }
    changes
}

async fn known(
    db: &mut SqliteConnection,
    results: &[TaskResult],
) -> Result<BTreeMap<TaskId, Known>> {
    let ids = json_list(results.iter().map(|result| result.task_id))?;
    let rows: Vec<(String, i64, Option<u32>, Option<u32>)> = sqlx::query_as(
        "SELECT t.id, t.seq, t.attempt, r.attempt FROM tasks t LEFT JOIN results r ON r.task = \
         t.seq WHERE t.id IN (SELECT value FROM json_each(?))",
    )
    .bind(ids)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("looking up the tasks of results"))?;
    let mut known: BTreeMap<TaskId, Known> = BTreeMap::new();
    for (id, seq, recorded, attempt) in rows {
        let task = known.entry(parsed(&id)?).or_insert(Known { seq, recorded, attempts: vec![] });
        task.attempts.extend(attempt);
    }
    Ok(known)
}

async fn write(db: &mut SqliteConnection, changes: &Changes<'_>, now_ms: u64) -> Result<()> {
    const DOING: &str = "writing results";
    for rows in changes.strangers.chunks(ROWS_PER_INSERT) {
        insert_strangers(db, rows, now_ms).await.map_err(failed(DOING))?;
    }
    for rows in changes.results.chunks(ROWS_PER_INSERT) {
        insert_results(db, rows, now_ms).await.map_err(failed(DOING))?;
    }
    for ((task, attempt), count) in &changes.duplicates {
        sqlx::query(
            "UPDATE results SET duplicates = duplicates + ? WHERE task = ? AND attempt = ?",
        )
        .bind(count)
        .bind(task)
        .bind(attempt)
        .execute(&mut *db)
        .await
        .map_err(failed(DOING))?;
    }
    let states = json_list(changes.states.iter().map(|(seq, result)| {
        json!([seq, result.outcome.as_str(), result.attempt, signed(result.ended_at_ms)])
    }))?;
    sqlx::query(
        "UPDATE tasks SET state = new.value ->> 1, attempt = new.value ->> 2, \
         ended_at_ms = new.value ->> 3 FROM json_each(?) AS new WHERE seq = new.value ->> 0",
    )
    .bind(states)
    .execute(&mut *db)
    .await
    .map_err(failed(DOING))?;
    Ok(())
}

async fn insert_strangers(
    db: &mut SqliteConnection,
    rows: &[(i64, &TaskResult)],
    now_ms: u64,
) -> std::result::Result<(), sqlx::Error> {
    query("INSERT INTO tasks (seq, id, endpoint_id, state, created_at_ms) ")
        .push_values(rows, |mut values, (seq, result)| {
            values
                .push_bind(*seq)
                .push_bind(result.task_id.to_string())
                .push_bind(result.endpoint_id.to_string())
                .push_bind(TaskState::Done(result.outcome).as_str())
                .push_bind(signed(now_ms));
        })
        .build()
        .execute(db)
        .await?;
    Ok(())
}

async fn insert_results(
    db: &mut SqliteConnection,
    rows: &[(i64, &TaskResult)],
    now_ms: u64,
) -> std::result::Result<(), sqlx::Error> {
    query(
        "INSERT INTO results (task, attempt, outcome, exit_code, signal, reason, stdout_omitted, \
         stderr_omitted, started_at_ms, ended_at_ms, cpu_ms, peak_memory_bytes, endpoint_id, \
         state_id, received_at_ms, stdout, stderr) ",
    )
    .push_values(rows, |mut values, (seq, result)| {
        values
            .push_bind(*seq)
            .push_bind(result.attempt)
            .push_bind(result.outcome.as_str())
            .push_bind(result.exit_code)
            .push_bind(result.signal)
            .push_bind(result.reason.clone())
            .push_bind(signed(result.stdout_omitted))
            .push_bind(signed(result.stderr_omitted))
            .push_bind(result.started_at_ms.map(signed))
            .push_bind(signed(result.ended_at_ms))
            .push_bind(result.cpu_ms.map(signed))
            .push_bind(result.peak_memory_bytes.map(signed))
            .push_bind(result.endpoint_id.to_string())
            .push_bind(result.state_id.map(|id| id.to_string()))
            .push_bind(signed(now_ms))
            .push_bind(result.stdout.0.clone())
            .push_bind(result.stderr.0.clone());
    })
    .build()
    .execute(db)
    .await?;
    Ok(())
}
