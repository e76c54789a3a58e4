//! Records results: the first result of each attempt is kept, later ones are counted. The
//! presences that came with them are recorded in the same transaction.

use super::answered_task::AnsweredTask;
use super::engine::{Columns, Db, FromRow, append, values};
use super::forgetting::Horizon;
use super::lost_attempts::{self, LossCounts};
use super::states::{self, PresenceMessage};
use super::stored_state::StoredState;
use super::transitions::StateCounts;
use super::unaccounted::{self, AddedEndpoints};
use super::{Result, Store, Write, cancel_requests, commits, members, retries, topic_tasks};
use crate::model::RetryPolicy;
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::result::TaskResult;
use clutch_common::wire::Claims;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The messages that are recorded in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Results.
    pub(crate) results: Vec<TaskResult>,
    /// Presences of instances, sent after these results.
    pub(crate) presences: Vec<PresenceMessage>,
    /// Whether a message among these was damaged or is missing: its contents are to be asked
    /// for.
    pub(crate) lost: bool,
    /// Claims of attempts at tasks of topics, sent after or beside these results.
    pub(crate) claims: Vec<Claims>,
    /// How many commits states had seen, by the messages that came after their last presence.
    pub(crate) commits: BTreeMap<(EndpointId, StateId), u64>,
}

/// How many results and losses of a batch were recorded, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Attempts that had no result before.
    pub(crate) recorded: u64,
    /// Results that had come before.
    pub(crate) duplicates: u64,
    /// Results of external tasks, which another program submitted.
    pub(crate) external: u64,
    /// Of these, the results of endpoints that this service did not provision.
    pub(crate) unprovisioned: u64,
    /// Results of tasks that are forgotten, which came too late to be kept.
    pub(crate) forgotten: u64,
    /// Results that contradict the records, which are not recorded.
    pub(crate) refused: u64,
    /// Attempts that were reported lost.
    pub(crate) losses: LossCounts,
    /// Tasks that are run again by the policies of their submissions.
    pub(crate) retried: u64,
    /// Claims and results of attempts at tasks of topics that are not with their sender any more.
    pub(crate) stale: u64,
    /// Whether an endpoint's states changed.
    pub(crate) states_changed: bool,
}

impl Tally {
    /// Whether there is something to be asked for, submitted again or watched.
    pub(crate) fn is_news(&self) -> bool {
        self.states_changed || self.retried + self.losses.unaccounted + self.losses.resubmitted > 0
    }

    fn add(&mut self, changes: &Changes<'_>) {
        self.recorded += changes.results.len() as u64;
        self.duplicates += changes.duplicates.values().sum::<u64>();
        self.external += changes.external.len() as u64;
        self.unprovisioned += changes.unprovisioned;
        self.forgotten += changes.forgotten;
        self.refused += changes.refused;
        self.stale += changes.stale;
        self.retried += changes.retries.len() as u64;
    }
}

/// The changes that a batch makes, decided before they are written.
#[derive(Default)]
pub(super) struct Changes<'a> {
    /// External tasks that are new, with their rows and the numbers of their endpoints.
    external: Vec<(i64, i64, &'a TaskResult)>,
    unprovisioned: u64,
    /// Results to keep, with their tasks' rows and the numbers of their endpoints.
    results: Vec<(i64, i64, &'a TaskResult)>,
    duplicates: BTreeMap<(i64, u32), u64>,
    forgotten: u64,
    refused: u64,
    first_refused: Option<&'a TaskResult>,
    /// The results that decide the states of tasks, by row.
    states: BTreeMap<i64, &'a TaskResult>,
    /// The tasks that are run again instead, by row, and when.
    retries: Vec<retries::Retry>,
    /// Tasks of topics that have ended, or are run again, each in the state that it was in.
    of_topics: Vec<(i64, StoredState)>,
    /// Results of attempts at tasks of topics that were placed anew since.
    stale: u64,
    counts: StateCounts,
}

/// Which tasks are run again by the policies of their submissions.
struct Retrying {
    /// By row.
    policies: BTreeMap<i64, RetryPolicy>,
    now_ms: u64,
}

impl Retrying {
    /// When a task is run again after a result, which is counted among its attempts.
    fn due(&self, task: &AnsweredTask, result: &TaskResult) -> Option<u64> {
        let policy = self.policies.get(&task.seq)?;
        let pause = policy.pause_after(result.outcome, task.attempts.len())?;
        Some(self.now_ms.saturating_add(pause))
    }
}

impl Store {
    /// Records results and then presences, all or none; until they are
    /// [durable](Store::durable), a power cut may undo that. The first result of an attempt
    /// is kept; a later attempt's result supersedes an earlier one's, never the other way
    /// round. `recorded` is called once readers see them, also if this future is dropped
    /// before that.
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
    if !batch.claims.is_empty() {
        let ended = ends.iter().map(|result| result.attempt()).collect();
        tally.stale += topic_tasks::claim(write, &batch.claims, &ended)?;
    }
    let (losses, ended) = lost_attempts::record(write, &lost, now_ms)?;
    tally.losses = losses;
    let ended: Vec<&TaskResult> = ended.iter().collect();
    tally.add(&conclude(write, &ended, now_ms)?);
    let mut added = AddedEndpoints::default();
    for message in &batch.presences {
        tally.states_changed |= states::take_in(write.db, message, &mut added, now_ms)?;
        members::take_in(write, message.presence.endpoint_id, now_ms)?;
    }
    commits::raise(write.db, &batch.commits)?;
    if batch.lost {
        let unaccounted = unaccounted::add_everywhere(write.db)?;
        tally.losses.unaccounted += unaccounted;
        tracing::warn!(
            unaccounted,
            "messages from endpoints were damaged or are missing: every task that is not answered \
             is asked for"
        );
    }
    Ok(tally)
}

/// Records results that are the end of their attempts.
pub(super) fn conclude<'a>(
    write: &mut Write<'_>,
    results: &[&'a TaskResult],
    now_ms: u64,
) -> Result<Changes<'a>> {
    if results.is_empty() {
        return Ok(Changes::default());
    }
    let db = write.db;
    let (mut tasks, mut unknown) = tasks(db, results)?;
    let mut kept = Cow::Borrowed(results);
    if unknown > 0 {
        kept = without_forgotten(db, results, &tasks)?.into();
        unknown -= results.len() - kept.len();
    }
    let rows = if unknown == 0 { Vec::new() } else { db.reserve_tasks(unknown)? };
    let numbered: Vec<(i64, &TaskResult)> = kept
        .iter()
        .map(|result| Ok((write.ids.number(db, result.endpoint_id)?, *result)))
        .collect::<Result<_>>()?;
    for (endpoint, result) in &numbered {
        if let Some(task) = tasks.get_mut(&result.task_id)
            && task.asks_for_earlier(*endpoint)
        {
            task.earlier = topic_tasks::earlier(db, task.seq)?;
        }
    }
    let policies = retries::policies(db, results, &tasks)?;
    let mut changes = decide(&numbered, &mut tasks, rows, &Retrying { policies, now_ms });
    changes.forgotten = (results.len() - kept.len()) as u64;
    for (_, _, result) in &changes.external {
        let find = "SELECT 1 FROM endpoints WHERE id = ?";
        changes.unprovisioned += u64::from(!db.exists(find, values![&result.endpoint_id])?);
    }
    if let Some(result) = changes.first_refused {
        tracing::warn!(
            task = %result.attempt(),
            endpoint = %result.endpoint_id,
            refused = changes.refused,
            "results are not recorded: their endpoint was not given these attempts"
        );
    }
    insert_external(db, &changes.external, now_ms)?;
    insert_results(write, &changes.results, now_ms)?;
    count_duplicates(db, &changes.duplicates)?;
    let mut update = db.prepare("UPDATE tasks SET state = ?, attempt = ? WHERE seq = ?")?;
    for (task, result) in &changes.states {
        let state = StoredState::Done(result.outcome);
        update.execute(values![state.as_str(), result.attempt, task])?;
    }
    changes.counts.write(db)?;
    topic_tasks::ended(write, &changes.of_topics, now_ms)?;
    retries::pause(write, &changes.retries)?;
    let over = || changes.states.keys().chain(changes.retries.iter().map(|(task, ..)| task));
    unaccounted::remove(db, over())?;
    cancel_requests::remove(db, over())?;
    Ok(changes)
}

/// These results without those of tasks that are forgotten.
fn without_forgotten<'a>(
    db: &Db<'_>,
    results: &[&'a TaskResult],
    tasks: &BTreeMap<TaskId, AnsweredTask>,
) -> Result<Vec<&'a TaskResult>> {
    let horizon = Horizon::read(db)?;
    let mut kept = Vec::with_capacity(results.len());
    for result in results {
        if tasks.contains_key(&result.task_id) || !horizon.is_past(db, result)? {
            kept.push(*result);
        }
    }
    Ok(kept)
}

/// Goes through a batch in order. `rows` are reserved for tasks that are not known.
fn decide<'a>(
    results: &[(i64, &'a TaskResult)],
    tasks: &mut BTreeMap<TaskId, AnsweredTask>,
    rows: Vec<i64>,
    retrying: &Retrying,
) -> Changes<'a> {
    let mut changes = Changes::default();
    let mut rows = rows.into_iter();
    for &(endpoint, result) in results {
        let Attempt { task_id, attempt } = result.attempt();
        let task = match tasks.entry(task_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let Some(seq) = rows.next() else { continue };
                changes.external.push((seq, endpoint, result));
                let (state, attempts) = (StoredState::Done(result.outcome), Vec::new());
                let (submission, recorded, current) = (None, None, 1);
                unknown.insert(AnsweredTask {
                    seq,
                    submission,
                    endpoint,
                    state,
                    recorded,
                    current,
                    topic: None,
                    earlier: Vec::new(),
                    attempts,
                })
            }
        };
        if !task.was_given(endpoint, attempt) {
            changes.refused += 1;
            changes.first_refused.get_or_insert(result);
            continue;
        }
        if task.attempts.contains(&attempt) {
            *changes.duplicates.entry((task.seq, attempt)).or_default() += 1;
            continue;
        }
        task.attempts.push(attempt);
        changes.stale += u64::from(task.topic.is_some() && attempt < task.current);
        changes.results.push((task.seq, endpoint, result));
        let newest = task.recorded.is_none_or(|recorded| recorded < attempt);
        if newest
            && attempt >= task.current
            && let Some(due) = retrying.due(task, result)
        {
            changes.counts.moved(task.submission, task.state, StoredState::Paused);
            changes.retries.push((task.seq, task.topic, due));
            changes.of_topics.extend(task.topic.map(|_| (task.seq, task.state)));
            (task.current, task.state) = (attempt + 1, StoredState::Paused);
        } else if newest && attempt >= task.current {
            let state = StoredState::Done(result.outcome);
            changes.counts.moved(task.submission, task.state, state);
            changes.of_topics.extend(task.topic.map(|_| (task.seq, task.state)));
            (task.recorded, task.state) = (Some(attempt), state);
            changes.states.insert(task.seq, result);
        }
    }
    changes
}

/// The tasks that results came for, as far as they are known, and how many results are of
/// others.
fn tasks(db: &Db<'_>, results: &[&TaskResult]) -> Result<(BTreeMap<TaskId, AnsweredTask>, usize)> {
    let find = format!(
        "SELECT t.seq, t.submission, t.endpoint, t.state, t.attempt, t.current_attempt, \
         t.topic, r.attempt FROM tasks t LEFT JOIN results r ON {} WHERE t.id = ?",
        db.dialect().is_result
    );
    let mut find = db.prepare(&find)?;
    let mut tasks: BTreeMap<TaskId, AnsweredTask> = BTreeMap::new();
    let mut unknown = 0;
    for result in results {
        let Entry::Vacant(place) = tasks.entry(result.task_id) else { continue };
        let mut found: Option<AnsweredTask> = None;
        // One row for each attempt that has a result.
        find.query(values![&result.task_id], &mut |row| {
            let mut task = AnsweredTask::read(&mut Columns::of(row))?;
            match &mut found {
                Some(known) => known.attempts.append(&mut task.attempts),
                None => found = Some(task),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match found {
            Some(task) => drop(place.insert(task)),
            None => unknown += 1,
        }
    }
    Ok((tasks, unknown))
}

fn insert_external(db: &Db<'_>, external: &[(i64, i64, &TaskResult)], now_ms: u64) -> Result<()> {
    let tasks = "tasks (seq, id, endpoint, state, created_at_ms)";
    db.insert(tasks, external, |values, (task, endpoint, result)| {
        let state = StoredState::Done(result.outcome).as_str();
        append!(values, task, &result.task_id, endpoint, state, now_ms);
    })
}

fn insert_results(
    write: &mut Write<'_>,
    results: &[(i64, i64, &TaskResult)],
    now_ms: u64,
) -> Result<()> {
    let (db, dialect) = (write.db, write.db.dialect());
    let number = |(_, _, result): &(i64, i64, &TaskResult)| {
        result.state_id.map(|state| write.ids.number(db, state)).transpose()
    };
    let states: Vec<Option<i64>> = results.iter().map(number).collect::<Result<_>>()?;
    let rows: Vec<_> = results.iter().zip(states).collect();
    let into = format!(
        "results ({}, outcome, exit_code, signal, reason, stdout_omitted, stderr_omitted, \
         accepted_at_ms, started_at_ms, ended_at_ms, published_at_ms, cpu_ms, peak_memory_bytes, \
         endpoint, state, received_at_ms, stdout, stderr, value, removed_files, error)",
        dialect.result_key.join(", ")
    );
    db.insert(&into, &rows, |values, ((task, endpoint, result), state)| {
        (dialect.bind_result_key)(values, *task, result.attempt);
        append!(values, result.outcome.as_str(), result.exit_code, result.signal);
        append!(values, result.reason.as_deref(), result.stdout_omitted, result.stderr_omitted);
        append!(values, result.accepted_at_ms, result.started_at_ms, result.ended_at_ms);
        append!(values, result.published_at_ms, result.cpu_ms, result.peak_memory_bytes);
        append!(values, endpoint, *state, now_ms);
        append!(values, result.stdout.0.as_slice(), result.stderr.0.as_slice());
        append!(values, result.value.as_ref().map(|value| value.text()));
        let files = result.removed_files.as_ref().map(serde_json::to_string);
        append!(values, files.and_then(std::result::Result::ok));
        append!(values, result.error.as_ref().and_then(|error| error.json()));
    })
}

fn count_duplicates(db: &Db<'_>, duplicates: &BTreeMap<(i64, u32), u64>) -> Result<()> {
    let dialect = db.dialect();
    let key = dialect.result_key.join(" = ? AND ");
    let update = format!("UPDATE results SET duplicates = duplicates + ? WHERE {key} = ?");
    for ((task, attempt), count) in duplicates {
        let mut values = vec![(*count).into()];
        (dialect.bind_result_key)(&mut values, *task, *attempt);
        db.run(&update, &values)?;
    }
    Ok(())
}
