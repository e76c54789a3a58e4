//! Schedules: sets of them are applied, and single ones paused, run by hand, removed and shown.
//!
//! Touches the database only. Promises: a set is applied as a whole or not at all; a schedule
//! that is the same stays as far as it was; a record that cannot be read is broken alone.

use super::engine::{Db, Value, values};
use super::schedule_rows::{COLUMNS, ScheduleRow, encoded, find, save, signed};
use super::stored_state::StoredState;
use super::{Error, Result, Store};
use super::{forgotten_occurrences, occurrences};
use crate::model::{
    ChangedSchedule, NamedSchedule, Occurrence, RemovedSchedule, ScheduleChange, ScheduleDetail,
    ScheduleSpec, ScheduleSummary, differences,
};
use crate::schedule::{PauseCause, Recurrence, Rule, ScheduleState};
use clutch_common::id::TaskId;
use std::collections::BTreeSet;

/// How many instants a schedule is shown with.
const SHOWN: usize = 5;
/// How many tasks of a removed schedule are named.
const NAMED: usize = 100;

/// A set of schedules to be applied.
#[derive(Clone, Debug)]
pub(crate) struct ScheduleSet {
    /// The owner that declares them, if there is one.
    pub(crate) owner: Option<String>,
    /// The schedules.
    pub(crate) schedules: Vec<NamedSchedule>,
    /// Whether a schedule that is there and differs is replaced; else it is a conflict.
    pub(crate) replace: bool,
    /// Whether schedules of the owner that are not in the set are removed.
    pub(crate) prune: bool,
    /// Whether it is only told what would be done.
    pub(crate) dry_run: bool,
}

impl Store {
    /// Applies a set of schedules. A conflict if one of them is there and differs, unless it is
    /// to be replaced, or belongs to another owner; then nothing is changed.
    pub(crate) async fn apply_schedules(
        &self,
        set: ScheduleSet,
        now_ms: u64,
    ) -> Result<Vec<ChangedSchedule>> {
        self.write("recording schedules", move |write| apply(write.db, &set, now_ms)).await
    }

    /// Up to `limit` schedules by name, those after a name, and of an owner if one is given.
    pub(crate) async fn schedules(
        &self,
        owner: Option<String>,
        after: String,
        limit: u64,
    ) -> Result<Vec<ScheduleSummary>> {
        self.read("listing schedules", move |db| {
            let of = if owner.is_some() { " AND owner = ?" } else { "" };
            let find =
                format!("SELECT {COLUMNS} FROM schedules WHERE name > ?{of} ORDER BY name LIMIT ?");
            let mut values: Vec<Value<'_>> = vec![after.as_str().into()];
            values.extend(owner.as_deref().map(Value::from));
            values.push(limit.into());
            let rows: Vec<ScheduleRow> = db.all(&find, &values)?;
            rows.into_iter().map(|row| Ok(summary(db, row)?.0)).collect()
        })
        .await
    }

    /// A schedule in full.
    pub(crate) async fn schedule(&self, name: String) -> Result<Option<ScheduleDetail>> {
        self.read("reading a schedule", move |db| {
            let Some(row) = find(db, &name)? else { return Ok(None) };
            let (summary, state) = summary(db, row)?;
            let rule = summary.spec.as_ref().map(|spec| &spec.rule);
            let next_ms = rule.zip(state).map_or_else(Vec::new, |(rule, state)| next(rule, &state));
            let occurrences = occurrences::last(db, &name, forgotten_occurrences::KEPT)?;
            Ok(Some(ScheduleDetail { summary, next_ms, occurrences }))
        })
        .await
    }

    /// Pauses a schedule for a cause, or without one has it go on; returns whether that is news,
    /// if there is such a schedule.
    pub(crate) async fn pause_schedule(
        &self,
        name: String,
        cause: Option<PauseCause>,
        now_ms: u64,
    ) -> Result<Option<bool>> {
        self.write("recording a schedule's pause", move |write| {
            let Some(row) = find(write.db, &name)? else { return Ok(None) };
            let (_, mut state) = row.parts().map_err(Error::Conflict)?;
            let before = state.clone();
            let due = cause.is_none().then_some(now_ms);
            match cause {
                Some(cause) => state.pause(signed(now_ms), cause),
                None => state.resume(signed(now_ms)),
            }
            if state != before {
                save(write.db, &name, &state, due)?;
            }
            Ok(Some(state != before))
        })
        .await
    }

    /// Has a schedule make a task now; nothing if there is no such schedule. A conflict if the
    /// task cannot be placed.
    pub(crate) async fn run_schedule(
        &self,
        name: String,
        now_ms: u64,
    ) -> Result<Option<Occurrence>> {
        self.write("running a schedule by hand", move |write| {
            let Some(row) = find(write.db, &name)? else { return Ok(None) };
            let (spec, mut state) = row.parts().map_err(Error::Conflict)?;
            let made = occurrences::by_hand(write, &name, &spec, now_ms)?;
            state.run_by_hand();
            save(write.db, &name, &state, row.due_at_ms)?;
            Ok(made)
        })
        .await
    }

    /// Removes a schedule, if there is one. Its occurrences and tasks stay.
    pub(crate) async fn remove_schedule(&self, name: String) -> Result<Option<RemovedSchedule>> {
        self.write("removing a schedule", move |write| {
            let mut tasks = open_tasks(write.db, &name)?;
            let open = tasks.len() as u64;
            tasks.truncate(NAMED);
            let there = remove(write.db, &name)?;
            Ok(there.then_some(RemovedSchedule { name, open, tasks }))
        })
        .await
    }
}

/// The row of a schedule as a listing has it, and how far the schedule is.
fn summary(db: &Db<'_>, row: ScheduleRow) -> Result<(ScheduleSummary, Option<ScheduleState>)> {
    let (mut summary, state) = row.summary();
    summary.last = occurrences::last(db, &summary.name, 1)?.pop();
    Ok((summary, state))
}

/// The next instants of a schedule: none while it is paused. A fixed delay has one, and none while a
/// task is under way.
fn next(rule: &Rule, state: &ScheduleState) -> Vec<i64> {
    if state.paused_ms.is_some() {
        return Vec::new();
    }
    let after = state.cursor_ms.max(state.last_ended_ms.unwrap_or(i64::MIN));
    let promised = state.tasks + u64::from(state.queued_ms.is_some());
    let left = rule.max_runs.map_or(u64::MAX, |most| most.saturating_sub(promised));
    let most = match rule.recurrence {
        Recurrence::AfterEndMs(_) => usize::from(state.running == 0),
        Recurrence::EveryMs(_) | Recurrence::Cron(_) | Recurrence::Calendar(_) => SHOWN,
    };
    let next = std::iter::successors(rule.next_after(after), |at| rule.next_after(*at));
    next.take(most.min(usize::try_from(left).unwrap_or(most))).collect()
}

/// The tasks of a schedule that have no outcome, the first first.
fn open_tasks(db: &Db<'_>, name: &str) -> Result<Vec<TaskId>> {
    let find = "SELECT t.id, t.state FROM occurrences o JOIN tasks t ON t.id = o.task \
         WHERE o.schedule = ? AND o.unsettled = 1 ORDER BY o.instant_ms";
    let tasks: Vec<(TaskId, StoredState)> = db.all(find, values![name])?;
    let open = |(id, state)| (!matches!(state, StoredState::Done(_))).then_some(id);
    Ok(tasks.into_iter().filter_map(open).collect())
}

fn remove(db: &Db<'_>, name: &str) -> Result<bool> {
    // Its tasks run on, and are no concern of a schedule of the same name that comes later.
    db.run("UPDATE occurrences SET unsettled = 0 WHERE schedule = ?", values![name])?;
    occurrences::skip_queued(db, name, "removed")?;
    Ok(db.run("DELETE FROM schedules WHERE name = ?", values![name])? > 0)
}

fn apply(db: &Db<'_>, set: &ScheduleSet, now_ms: u64) -> Result<Vec<ChangedSchedule>> {
    let (mut changed, mut conflicts) = (Vec::with_capacity(set.schedules.len()), Vec::new());
    for schedule in &set.schedules {
        let row = find(db, &schedule.name)?;
        match change(set, schedule, row.as_ref()) {
            Ok(change) => {
                if !set.dry_run {
                    record(db, set, schedule, row.as_ref(), change.change, now_ms)?;
                }
                changed.push(change);
            }
            Err(conflict) => conflicts.push(conflict),
        }
    }
    if !conflicts.is_empty() {
        return Err(Error::Conflict(conflicts.join("\n")));
    }
    if set.prune {
        let find = "SELECT name FROM schedules WHERE owner = ? ORDER BY name";
        let there: Vec<(String,)> = db.all(find, values![set.owner.as_deref()])?;
        let declared: BTreeSet<&str> = set.schedules.iter().map(|one| one.name.as_str()).collect();
        for (name,) in there.into_iter().filter(|(name,)| !declared.contains(name.as_str())) {
            if !set.dry_run {
                remove(db, &name)?;
            }
            let change = ScheduleChange::Removed;
            changed.push(ChangedSchedule { name, change, differences: Vec::new() });
        }
    }
    Ok(changed)
}

/// The change that a schedule of a set makes to the row of its name, or why it may make none.
fn change(
    set: &ScheduleSet,
    schedule: &NamedSchedule,
    row: Option<&ScheduleRow>,
) -> std::result::Result<ChangedSchedule, String> {
    let NamedSchedule { name, spec } = schedule;
    let done = |change, differences| ChangedSchedule { name: name.clone(), change, differences };
    let Some(row) = row else { return Ok(done(ScheduleChange::Added, Vec::new())) };
    let mut different = match row.parts() {
        Ok((known, _)) => differences(&known, spec),
        Err(reason) => vec![format!("its record cannot be read ({reason})")],
    };
    match (&row.owner, &set.owner) {
        (None, Some(owner)) => different.push(format!("owner: none → {owner}")),
        // The same again, without a word about an owner, is the same.
        (Some(known), owner)
            if owner.as_ref() != Some(known) && (owner.is_some() || !different.is_empty()) =>
        {
            return Err(format!(
                "the schedule '{name}' is declared by the owner '{known}', and only this owner \
                 changes it; nothing was changed"
            ));
        }
        _ => {}
    }
    if different.is_empty() {
        return Ok(done(ScheduleChange::Unchanged, different));
    }
    if !set.replace {
        return Err(format!(
            "the schedule '{name}' is there and differs; nothing was changed:\n  {}\n--replace \
             takes the new one, and keeps its occurrences and how far it is; or choose another name",
            different.join("\n  ")
        ));
    }
    Ok(done(ScheduleChange::Replaced, different))
}

/// Records the change of a schedule.
fn record(
    db: &Db<'_>,
    set: &ScheduleSet,
    schedule: &NamedSchedule,
    row: Option<&ScheduleRow>,
    change: ScheduleChange,
    now_ms: u64,
) -> Result<()> {
    if change == ScheduleChange::Unchanged {
        return Ok(());
    }
    let NamedSchedule { name, spec } = schedule;
    let owner = set.owner.as_deref();
    let Some(row) = row else {
        let state = added(db, name, now_ms)?;
        let insert = "INSERT INTO schedules (name, owner, spec, state, due_at_ms, added_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?)";
        let values = values![name, owner, encoded(spec)?, encoded(&state)?, now_ms, now_ms];
        return db.run(insert, values).map(drop);
    };
    let state = match row.parts() {
        Ok((known, state)) => kept(db, schedule, &known, state, now_ms)?,
        Err(_) => {
            occurrences::skip_queued(db, name, "replaced")?;
            added(db, name, now_ms)?
        }
    };
    let update = "UPDATE schedules SET owner = ?, spec = ?, state = ?, due_at_ms = ?, \
         broken = NULL WHERE name = ?";
    db.run(update, values![owner, encoded(spec)?, encoded(&state)?, now_ms, name]).map(drop)
}

/// How far a schedule is that goes on by another specification.
fn kept(
    db: &Db<'_>,
    schedule: &NamedSchedule,
    known: &ScheduleSpec,
    state: ScheduleState,
    now_ms: u64,
) -> Result<ScheduleState> {
    if known.rule == schedule.spec.rule {
        return Ok(state);
    }
    // Instants of another rule that are past are none of this one's.
    occurrences::skip_queued(db, &schedule.name, "replaced")?;
    let cursor_ms = state.cursor_ms.max(signed(now_ms));
    Ok(ScheduleState { cursor_ms, queued_ms: None, ..state })
}

/// The state of a schedule that is added: it begins behind what was forgotten under its name.
fn added(db: &Db<'_>, name: &str, now_ms: u64) -> Result<ScheduleState> {
    Ok(ScheduleState::added(signed(now_ms)).behind(forgotten_occurrences::newest(db, name)?))
}
