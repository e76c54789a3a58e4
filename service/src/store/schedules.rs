//! Schedules: sets of them are applied, and single ones paused, run by hand, removed and shown.
//!
//! Touches the database only. Promises: a set is applied as a whole or not at all; a schedule
//! that is the same stays as far as it was; a record that cannot be read is broken alone.

use super::engine::{Db, Value, values};
use super::schedule_rows::{COLUMNS, ScheduleRow, encoded, find, save, signed};
use super::{Error, Result, Store};
use super::{forgotten_occurrences, occurrences};
use crate::model::{
    ChangedSchedule, NamedSchedule, Occurrence, ScheduleChange, ScheduleDetail, ScheduleSummary,
    differences,
};
use crate::schedule::ScheduleState;

/// How many instants a schedule is shown with.
const SHOWN: usize = 5;

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
}

impl Store {
    /// Applies a set of schedules. A conflict if one of them is there and differs, unless it is
    /// to be replaced; then nothing is changed.
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
            Ok(rows.into_iter().map(|row| row.summary().0).collect())
        })
        .await
    }

    /// A schedule in full.
    pub(crate) async fn schedule(&self, name: String) -> Result<Option<ScheduleDetail>> {
        self.read("reading a schedule", move |db| {
            let Some(row) = find(db, &name)? else { return Ok(None) };
            let (summary, state) = row.summary();
            let rule = summary.spec.as_ref().map(|spec| &spec.rule);
            let next_ms = rule.zip(state).map_or_else(Vec::new, |(rule, state)| {
                let after = state.cursor_ms.max(state.last_ended_ms.unwrap_or(i64::MIN));
                let next = std::iter::successors(rule.next_after(after), |at| rule.next_after(*at));
                next.take(SHOWN).collect()
            });
            let occurrences = occurrences::last(db, &name, forgotten_occurrences::KEPT)?;
            Ok(Some(ScheduleDetail { summary, next_ms, occurrences }))
        })
        .await
    }

    /// Pauses a schedule, or has it go on; returns whether that is news, if there is one.
    pub(crate) async fn pause_schedule(
        &self,
        name: String,
        paused: bool,
        now_ms: u64,
    ) -> Result<Option<bool>> {
        self.write("recording a schedule's pause", move |write| {
            let Some(row) = find(write.db, &name)? else { return Ok(None) };
            let (_, mut state) = row.parts().map_err(Error::Conflict)?;
            let before = state.clone();
            if paused {
                state.pause(signed(now_ms));
            } else {
                state.resume(signed(now_ms));
            }
            let due = (!paused).then_some(now_ms);
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

    /// Removes a schedule; returns whether there was one. Its occurrences and tasks stay.
    pub(crate) async fn remove_schedule(&self, name: String) -> Result<bool> {
        self.write("removing a schedule", move |write| remove(write.db, &name)).await
    }
}

fn remove(db: &Db<'_>, name: &str) -> Result<bool> {
    // Its tasks run on, and are no concern of a schedule of the same name that comes later.
    db.run("UPDATE occurrences SET unsettled = 0 WHERE schedule = ?", values![name])?;
    occurrences::skip_queued(db, name, "removed")?;
    Ok(db.run("DELETE FROM schedules WHERE name = ?", values![name])? > 0)
}

fn apply(db: &Db<'_>, set: &ScheduleSet, now_ms: u64) -> Result<Vec<ChangedSchedule>> {
    let mut changed = Vec::with_capacity(set.schedules.len());
    for schedule in &set.schedules {
        changed.push(apply_one(db, set, schedule, now_ms)?);
    }
    if set.prune {
        let find = "SELECT name FROM schedules WHERE owner = ? ORDER BY name";
        let there: Vec<(String,)> = db.all(find, values![set.owner.as_deref()])?;
        for (name,) in there {
            if set.schedules.iter().all(|one| one.name != name) {
                remove(db, &name)?;
                let change = ScheduleChange::Removed;
                changed.push(ChangedSchedule { name, change, differences: Vec::new() });
            }
        }
    }
    Ok(changed)
}

fn apply_one(
    db: &Db<'_>,
    set: &ScheduleSet,
    schedule: &NamedSchedule,
    now_ms: u64,
) -> Result<ChangedSchedule> {
    let NamedSchedule { name, spec } = schedule;
    let done = |change, differences| ChangedSchedule { name: name.clone(), change, differences };
    let owner = set.owner.as_deref();
    let Some(row) = find(db, name)? else {
        let state = added(db, name, now_ms)?;
        let insert = "INSERT INTO schedules (name, owner, spec, state, due_at_ms, added_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?)";
        let values = values![name, owner, encoded(spec)?, encoded(&state)?, now_ms, now_ms];
        db.run(insert, values)?;
        return Ok(done(ScheduleChange::Added, Vec::new()));
    };
    let known = row.parts();
    let mut different = match &known {
        Ok((known, _)) => differences(known, spec),
        Err(reason) => vec![format!("its record cannot be read ({reason})")],
    };
    if row.owner.as_deref() != owner {
        let named = |owner: Option<&str>| owner.unwrap_or("nobody").to_owned();
        let words = format!("owner: {}, not {}", named(row.owner.as_deref()), named(owner));
        different.push(words);
    }
    if different.is_empty() {
        return Ok(done(ScheduleChange::Unchanged, different));
    }
    if !set.replace {
        return Err(Error::Conflict(format!(
            "the schedule '{name}' exists and differs: {}; nothing was changed. Replace it, or \
             choose another name",
            different.join("; ")
        )));
    }
    let state = match known {
        // Instants of another rule that are past are none of this one's.
        Ok((known, state)) if known.rule != spec.rule => {
            occurrences::skip_queued(db, name, "replaced")?;
            let cursor_ms = state.cursor_ms.max(signed(now_ms));
            ScheduleState { cursor_ms, queued_ms: None, ..state }
        }
        Ok((_, state)) => state,
        Err(_) => {
            occurrences::skip_queued(db, name, "replaced")?;
            added(db, name, now_ms)?
        }
    };
    let update = "UPDATE schedules SET owner = ?, spec = ?, state = ?, due_at_ms = ?, \
         broken = NULL WHERE name = ?";
    db.run(update, values![owner, encoded(spec)?, encoded(&state)?, now_ms, name])?;
    Ok(done(ScheduleChange::Replaced, different))
}

/// The state of a schedule that is added: it begins behind what was forgotten under its name.
fn added(db: &Db<'_>, name: &str, now_ms: u64) -> Result<ScheduleState> {
    Ok(ScheduleState::added(signed(now_ms)).behind(forgotten_occurrences::newest(db, name)?))
}
