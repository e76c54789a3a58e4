//! Records results: the first of each attempt wins, later ones are counted. What
//! endpoints say of themselves is recorded along with them.

use super::doubts::Once;
use super::losses::{self, Losses};
use super::moves::Moves;
use super::rows::{self, parsed, run, run_all};
use super::states::{self, Word};
use super::{Result, Store, Write, ages, doubts, failed, signed};
use crate::model::TaskState;
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::result::TaskResult;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is recorded in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Results.
    pub(crate) results: Vec<TaskResult>,
    /// What instances said of themselves, after they sent these results.
    pub(crate) words: Vec<Word>,
    /// Whether something came with these that was damaged, or did not come: what was in
    /// it is to be asked for.
    pub(crate) lost: bool,
    /// How many commits states had seen, by what came after their last word.
    pub(crate) ages: BTreeMap<(EndpointId, StateId), u64>,
}

/// What became of a batch of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Attempts that had no result before.
    pub(crate) recorded: u64,
    /// Results that had come before.
    pub(crate) duplicates: u64,
    /// Results of tasks that were submitted by somebody else.
    pub(crate) strangers: u64,
    /// Of these, those from endpoints that this service did not provision.
    pub(crate) foreign: u64,
    /// Results that contradict the records, which are not recorded.
    pub(crate) refused: u64,
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
        self.foreign += changes.foreign;
        self.refused += changes.refused;
    }
}

/// What is known of a task that a result is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    seq: i64,
    submission: Option<i64>,
    /// The number of the endpoint that it was given to.
    endpoint: i64,
    state: TaskState,
    /// The attempt whose result is the recorded one.
    recorded: Option<u32>,
    /// The attempt that is under way: an earlier one's result is not the task's
    /// end.
    current: u32,
    /// The attempts that have a result.
    attempts: Vec<u32>,
}

impl Known {
    /// Whether an endpoint may answer for an attempt. Which attempts there are of a task
    /// that was submitted by another is not known.
    fn was_given(&self, endpoint: i64, attempt: u32) -> bool {
        let given = self.submission.is_none() || (1..=self.current).contains(&attempt);
        self.endpoint == endpoint && given
    }
}

/// What a batch changes, in memory, before it is written.
#[derive(Default)]
struct Changes<'a> {
    strangers: Vec<(i64, &'a TaskResult)>,
    /// How many of these are of endpoints that were not provisioned here.
    foreign: u64,
    results: Vec<(i64, &'a TaskResult)>,
    duplicates: BTreeMap<(i64, u32), i64>,
    /// Of attempts that the endpoint was not given.
    refused: u64,
    first_refused: Option<(i64, &'a TaskResult)>,
    /// The result to record, by row of the task.
    states: BTreeMap<i64, &'a TaskResult>,
    moves: Moves,
}

impl Store {
    /// Records results and then presences, all or none; until they are
    /// [durable](Store::durable), a power cut may undo that. The first result of
    /// an attempt is kept; a later attempt's is recorded over an earlier one's,
    /// never the other way round. `recorded` is called once readers see them, also if
    /// this future is dropped before that.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn record(
        &self,
        batch: Arc<Batch>,
        now_ms: u64,
        recorded: impl FnOnce(&Tally) + Send + 'static,
    ) -> Result<Tally> {
        let job = move |write: &mut Write<'_>| record(write, &batch, now_ms);
        self.record_only("recording results", job, recorded).await
    }
}

fn record(write: &mut Write<'_>, batch: &Batch, now_ms: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let (ends, lost): (Vec<&TaskResult>, Vec<&TaskResult>) =
        batch.results.iter().partition(|result| result.lost.is_none());
    tally.add(&conclude(write, &ends, now_ms)?);
    let (losses, interrupted) = losses::record(&write.db, &lost)?;
    tally.losses = losses;
    let interrupted: Vec<&TaskResult> = interrupted.iter().collect();
    tally.add(&conclude(write, &interrupted, now_ms)?);
    let mut once = Once::default();
    for word in &batch.words {
        tally.states_changed |= states::hear(&write.db, word, &mut once, now_ms)?;
    }
    ages::grow(&write.db, &batch.ages)?;
    if batch.lost {
        let in_doubt = doubts::doubt_everywhere(&write.db)?;
        tally.losses.doubted += in_doubt;
        tracing::warn!(
            in_doubt,
            "messages from endpoints were damaged or are missing: every task that is not answered \
             is asked for"
        );
    }
    Ok(tally)
}

/// Records results that are the end of their attempts.
fn conclude<'a>(
    write: &mut Write<'_>,
    results: &[&'a TaskResult],
    now_ms: u64,
) -> Result<Changes<'a>> {
    const DOING: &str = "writing results";
    if results.is_empty() {
        return Ok(Changes::default());
    }
    let db = &write.db;
    let mut known = known(db, results)?;
    let all_known = results.iter().all(|result| known.contains_key(&result.task_id));
    let last = if all_known { 0 } else { rows::last(db, DOING)? };
    let names = &mut *write.names;
    let numbered: Vec<(i64, &TaskResult)> = results
        .iter()
        .map(|result| Ok((names.number(db, result.endpoint_id)?, *result)))
        .collect::<Result<_>>()?;
    let mut changes = decide(&numbered, &mut known, last);
    for (_, result) in &changes.strangers {
        let provisioned = is_provisioned(db, result.endpoint_id).map_err(failed(DOING))?;
        changes.foreign += u64::from(!provisioned);
    }
    if let Some((_, result)) = changes.first_refused {
        tracing::warn!(
            task = %result.attempt(),
            endpoint = %result.endpoint_id,
            refused = changes.refused,
            "results are not recorded: their endpoint was not given these attempts"
        );
    }
    for (task, result) in &changes.strangers {
        let endpoint = write.names.number(db, result.endpoint_id)?;
        insert_stranger(db, *task, endpoint, result, now_ms).map_err(failed(DOING))?;
    }
    let mut rows = Vec::with_capacity(changes.results.len());
    for (task, result) in &changes.results {
        let endpoint = write.names.number(db, result.endpoint_id)?;
        let state = result.state_id.map(|state| write.names.number(db, state)).transpose()?;
        rows.push(Row { task: *task, endpoint, state, result });
    }
    insert(db, &rows, now_ms).map_err(failed(DOING))?;
    let counted = changes
        .duplicates
        .iter()
        .map(|((task, attempt), count)| (count, rows::result_row(*task, *attempt)));
    let update = "UPDATE results SET duplicates = duplicates + ? WHERE n = ?";
    run_all(db, update, counted).map_err(failed(DOING))?;
    let ended = changes
        .states
        .iter()
        .map(|(task, result)| (TaskState::Done(result.outcome).as_str(), result.attempt, task));
    let update = "UPDATE tasks SET state = ?, attempt = ? WHERE seq = ?";
    run_all(db, update, ended).map_err(failed(DOING))?;
    changes.moves.write(db)?;
    doubts::end(db, changes.states.keys())?;
    Ok(changes)
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
    results: &[(i64, &'a TaskResult)],
    known: &mut BTreeMap<TaskId, Known>,
    mut last: i64,
) -> Changes<'a> {
    let mut changes = Changes::default();
    for &(endpoint, result) in results {
        let Attempt { task_id, attempt } = result.attempt();
        let task = known.entry(task_id).or_insert_with(|| {
            last += 1;
            changes.strangers.push((last, result));
            let state = TaskState::Done(result.outcome);
            let (submission, attempts) = (None, Vec::new());
            Known { seq: last, submission, endpoint, state, recorded: None, current: 1, attempts }
        });
        if !task.was_given(endpoint, attempt) {
            changes.refused += 1;
            changes.first_refused.get_or_insert((endpoint, result));
            continue;
        }
        if task.attempts.contains(&attempt) {
            *changes.duplicates.entry((task.seq, attempt)).or_default() += 1;
            continue;
        }
        task.attempts.push(attempt);
        changes.results.push((task.seq, result));
        let newest = task.recorded.is_none_or(|recorded| recorded < attempt);
        if newest && attempt >= task.current {
            let state = TaskState::Done(result.outcome);
            changes.moves.gone(task.submission, task.state, state);
            (task.recorded, task.state) = (Some(attempt), state);
            changes.states.insert(task.seq, result);
        }
    }
    changes
}

fn known(db: &Connection, results: &[&TaskResult]) -> Result<BTreeMap<TaskId, Known>> {
    const DOING: &str = "looking up the tasks of results";
    const FIND: &str = "SELECT t.seq, t.submission, t.endpoint, t.state, t.attempt, t.current_attempt, r.n \
         FROM tasks t LEFT JOIN results r \
         ON r.n BETWEEN t.seq << 32 AND (t.seq << 32) + 4294967295 WHERE t.id = ?";
    type Found = (i64, Option<i64>, i64, String, Option<u32>, u32, Option<i64>);
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Found> {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
            row.get(6)?,
        ))
    };
    let mut find = db.prepare_cached(FIND).map_err(failed(DOING))?;
    let mut known: BTreeMap<TaskId, Known> = BTreeMap::new();
    for result in results {
        if known.contains_key(&result.task_id) {
            continue;
        }
        let found = find.query_map([rows::id(&result.task_id)], read).map_err(failed(DOING))?;
        for row in found {
            let (seq, submission, endpoint, state, recorded, current, row) =
                row.map_err(failed(DOING))?;
            let state = parsed(&state)?;
            let fresh =
                Known { seq, submission, endpoint, state, recorded, current, attempts: vec![] };
            let task = known.entry(result.task_id).or_insert(fresh);
            task.attempts.extend(row.map(rows::attempt));
        }
    }
    Ok(known)
}

fn is_provisioned(db: &Connection, endpoint: EndpointId) -> rusqlite::Result<bool> {
    let find = "SELECT 1 FROM endpoints WHERE id = ?";
    db.prepare_cached(find)?.exists([endpoint.to_string()])
}

fn insert_stranger(
    db: &Connection,
    task: i64,
    endpoint: i64,
    result: &TaskResult,
    now_ms: u64,
) -> rusqlite::Result<usize> {
    let insert = "INSERT INTO tasks (seq, id, endpoint, state, created_at_ms) \
         VALUES (?, ?, ?, ?, ?)";
    let state = TaskState::Done(result.outcome);
    let id = rows::id(&result.task_id);
    run(db, insert, params![task, id, endpoint, state.as_str(), signed(now_ms)])
}

fn insert(db: &Connection, rows: &[Row<'_>], now_ms: u64) -> rusqlite::Result<()> {
    let results = "results (n, outcome, exit_code, signal, reason, stdout_omitted, \
         stderr_omitted, started_at_ms, ended_at_ms, cpu_ms, peak_memory_bytes, endpoint, state, \
         received_at_ms, stdout, stderr, value)";
    rows::insert(db, results, rows, |values, Row { task, endpoint, state, result }| {
        values.bind(rows::result_row(*task, result.attempt))?.bind(result.outcome.as_str())?;
        values.bind(result.exit_code)?.bind(result.signal)?.bind(result.reason.as_deref())?;
        values.bind(signed(result.stdout_omitted))?.bind(signed(result.stderr_omitted))?;
        values.bind(result.started_at_ms.map(signed))?.bind(signed(result.ended_at_ms))?;
        values.bind(result.cpu_ms.map(signed))?.bind(result.peak_memory_bytes.map(signed))?;
        values.bind(endpoint)?.bind(state)?.bind(signed(now_ms))?;
        values.bind(&result.stdout.0)?.bind(&result.stderr.0)?;
        values.bind(result.value.as_ref().map(|value| value.text()))?;
        Ok(())
    })
}
