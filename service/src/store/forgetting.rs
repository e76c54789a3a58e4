//! Forgets ended tasks: they leave with their results, payloads and rows, a slice at a time,
//! and the pages that they had go back to the file system.
//!
//! A slice is one transaction of bounded work. Its caller waits for as long as the slice took
//! before the next one, so that the jobs of others have at least half of the writer's time. A task
//! without an outcome is never forgotten: each is looked at again in the transaction that
//! removes it. A submission goes with the last of its tasks; until then its counts stay as
//! they are, so that its progress is told right. Touches the database only.

#[cfg(test)]
mod tests;

use super::engine::{Columns, Db, FromRow, Value, values};
use super::stored_state::StoredState;
use super::{Error, Result, Store, unaccounted};
use clutch_common::id::TaskId;
use clutch_common::task::result::TaskResult;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tokio::time::Instant;

/// How many tasks a slice forgets at most.
const SLICE: usize = 500;
/// How many bytes of payloads and outputs they have together, give or take one task.
const SLICE_BYTES: u64 = 4 * 1024 * 1024;
/// How many tasks a slice looks at.
const LOOKED_AT: u64 = 5000;
/// How many pages of the file are released at a time.
const PAGES: u32 = 200;
/// The facts of a [`Horizon`].
const ENDED_BEFORE: &str = "forgotten_ended_before_ms";
/// See [`ENDED_BEFORE`].
const NEWEST_ID: &str = "forgotten_newest_id_ms";

/// The ended tasks that are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgettable {
    /// Those with an outcome that was recorded before this moment, in milliseconds since the Unix epoch.
    EndedBefore(u64),
    /// Those of a submission.
    Submission(i64),
}

/// The outcome of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForgottenSlice {
    /// How many tasks were forgotten, or would be.
    pub(crate) tasks: u64,
    /// How many submissions went with them.
    pub(crate) submissions: u64,
    /// How many tasks without an outcome were met, and stay.
    pub(crate) unfinished: u64,
    /// Where the next slice begins; nothing after the last.
    pub(crate) next: Option<u64>,
}

impl Store {
    /// Forgets one slice, from the position `from` on, and pauses; only counts its tasks if
    /// `dry_run`. Recorded only: until it is [durable](Store::durable), a power cut may undo
    /// it.
    pub(crate) async fn forget(
        &self,
        which: Forgettable,
        from: u64,
        dry_run: bool,
    ) -> Result<ForgottenSlice> {
        let look = move |db: &Db<'_>| look(db, which, from);
        let Candidates { tasks, unfinished, next } =
            self.read("looking for tasks to forget", look).await?;
        let slice =
            ForgottenSlice { tasks: tasks.len() as u64, unfinished, next, ..Default::default() };
        if dry_run || tasks.is_empty() {
            return Ok(slice);
        }
        let begun = Instant::now();
        let job = move |write: &mut super::Write<'_>| forget(write.db, which, &tasks);
        let (tasks, submissions) = self.record_only("forgetting tasks", job, |_| ()).await?;
        tokio::time::sleep(begun.elapsed()).await;
        Ok(ForgottenSlice { tasks, submissions, ..slice })
    }

    /// Gives some pages that hold nothing back to the file system, and pauses; returns whether
    /// there are more. Few are kept for what is recorded next.
    pub(crate) async fn release_pages(&self) -> Result<bool> {
        let begun = Instant::now();
        let job = |write: &mut super::Write<'_>| write.db.release_pages(PAGES);
        let more = self.record_only("shrinking the database", job, |_| ()).await?;
        if more {
            tokio::time::sleep(begun.elapsed()).await;
        }
        Ok(more)
    }
}

/// The tasks of a slice.
#[derive(Default)]
struct Candidates {
    tasks: Vec<i64>,
    unfinished: u64,
    next: Option<u64>,
}

/// A task that may be forgotten.
struct CandidateRow {
    seq: i64,
    position: u64,
    state: StoredState,
    created_at_ms: u64,
    recorded_at_ms: Option<u64>,
    bytes: u64,
}

impl FromRow for CandidateRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            position: columns.next()?,
            state: columns.next()?,
            created_at_ms: columns.next()?,
            recorded_at_ms: columns.next()?,
            bytes: columns.next()?,
        })
    }
}

/// Looks for the tasks of the next slice.
fn look(db: &Db<'_>, which: Forgettable, from: u64) -> Result<Candidates> {
    let (position, submission) = match which {
        Forgettable::EndedBefore(_) => ("t.seq", None),
        Forgettable::Submission(submission) => ("t.idx", Some(submission)),
    };
    let of = submission.map_or("", |_| " AND t.submission = ?");
    let find = format!(
        "SELECT t.seq, {position}, t.state, t.created_at_ms, r.received_at_ms, \
         coalesce(octet_length(p.body), 0) + coalesce(octet_length(r.stdout), 0) \
         + coalesce(octet_length(r.stderr), 0) + coalesce(octet_length(r.value), 0) \
         FROM tasks t LEFT JOIN payloads p ON p.task = t.seq LEFT JOIN results r ON {} \
         WHERE {position} >= ?{of} ORDER BY {position}",
        db.dialect().is_decisive_result
    );
    let mut values: Vec<Value<'_>> = vec![from.into()];
    values.extend(submission.map(Value::from));
    let (mut found, mut looked_at, mut bytes) = (Candidates::default(), 0, 0);
    db.each(&find, &values, |task: CandidateRow| {
        if let Forgettable::EndedBefore(ms) = which
            && task.created_at_ms >= ms
        {
            return Ok(ControlFlow::Break(()));
        }
        looked_at += 1;
        if is_forgettable(&task, which) {
            found.tasks.push(task.seq);
            bytes += task.bytes;
        } else {
            found.unfinished += u64::from(!matches!(task.state, StoredState::Done(_)));
        }
        let full = found.tasks.len() == SLICE || bytes >= SLICE_BYTES || looked_at == LOOKED_AT;
        if full {
            found.next = Some(task.position + 1);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn is_forgettable(task: &CandidateRow, which: Forgettable) -> bool {
    let ended = matches!(task.state, StoredState::Done(_));
    match which {
        Forgettable::EndedBefore(ms) => {
            ended && task.recorded_at_ms.unwrap_or(task.created_at_ms) < ms
        }
        Forgettable::Submission(_) => ended,
    }
}

/// Forgets the tasks in these rows that have their outcome; returns how many they are, and how
/// many submissions went with them.
fn forget(db: &Db<'_>, which: Forgettable, tasks: &[i64]) -> Result<(u64, u64)> {
    let (last,) = db.only::<(Option<i64>,)>("SELECT max(seq) FROM tasks", &[])?;
    let mut submissions: BTreeMap<i64, u64> = BTreeMap::new();
    let (mut gone, mut newest_id_ms) = (Vec::with_capacity(tasks.len()), 0);
    for task in tasks {
        let find = "SELECT state, submission, id FROM tasks WHERE seq = ?";
        let found: Option<(StoredState, Option<i64>, TaskId)> = db.one(find, values![task])?;
        let Some((StoredState::Done(_), submission, id)) = found else { continue };
        gone.push(*task);
        newest_id_ms = made_at_ms(id).map_or(newest_id_ms, |ms| ms.max(newest_id_ms));
        if let Some(submission) = submission {
            *submissions.entry(submission).or_default() += 1;
        }
    }
    unaccounted::remove(db, &gone)?;
    let mut deletes = vec![
        format!("DELETE FROM results WHERE {}", db.dialect().is_result_of),
        "DELETE FROM payloads WHERE task = ?1".to_owned(),
        "DELETE FROM renewed_expiries WHERE task = ?1".to_owned(),
        "DELETE FROM tasks WHERE seq = ?1".to_owned(),
    ];
    // As nearly always they are empty.
    for table in ["children", "messages", "topic_tasks", "placements"] {
        if db.exists(&format!("SELECT 1 FROM {table} LIMIT 1"), &[])? {
            deletes.push(format!("DELETE FROM {table} WHERE task = ?1"));
        }
    }
    for delete in deletes {
        let mut delete = db.prepare(&delete)?;
        gone.iter().try_for_each(|task| delete.execute(values![task]).map(drop))?;
    }
    if let Some(last) = last.filter(|last| gone.contains(last)) {
        // Its row is not given to another task: an answer of the broker may be on its way.
        raise(db, "last_task", last.unsigned_abs())?;
    }
    raise(db, NEWEST_ID, newest_id_ms)?;
    if let Forgettable::EndedBefore(ms) = which {
        raise(db, ENDED_BEFORE, ms)?;
    }
    let mut emptied = 0;
    for (submission, forgotten) in submissions {
        emptied += u64::from(take_leave(db, submission, forgotten)?);
    }
    Ok((gone.len() as u64, emptied))
}

/// Counts forgotten tasks of a submission, and forgets it if they were the last ones; returns
/// whether it did.
fn take_leave(db: &Db<'_>, submission: i64, forgotten: u64) -> Result<bool> {
    if db.exists("SELECT 1 FROM tasks WHERE submission = ? LIMIT 1", values![submission])? {
        let update = "UPDATE submissions SET forgotten = forgotten + ? WHERE id = ?";
        db.run(update, values![forgotten, submission])?;
        return Ok(false);
    }
    // Its row is not given to another one: a caller may hold on to it.
    raise(db, "last_submission", submission.unsigned_abs())?;
    db.run("DELETE FROM counts WHERE submission = ?", values![submission])?;
    db.run("DELETE FROM retry_policies WHERE submission = ?", values![submission])?;
    db.run("DELETE FROM submissions WHERE id = ?", values![submission])?;
    Ok(true)
}

/// Records a number as a fact, if it is larger than the one recorded.
fn raise(db: &Db<'_>, fact: &str, number: u64) -> Result<()> {
    if number > recorded(db, fact)?.unwrap_or(0) {
        let insert = "INSERT INTO facts (name, value) VALUES (?, ?) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        db.run(insert, values![fact, number.to_string()])?;
    }
    Ok(())
}

fn recorded(db: &Db<'_>, fact: &str) -> Result<Option<u64>> {
    let found = db.one::<(String,)>("SELECT value FROM facts WHERE name = ?", values![fact])?;
    let unreadable = |_| Error::Unreadable(format!("the fact {fact} is no number"));
    found.map(|(number,)| number.parse().map_err(unreadable)).transpose()
}

/// When a task's id was made, in milliseconds since the Unix epoch, if the id says so.
fn made_at_ms(id: TaskId) -> Option<u64> {
    let made = id.0.get_timestamp().filter(|_| id.0.get_version_num() == 7)?;
    let (seconds, nanoseconds) = made.to_unix();
    Some(seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds) / 1_000_000))
}

/// The bounds of what was forgotten, by which a task that is not in the records is recognized.
pub(super) struct Horizon {
    ended_before_ms: u64,
    newest_id_ms: u64,
}

impl Horizon {
    /// The horizon as it is recorded.
    pub(super) fn read(db: &Db<'_>) -> Result<Self> {
        let number = |fact| Ok::<_, Error>(recorded(db, fact)?.unwrap_or(0));
        Ok(Self { ended_before_ms: number(ENDED_BEFORE)?, newest_id_ms: number(NEWEST_ID)? })
    }

    /// Whether a task that is not in the records may have been forgotten.
    pub(super) fn may_have_had(&self, task: TaskId) -> bool {
        made_at_ms(task).is_some_and(|ms| ms <= self.newest_id_ms)
    }

    /// Whether the result of a task that is not in the records came too late to be kept: it
    /// was of a task that is forgotten by its age, or is as old as those. One from an endpoint
    /// that this service does not know is kept in any case.
    pub(super) fn is_past(&self, db: &Db<'_>, result: &TaskResult) -> Result<bool> {
        let old = result.ended_at_ms < self.ended_before_ms
            && made_at_ms(result.task_id).is_some_and(|ms| ms < self.ended_before_ms);
        let find = "SELECT 1 FROM endpoints WHERE id = ?";
        Ok(old && db.exists(find, values![&result.endpoint_id])?)
    }
}
