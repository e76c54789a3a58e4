//! Records results: the first of each attempt wins, later ones are counted. What
//! endpoints say of themselves is recorded along with them.

use super::losses::{self, Losses};
use super::moves::Moves;
use super::rows::{self, parsed};
use super::{Result, Store, doubts, failed, json_list, query, signed, states};
use crate::api::types::TaskState;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::result::TaskResult;
use clutch_common::wire::Presence;
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
    submission: Option<i64>,
    state: TaskState,
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
    moves: Moves,
}

impl Store {
    /// Records results and then presences, all or none; until they are
    /// [durable](Store::durable), a power cut may undo that. The first result of
    /// an attempt is kept; a later attempt's is recorded over an earlier one's,
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
        tally.add(&self.conclude(&mut tx, &ends, now_ms).await?);
        let (losses, interrupted) = losses::record(&mut tx, &lost).await?;
        tally.losses = losses;
        let interrupted: Vec<&TaskResult> = interrupted.iter().collect();
        tally.add(&self.conclude(&mut tx, &interrupted, now_ms).await?);
        for presence in presences {
            tally.states_changed |= states::hear(&mut tx, presence, now_ms).await?;
        }
        self.record_only(tx, DOING).await?;
        Ok(tally)
    }

    /// Records results that are the end of their attempts.
    async fn conclude<'a>(
        &self,
        db: &mut SqliteConnection,
        results: &[&'a TaskResult],
        now_ms: u64,
    ) -> Result<Changes<'a>> {
        if results.is_empty() {
            return Ok(Changes::default());
        }
        let mut known = known(db, results).await?;
        let all_known = results.iter().all(|result| known.contains_key(&result.task_id));
        let last = if all_known { 0 } else { super::last_row(db, "recording results").await? };
        let mut changes = decide(results, &mut known, last);
        let mut rows = Vec::with_capacity(changes.results.len());
        for (seq, result) in &changes.results {
            let endpoint = self.names.number(db, result.endpoint_id).await?;
            let state = match result.state_id {
                Some(state) => Some(self.names.number(db, state).await?),
                None => None,
            };
            rows.push(Row { task: *seq, endpoint, state, result });
        }
        for (seq, result) in &changes.strangers {
            let endpoint = self.names.number(db, result.endpoint_id).await?;
            let state = TaskState::Done(result.outcome);
            insert_stranger(db, *seq, endpoint, result.task_id, state, now_ms).await?;
        }
        write(db, &changes, &rows, now_ms).await?;
        settle(db, &mut changes).await?;
        Ok(changes)
    }
}

/// A result, and where it goes.
struct Row<'a> {
    task: i64,
    endpoint: i64,
    state: Option<i64>,
    result: &'a TaskResult,
}

/// Goes through a batch in order. `last` is the last row that `tasks` has, needed
/// where a task is not known.
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
            let state = TaskState::Done(result.outcome);
            let (submission, attempts) = (None, Vec::new());
            Known { seq: last, submission, state, recorded: None, current: 1, attempts }
        });
        if task.attempts.contains(&attempt) {
            *changes.duplicates.entry((task.seq, attempt)).or_default() += 1;
            continue;
        }
        task.attempts.push(attempt);
        changes.results.push((task.seq, result));
        let newest = task.recorded.is_none_or(|recorded| recorded < attempt);
        if newest && attempt >= task.current {
            let state = TaskState::Done(result.outcome);
            changes.moves.gone(task.submission, task.state, state, 1);
            (task.recorded, task.state) = (Some(attempt), state);
            changes.states.insert(task.seq, result);
        }
    }
    changes
}

async fn known(
    db: &mut SqliteConnection,
    results: &[&TaskResult],
) -> Result<BTreeMap<TaskId, Known>> {
    let ids = rows::id_list(results.iter().map(|result| result.task_id))?;
    type Found = (Vec<u8>, i64, Option<i64>, String, Option<u32>, u32, Option<i64>);
    let found: Vec<Found> = sqlx::query_as(
        "SELECT t.id, t.seq, t.submission, t.state, t.attempt, t.current_attempt, r.n \
         FROM tasks t LEFT JOIN results r \
         ON r.n BETWEEN t.seq << 32 AND (t.seq << 32) + 4294967295 \
         WHERE t.id IN (SELECT unhex(value) FROM json_each(?))",
    )
    .bind(ids)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("looking up the tasks of results"))?;
    let mut known: BTreeMap<TaskId, Known> = BTreeMap::new();
    for (id, seq, submission, state, recorded, current, row) in found {
        let state = parsed(&state)?;
        let fresh = Known { seq, submission, state, recorded, current, attempts: vec![] };
        let task = known.entry(rows::task_id(&id)?).or_insert(fresh);
        task.attempts.extend(row.map(rows::attempt));
    }
    Ok(known)
}

async fn write(
    db: &mut SqliteConnection,
    changes: &Changes<'_>,
    rows: &[Row<'_>],
    now_ms: u64,
) -> Result<()> {
    const DOING: &str = "writing results";
    for rows in rows.chunks(ROWS_PER_INSERT) {
        insert_results(db, rows, now_ms).await.map_err(failed(DOING))?;
    }
    for ((task, attempt), count) in &changes.duplicates {
        sqlx::query("UPDATE results SET duplicates = duplicates + ? WHERE n = ?")
            .bind(count)
            .bind(rows::result_row(*task, *attempt))
            .execute(&mut *db)
            .await
            .map_err(failed(DOING))?;
    }
    Ok(())
}

/// Has the tasks at their ends, counts them, and ends all doubt about them: several
/// statements that go to the database as one, as each takes two turns of threads.
async fn settle(db: &mut SqliteConnection, changes: &mut Changes<'_>) -> Result<()> {
    if changes.states.is_empty() {
        return Ok(());
    }
    let mut alike: BTreeMap<(TaskState, u32), Vec<i64>> = BTreeMap::new();
    for (seq, result) in &changes.states {
        let state = TaskState::Done(result.outcome);
        alike.entry((state, result.attempt)).or_default().push(*seq);
    }
    let mut sql = query("");
    for ((state, attempt), tasks) in alike {
        sql.push("UPDATE tasks SET state = ").push_bind(state.as_str());
        sql.push(", attempt = ").push_bind(attempt);
        sql.push(" WHERE seq IN (SELECT value FROM json_each(");
        sql.push_bind(json_list(tasks)?).push("));");
    }
    std::mem::take(&mut changes.moves).push(&mut sql);
    doubts::push_end(&mut sql, changes.states.keys())?;
    sql.build().execute(db).await.map_err(failed("recording the ends of tasks"))?;
    Ok(())
}

async fn insert_stranger(
    db: &mut SqliteConnection,
    seq: i64,
    endpoint: i64,
    id: TaskId,
    state: TaskState,
    now_ms: u64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO tasks (seq, id, endpoint, state, created_at_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(seq)
    .bind(id.0.as_bytes().as_slice())
    .bind(endpoint)
    .bind(state.as_str())
    .bind(signed(now_ms))
    .execute(db)
    .await
    .map_err(failed("recording a task that somebody else submitted"))?;
    Ok(())
}

async fn insert_results(
    db: &mut SqliteConnection,
    rows: &[Row<'_>],
    now_ms: u64,
) -> std::result::Result<(), sqlx::Error> {
    query(
        "INSERT INTO results (n, outcome, exit_code, signal, reason, stdout_omitted, \
         stderr_omitted, started_at_ms, ended_at_ms, cpu_ms, peak_memory_bytes, endpoint, state, \
         received_at_ms, stdout, stderr, value) ",
    )
    .push_values(rows, |mut values, Row { task, endpoint, state, result }| {
        values
            .push_bind(rows::result_row(*task, result.attempt))
            .push_bind(result.outcome.as_str())
            .push_bind(result.exit_code)
            .push_bind(result.signal)
            .push_bind(result.reason.as_deref())
            .push_bind(signed(result.stdout_omitted))
            .push_bind(signed(result.stderr_omitted))
            .push_bind(result.started_at_ms.map(signed))
            .push_bind(signed(result.ended_at_ms))
            .push_bind(result.cpu_ms.map(signed))
            .push_bind(result.peak_memory_bytes.map(signed))
            .push_bind(*endpoint)
            .push_bind(*state)
            .push_bind(signed(now_ms))
            .push_bind(result.stdout.0.as_slice())
            .push_bind(result.stderr.0.as_slice())
            .push_bind(result.value.as_ref().map(|value| value.text()));
    })
    .build()
    .execute(db)
    .await?;
    Ok(())
}
