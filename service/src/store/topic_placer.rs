//! Places tasks of topics, and ends placements: what was not claimed in time, what was claimed by a
//! member that is lost, and tasks that no member could do for as long as they may wait.
//!
//! Touches the database, and the board that decides. Promises: a task is recorded as given to its
//! member, on disk, before it is returned to be published; a transaction places a bounded number
//! of tasks and bytes; what a failed one placed is undone on the board.

use super::engine::{Columns, Db, FromRow, values};
use super::results::conclude;
use super::rows::{decoded, encoded};
use super::stored_state::StoredState;
use super::submissions::HandOver;
use super::transitions::StateCounts;
use super::waiting::{Handed, PAGE_BYTES};
use super::{Result, Store, Write, cancel_requests, expiries, lost_attempts};
use crate::topics::{After, Assignment, Change, Fronts, Matched, PlacementEnd, Waiting};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::{Outcome, TaskResult};
use std::collections::{BTreeMap, BTreeSet};

/// How many tasks expire in one transaction.
const EXPIRED_AT_ONCE: u64 = 1000;

/// The reason of a task that was cancelled and never started.
const NEVER_STARTED: &str = "cancelled; the endpoint that had it did not claim it in time, and will \
     not start it";
/// The reason of a task that its member claimed, and that must not run again.
const MEMBER_LOST: &str = "the endpoint that claimed it is lost; whether it ran is not known, and \
     it must not run again";

/// The tasks that were placed in one transaction.
#[derive(Debug, Default)]
pub(crate) struct PlacedPage {
    /// By member, to be published.
    pub(crate) by_member: BTreeMap<EndpointId, Vec<Handed>>,
    /// How many there are.
    pub(crate) tasks: usize,
    /// The kinds of which a task waits that found no member.
    pub(crate) stuck: BTreeSet<i64>,
}

/// How many tasks' placements ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndedPlacements {
    /// Those of which the next attempt is placed.
    pub(crate) again: u64,
    /// Those that ended as interrupted.
    pub(crate) interrupted: u64,
    /// Those that ended as cancelled.
    pub(crate) cancelled: u64,
}

/// The tasks that wait, read in the transaction that places them.
struct WaitingRows<'a> {
    db: &'a Db<'a>,
}

impl FromRow for Waiting {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            turn: columns.next()?,
            task: columns.next()?,
            cores: columns.next()?,
            attempt: columns.next()?,
            start_within_ms: columns.next()?,
        })
    }
}

impl Fronts for WaitingRows<'_> {
    type Error = super::Error;

    fn page(
        &mut self,
        kind: i64,
        priority: Priority,
        (turn, task): (i64, i64),
        limit: usize,
    ) -> Result<Vec<Waiting>> {
        let find = "SELECT w.turn, w.task, w.cores, t.current_attempt, w.start_within_ms \
             FROM topic_tasks w JOIN tasks t ON t.seq = w.task WHERE w.kind = ? AND w.priority = ? \
             AND w.waits = 1 AND (w.turn, w.task) > (?, ?) ORDER BY w.turn, w.task LIMIT ?";
        self.db.all(find, values![kind, priority.rank(), turn, task, limit as u64])
    }
}

/// A placed task of which the placement may end.
struct PlacedTask {
    id: TaskId,
    topic: i64,
    member: EndpointId,
    state: StoredState,
    attempt: u32,
    claimed: bool,
    body: String,
}

impl FromRow for PlacedTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: columns.next()?,
            topic: columns.next()?,
            member: columns.next()?,
            state: columns.next()?,
            attempt: columns.next()?,
            claimed: columns.next()?,
            body: columns.next()?,
        })
    }
}

impl Store {
    /// Places up to `limit` tasks, as the board decides, and returns them to be published.
    pub(crate) async fn place_topic_tasks(&self, limit: usize, now_ms: u64) -> Result<PlacedPage> {
        if !self.board.with(|catalogue| catalogue.may_place()) {
            return Ok(PlacedPage::default());
        }
        let job = move |write: &mut Write<'_>| place(write, limit, now_ms);
        let page = self.record_only("placing tasks of topics", job, |_| ()).await?;
        if page.tasks > 0 {
            self.durable().await?;
        }
        Ok(page)
    }

    /// Ends the placements of these tasks, each with its attempt, for a reason.
    pub(crate) async fn end_placements(
        &self,
        tasks: Vec<(i64, u32)>,
        after: After,
        now_ms: u64,
    ) -> Result<EndedPlacements> {
        self.write("ending placements", move |write| end_placements(write, &tasks, after, now_ms))
            .await
    }

    /// Ends tasks that waited to be placed for as long as they may; returns how many.
    pub(crate) async fn expire_unplaced(&self, now_ms: u64) -> Result<u64> {
        if self.board.with(|catalogue| catalogue.next_expiry()).is_none_or(|due| due > now_ms) {
            return Ok(0);
        }
        self.write("ending tasks that no member took", move |write| {
            let expired = expire(write, now_ms)?;
            let next = next_expiry(write.db)?;
            write.board.with(|catalogue| {
                catalogue.may_expire(None);
                catalogue.may_expire(next);
            });
            Ok(expired)
        })
        .await
    }

    /// Ends what a lost member claimed; returns how many attempts these were.
    pub(crate) async fn lose_member(&self, member: EndpointId, now_ms: u64) -> Result<u64> {
        self.write("ending what a lost member claimed", move |write| lose(write, member, now_ms))
            .await
    }
}

fn place(write: &mut Write<'_>, limit: usize, now_ms: u64) -> Result<PlacedPage> {
    let db = write.db;
    let Matched { assignments, empty, stuck } =
        write.board.with(|catalogue| catalogue.place(&mut WaitingRows { db }, limit, now_ms))?;
    write.topics.add(Change::Matched, Some(now_ms));
    let mut page = PlacedPage { stuck, ..PlacedPage::default() };
    let (mut bytes, mut counts, mut turns) = (0, StateCounts::default(), BTreeMap::new());
    let mut left = assignments.iter();
    for assignment in left.by_ref() {
        let (submission, handed) = record(write, assignment, now_ms)?;
        counts.moved(submission, StoredState::InTopic, StoredState::Submitting);
        let turn: &mut i64 = turns.entry(assignment.placed.kind).or_insert(assignment.turn);
        *turn = assignment.turn.max(*turn);
        bytes += handed.body.len();
        page.by_member.entry(assignment.placed.member).or_default().push(handed);
        page.tasks += 1;
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    let mut cut_off = false;
    for Assignment { task, .. } in left {
        cut_off = true;
        write.topics.add(Change::TakenBack(*task), Some(now_ms));
    }
    if !cut_off {
        for (kind, priority) in empty {
            write.topics.add(Change::NoneWaits(kind, priority), None);
        }
    }
    counts.write(db)?;
    let update = "UPDATE topics SET turn = ?1 WHERE turn < ?1 \
         AND n = (SELECT topic FROM topic_kinds WHERE n = ?2)";
    for (kind, turn) in turns {
        db.run(update, values![turn, kind])?;
    }
    Ok(page)
}

/// Records that a task is given to a member; returns its submission, and the task as it is
/// published.
fn record(
    write: &mut Write<'_>,
    assignment: &Assignment,
    now_ms: u64,
) -> Result<(Option<i64>, Handed)> {
    let db = write.db;
    let Assignment { task: seq, placed, .. } = assignment;
    let member = write.ids.number(db, placed.member)?;
    let update = "UPDATE topic_tasks SET waits = 0, member = ?, attempt = ?, placed_at_ms = ?, \
         start_by_ms = ?, claimed = 0 WHERE task = ?";
    db.run(update, values![member, placed.attempt, now_ms, placed.start_by_ms, seq])?;
    let update = "UPDATE tasks SET state = 'submitting', endpoint = ? WHERE seq = ?";
    db.run(update, values![member, seq])?;
    let find = "SELECT t.submission, p.body FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.seq = ?";
    let (submission, body): (Option<i64>, String) = db.only(find, values![seq])?;
    let mut task = expiries::current(db, *seq, decoded(*seq, &body, placed.attempt)?)?;
    if let Some(terms) = &mut task.topic {
        terms.start_by_ms = placed.start_by_ms;
    }
    let body = encoded(&task)?;
    Ok((submission, Handed { seq: *seq, task, body, hand_over: HandOver::First }))
}

fn end_placements(
    write: &mut Write<'_>,
    tasks: &[(i64, u32)],
    after: After,
    now_ms: u64,
) -> Result<EndedPlacements> {
    let mut counts = EndedPlacements::default();
    let mut ended = Vec::new();
    for (seq, attempt) in tasks {
        let find = "SELECT t.id, t.topic, n.id, t.state, t.current_attempt, tt.claimed, p.body \
             FROM tasks t JOIN topic_tasks tt ON tt.task = t.seq \
             JOIN interned_ids n ON n.n = tt.member JOIN payloads p ON p.task = t.seq \
             WHERE t.seq = ?";
        let Some(task) = write.db.one::<PlacedTask>(find, values![seq])? else { continue };
        let open = matches!(task.state, StoredState::Submitting | StoredState::Submitted);
        if !open || task.attempt != *attempt {
            // It ended, or is placed anew: the board was told otherwise.
            write.topics.add(Change::TakenBack(*seq), Some(now_ms));
            continue;
        }
        let rerun = decoded(*seq, &task.body, *attempt)?.rerun;
        let cancelled = cancel_requests::is_requested(write.db, *seq)?;
        let (outcome, reason) = match after.fate(task.claimed, rerun, cancelled) {
            PlacementEnd::Stay => {
                if task.claimed {
                    write.topics.add(Change::Claimed(*seq), None);
                }
                continue;
            }
            PlacementEnd::PlaceAgain => {
                lost_attempts::resubmit(write, (*seq, Some(task.topic)), *attempt, now_ms)?;
                counts.again += 1;
                continue;
            }
            PlacementEnd::Interrupt => {
                counts.interrupted += 1;
                (Outcome::Interrupted, MEMBER_LOST)
            }
            PlacementEnd::Cancel => {
                counts.cancelled += 1;
                (Outcome::Cancelled, NEVER_STARTED)
            }
        };
        let attempt = Attempt { task_id: task.id, attempt: *attempt };
        ended.push(TaskResult::not_run(attempt, outcome, reason.into(), task.member, now_ms));
    }
    conclude(write, &ended.iter().collect::<Vec<_>>(), now_ms)?;
    Ok(counts)
}

/// Ends what a lost member claimed; returns how many attempts these were.
pub(super) fn lose(write: &mut Write<'_>, member: EndpointId, now_ms: u64) -> Result<u64> {
    let find = "SELECT t.seq, t.current_attempt FROM tasks t \
         JOIN topic_tasks tt ON tt.task = t.seq \
         WHERE t.endpoint = (SELECT n FROM interned_ids WHERE id = ?) AND t.topic IS NOT NULL \
         AND t.state IN ('submitting', 'submitted') AND tt.claimed = 1";
    let tasks: Vec<(i64, u32)> = write.db.all(find, values![member])?;
    let EndedPlacements { again, interrupted, cancelled } =
        end_placements(write, &tasks, After::MemberLost, now_ms)?;
    Ok(again + interrupted + cancelled)
}

fn next_expiry(db: &Db<'_>) -> Result<Option<u64>> {
    let find = "SELECT min(place_by_ms) FROM topic_tasks \
         WHERE waits = 1 AND place_by_ms IS NOT NULL";
    Ok(db.only::<(Option<u64>,)>(find, &[])?.0)
}

fn expire(write: &mut Write<'_>, now_ms: u64) -> Result<u64> {
    let find = "SELECT task, kind, place_within_ms FROM topic_tasks \
         WHERE waits = 1 AND place_by_ms IS NOT NULL AND place_by_ms <= ? \
         ORDER BY place_by_ms LIMIT ?";
    let due: Vec<(i64, i64, u64)> = write.db.all(find, values![now_ms, EXPIRED_AT_ONCE])?;
    let find = "SELECT t.id, t.current_attempt, n.id FROM tasks t \
         JOIN interned_ids n ON n.n = t.endpoint WHERE t.seq = ?";
    let mut words: BTreeMap<i64, String> = BTreeMap::new();
    let mut ended = Vec::with_capacity(due.len());
    for (seq, kind, within_ms) in due {
        let (task_id, attempt, of): (TaskId, u32, EndpointId) =
            write.db.only(find, values![seq])?;
        let why = words
            .entry(kind)
            .or_insert_with(|| write.board.with(|board| board.why_unplaced(kind, now_ms)));
        let within = std::time::Duration::from_millis(within_ms);
        let reason = format!("not placed within {}: {why}", humantime::format_duration(within));
        let attempt = Attempt { task_id, attempt };
        ended.push(TaskResult::not_run(attempt, Outcome::Expired, reason, of, now_ms));
    }
    conclude(write, &ended.iter().collect::<Vec<_>>(), now_ms)?;
    Ok(ended.len() as u64)
}

#[cfg(test)]
mod simulation;
