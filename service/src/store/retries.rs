//! Tasks that are run again after their outcome, as their next attempts: because a person asks
//! for it, or by the policy of their submission, then after a pause.
//!
//! Touches the database only. Promises: each attempt keeps its result; a task that is run
//! again by its policy goes to `waiting` in the transaction that records the result, so that
//! it is never seen as ended; it is not handed to the link before its pause is over; it may wait for
//! its start as long as the first attempt might.

use super::answered_task::AnsweredTask;
use super::engine::{Db, values};
use super::rows::parsed;
use super::stored_state::StoredState;
use super::topic_tasks::{self, Back, set_waiting};
use super::transitions::StateCounts;
use super::{Result, Store, Write, cancel_requests, expiries};
use crate::model::RetryPolicy;
use clutch_common::id::TaskId;
use clutch_common::task::result::{Outcome, TaskResult};
use std::collections::BTreeMap;

/// How many pauses are ended in one transaction.
const ENDED_AT_ONCE: u64 = 5000;

/// The fates of the tasks of one request to run some again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetrySlice {
    /// How many are run again.
    pub(crate) retried: u64,
    /// How many have no outcome: they are under way.
    pub(crate) open: u64,
    /// How many were submitted by another program: their payload is not recorded here.
    pub(crate) external: u64,
}

impl Store {
    /// Has the tasks in these rows run again that have their outcome.
    pub(crate) async fn retry(&self, tasks: Vec<i64>, now_ms: u64) -> Result<RetrySlice> {
        self.write("having tasks run again", move |write| retry(write, &tasks, now_ms)).await
    }

    /// Ends the pauses that are over; returns how many these are, and when the next one is.
    pub(crate) async fn end_pauses(&self, now_ms: u64) -> Result<(u64, Option<u64>)> {
        const DOING: &str = "looking for tasks to run again";
        let next = self.read(DOING, next_due).await?;
        if next.is_none_or(|due| due > now_ms) {
            return Ok((0, next));
        }
        self.write(DOING, move |write| {
            let find = "SELECT p.task, t.current_attempt FROM pauses p \
                 JOIN tasks t ON t.seq = p.task WHERE p.due_at_ms <= ? ORDER BY p.due_at_ms LIMIT ?";
            let over: Vec<(i64, u32)> = write.db.all(find, values![now_ms, ENDED_AT_ONCE])?;
            set_waiting(write, &over, &[StoredState::Paused], Some(now_ms))?;
            remove_pauses(write.db, over.iter().map(|(task, _)| task))?;
            Ok((over.len() as u64, next_due(write.db)?))
        })
        .await
    }
}

/// When the next pause is over.
fn next_due(db: &Db<'_>) -> Result<Option<u64>> {
    let (next,) = db.only("SELECT min(due_at_ms) FROM pauses", &[])?;
    Ok(next)
}

/// A task to run again: its state, its submission, the row of its payload, and its topic.
type RetriedTask = (StoredState, Option<i64>, Option<i64>, Option<i64>);

fn retry(write: &mut Write<'_>, tasks: &[i64], now_ms: u64) -> Result<RetrySlice> {
    let db = write.db;
    let mut slice = RetrySlice::default();
    let mut counts = StateCounts::default();
    let find = "SELECT t.state, t.submission, p.task, t.topic FROM tasks t \
         LEFT JOIN payloads p ON p.task = t.seq WHERE t.seq = ?";
    for task in tasks {
        match db.one::<RetriedTask>(find, values![task])? {
            None => (),
            Some((_, _, None, _)) => slice.external += 1,
            Some((state @ StoredState::Done(_), submission, Some(_), topic)) => {
                let next = topic_tasks::waiting(topic);
                begin_next(write, (*task, topic), next, now_ms)?;
                counts.moved(submission, state, next);
                slice.retried += 1;
            }
            Some(_) => slice.open += 1,
        }
    }
    counts.write(db)?;
    Ok(slice)
}

/// Has the next attempt at a task wait, which expires as late after `from_ms` as the first did after
/// its submission. No result decides the task's state any more.
fn begin_next(
    write: &mut Write<'_>,
    (task, topic): (i64, Option<i64>),
    state: StoredState,
    from_ms: u64,
) -> Result<()> {
    let db = write.db;
    expiries::renew(db, task, from_ms)?;
    let update = "UPDATE tasks SET state = ?, attempt = NULL, submitted_at_ms = NULL, \
         current_attempt = current_attempt + 1 WHERE seq = ?";
    db.run(update, values![state.as_str(), task])?;
    if let Some(topic) = topic {
        let back = Back::NextAttempt { waits: state == StoredState::InTopic };
        topic_tasks::take_back(write, (task, topic), back, Some(from_ms))?;
    }
    Ok(())
}

/// A task that is run again, by its row, with its topic and when it is due.
pub(super) type Retry = (i64, Option<i64>, u64);

/// Has the next attempts at tasks wait, each until its pause is over.
pub(super) fn pause(write: &mut Write<'_>, tasks: &[Retry]) -> Result<()> {
    let insert = "INSERT INTO pauses (task, due_at_ms) VALUES (?, ?) \
         ON CONFLICT (task) DO UPDATE SET due_at_ms = excluded.due_at_ms";
    for (task, topic, due_at_ms) in tasks {
        begin_next(write, (*task, *topic), StoredState::Paused, *due_at_ms)?;
        write.db.run(insert, values![task, *due_at_ms])?;
    }
    Ok(())
}

/// Ends the pauses of tasks that have their outcome.
pub(super) fn remove_pauses<'a>(
    db: &Db<'_>,
    tasks: impl IntoIterator<Item = &'a i64>,
) -> Result<()> {
    let mut delete = db.prepare("DELETE FROM pauses WHERE task = ?")?;
    tasks.into_iter().try_for_each(|task| delete.execute(values![task]).map(drop))
}

/// When the next attempt of the task in a row is due, while it pauses.
pub(super) fn retry_at_ms(db: &Db<'_>, task: i64) -> Result<Option<u64>> {
    let found = db.one("SELECT due_at_ms FROM pauses WHERE task = ?", values![task])?;
    Ok(found.map(|(due,)| due))
}

/// The policies of tasks that did not succeed by these results, by row. A task that is
/// to be cancelled has none.
pub(super) fn policies(
    db: &Db<'_>,
    results: &[&TaskResult],
    tasks: &BTreeMap<TaskId, AnsweredTask>,
) -> Result<BTreeMap<i64, RetryPolicy>> {
    let mut of_submissions: BTreeMap<i64, Option<RetryPolicy>> = BTreeMap::new();
    let mut policies = BTreeMap::new();
    for result in results.iter().filter(|result| result.outcome != Outcome::Succeeded) {
        let task = tasks.get(&result.task_id);
        let Some((seq, submission)) = task.and_then(AnsweredTask::in_submission) else { continue };
        let policy = match of_submissions.get(&submission) {
            Some(policy) => policy,
            None => {
                let policy = of_submission(db, submission)?;
                of_submissions.entry(submission).or_insert(policy)
            }
        };
        if let Some(policy) = policy
            && !cancel_requests::is_requested(db, seq)?
        {
            policies.insert(seq, policy.clone());
        }
    }
    Ok(policies)
}

/// The policy of a submission.
pub(super) fn of_submission(db: &Db<'_>, submission: i64) -> Result<Option<RetryPolicy>> {
    let find = "SELECT retries, first_pause_ms, longest_pause_ms, outcomes FROM retry_policies \
         WHERE submission = ?";
    let found: Option<(u32, u64, u64, String)> = db.one(find, values![submission])?;
    let Some((retries, first_pause_ms, longest_pause_ms, outcomes)) = found else {
        return Ok(None);
    };
    let on = outcomes.split(',').map(parsed).collect::<Result<_>>()?;
    Ok(Some(RetryPolicy { retries, first_pause_ms, longest_pause_ms, on }))
}

/// Records the policy of a submission that is new.
pub(super) fn insert_policy(db: &Db<'_>, submission: i64, policy: &RetryPolicy) -> Result<()> {
    let RetryPolicy { retries, first_pause_ms, longest_pause_ms, on } = policy;
    let outcomes: Vec<&str> = on.iter().map(|outcome| outcome.as_str()).collect();
    let insert = "INSERT INTO retry_policies (submission, retries, first_pause_ms, \
         longest_pause_ms, outcomes) VALUES (?, ?, ?, ?, ?)";
    let values =
        values![submission, *retries, *first_pause_ms, *longest_pause_ms, outcomes.join(",")];
    db.run(insert, values).map(drop)
}
