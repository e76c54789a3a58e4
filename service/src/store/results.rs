//! Records results: the first of each attempt wins, later ones are counted. What
//! endpoints say of themselves is recorded along with them.

use super::losses::{self, Losses};
use super::rows::parsed;
use super::{Result, Store, doubts, failed, json_list, query, signed, states};
use crate::api::types::TaskState;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::result::TaskResult;
use clutch_common::wire::Presence;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use std::collections::BTreeMap;

/// How many rows one statement inserts: 18 values each.
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
    /// What became of attempts that nobody may have.
    pub(crate) losses: Losses,
    /// An endpoint's states are not what they were.
    pub(crate) states_changed: bool,
}

impl Tally {
    /// Whether there is something to be asked for, submitted again or watched.
    pub(crate) fn is_news(&self) -> bool {
        self.states_changed || self.losses.doubted + self.losses.resubmitted > 0
    }

    fn add(&mut self, changes: &Changes<'_>) {
        self.recorded += changes.results.len() as u64;
        self.duplicates +=
            changes.duplicates.values().map(|count| count.unsigned_abs()).sum::<u64>();
        self.strangers += changes.strangers.len() as u64;
    }
}

/// What is known of a task that a result is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    seq: i64,
    /// The attempt whose result is the recorded one.
    recorded: Option<u32>,
    /// The attempt that is under way: an earlier one's result is not the task's
    /// end.
    current: u32,
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
    /// Records results and then presences, all or none. The first result of an
    /// attempt is kept; a later attempt's is recorded over an earlier one's,
    /// never the other way round.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn record(
        &self,
        results: &[TaskResult],
        presences: &[Presence],
        now_ms: u64,
    ) -> Result<Tally> {
        const DOING: &str = "recording results";
        let mut tx = self.begin(DOING).await?;
        let mut tally = Tally::default();
        let (ends, lost): (Vec<&TaskResult>, Vec<&TaskResult>) =
            results.iter().partition(|result| result.lost.is_none());
        tally.add(&conclude(&mut tx, &ends, now_ms).await?);
        let (losses, interrupted) = losses::record(&mut tx, &lost).await?;
        tally.losses = losses;
        let interrupted: Vec<&TaskResult> = interrupted.iter().collect();
        tally.add(&conclude(&mut tx, &interrupted, now_ms).await?);
        for presence in presences {
            tally.states_changed |= states::hear(&mut tx, presence, now_ms).await?;
        }
        tx.commit().await.map_err(failed(DOING))?;
        Ok(tally)
    }
}

/// Records results that are the end of their attempts.
async fn conclude<'a>(
    db: &mut SqliteConnection,
    results: &[&'a TaskResult],
    now_ms: u64,
) -> Result<Changes<'a>> {
    if results.is_empty() {
        return Ok(Changes::default());
    }
    let mut known = known(db, results).await?;
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM tasks")
        .fetch_one(&mut *db)
        .await
        .map_err(failed("recording results"))?;
    let changes = decide(results, &mut known, last);
    write(db, &changes, now_ms).await?;
    Ok(changes)
}

/// Goes through a batch in order. `last` is the last row that `tasks` has.
fn decide<'a>(
    results: &[&'a TaskResult],
    known: &mut BTreeMap<TaskId, Known>,
    mut last: i64,
) -> Changes<'a> {
    let mut changes = Changes::default();
    for &result in results {
        let Attempt { task_id, attempt } = result.attempt();
        let task = known.entry(task_id).or_insert_with(|| {
            last += 1;
            changes.strangers.push((last, result));
            Known { seq: last, recorded: None, current: 1, attempts: Vec::new() }
        });
        if task.attempts.contains(&attempt) {
            *changes.duplicates.entry((task.seq, attempt)).or_default() += 1;
            continue;
        }
        task.attempts.push(attempt);
        changes.results.push((task.seq, result));
        let newest = task.recorded.is_none_or(|recorded| recorded < attempt);
        if newest && attempt >= task.current {
            task.recorded = Some(attempt);
            changes.states.insert(task.seq, result);
        }
    }
    changes
}

async fn known(
    db: &mut SqliteConnection,
    results: &[&TaskResult],
) -> Result<BTreeMap<TaskId, Known>> {
    let ids = json_list(results.iter().map(|result| result.task_id))?;
    type Row = (String, i64, Option<u32>, u32, Option<u32>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT t.id, t.seq, t.attempt, t.current_attempt, r.attempt FROM tasks t LEFT JOIN results r ON r.task = \
         t.seq WHERE t.id IN (SELECT value FROM json_each(?))",
    )
    .bind(ids)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("looking up the tasks of results"))?;
    let mut known: BTreeMap<TaskId, Known> = BTreeMap::new();
    for (id, seq, recorded, current, attempt) in rows {
        let fresh = Known { seq, recorded, current, attempts: vec![] };
        let task = known.entry(parsed(&id)?).or_insert(fresh);
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
    doubts::end(db, changes.states.keys()).await
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
         state_id, received_at_ms, stdout, stderr, value) ",
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
            .push_bind(result.stderr.0.clone())
            .push_bind(result.value.as_ref().map(|value| value.text().to_owned()));
    })
    .build()
    .execute(db)
    .await?;
    Ok(())
}
