//! Tasks that the broker is not known to have: read in pages, handed to the link, and taken
//! back.
//!
//! Touches the database only. Promises: a page has a bounded number of tasks and bytes; a task
//! is recorded as `submitting` before a page that has it is returned; tasks of several priorities
//! are in the page in their turns, as they are at an endpoint.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::{UNCOMMON_STATES, decoded, encoded};
use super::stored_state::StoredState;
use super::submissions::HandOver;
use super::topic_tasks::set_waiting;
use super::transitions::move_tasks;
use super::{Result, Store, cancel_requests, expiries, topic_tasks};
use clutch_common::id::EndpointId;
use clutch_common::task::Task;
use clutch_common::task::priority::Priority;
use clutch_common::task::turns::{Front, Turns};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The most bytes of tasks in a page.
pub(super) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A task to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Handed {
    /// Its row.
    pub(crate) seq: i64,
    /// The task, with the number of the attempt.
    pub(crate) task: Task,
    /// The task as it is published.
    pub(crate) body: String,
    /// Whether a copy may be at the broker.
    pub(crate) hand_over: HandOver,
}

/// A task without an answer of the broker, as it is recorded.
struct OpenTask {
    seq: i64,
    attempt: u32,
    body: String,
}

impl FromRow for OpenTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self { seq: columns.next()?, attempt: columns.next()?, body: columns.next()? })
    }
}

impl OpenTask {
    fn handed(self, db: &Db<'_>, hand_over: HandOver) -> Result<Handed> {
        let Self { seq, attempt, body } = self;
        let task = expiries::current(db, seq, decoded(seq, &body, attempt)?)?;
        let of_topic = task.topic.is_some();
        let task = topic_tasks::with_terms(db, seq, task)?;
        let body = if attempt == 1 && !of_topic { body } else { encoded(&task)? };
        Ok(Handed { seq, task, body, hand_over })
    }
}

/// Up to which row the tasks of each priority were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions([i64; 5]);

impl Positions {
    /// Goes on to these tasks, where they are further.
    pub(crate) fn pass(&mut self, tasks: &[Handed]) {
        for one in tasks {
            let row = &mut self.0[one.task.priority.index()];
            *row = (*row).max(one.seq);
        }
    }

    fn of(self, priority: Priority) -> i64 {
        self.0[priority.index()]
    }
}

impl Store {
    /// The endpoints with tasks that wait and were not handed to the link.
    pub(crate) async fn endpoints_with_waiting(&self) -> Result<Vec<EndpointId>> {
        self.read("looking for tasks that wait", |db| {
            let any = format!("SELECT 1 FROM tasks t WHERE t.state = 'waiting'{UNCOMMON_STATES}");
            // As nearly always: it spares a look at every submission.
            if !db.exists(&format!("{any} LIMIT 1"), &[])? {
                return Ok(Vec::new());
            }
            let find = "SELECT DISTINCT s.endpoint_id FROM counts c \
                 JOIN submissions s ON s.id = c.submission \
                 WHERE c.state = 'waiting' AND c.tasks > 0";
            Ok(db.all(find, &[])?.into_iter().map(|(endpoint,)| endpoint).collect())
        })
        .await
    }

    /// Records up to `limit` tasks of an endpoint that wait as `submitting`, and returns them:
    /// those of each priority after its row in `after`, in their turns.
    pub(crate) async fn hand_over(
        &self,
        endpoint: EndpointId,
        after: Positions,
        limit: usize,
    ) -> Result<Vec<Handed>> {
        const DOING: &str = "handing waiting tasks to the link";
        let page = self.read(DOING, move |db| waiting(db, endpoint, after, limit)).await?;
        if page.is_empty() {
            return Ok(Vec::new());
        }
        self.write(DOING, move |write| {
            let tasks: Vec<(i64, u32)> = page.iter().map(|one| (one.seq, one.attempt)).collect();
            // One may be cancelled since it was read.
            let mut moved = BTreeSet::new();
            let from = [StoredState::Waiting];
            move_tasks(write.db, &tasks, &from, StoredState::Submitting, |task| {
                moved.insert(task);
            })?;
            let page = page.into_iter().filter(|one| moved.contains(&one.seq));
            page.map(|one| one.handed(write.db, HandOver::First)).collect()
        })
        .await
    }

    /// Those of these tasks that are `submitting` to an endpoint still, to be published again; none
    /// that is to be cancelled.
    pub(crate) async fn still_submitting(
        &self,
        endpoint: EndpointId,
        tasks: Vec<i64>,
    ) -> Result<Vec<Handed>> {
        self.read("looking for tasks in doubt", move |db| {
            let find = "SELECT t.seq, t.current_attempt, p.body FROM tasks t \
                 JOIN payloads p ON p.task = t.seq WHERE t.seq = ? AND t.state = 'submitting' \
                 AND t.endpoint = (SELECT n FROM interned_ids WHERE id = ?) \
                 AND NOT EXISTS (SELECT 1 FROM cancellations c WHERE c.task = t.seq)";
            let mut found = Vec::new();
            for task in tasks {
                let open: Option<OpenTask> = db.one(find, values![task, endpoint])?;
                found.extend(open.map(|open| open.handed(db, HandOver::Again)).transpose()?);
            }
            Ok(found)
        })
        .await
    }

    /// The tasks that are `submitting` and were recorded at or before a time, in order.
    pub(crate) async fn submitting_since(&self, until_ms: u64) -> Result<Vec<(EndpointId, i64)>> {
        self.read("looking for tasks in doubt", move |db| {
            // A `CROSS JOIN`: the other way round, it would go through every task there is.
            let find = "SELECT n.id, t.seq FROM counts c CROSS JOIN tasks t \
                 JOIN interned_ids n ON n.n = t.endpoint WHERE t.submission = c.submission \
                 AND c.state = 'submitting' AND c.tasks > 0 AND t.state = 'submitting' \
                 AND t.created_at_ms <= ?";
            db.all(find, values![until_ms])
        })
        .await
    }

    /// Has tasks wait that the broker certainly does not have, each with the attempt that was
    /// published, unless they are known to have got further. One that is to be cancelled stays
    /// as it is: its endpoint was asked, and it is not published again.
    pub(crate) async fn keep_waiting(&self, tasks: Vec<(i64, u32)>) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        self.write("recording that the broker did not take the tasks", move |write| {
            let mut kept = Vec::with_capacity(tasks.len());
            for task in tasks {
                if !cancel_requests::is_requested(write.db, task.0)? {
                    kept.push(task);
                }
            }
            set_waiting(write, &kept, &[StoredState::Submitting], None)
        })
        .await
    }
}

/// A page of an endpoint's tasks that wait.
fn waiting(
    db: &Db<'_>,
    endpoint: EndpointId,
    after: Positions,
    limit: usize,
) -> Result<Vec<OpenTask>> {
    let mut pages: Vec<(Priority, Vec<i64>)> = Vec::new();
    if let Some(first) = first_waiting(db)? {
        for priority in Priority::ALL.into_iter().filter(|priority| !priority.is_normal()) {
            let after = after.of(priority).max(first - 1);
            let found = with_priority(db, endpoint, priority, after, limit)?;
            if !found.is_empty() {
                pages.push((priority, found));
            }
        }
    }
    if pages.is_empty() {
        return normal(db, endpoint, after.of(Priority::Normal), limit);
    }
    let rows = format!("SELECT t.seq{}", from_normal(db));
    let after = after.of(Priority::Normal);
    let normal: Vec<(i64,)> = db.all(&rows, values![after, endpoint, limit as u64])?;
    pages.push((Priority::Normal, normal.into_iter().map(|(row,)| row).collect()));
    in_turns(db, &pages, limit)
}

/// The first row with a task that waits.
fn first_waiting(db: &Db<'_>) -> Result<Option<i64>> {
    let find = format!("SELECT min(t.seq) FROM tasks t WHERE t.state = 'waiting'{UNCOMMON_STATES}");
    Ok(db.only::<(Option<i64>,)>(&find, &[])?.0)
}

/// Where normal tasks that wait are found. The index of the state serves it.
fn from_normal(db: &Db<'_>) -> String {
    format!(
        " FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.state = 'waiting'{UNCOMMON_STATES} AND t.priority = 0 AND t.seq > ? \
         AND {} = (SELECT n FROM interned_ids WHERE id = ?) ORDER BY t.seq LIMIT ?",
        db.dialect().endpoint_in_submission
    )
}

/// The normal tasks that wait.
fn normal(db: &Db<'_>, endpoint: EndpointId, after: i64, limit: usize) -> Result<Vec<OpenTask>> {
    let find = format!("SELECT t.seq, t.current_attempt, p.body{}", from_normal(db));
    let (mut page, mut bytes) = (Vec::new(), 0);
    db.each(&find, values![after, endpoint, limit as u64], |task: OpenTask| {
        bytes += task.body.len();
        page.push(task);
        let full = bytes >= PAGE_BYTES;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(page)
}

/// The rows of tasks that wait and have a priority. The index of the priorities serves it, from
/// the first row with a task that waits.
fn with_priority(
    db: &Db<'_>,
    endpoint: EndpointId,
    priority: Priority,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>> {
    let find = "SELECT t.seq FROM tasks t \
         WHERE t.endpoint = (SELECT n FROM interned_ids WHERE id = ?) AND t.priority <> 0 \
         AND t.priority = ? AND t.seq > ? AND t.state = 'waiting' ORDER BY t.seq LIMIT ?";
    let rows: Vec<(i64,)> =
        db.all(find, values![endpoint, priority.rank(), after, limit as u64])?;
    Ok(rows.into_iter().map(|(row,)| row).collect())
}

/// The tasks in these rows, in their turns, up to a number of tasks and bytes.
fn in_turns(db: &Db<'_>, pages: &[(Priority, Vec<i64>)], limit: usize) -> Result<Vec<OpenTask>> {
    let find = "SELECT t.seq, t.current_attempt, p.body FROM tasks t \
         JOIN payloads p ON p.task = t.seq WHERE t.seq = ?";
    let mut left: Vec<(Priority, &[i64])> =
        pages.iter().map(|(priority, rows)| (*priority, &rows[..])).collect();
    let (mut turns, mut page, mut bytes) = (Turns::default(), Vec::new(), 0);
    while page.len() < limit && bytes < PAGE_BYTES {
        let fronts = left
            .iter()
            .filter_map(|(level, rows)| Some(Front { level: *level, age: *rows.first()? }));
        let Some(turn) = turns.next(fronts) else { break };
        turns.took(&turn);
        for (level, rows) in &mut left {
            if *level == turn.front.level {
                *rows = rows.get(1..).unwrap_or_default();
            }
        }
        let task: Option<OpenTask> = db.one(find, values![turn.front.age])?;
        bytes += task.as_ref().map_or(0, |task| task.body.len());
        page.extend(task);
    }
    Ok(page)
}
