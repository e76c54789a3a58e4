//! Occurrences: the one record of each instant of a schedule, made in the transaction that
//! records its task and advances its schedule.
//!
//! Touches the database only. Promises: an instant has at most one record, and at most one
//! task, however often it is come to; what one schedule cannot do holds up no other; a
//! transaction goes through a bounded number of schedules and instants.

use super::engine::{Columns, Db, FromRow, values};
use super::schedule_rows::{COLUMNS, ScheduleRow, find, save, signed};
use super::stored_state::StoredState;
use super::submissions::{self, Chunk, Handing};
use super::{Error, Result, Store, Write, cancels, endpoints};
use crate::model::{Destination, Occurrence, ScheduleSpec, moment};
use crate::schedule::{Decision, End, Next, ScheduleId, ScheduleState, SkipReason, step};
use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use std::collections::BTreeMap;

/// How many schedules are advanced, and how many occurrences recorded, in one transaction.
const SCHEDULES_AT_ONCE: u64 = 500;
const RECORDS_AT_ONCE: u64 = 1000;
/// How many ended tasks are noted in one transaction.
const SETTLED_AT_ONCE: usize = 1000;

/// The counts of one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FiredSlice {
    /// How many instants became tasks.
    pub(crate) tasks: u64,
    /// How many did not: they were skipped, or failed.
    pub(crate) others: u64,
    /// Whether tasks were cancelled for others.
    pub(crate) cancelled: bool,
    /// When the next schedule is due; in the past if there are more.
    pub(crate) next_ms: Option<u64>,
}

impl Store {
    /// Records what becomes of the instants that are due.
    pub(crate) async fn fire_due(&self, now_ms: u64) -> Result<FiredSlice> {
        const DOING: &str = "recording what schedules are due";
        let next_ms = self.read(DOING, next_due).await?;
        if next_ms.is_none_or(|due| due > now_ms) {
            return Ok(FiredSlice { next_ms, ..FiredSlice::default() });
        }
        self.write(DOING, move |write| fire(write, now_ms)).await
    }

    /// Notes which tasks of schedules have ended since; returns how many, and how many have no
    /// outcome still.
    pub(crate) async fn settle_occurrences(&self, now_ms: u64) -> Result<(usize, usize)> {
        const DOING: &str = "looking for ended tasks of schedules";
        let (mut ended, open) = self.read(DOING, unsettled).await?;
        ended.truncate(SETTLED_AT_ONCE);
        let count = ended.len();
        if count > 0 {
            self.write(DOING, move |write| settle(write.db, &ended, now_ms)).await?;
        }
        Ok((count, open))
    }
}

fn next_due(db: &Db<'_>) -> Result<Option<u64>> {
    let find = "SELECT min(due_at_ms) FROM schedules WHERE due_at_ms IS NOT NULL";
    Ok(db.only::<(Option<u64>,)>(find, &[])?.0)
}

fn fire(write: &mut Write<'_>, now_ms: u64) -> Result<FiredSlice> {
    let mut slice = FiredSlice::default();
    let find = format!(
        "SELECT {COLUMNS} FROM schedules WHERE due_at_ms IS NOT NULL AND due_at_ms <= ? \
         ORDER BY due_at_ms, name LIMIT ?"
    );
    let due: Vec<ScheduleRow> = write.db.all(&find, values![now_ms, SCHEDULES_AT_ONCE])?;
    for row in due {
        match row.parts() {
            Ok((spec, state)) => advance(write, &row.name, &spec, state, now_ms, &mut slice)?,
            Err(reason) => {
                tracing::error!(
                    schedule = row.name,
                    reason,
                    "a schedule cannot be read, and rests"
                );
                let update = "UPDATE schedules SET broken = ?, due_at_ms = NULL WHERE name = ?";
                write.db.run(update, values![&reason, &row.name])?;
            }
        }
        if slice.tasks + slice.others >= RECORDS_AT_ONCE {
            break;
        }
    }
    slice.next_ms = next_due(write.db)?;
    Ok(slice)
}

/// Records what becomes of the instants of one schedule that are due.
fn advance(
    write: &mut Write<'_>,
    name: &str,
    spec: &ScheduleSpec,
    mut state: ScheduleState,
    now_ms: u64,
    slice: &mut FiredSlice,
) -> Result<()> {
    let id = ScheduleId::of(name);
    let decided = step(id, &spec.rule, &spec.policy, &state, signed(now_ms));
    let mut next = match decided.next {
        Next::Again => Some(now_ms),
        Next::At(ms) => Some(u64::try_from(ms).unwrap_or(0)),
        Next::Change | Next::Over => None,
    };
    for record in &decided.decisions {
        if is_recorded(write.db, name, record)? {
            // What was decided from here on takes this one for a new task.
            state.cursor_ms = state.cursor_ms.max(first_instant(record));
            state.queued_ms = state.queued_ms.filter(|queued| *queued != instant(record));
            next = Some(now_ms);
            break;
        }
        let placed = match record {
            Decision::Fire { instant_ms, cancel_previous, .. } => {
                if *cancel_previous {
                    cancel_open(write, name, now_ms)?;
                    slice.cancelled = true;
                }
                place(write, name, spec, *instant_ms, now_ms)?
            }
            Decision::Queue { .. } | Decision::Skip { .. } | Decision::SkipMany { .. } => Ok(None),
        };
        let due_ms = spec.rule.due_at(id, instant(record));
        insert(write.db, name, record, &placed, due_ms, now_ms)?;
        match placed {
            Ok(Some(_)) => slice.tasks += 1,
            Ok(None) => slice.others += 1,
            Err(reason) => {
                tracing::warn!(schedule = name, reason, "an occurrence of a schedule failed");
                slice.others += 1;
                state.apply_unplaced(record, &spec.policy, signed(now_ms));
                next = Some(now_ms);
                break;
            }
        }
        state.apply(record);
    }
    if state.paused_ms.is_some() {
        next = None;
    }
    save(write.db, name, &state, next)
}

/// The instant of a record; of several, the last.
fn instant(record: &Decision) -> i64 {
    match *record {
        Decision::Fire { instant_ms, .. }
        | Decision::Queue { instant_ms }
        | Decision::Skip { instant_ms, .. } => instant_ms,
        Decision::SkipMany { last_ms, .. } => last_ms,
    }
}

/// The instant of a record; of several, the first.
fn first_instant(record: &Decision) -> i64 {
    match *record {
        Decision::SkipMany { first_ms, .. } => first_ms,
        Decision::Fire { .. } | Decision::Queue { .. } | Decision::Skip { .. } => instant(record),
    }
}

/// Whether an instant has its record. One that waits for an earlier task gets it anew.
fn is_recorded(db: &Db<'_>, name: &str, record: &Decision) -> Result<bool> {
    let find = "SELECT ending FROM occurrences WHERE schedule = ? AND instant_ms = ?";
    let found: Option<(String,)> = db.one(find, values![name, first_instant(record)])?;
    Ok(match (found, record) {
        (None, _) => false,
        (Some((end,)), Decision::Fire { queued: true, .. }) => end != "queued",
        (Some(_), _) => true,
    })
}

/// The task of a record, if it has one, or why it could not be recorded.
type Placed = std::result::Result<Option<TaskId>, String>;

/// Records the task of an instant.
fn place(
    write: &mut Write<'_>,
    name: &str,
    spec: &ScheduleSpec,
    instant_ms: i64,
    now_ms: u64,
) -> Result<Placed> {
    let Some(endpoint) = endpoints::find(write.db, &spec.endpoint)? else {
        return Ok(Err(format!("there is no endpoint '{}'", spec.endpoint)));
    };
    let task = ScheduleId::of(name).occurrence(instant_ms);
    if write.db.exists("SELECT 1 FROM tasks WHERE id = ?", values![&task])? {
        return Ok(Err(format!("the task of this instant, {task}, exists already")));
    }
    let ms = u64::try_from(instant_ms).unwrap_or(0);
    let chunk = Chunk {
        to: Destination::Endpoint(endpoint.id.to_string()),
        key: format!("{name}@{}.{:03}", moment(ms), ms % 1000),
        total: 1,
        first: 0,
        specs: vec![spec.task.clone()],
        handing: Handing::Nothing,
        retry: spec.retry.clone(),
        due: None,
        parent: None,
        now_ms,
    };
    match submissions::record(write, endpoint.id, &chunk, || task) {
        Ok(_) => Ok(Ok(Some(task))),
        Err(Error::Conflict(words)) => Ok(Err(words)),
        Err(error) => Err(error),
    }
}

fn insert(
    db: &Db<'_>,
    name: &str,
    record: &Decision,
    placed: &Placed,
    due_ms: i64,
    now_ms: u64,
) -> Result<()> {
    let (first_ms, last_ms, instants) = match *record {
        Decision::SkipMany { first_ms, last_ms, count, .. } => (first_ms, Some(last_ms), count),
        Decision::Fire { .. } | Decision::Queue { .. } | Decision::Skip { .. } => {
            (instant(record), None, 1)
        }
    };
    let (end, reason) = match (record, placed) {
        (_, Err(reason)) => ("failed", Some(reason.as_str())),
        (Decision::Fire { .. }, Ok(_)) => ("task", None),
        (Decision::Queue { .. }, Ok(_)) => ("queued", None),
        (Decision::Skip { reason, .. } | Decision::SkipMany { reason, .. }, Ok(_)) => {
            ("skipped", Some(words(*reason)))
        }
    };
    let task = placed.as_ref().ok().copied().flatten();
    let insert = "INSERT INTO occurrences (schedule, instant_ms, last_ms, instants, ending, reason, \
         task, unsettled, recorded_at_ms, due_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (schedule, instant_ms) DO UPDATE SET ending = excluded.ending, \
         reason = excluded.reason, task = excluded.task, unsettled = excluded.unsettled, \
         recorded_at_ms = excluded.recorded_at_ms";
    let values = values![
        name,
        first_ms,
        last_ms,
        instants,
        end,
        reason,
        task.as_ref().map(|task| task.0.as_bytes().as_slice()),
        task.is_some(),
        now_ms,
        due_ms,
    ];
    db.run(insert, values).map(drop)
}

fn words(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Missed => "missed",
        SkipReason::Overlap => "overlap",
        SkipReason::Paused => "paused",
    }
}

/// Records a task that a person asked for, beside the instants of the rule; returns its record.
pub(super) fn by_hand(
    write: &mut Write<'_>,
    name: &str,
    spec: &ScheduleSpec,
    now_ms: u64,
) -> Result<Option<Occurrence>> {
    let mut instant_ms = signed(now_ms);
    let find = "SELECT 1 FROM occurrences WHERE schedule = ? AND instant_ms = ?";
    while write.db.exists(find, values![name, instant_ms])? {
        instant_ms += 1;
    }
    let placed = place(write, name, spec, instant_ms, now_ms)?;
    if let Err(reason) = placed {
        return Err(Error::Conflict(format!("the schedule '{name}' is not run: {reason}")));
    }
    let record = Decision::Fire { instant_ms, queued: false, cancel_previous: false };
    insert(write.db, name, &record, &placed, instant_ms, now_ms)?;
    let update = "UPDATE occurrences SET by_hand = 1 WHERE schedule = ? AND instant_ms = ?";
    write.db.run(update, values![name, instant_ms])?;
    let made = format!("{OCCURRENCE} WHERE o.schedule = ? AND o.instant_ms = ?");
    Ok(write.db.one(&made, values![name, instant_ms])?.map(|OccurrenceRow(made)| made))
}

/// Skips the instant of a schedule that waits for the end of an earlier task: its rule is gone.
pub(super) fn skip_queued(db: &Db<'_>, name: &str, reason: &str) -> Result<()> {
    let update = "UPDATE occurrences SET ending = 'skipped', reason = ? \
         WHERE schedule = ? AND ending = 'queued'";
    db.run(update, values![reason, name]).map(drop)
}

/// Cancels the tasks of a schedule that have no outcome.
fn cancel_open(write: &mut Write<'_>, name: &str, now_ms: u64) -> Result<()> {
    let find = "SELECT t.seq FROM occurrences o JOIN tasks t ON t.id = o.task \
         WHERE o.schedule = ? AND o.unsettled = 1";
    let open: Vec<(i64,)> = write.db.all(find, values![name])?;
    let open: Vec<i64> = open.into_iter().map(|(task,)| task).collect();
    cancels::cancel(write, &open, now_ms).map(drop)
}

/// An occurrence of which the task has ended, and how.
type Ended = (String, i64, End);

/// The occurrences of which the tasks have ended since, and how many have not.
fn unsettled(db: &Db<'_>) -> Result<(Vec<Ended>, usize)> {
    let find = "SELECT o.schedule, o.instant_ms, t.state FROM occurrences o \
         LEFT JOIN tasks t ON t.id = o.task WHERE o.unsettled = 1";
    let all: Vec<(String, i64, Option<StoredState>)> = db.all(find, &[])?;
    let count = all.len();
    let ended: Vec<Ended> = all
        .into_iter()
        .filter_map(|(schedule, instant_ms, state)| {
            let end = match state {
                Some(StoredState::Done(Outcome::Succeeded)) => End::Succeeded,
                // What is forgotten tells nothing.
                Some(StoredState::Done(Outcome::Cancelled)) | None => End::Cancelled,
                Some(StoredState::Done(_)) => End::Failed,
                Some(_) => return None,
            };
            Some((schedule, instant_ms, end))
        })
        .collect();
    let open = count - ended.len();
    Ok((ended, open))
}

fn settle(db: &Db<'_>, ended: &[Ended], now_ms: u64) -> Result<()> {
    let mut ends: BTreeMap<&str, Vec<End>> = BTreeMap::new();
    for (schedule, instant_ms, end) in ended {
        let update = "UPDATE occurrences SET unsettled = 0 \
             WHERE schedule = ? AND instant_ms = ? AND unsettled = 1";
        if db.run(update, values![schedule, *instant_ms])? > 0 {
            ends.entry(schedule).or_default().push(*end);
        }
    }
    for (name, ends) in ends {
        let Some(row) = find(db, name)? else { continue };
        let Ok((spec, mut state)) = row.parts() else { continue };
        for end in ends {
            state.ended(end, &spec.policy, signed(now_ms));
        }
        let due = state.paused_ms.is_none().then_some(now_ms);
        save(db, name, &state, due)?;
    }
    Ok(())
}

struct OccurrenceRow(Occurrence);

/// The columns of an [`OccurrenceRow`], and where they are.
const OCCURRENCE: &str = "SELECT o.instant_ms, o.last_ms, o.instants, o.ending, o.reason, o.task, \
     t.state, o.by_hand, o.recorded_at_ms, o.due_at_ms FROM occurrences o \
     LEFT JOIN tasks t ON t.id = o.task";

impl FromRow for OccurrenceRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let mut occurrence = Occurrence {
            instant_ms: columns.next()?,
            last_ms: columns.next()?,
            instants: columns.next()?,
            end: columns.next()?,
            reason: columns.next()?,
            task: columns.next()?,
            state: columns.next::<Option<StoredState>>()?.map(StoredState::shown),
            by_hand: columns.next()?,
            recorded_at_ms: columns.next()?,
            late_ms: None,
        };
        let due_at_ms: u64 = columns.next()?;
        if occurrence.task.is_some() {
            occurrence.late_ms = Some(occurrence.recorded_at_ms.saturating_sub(due_at_ms));
        }
        Ok(Self(occurrence))
    }
}

/// The last occurrences of a schedule, the newest first.
pub(super) fn last(db: &Db<'_>, name: &str, limit: u64) -> Result<Vec<Occurrence>> {
    let find = format!("{OCCURRENCE} WHERE o.schedule = ? ORDER BY o.instant_ms DESC LIMIT ?");
    let rows: Vec<OccurrenceRow> = db.all(&find, values![name, limit])?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}
