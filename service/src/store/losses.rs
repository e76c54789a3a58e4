//! Takes in that nobody may have an attempt: it is asked for, submitted again as
//! the next attempt, or recorded as interrupted. Never a result by itself, so
//! that a late one of the attempt finds its place free.

use super::moves::shift;
use super::rows::{self, one, parsed, run};
use super::{Result, doubts, failed};
use crate::model::TaskState;
use clutch_common::id::TaskId;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use rusqlite::Connection;
use std::collections::BTreeMap;

/// Why a task ends that must not run again.
const INTERRUPTED: &str = "the endpoint had it, and no disk of the endpoint has it any more; \
     whether it ran is not known, and it must not run again";

/// Why a task ends whose result was lost and that must not run again.
const RESULT_LOST: &str = "it ran to its end, its result was delivered to the broker and lost \
     before it was recorded, the endpoint does not keep it any more, and the task must not run again";

/// Why a task ends that must not run again, in words for people.
fn interrupted_by(loss: Loss) -> &'static str {
    match loss {
        Loss::Delivered => RESULT_LOST,
        Loss::HandedBack | Loss::Unknown => INTERRUPTED,
    }
}

/// What became of attempts that nobody may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// To be asked for.
    pub(crate) doubted: u64,
    /// Submitted again.
    pub(crate) resubmitted: u64,
    /// Recorded as interrupted.
    pub(crate) interrupted: u64,
    /// Of no consequence: the attempt has its result, or is not the last one,
    /// or this service did not submit it.
    pub(crate) passed_by: u64,
}

/// What follows from the loss of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Ask,
    Resubmit,
    Interrupt,
    PassBy,
}

/// What is known of a task that this service submitted.
struct Known {
    seq: i64,
    endpoint_id: String,
    state: String,
    current_attempt: u32,
    rerun: bool,
}

fn verdict(loss: Loss, attempt: u32, state: TaskState, current: u32, rerun: bool) -> Verdict {
    if attempt != current || matches!(state, TaskState::Done(_)) {
        return Verdict::PassBy;
    }
    match loss {
        Loss::HandedBack => Verdict::Ask,
        Loss::Unknown | Loss::Delivered if rerun => Verdict::Resubmit,
        Loss::Unknown | Loss::Delivered => Verdict::Interrupt,
    }
}

/// Records what follows from these losses, and returns the results to record
/// for tasks that must not run again.
pub(super) fn record(db: &Connection, lost: &[&TaskResult]) -> Result<(Losses, Vec<TaskResult>)> {
    let mut losses = Losses::default();
    let mut interrupted = Vec::new();
    if lost.is_empty() {
        return Ok((losses, interrupted));
    }
    let mut known = known(db, lost)?;
    for result in lost {
        let (Some(loss), Some(task)) = (result.lost, known.get_mut(&result.task_id)) else {
            tracing::debug!(task = %result.task_id, "a lost task that was not submitted here");
            losses.passed_by += 1;
            continue;
        };
        if task.endpoint_id != result.endpoint_id.to_string() {
            tracing::warn!(
                task = %result.attempt(),
                endpoint = %result.endpoint_id,
                "an endpoint says that it has lost a task that it was not given: passed by"
            );
            losses.passed_by += 1;
            continue;
        }
        let state = parsed(&task.state)?;
        match verdict(loss, result.attempt, state, task.current_attempt, task.rerun) {
            Verdict::Ask => {
                doubts::doubt(db, task.seq, &task.endpoint_id, result.attempt)?;
                losses.doubted += 1;
            }
            Verdict::Resubmit | Verdict::Interrupt if !doubts::any(db, &[task.seq])? => {
                tracing::warn!(
                    task = %result.attempt(),
                    "an endpoint says that it does not know a task that it was not asked for: \
                     passed by"
                );
                losses.passed_by += 1;
            }
            Verdict::Resubmit => {
                resubmit(db, task.seq)?;
                task.current_attempt += 1;
                losses.resubmitted += 1;
            }
            Verdict::Interrupt => {
                interrupted.push(TaskResult {
                    outcome: Outcome::Interrupted,
                    reason: Some(interrupted_by(loss).into()),
                    lost: None,
                    ..(*result).clone()
                });
                losses.interrupted += 1;
            }
            Verdict::PassBy => losses.passed_by += 1,
        }
    }
    Ok((losses, interrupted))
}

fn known(db: &Connection, lost: &[&TaskResult]) -> Result<BTreeMap<TaskId, Known>> {
    const FIND: &str = "SELECT t.seq, n.id, t.state, t.current_attempt, \
         coalesce(p.body ->> 'rerun', 1) \
         FROM tasks t JOIN names n ON n.n = t.endpoint JOIN payloads p ON p.task = t.seq \
         WHERE t.id = ?";
    let mut known = BTreeMap::new();
    for result in lost {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Known {
                seq: row.get(0)?,
                endpoint_id: row.get(1)?,
                state: row.get(2)?,
                current_attempt: row.get(3)?,
                rerun: row.get(4)?,
            })
        };
        let found = one(db, FIND, [rows::id(&result.task_id)], read);
        if let Some(task) = found.map_err(failed("looking up lost tasks"))? {
            known.insert(result.task_id, task);
        }
    }
    Ok(known)
}

/// Makes the next attempt the current one, and has it published. One whose
/// publishing was never confirmed waits for whoever submitted it, as before.
fn resubmit(db: &Connection, task: i64) -> Result<()> {
    const DOING: &str = "recording a new attempt";
    let update = "UPDATE tasks SET current_attempt = current_attempt + 1 WHERE seq = ?";
    run(db, update, [task]).map_err(failed(DOING))?;
    shift(db, &[task], &[TaskState::Submitted], TaskState::Resubmitting, DOING)?;
    doubts::end(db, [&task])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loss_of_the_attempt_under_way_has_consequences() {
        use TaskState::{Done, Resubmitting, Submitted, Submitting};
        let done = Done(Outcome::Succeeded);
        for (loss, attempt, state, current, rerun, expected) in [
            (Loss::HandedBack, 1, Submitted, 1, true, Verdict::Ask),
            (Loss::HandedBack, 1, Submitting, 1, false, Verdict::Ask),
            (Loss::HandedBack, 2, Resubmitting, 2, true, Verdict::Ask),
            (Loss::HandedBack, 1, Resubmitting, 2, true, Verdict::PassBy),
            (Loss::HandedBack, 1, done, 1, true, Verdict::PassBy),
            (Loss::Unknown, 1, Submitted, 1, true, Verdict::Resubmit),
            (Loss::Unknown, 3, Submitted, 3, false, Verdict::Interrupt),
            (Loss::Unknown, 1, Submitted, 2, true, Verdict::PassBy),
            (Loss::Delivered, 1, Submitted, 1, true, Verdict::Resubmit),
            (Loss::Delivered, 1, Submitted, 1, false, Verdict::Interrupt),
            (Loss::Delivered, 1, done, 1, true, Verdict::PassBy),
            (Loss::Unknown, 2, Submitted, 1, true, Verdict::PassBy),
            (Loss::Unknown, 1, done, 1, true, Verdict::PassBy),
        ] {
            let found = verdict(loss, attempt, state, current, rerun);
            assert_eq!(found, expected, "{loss:?} of {attempt}, {state} {current}, {rerun}");
        }
    }
}
