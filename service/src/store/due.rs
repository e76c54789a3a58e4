//! Scheduled submissions: their tasks are released at the moment they are due, and wait for
//! their publication from then on.
//!
//! Touches the database only. Promises: no task is released before the moment that is passed;
//! a transaction releases a bounded number of tasks; a submission counts as released once all
//! its tasks are.

use super::engine::{Db, values};
use super::stored_state::StoredState;
use super::topic_tasks::set_waiting;
use super::{Result, Store, Write};
use std::ops::ControlFlow;

/// How many tasks are released in one transaction.
const RELEASED_AT_ONCE: usize = 5000;

/// Where the release of a submission's tasks goes on: the submission, and the next index.
type Place = (i64, u64);

/// The tasks that were released in one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReleasedSlice {
    /// How many there are.
    pub(crate) tasks: u64,
    /// The longest time after its moment at which one of them was released, in milliseconds.
    pub(crate) late_ms: u64,
    /// When the next ones are due; in the past if there are more.
    pub(crate) next_ms: Option<u64>,
    /// Where to go on.
    pub(crate) place: Option<Place>,
}

impl Store {
    /// Releases tasks that are due, from a place on if the slice before left one.
    pub(crate) async fn release_due(
        &self,
        now_ms: u64,
        place: Option<Place>,
    ) -> Result<ReleasedSlice> {
        const DOING: &str = "releasing tasks that are due";
        let next_ms = self.read(DOING, next_due).await?;
        if next_ms.is_none_or(|due| due > now_ms) {
            return Ok(ReleasedSlice { next_ms, ..ReleasedSlice::default() });
        }
        self.write(DOING, move |write| release(write, now_ms, place)).await
    }
}

/// When the next submission is due.
fn next_due(db: &Db<'_>) -> Result<Option<u64>> {
    let find = "SELECT min(due_at_ms) FROM submissions \
         WHERE due_at_ms IS NOT NULL AND released_at_ms IS NULL";
    Ok(db.only::<(Option<u64>,)>(find, &[])?.0)
}

fn release(write: &mut Write<'_>, now_ms: u64, place: Option<Place>) -> Result<ReleasedSlice> {
    let db = write.db;
    let mut slice = ReleasedSlice::default();
    let find = "SELECT id, due_at_ms FROM submissions WHERE due_at_ms IS NOT NULL \
         AND released_at_ms IS NULL AND due_at_ms <= ? ORDER BY due_at_ms, id LIMIT ?";
    let due: Vec<(i64, u64)> = db.all(find, values![now_ms, RELEASED_AT_ONCE as u64])?;
    let mut left = RELEASED_AT_ONCE;
    for (submission, due_at_ms) in due {
        let from = place.filter(|(of, _)| *of == submission).map_or(0, |(_, index)| index);
        let (tasks, next) = scheduled_tasks(db, submission, from, left)?;
        set_waiting(write, &tasks, &[StoredState::Scheduled], Some(now_ms))?;
        left -= tasks.len();
        slice.tasks += tasks.len() as u64;
        slice.late_ms = slice.late_ms.max(now_ms.saturating_sub(due_at_ms));
        if let Some(index) = next {
            slice.place = Some((submission, index));
            break;
        }
        let update = "UPDATE submissions SET released_at_ms = ? WHERE id = ?";
        db.run(update, values![now_ms, submission])?;
        if left == 0 {
            break;
        }
    }
    slice.next_ms = next_due(db)?;
    Ok(slice)
}

/// Tasks by row, each with its attempt, and the index at which to go on if there are more.
type ScheduledTasks = (Vec<(i64, u32)>, Option<u64>);

/// Up to `limit` tasks of a submission that are scheduled.
fn scheduled_tasks(
    db: &Db<'_>,
    submission: i64,
    from: u64,
    limit: usize,
) -> Result<ScheduledTasks> {
    let find = "SELECT seq, current_attempt, idx FROM tasks \
         WHERE submission = ? AND idx >= ? AND state = 'scheduled' ORDER BY idx";
    let (mut tasks, mut next) = (Vec::new(), None);
    db.each(find, values![submission, from], |(task, attempt, index): (i64, u32, u64)| {
        if tasks.len() == limit {
            next = Some(index);
            return Ok(ControlFlow::Break(()));
        }
        tasks.push((task, attempt));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((tasks, next))
}

/// When the tasks of a submission are due, and when they were released.
pub(super) fn of_submission(db: &Db<'_>, key: &str) -> Result<(Option<u64>, Option<u64>)> {
    let find = "SELECT due_at_ms, released_at_ms FROM submissions WHERE key = ?";
    Ok(db.one(find, values![key])?.unwrap_or_default())
}
