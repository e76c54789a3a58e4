//! The rows of tasks of topics: made with the tasks, taken back to what waits whenever such a task
//! waits again, and marked as claimed.
//!
//! Touches the database, and tells the board of topics what it changed. Promises: a task that is
//! addressed to an endpoint costs no statement; a task is in one place, among what waits or at one
//! member; every way back to what waits goes through [`take_back`].

use super::engine::{Db, append, values};
use super::stored_state::StoredState;
use super::transitions::StateCounts;
use super::{Result, Write};
use crate::model::{TopicOrder, topic_id};
use crate::topics::{Change, TaskKind};
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::task::priority::Priority;
use clutch_common::task::{Task, Work};
use clutch_common::wire::Claims;
use std::collections::{BTreeMap, BTreeSet};

/// A topic that tasks are submitted to.
pub(super) struct Addressed<'a> {
    /// The terms.
    pub(super) order: &'a TopicOrder,
    /// The topic's number.
    pub(super) topic: i64,
    /// The turn of the last task of the topic that was placed.
    last_turn: i64,
}

/// The topic of an order, made if it is new.
pub(super) fn address<'a>(write: &mut Write<'_>, order: &'a TopicOrder) -> Result<Addressed<'a>> {
    let topic = write.ids.number(write.db, topic_id(&order.topic))?;
    let upsert = "INSERT INTO topics (n, name) VALUES (?, ?) \
         ON CONFLICT (n) DO UPDATE SET name = excluded.name RETURNING turn";
    let (last_turn,) = write.db.only(upsert, values![topic, &order.topic])?;
    Ok(Addressed { order, topic, last_turn })
}

/// A task that is recorded, with its index in its submission.
#[derive(Clone, Copy)]
pub(super) struct NewTopicTask<'a> {
    pub(super) seq: i64,
    pub(super) index: u64,
    pub(super) task: &'a Task,
}

/// A row to insert.
struct NewRow {
    seq: i64,
    kind: i64,
    priority: i64,
    turn: i64,
    cores: u32,
}

/// Adds the rows of new tasks. They wait from a moment on, or, without one, until they are due.
pub(super) fn insert(
    write: &mut Write<'_>,
    to: &Addressed<'_>,
    (submission, is_new): (i64, bool),
    new: &[NewTopicTask<'_>],
    waits_from_ms: Option<u64>,
) -> Result<()> {
    let first = first_turn(write.db, to, submission, is_new)?;
    let mut kinds: BTreeMap<Option<String>, i64> = BTreeMap::new();
    let mut rows = Vec::with_capacity(new.len());
    let mut open = BTreeSet::new();
    for NewTopicTask { seq, index, task } in new {
        let function = match &task.work {
            Work::Call(call) => Some(call.function.clone()),
            Work::Process(_) => None,
        };
        let kind = match kinds.get(&function) {
            Some(kind) => *kind,
            None => {
                let kind = kind(write, to, function.clone())?;
                *kinds.entry(function).or_insert(kind)
            }
        };
        let turn = first.saturating_add(i64::try_from(*index).unwrap_or(i64::MAX));
        let priority = task.priority.rank();
        rows.push(NewRow { seq: *seq, kind, priority, turn, cores: task.cores });
        open.insert((kind, task.priority));
    }
    let TopicOrder { start_within_ms, place_within_ms, .. } = *to.order;
    let place_by_ms =
        waits_from_ms.and_then(|from| place_within_ms.map(|within| from.saturating_add(within)));
    let into = "topic_tasks (task, kind, priority, turn, cores, waits, start_within_ms, \
         place_within_ms, place_by_ms)";
    write.db.insert(into, &rows, |values, row| {
        append!(values, row.seq, row.kind, row.priority, row.turn, row.cores);
        append!(values, waits_from_ms.is_some(), start_within_ms, place_within_ms, place_by_ms);
    })?;
    if let Some(at_ms) = place_by_ms {
        write.topics.add(Change::MayExpire(at_ms), None);
    }
    if waits_from_ms.is_some() {
        for (kind, priority) in open {
            write.topics.add(Change::Waits(kind, priority), waits_from_ms);
        }
    }
    Ok(())
}

/// The turn of the first task of a submission: the next one, unless some of its tasks have theirs.
fn first_turn(db: &Db<'_>, to: &Addressed<'_>, submission: i64, is_new: bool) -> Result<i64> {
    let next = to.last_turn.saturating_add(1);
    if is_new {
        return Ok(next);
    }
    let find = "SELECT tt.turn - t.idx FROM tasks t JOIN topic_tasks tt ON tt.task = t.seq \
         WHERE t.submission = ? ORDER BY t.idx LIMIT 1";
    let known = db.one::<(i64,)>(find, values![submission])?;
    Ok(known.map_or(next, |(first,)| first))
}

/// The number of a kind, made if it is new.
fn kind(write: &mut Write<'_>, to: &Addressed<'_>, function: Option<String>) -> Result<i64> {
    let version = to.order.version.clone();
    let upsert = "INSERT INTO topic_kinds (topic, function, version) VALUES (?, ?, ?) \
         ON CONFLICT (topic, function, version) DO UPDATE SET function = excluded.function \
         RETURNING n";
    let names = (function.as_deref().unwrap_or(""), version.as_deref().unwrap_or(""));
    let (number,) = write.db.only(upsert, values![to.topic, names.0, names.1])?;
    let kind = TaskKind { topic: to.order.topic.clone(), function, version };
    write.topics.add(Change::Kind(number, kind), None);
    Ok(number)
}

/// Has tasks wait, each with the attempt under way, those of them that are in one of the states
/// `from`: those of a topic to be placed, the others to be handed to the link.
pub(super) fn set_waiting(
    write: &mut Write<'_>,
    tasks: &[(i64, u32)],
    from: &[StoredState],
    now_ms: Option<u64>,
) -> Result<()> {
    let mut counts = StateCounts::default();
    let mut of_topics = Vec::new();
    let db = write.db;
    let mut find =
        db.prepare("SELECT submission, state, current_attempt, topic FROM tasks WHERE seq = ?")?;
    let mut update = db.prepare("UPDATE tasks SET state = ? WHERE seq = ?")?;
    for (task, attempt) in tasks {
        let found: Option<(Option<i64>, StoredState, u32, Option<i64>)> =
            find.first(values![task])?;
        let Some((submission, state, current, topic)) = found else { continue };
        if !from.contains(&state) || *attempt != current {
            continue;
        }
        let to = waiting(topic);
        // At once: the same task may come again.
        update.execute(values![to.as_str(), task])?;
        counts.moved(submission, state, to);
        of_topics.extend(topic.map(|topic| (*task, topic)));
    }
    counts.write(db)?;
    for (task, topic) in of_topics {
        take_back(write, (task, topic), Back::NotGiven { waits: true }, now_ms)?;
    }
    Ok(())
}

/// The state of a task that waits, by its topic.
pub(super) fn waiting(topic: Option<i64>) -> StoredState {
    if topic.is_some() { StoredState::InTopic } else { StoredState::Waiting }
}

/// How a task of a topic comes back from where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// No member was given its attempt; it waits, or pauses.
    NotGiven {
        /// Whether it waits.
        waits: bool,
    },
    /// A member was given the attempt before this one; it waits, or pauses.
    NextAttempt {
        /// Whether it waits.
        waits: bool,
    },
}

/// Takes a task back from the member that has it, if one does, to what waits to be placed.
pub(super) fn take_back(
    write: &mut Write<'_>,
    (task, topic): (i64, i64),
    back: Back,
    now_ms: Option<u64>,
) -> Result<()> {
    let db = write.db;
    let find = "SELECT kind, priority, member, attempt FROM topic_tasks WHERE task = ?";
    let found: Option<(i64, Priority, Option<i64>, Option<u32>)> = db.one(find, values![task])?;
    let Some((kind, priority, member, attempt)) = found else { return Ok(()) };
    let (Back::NotGiven { waits } | Back::NextAttempt { waits }) = back;
    if let (Back::NextAttempt { .. }, Some(member), Some(attempt)) = (back, member, attempt) {
        let insert = "INSERT INTO placements (task, attempt, member) VALUES (?, ?, ?) \
             ON CONFLICT (task, attempt) DO NOTHING";
        db.run(insert, values![task, attempt, member])?;
    }
    let update = "UPDATE topic_tasks SET waits = ?1, member = NULL, attempt = NULL, \
         placed_at_ms = NULL, start_by_ms = NULL, claimed = 0, \
         place_by_ms = coalesce(?2 + place_within_ms, place_by_ms) WHERE task = ?3";
    db.run(update, values![waits, now_ms, task])?;
    db.run("UPDATE tasks SET endpoint = ? WHERE seq = ?", values![topic, task])?;
    write.topics.add(Change::TakenBack(task), None);
    if waits {
        write.topics.add(Change::Waits(kind, priority), None);
        let find = "SELECT place_by_ms FROM topic_tasks WHERE task = ?";
        if let (Some(at_ms),) = write.db.only::<(Option<u64>,)>(find, values![task])? {
            write.topics.add(Change::MayExpire(at_ms), None);
        }
    }
    Ok(())
}

/// Notes that tasks of topics have ended, each in the state that it was in.
pub(super) fn ended(
    write: &mut Write<'_>,
    tasks: &[(i64, StoredState)],
    now_ms: u64,
) -> Result<()> {
    for (task, before) in tasks {
        if matches!(before, StoredState::InTopic | StoredState::Scheduled | StoredState::Paused) {
            let update = "UPDATE topic_tasks SET waits = 0 WHERE task = ?";
            write.db.run(update, values![task])?;
        }
        write.topics.add(Change::Ended(*task), Some(now_ms));
    }
    Ok(())
}

/// Takes in claims; those of attempts that ended with them need no mark. Returns how many are of
/// no attempt that their member has, or of none that is known.
pub(super) fn claim(
    write: &mut Write<'_>,
    claims: &[Claims],
    ended: &BTreeSet<Attempt>,
) -> Result<u64> {
    let mut stale = 0;
    let find = "SELECT tt.task, tt.claimed, t.state FROM tasks t \
         JOIN topic_tasks tt ON tt.task = t.seq WHERE t.id = ?1 AND tt.attempt = ?2 \
         AND tt.member = ?3";
    for Claims { endpoint_id, attempts, .. } in claims {
        let member = write.ids.number(write.db, endpoint_id)?;
        for Attempt { task_id, attempt } in attempts.iter().filter(|one| !ended.contains(one)) {
            let found: Option<(i64, bool, StoredState)> =
                write.db.one(find, values![task_id, *attempt, member])?;
            match found {
                None => stale += 1,
                Some((_, true, _) | (_, _, StoredState::Done(_))) => (),
                Some((task, false, _)) => {
                    let update = "UPDATE topic_tasks SET claimed = 1 WHERE task = ?";
                    write.db.run(update, values![task])?;
                    write.topics.add(Change::Claimed(task), None);
                }
            }
        }
    }
    Ok(stale)
}

/// The earlier placements of a task: members by number, each with its attempt.
pub(super) fn earlier(db: &Db<'_>, task: i64) -> Result<Vec<(i64, u32)>> {
    db.all("SELECT member, attempt FROM placements WHERE task = ? ORDER BY attempt", values![task])
}

/// A kind of which a member says that it does not offer it.
pub(super) fn not_offered(write: &mut Write<'_>, task: i64, member: EndpointId) -> Result<()> {
    let find = "SELECT kind FROM topic_tasks WHERE task = ?";
    if let Some((kind,)) = write.db.one::<(i64,)>(find, values![task])? {
        write.topics.add(Change::NotOffered(member, kind), None);
    }
    Ok(())
}

/// A task as it was read from its payload, with the terms of its placement.
pub(super) fn with_terms(db: &Db<'_>, seq: i64, mut task: Task) -> Result<Task> {
    if let Some(terms) = &mut task.topic {
        let find = "SELECT start_by_ms FROM topic_tasks WHERE task = ?";
        let found = db.one::<(Option<u64>,)>(find, values![seq])?;
        terms.start_by_ms = found.and_then(|(start_by_ms,)| start_by_ms).unwrap_or(0);
    }
    Ok(task)
}
