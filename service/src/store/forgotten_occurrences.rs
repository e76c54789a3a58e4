//! Forgets old records of instants, a slice at a time, and never lets an instant fire again for it.
//!
//! A schedule keeps its last records. A record of any schedule stays while its task is recorded,
//! and while its instant waits for the end of an earlier task. The newest instant that was
//! forgotten with its task is noted by the name of its schedule: a schedule that is added under
//! that name again begins behind it, however the clock was set. A schedule that is still there
//! needs no note, as it goes on behind all its records. Touches the database only.

use super::engine::{Db, values};
use super::schedule_rows::signed;
use super::{Result, Store, Write};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tokio::time::Instant;

/// How many records a schedule keeps, however old they are: those that it is shown with.
pub(super) const KEPT: u64 = 20;
/// How many schedules a slice looks at.
const SCHEDULES: usize = 500;
/// How many records it forgets.
const RECORDS: usize = 1000;
/// For how much longer than records the note on a schedule that is gone is kept: a clock that is
/// set back by more can have an instant fire again.
const NOTED_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// The outcome of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForgottenOccurrences {
    /// How many records were forgotten.
    pub(crate) records: u64,
    /// The name behind which the next slice begins; nothing after the last.
    pub(crate) next: Option<String>,
}

/// A record that may be forgotten.
struct OldRecord {
    schedule: String,
    instant_ms: i64,
    had_task: bool,
    /// Whether its schedule was there when it was found.
    kept_by_cursor: bool,
}

impl Store {
    /// Forgets one slice of the records that were made before a moment, of the schedules behind a
    /// name, and pauses. Recorded only: until it is [durable](Store::durable), a power cut may
    /// undo it.
    pub(crate) async fn forget_occurrences(
        &self,
        before_ms: u64,
        after: String,
    ) -> Result<ForgottenOccurrences> {
        let look = move |db: &Db<'_>| look(db, before_ms, after);
        let (old, next) = self.read("looking for old occurrences", look).await?;
        if old.is_empty() {
            return Ok(ForgottenOccurrences { records: 0, next });
        }
        let begun = Instant::now();
        let job = move |write: &mut Write<'_>| forget(write.db, &old, before_ms);
        let records = self.record_only("forgetting occurrences", job, |_| ()).await?;
        tokio::time::sleep(begun.elapsed()).await;
        Ok(ForgottenOccurrences { records, next })
    }
}

/// The records of a slice, and the name behind which the next one begins.
fn look(db: &Db<'_>, before_ms: u64, after: String) -> Result<(Vec<OldRecord>, Option<String>)> {
    let (mut old, mut done) = (Vec::new(), after);
    for _ in 0..SCHEDULES {
        let next = "SELECT schedule FROM occurrences WHERE schedule > ? ORDER BY schedule LIMIT 1";
        let Some((name,)) = db.one::<(String,)>(next, values![&done])? else {
            return Ok((old, None));
        };
        add_old(db, &name, before_ms, &mut old)?;
        if old.len() == RECORDS {
            // It may have more of them.
            return Ok((old, Some(done)));
        }
        done = name;
    }
    Ok((old, Some(done)))
}

/// Adds the records of a schedule that may be forgotten, as far as there is room.
fn add_old(db: &Db<'_>, name: &str, before_ms: u64, old: &mut Vec<OldRecord>) -> Result<()> {
    let kept_by_cursor = is_there(db, name)?;
    let kept = if kept_by_cursor { KEPT } else { 0 };
    let newest = "SELECT instant_ms FROM occurrences WHERE schedule = ? \
         ORDER BY instant_ms DESC LIMIT 1 OFFSET ?";
    let Some((newest,)) = db.one::<(i64,)>(newest, values![name, kept])? else { return Ok(()) };
    let find = "SELECT o.instant_ms, o.recorded_at_ms, o.task IS NOT NULL, \
         o.unsettled = 0 AND o.ending <> 'queued' \
         AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = o.task) \
         FROM occurrences o WHERE o.schedule = ? AND o.instant_ms <= ? ORDER BY o.instant_ms";
    db.each(find, values![name, newest], |row: (i64, u64, bool, bool)| {
        let (instant_ms, recorded_at_ms, had_task, forgettable) = row;
        if recorded_at_ms >= before_ms || old.len() == RECORDS {
            return Ok(ControlFlow::Break(()));
        }
        if forgettable {
            let schedule = name.to_owned();
            old.push(OldRecord { schedule, instant_ms, had_task, kept_by_cursor });
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn is_there(db: &Db<'_>, name: &str) -> Result<bool> {
    db.exists("SELECT 1 FROM schedules WHERE name = ?", values![name])
}

/// Forgets records; returns how many. Those of a schedule that was added meanwhile stay: it has
/// begun without a note on them.
fn forget(db: &Db<'_>, old: &[OldRecord], before_ms: u64) -> Result<u64> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut records = 0;
    for OldRecord { schedule, instant_ms, had_task, kept_by_cursor } in old {
        if !kept_by_cursor && is_there(db, schedule)? {
            continue;
        }
        let delete = "DELETE FROM occurrences WHERE schedule = ? AND instant_ms = ?";
        records += db.run(delete, values![schedule, *instant_ms])?;
        if *had_task {
            let newest = newest.entry(schedule).or_insert(*instant_ms);
            *newest = (*newest).max(*instant_ms);
        }
    }
    for (schedule, instant_ms) in newest {
        let note = "INSERT INTO forgotten_instants (schedule, newest_ms) VALUES (?, ?) \
             ON CONFLICT (schedule) DO UPDATE SET newest_ms = excluded.newest_ms \
             WHERE excluded.newest_ms > forgotten_instants.newest_ms";
        db.run(note, values![schedule, instant_ms])?;
    }
    let stale = "DELETE FROM forgotten_instants WHERE newest_ms < ? \
         AND NOT EXISTS (SELECT 1 FROM schedules s WHERE s.name = forgotten_instants.schedule)";
    db.run(stale, values![signed(before_ms.saturating_sub(NOTED_MS))])?;
    Ok(records)
}

/// The newest instant of a name that was forgotten with its task.
pub(super) fn newest(db: &Db<'_>, name: &str) -> Result<Option<i64>> {
    let find = "SELECT newest_ms FROM forgotten_instants WHERE schedule = ?";
    Ok(db.one::<(i64,)>(find, values![name])?.map(|(newest,)| newest))
}
