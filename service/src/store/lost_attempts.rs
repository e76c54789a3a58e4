//! Handles attempts that an endpoint reports lost: the endpoint is asked for them, they are
//! submitted again as the next attempt, or they are recorded as interrupted. The report
//! itself is never recorded as a result, so that a late result of the attempt can be.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::decoded;
use super::transitions::set_state;
use super::{Result, unaccounted};
use crate::model::TaskState;
use clutch_common::failover::{self, Consequence, TaskStanding};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use std::collections::BTreeMap;

/// The reason of a task that was lost and must not run again.
const INTERRUPTED: &str = "the endpoint had it, and no disk of the endpoint has it any more; \
     whether it ran is not known, and it must not run again";

/// The reason of a task that ran, lost its result, and must not run again.
const RESULT_LOST: &str = "it ran to its end, its result was delivered to the broker and lost \
     before it was recorded, the endpoint does not keep it any more, and the task must not run again";

fn interrupted_by(loss: Loss) -> &'static str {
    match loss {
        Loss::Delivered => RESULT_LOST,
        Loss::HandedBack | Loss::Unknown => INTERRUPTED,
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
    /// Of no consequence: the attempt has its result, or is not the last one, or the task
    /// is external.
    pub(crate) ignored: u64,
}

/// A task of this service, an attempt at which was reported lost.
struct LostTask {
    seq: i64,
    endpoint_id: EndpointId,
    state: TaskState,
    current_attempt: u32,
    body: String,
}

impl FromRow for LostTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            endpoint_id: columns.next()?,
            state: columns.next()?,
            current_attempt: columns.next()?,
            body: columns.next()?,
        })
    }
}

/// Records the consequences of these losses, and returns the results to record for tasks
/// that must not run again.
pub(super) fn record(db: &Db<'_>, lost: &[&TaskResult]) -> Result<(LossCounts, Vec<TaskResult>)> {
    let mut counts = LossCounts::default();
    let mut interrupted = Vec::new();
    let mut tasks = tasks(db, lost)?;
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
        let standing = TaskStanding {
            current_attempt: task.current_attempt,
            done: matches!(task.state, TaskState::Done(_)),
            rerun: decoded(task.seq, &task.body, result.attempt)?.rerun,
        };
        match failover::consequence(loss, result.attempt, standing) {
            Consequence::Ask => {
                unaccounted::add(db, task.seq, task.endpoint_id, result.attempt)?;
                counts.unaccounted += 1;
            }
            Consequence::Resubmit | Consequence::Interrupt
                if !unaccounted::any(db, &[task.seq])? =>
            {
                tracing::warn!(
                    task = %result.attempt(),
                    "an endpoint reports a task unknown that it was not asked for: ignored"
                );
                counts.ignored += 1;
            }
            Consequence::Resubmit => {
                resubmit(db, task.seq)?;
                task.current_attempt += 1;
                counts.resubmitted += 1;
            }
            Consequence::Interrupt => {
                interrupted.push(TaskResult {
                    outcome: Outcome::Interrupted,
                    reason: Some(interrupted_by(loss).into()),
                    lost: None,
                    ..(*result).clone()
                });
                counts.interrupted += 1;
            }
            Consequence::Ignore => counts.ignored += 1,
        }
    }
    Ok((counts, interrupted))
}

fn tasks(db: &Db<'_>, lost: &[&TaskResult]) -> Result<BTreeMap<TaskId, LostTask>> {
    let find = "SELECT t.seq, n.id, t.state, t.current_attempt, p.body FROM tasks t \
         JOIN interned_ids n ON n.n = t.endpoint JOIN payloads p ON p.task = t.seq WHERE t.id = ?";
    let mut tasks = BTreeMap::new();
    for result in lost {
        if let Some(task) = db.one(find, values![&result.task_id])? {
            tasks.insert(result.task_id, task);
        }
    }
    Ok(tasks)
}

/// Makes the next attempt the current one, and has it published. An attempt that was never
/// confirmed by the broker waits to be submitted again, as before.
fn resubmit(db: &Db<'_>, task: i64) -> Result<()> {
    let update = "UPDATE tasks SET current_attempt = current_attempt + 1 WHERE seq = ?";
    db.run(update, values![task])?;
    set_state(db, &[task], &[TaskState::Submitted], TaskState::Resubmitting)?;
    unaccounted::remove(db, [&task])
}
