//! Handles attempts that an endpoint reports lost: the endpoint is asked for them, they are
//! submitted again as the next attempt, or they are recorded as interrupted, or as cancelled if
//! that was requested. The report itself is never recorded as a result, so that a late result
//! of the attempt can be.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::decoded;
use super::stored_state::StoredState;
use super::topic_tasks::{self, Back};
use super::transitions::set_state;
use super::{Result, Write, cancel_requests, states, unaccounted};
use clutch_common::failover::{self, Consequence, Evidence, TaskStanding};
use clutch_common::id::{EndpointId, StateId, TaskId};
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use std::collections::BTreeMap;

/// The reason of a task that was lost and must not run again.
const INTERRUPTED: &str = "the endpoint had it, and no disk of the endpoint has it any more; \
     whether it ran is not known, and it must not run again";

/// The reason of a task that ran, lost its result, and must not run again.
const RESULT_LOST: &str = "it ran to its end, its result was delivered to the broker and lost \
     before it was recorded, the endpoint does not keep it any more, and the task must not run again";

/// The reason of a task that was to be cancelled, ran, and lost its result.
const NOT_IN_TIME: &str = "it was to be cancelled and ran to its end before that; its result was \
     delivered to the broker and lost before it was recorded";

/// The reason of a task that was cancelled and is nowhere.
const CANCELLED: &str = "cancelled; the endpoint does not have it, and will not start it";

fn interrupted_by(loss: Loss, cancelled: bool) -> &'static str {
    match loss {
        Loss::Delivered if cancelled => NOT_IN_TIME,
        Loss::Delivered => RESULT_LOST,
        Loss::HandedBack | Loss::Unknown | Loss::NotStarted | Loss::NotOffered => INTERRUPTED,
    }
}

/// How many attempts were reported lost, by consequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LossCounts {
    /// Now unaccounted for, to be asked for.
    pub(crate) unaccounted: u64,
    /// Submitted again.
    pub(crate) resubmitted: u64,
    /// Recorded as interrupted.
    pub(crate) interrupted: u64,
    /// Recorded as cancelled.
    pub(crate) cancelled: u64,
    /// Of no consequence: the attempt has its result, or is not the last one, or the task
    /// is external.
    pub(crate) ignored: u64,
}

/// A task of this service, an attempt at which was reported lost.
struct LostTask {
    seq: i64,
    endpoint_id: EndpointId,
    state: StoredState,
    current_attempt: u32,
    topic: Option<i64>,
    body: String,
}

impl FromRow for LostTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            endpoint_id: columns.next()?,
            state: columns.next()?,
            current_attempt: columns.next()?,
            topic: columns.next()?,
            body: columns.next()?,
        })
    }
}

/// Records the consequences of these losses, and returns the results to record for tasks
/// that end by them.
pub(super) fn record(
    write: &mut Write<'_>,
    lost: &[&TaskResult],
    now_ms: u64,
) -> Result<(LossCounts, Vec<TaskResult>)> {
    let db = write.db;
    let mut counts = LossCounts::default();
    let mut ended = Vec::new();
    let mut tasks = tasks(db, lost)?;
    let mut asked = AskedStates::default();
    for result in lost {
        let (Some(loss), Some(task)) = (result.lost, tasks.get_mut(&result.task_id)) else {
            tracing::debug!(task = %result.task_id, "an external task was reported lost");
            counts.ignored += 1;
            continue;
        };
        if task.endpoint_id != result.endpoint_id {
            tracing::warn!(
                task = %result.attempt(),
                endpoint = %result.endpoint_id,
                "an endpoint reports a task lost that it was not given: ignored"
            );
            counts.ignored += 1;
            continue;
        }
        let cancel = asked.report(db, task, result)?;
        let standing = TaskStanding {
            current_attempt: task.current_attempt,
            done: matches!(task.state, StoredState::Done(_)),
            rerun: decoded(task.seq, &task.body, result.attempt)?.rerun,
            placed: task.topic.is_some(),
            in_doubt: unaccounted::any(db, [task.seq])?,
            cancel,
        };
        match failover::consequence(loss, result.attempt, standing) {
            Consequence::Ask => {
                unaccounted::add(db, task.seq, task.endpoint_id, result.attempt)?;
                counts.unaccounted += 1;
            }
            Consequence::Unasked => {
                tracing::warn!(
                    task = %result.attempt(),
                    "an endpoint reports a task unknown that it was not asked for: ignored"
                );
                counts.ignored += 1;
            }
            Consequence::Resubmit => {
                if loss == Loss::NotOffered {
                    topic_tasks::not_offered(write, task.seq, task.endpoint_id)?;
                }
                resubmit(write, (task.seq, task.topic), task.current_attempt, now_ms)?;
                task.current_attempt += 1;
                counts.resubmitted += 1;
            }
            Consequence::Interrupt => {
                let reason = interrupted_by(loss, cancel.is_some());
                ended.push(end(result, Outcome::Interrupted, reason));
                counts.interrupted += 1;
            }
            Consequence::Cancel => {
                ended.push(end(result, Outcome::Cancelled, CANCELLED));
                counts.cancelled += 1;
            }
            Consequence::Ignore => counts.ignored += 1,
        }
    }
    Ok((counts, ended))
}

/// The result that ends the task of a lost attempt.
fn end(lost: &TaskResult, outcome: Outcome, reason: &'static str) -> TaskResult {
    TaskResult { outcome, reason: Some(reason.into()), lost: None, ..lost.clone() }
}

/// The states that roll calls of endpoints go to, each looked up once.
#[derive(Default)]
struct AskedStates(BTreeMap<EndpointId, Option<StateId>>);

impl AskedStates {
    /// Whether the cancellation of a task was requested, and what this report of an attempt at
    /// it is worth then.
    fn report(
        &mut self,
        db: &Db<'_>,
        task: &LostTask,
        lost: &TaskResult,
    ) -> Result<Option<Evidence>> {
        if !cancel_requests::is_requested(db, task.seq)? {
            return Ok(None);
        }
        let to_ask = match self.0.get(&task.endpoint_id) {
            Some(known) => *known,
            None => {
                let to_ask = states::to_ask(db, task.endpoint_id)?;
                *self.0.entry(task.endpoint_id).or_insert(to_ask)
            }
        };
        let conclusive = match lost.state_id {
            None => false,
            Some(state) => {
                to_ask == Some(state) || unaccounted::was_asked(db, task.seq, lost.attempt, state)?
            }
        };
        Ok(Some(if conclusive { Evidence::Conclusive } else { Evidence::Inconclusive }))
    }
}

fn tasks(db: &Db<'_>, lost: &[&TaskResult]) -> Result<BTreeMap<TaskId, LostTask>> {
    let find = "SELECT t.seq, n.id, t.state, t.current_attempt, t.topic, p.body FROM tasks t \
         JOIN interned_ids n ON n.n = t.endpoint JOIN payloads p ON p.task = t.seq WHERE t.id = ?";
    let mut tasks = BTreeMap::new();
    for result in lost {
        if let Some(task) = db.one(find, values![&result.task_id])? {
            tasks.insert(result.task_id, task);
        }
    }
    Ok(tasks)
}

/// Makes the next attempt the current one. It waits to be published: the broker's word about
/// the attempt before is of no consequence.
pub(super) fn resubmit(
    write: &mut Write<'_>,
    (task, topic): (i64, Option<i64>),
    attempt: u32,
    now_ms: u64,
) -> Result<()> {
    let db = write.db;
    let from = [StoredState::Submitting, StoredState::Submitted];
    set_state(db, &[(task, attempt)], &from, topic_tasks::waiting(topic))?;
    let update = "UPDATE tasks SET current_attempt = current_attempt + 1 WHERE seq = ?";
    db.run(update, values![task])?;
    if let Some(topic) = topic {
        let back = Back::NextAttempt { waits: true };
        topic_tasks::take_back(write, (task, topic), back, Some(now_ms))?;
    }
    unaccounted::remove(db, [&task])
}
