//! Requested cancellations: which tasks are to end as cancelled, and the messages that name
//! them, until the broker has these and they are no longer in force (`design/0017`).
//!
//! Touches the database only. Promises: a task that never left the service is cancelled by
//! its request; any other one is listed here until its outcome is recorded, and not submitted
//! again; each message is to be sent until the broker is recorded to have it, and then its
//! mark.

use super::engine::{Columns, Db, FromRow, values};
use super::results::conclude;
use super::steering::next_number;
use super::{Result, Store, Write, retries};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire::CANCEL_MAX;
use std::collections::BTreeMap;

/// The reason of a task that was cancelled before it left the service.
const NEVER_SENT: &str = "cancelled before it was sent to its endpoint";

/// How many messages are read at once.
const SENT_AT_ONCE: u64 = 16;

/// The fates of the tasks of one request to cancel some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CancelSlice {
    /// How many ended as cancelled by the request.
    pub(crate) cancelled: u64,
    /// How many had an outcome.
    pub(crate) too_late: u64,
    /// The endpoints that are asked, each with the number of the message that names its tasks,
    /// and the rows of these.
    pub(crate) asked: BTreeMap<EndpointId, (u64, Vec<i64>)>,
}

/// A message that the broker is not known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingCancel {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// Its number.
    pub(crate) number: u64,
    /// The attempts that have no outcome.
    pub(crate) attempts: Vec<Attempt>,
}

/// A task to cancel.
struct CancelledTask {
    id: TaskId,
    endpoint: EndpointId,
    state: String,
    attempt: u32,
}

impl FromRow for CancelledTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: columns.next()?,
            endpoint: columns.next()?,
            state: columns.next()?,
            attempt: columns.next()?,
        })
    }
}

impl Store {
    /// Cancels the tasks in up to [`CANCEL_MAX`] rows, or requests that of their endpoints.
    pub(crate) async fn cancel(&self, tasks: Vec<i64>, now_ms: u64) -> Result<CancelSlice> {
        self.write("recording a cancellation", move |write| cancel(write, &tasks, now_ms)).await
    }

    /// Messages that the broker is not known to have, in the order of their numbers, but none
    /// of the endpoints `except`; a bounded number of them.
    pub(crate) async fn pending_cancels(
        &self,
        except: &[EndpointId],
    ) -> Result<Vec<PendingCancel>> {
        let except = except.to_vec();
        self.read("looking for cancellations to send", move |db| pending(db, &except)).await
    }

    /// Records that the broker has the message with this number.
    pub(crate) async fn cancel_confirmed(&self, endpoint: EndpointId, number: u64) -> Result<()> {
        self.write("recording that the broker has a cancellation", move |write| {
            let update = "UPDATE cancels SET confirmed = 1 WHERE endpoint_id = ? AND number = ?";
            write.db.run(update, values![endpoint, number]).map(drop)
        })
        .await
    }

    /// The endpoints with messages that the broker has and that are in force, each with the
    /// highest number that a mark can cover; none while another message is to be sent before.
    pub(crate) async fn marks_to_send(&self) -> Result<Vec<(EndpointId, u64)>> {
        self.read("looking for cancellations that are in force", |db| {
            let find = "SELECT endpoint_id, max(number) FROM cancels \
                 GROUP BY endpoint_id HAVING min(confirmed) = 1 ORDER BY endpoint_id";
            db.all(find, &[])
        })
        .await
    }

    /// Records that the broker has the mark of an endpoint's messages up to a number.
    pub(crate) async fn mark_confirmed(&self, endpoint: EndpointId, up_to: u64) -> Result<()> {
        self.write("recording that cancellations are no longer in force", move |write| {
            let delete =
                "DELETE FROM cancels WHERE endpoint_id = ? AND number <= ? AND confirmed = 1";
            write.db.run(delete, values![endpoint, up_to]).map(drop)
        })
        .await
    }

    /// How many tasks that one of these messages names have no outcome, by endpoint.
    pub(crate) async fn open_cancellations(
        &self,
        messages: Vec<(EndpointId, u64)>,
    ) -> Result<BTreeMap<EndpointId, u64>> {
        self.read("counting tasks to cancel", move |db| {
            let mut open = BTreeMap::new();
            let count = "SELECT count(*) FROM cancellations WHERE endpoint_id = ? AND number = ?";
            for (endpoint, number) in messages {
                let (tasks,): (u64,) = db.only(count, values![endpoint, number])?;
                *open.entry(endpoint).or_default() += tasks;
            }
            Ok(open)
        })
        .await
    }

    /// How many of the tasks in these rows have each outcome.
    pub(crate) async fn count_outcomes(
        &self,
        rows: Vec<(i64, i64)>,
    ) -> Result<BTreeMap<Outcome, u64>> {
        self.read("counting the outcomes of tasks", move |db| {
            let count =
                "SELECT state, count(*) FROM tasks WHERE seq BETWEEN ? AND ? GROUP BY state";
            let mut outcomes = BTreeMap::new();
            for (first, last) in rows {
                let states: Vec<(String, u64)> = db.all(count, values![first, last])?;
                for (state, tasks) in states {
                    if let Ok(outcome) = state.parse::<Outcome>() {
                        *outcomes.entry(outcome).or_default() += tasks;
                    }
                }
            }
            Ok(outcomes)
        })
        .await
    }
}

pub(super) fn cancel(write: &mut Write<'_>, tasks: &[i64], now_ms: u64) -> Result<CancelSlice> {
    let db = write.db;
    let mut slice = CancelSlice::default();
    let (mut ended, mut paused) = (Vec::new(), Vec::new());
    let find = "SELECT t.id, n.id, t.state, t.current_attempt FROM tasks t \
         JOIN interned_ids n ON n.n = t.endpoint WHERE t.seq = ?";
    let insert = "INSERT INTO cancellations (task, endpoint_id, attempt, number, requested_at_ms) \
         VALUES (?, ?, ?, ?, ?) ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, \
         number = excluded.number";
    for seq in tasks.iter().take(CANCEL_MAX) {
        let Some(task) = db.one::<CancelledTask>(find, values![seq])? else { continue };
        if task.state.parse::<Outcome>().is_ok() {
            slice.too_late += 1;
            continue;
        }
        let attempt = Attempt { task_id: task.id, attempt: task.attempt };
        if ["scheduled", "unplaced", "waiting", "paused"].contains(&task.state.as_str()) {
            let reason = NEVER_SENT.into();
            let endpoint = task.endpoint;
            ended.push(TaskResult::not_run(attempt, Outcome::Cancelled, reason, endpoint, now_ms));
            paused.push(*seq);
            continue;
        }
        let known = slice.asked.get(&task.endpoint).map(|(number, _)| *number);
        let number = match known {
            Some(number) => number,
            None => begin(db, task.endpoint)?,
        };
        db.run(insert, values![seq, task.endpoint, task.attempt, number, now_ms])?;
        slice.asked.entry(task.endpoint).or_insert((number, Vec::new())).1.push(*seq);
    }
    let ended: Vec<&TaskResult> = ended.iter().collect();
    slice.cancelled = ended.len() as u64;
    conclude(write, &ended, now_ms)?;
    retries::remove_pauses(write.db, &paused)?;
    Ok(slice)
}

/// A new message that cancels tasks of an endpoint; its number.
fn begin(db: &Db<'_>, endpoint: EndpointId) -> Result<u64> {
    let number = next_number(db, endpoint)?;
    db.run("INSERT INTO cancels (endpoint_id, number) VALUES (?, ?)", values![endpoint, number])?;
    Ok(number)
}

fn pending(db: &Db<'_>, except: &[EndpointId]) -> Result<Vec<PendingCancel>> {
    let find = "SELECT endpoint_id, number FROM cancels WHERE confirmed = 0 \
         ORDER BY endpoint_id, number";
    let mut messages: Vec<(EndpointId, u64)> = db.all(find, &[])?;
    messages.retain(|(endpoint, _)| !except.contains(endpoint));
    messages.truncate(usize::try_from(SENT_AT_ONCE).unwrap_or(usize::MAX));
    let find = "SELECT t.id, c.attempt FROM cancellations c JOIN tasks t ON t.seq = c.task \
         WHERE c.endpoint_id = ? AND c.number = ? ORDER BY c.task";
    let read = |(endpoint, number)| {
        let attempts = db.all(find, values![endpoint, number])?;
        let attempt = |(task_id, attempt)| Attempt { task_id, attempt };
        let attempts = attempts.into_iter().map(attempt).collect();
        Ok(PendingCancel { endpoint, number, attempts })
    };
    messages.into_iter().map(read).collect()
}
