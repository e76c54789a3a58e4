//! Submissions: tasks recorded before they are published, known by key and
//! index, so that submitting again continues instead of repeating.

use super::endpoints::Endpoint;
use super::moves::{Moves, shift};
use super::rows::{self, all, one, parsed, run, run_all};
use super::{Error, Result, Store, Write, doubts, endpoints, failed, signed, unsigned};
use crate::model::{TaskSpec, TaskState};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::{Task, Work};
use rusqlite::{Connection, params};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How much of a command line a listing shows, in characters.
const COMMAND_SHOWN: usize = 80;
/// What marking tasks as submitted is called.
const MARKING: &str = "recording that the broker has the tasks";

/// A part of a submission.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// The name or id of the endpoint that the tasks go to.
    pub(crate) endpoint: String,
    /// The submission's key.
    pub(crate) key: String,
    /// How many tasks the submission has.
    pub(crate) total: u64,
    /// The index of the first task here.
    pub(crate) first: u64,
    /// The tasks.
    pub(crate) specs: Vec<TaskSpec>,
    /// Now, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

/// A task that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begun {
    /// Its row.
    pub(crate) seq: i64,
    /// The task.
    pub(crate) task: Task,
    /// It, as it travels.
    pub(crate) body: String,
    /// Where it is; to be published if `submitting`.
    pub(crate) state: TaskState,
}

struct Known {
    idx: i64,
    seq: i64,
    state: String,
    created_at_ms: i64,
    current_attempt: u32,
    body: String,
}

/// Where a chunk goes.
struct Place {
    /// The submission's row.
    submission: i64,
    /// Whether it has just been made.
    new: bool,
    /// The last row that `tasks` has.
    last: i64,
}

/// A task that is new, by its place in the chunk.
struct Fresh<'a> {
    index: u64,
    begun: &'a Begun,
}

impl Store {
    /// Records the tasks of a chunk as `submitting`, unless they are recorded
    /// already, and returns them in order, with their endpoint; nothing if nobody
    /// knows that. Those that the broker returned or refused before are `submitting`
    /// again.
    ///
    /// # Errors
    /// A conflict when the key is that of other tasks; then nothing is
    /// recorded.
    pub(crate) async fn begin_submission(
        &self,
        chunk: Chunk,
    ) -> Result<Option<(Endpoint, Vec<Begun>)>> {
        self.write("recording the tasks", move |write| {
            let Some(endpoint) = endpoints::find(&write.db, &chunk.endpoint)? else {
                return Ok(None);
            };
            let begun = begin(write, endpoint.id, &chunk)?;
            Ok(Some((endpoint, begun)))
        })
        .await
    }

    /// Marks tasks as confirmed by the broker, where that is news. Tells whether
    /// one of them is in doubt: it can be asked for now.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn mark_submitted(&self, tasks: Vec<i64>, now_ms: u64) -> Result<bool> {
        if tasks.is_empty() {
            return Ok(false);
        }
        self.write(MARKING, move |write| mark_submitted(&write.db, &tasks, now_ms)).await
    }

    /// The same, for nobody who waits: until it is [durable](Store::durable), a power
    /// cut may undo it, and no submission waits for a sync of it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn note_submitted(&self, tasks: Vec<i64>, now_ms: u64) -> Result<bool> {
        let job = move |write: &mut Write<'_>| mark_submitted(&write.db, &tasks, now_ms);
        self.record_only(MARKING, job, |_| ()).await
    }

    /// Marks tasks as ones that the broker did not take, where nothing else is
    /// known of them.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn mark_unplaced(&self, tasks: Vec<i64>, state: TaskState) -> Result<()> {
        const DOING: &str = "recording that the broker did not take the tasks";
        if tasks.is_empty() {
            return Ok(());
        }
        self.write(DOING, move |write| {
            let from = [TaskState::Submitting, TaskState::Resubmitting];
            shift(&write.db, &tasks, &from, state, DOING)
        })
        .await
    }
}

fn mark_submitted(db: &Connection, tasks: &[i64], now_ms: u64) -> Result<bool> {
    shift(db, tasks, &TaskState::UNSUBMITTED, TaskState::Submitted, MARKING)?;
    let update = "UPDATE tasks SET submitted_at_ms = ? WHERE seq = ? AND submitted_at_ms IS NULL";
    run_all(db, update, tasks.iter().map(|task| (signed(now_ms), task)))
        .map_err(failed(MARKING))?;
    doubts::any(db, tasks)
}

fn begin(write: &mut Write<'_>, endpoint: EndpointId, chunk: &Chunk) -> Result<Vec<Begun>> {
    let Place { submission, new, mut last } = place(&write.db, endpoint, chunk)?;
    let mut known = if new { BTreeMap::new() } else { known(&write.db, submission, chunk)? };
    reopen(&write.db, &mut known)?;
    let mut begun = Vec::with_capacity(chunk.specs.len());
    for (index, spec) in (chunk.first..).zip(&chunk.specs) {
        if let Some(row) = known.get(&index) {
            begun.push(again(row, spec, &chunk.key)?);
            continue;
        }
        last += 1;
        let task = spec.task(TaskId::new(), chunk.now_ms);
        let body = encoded(&task)?;
        begun.push(Begun { seq: last, task, body, state: TaskState::Submitting });
    }
    let fresh: Vec<Fresh> = (chunk.first..)
        .zip(&begun)
        .filter(|(index, _)| !known.contains_key(index))
        .map(|(index, begun)| Fresh { index, begun })
        .collect();
    let endpoint = write.names.number(&write.db, endpoint)?;
    insert(&write.db, endpoint, submission, &fresh, chunk.now_ms)
        .map_err(failed("recording the tasks"))?;
    let mut moves = Moves::default();
    moves.come(submission, TaskState::Submitting, signed(fresh.len() as u64));
    moves.write(&write.db)?;
    Ok(begun)
}

/// Makes what the broker did not take `submitting` again: it is about to be
/// published, and may then be at the broker before that is known.
fn reopen(db: &Connection, known: &mut BTreeMap<u64, Known>) -> Result<()> {
    let mut seqs = Vec::new();
    for row in known.values_mut() {
        if matches!(parsed(&row.state)?, TaskState::Returned | TaskState::Refused) {
            TaskState::Submitting.as_str().clone_into(&mut row.state);
            seqs.push(row.seq);
        }
    }
    let from = [TaskState::Returned, TaskState::Refused];
    let doing = "recording that tasks are submitted again";
    shift(db, &seqs, &from, TaskState::Submitting, doing)
}

/// Where the chunk goes; its submission is made if it is new.
fn place(db: &Connection, to: EndpointId, chunk: &Chunk) -> Result<Place> {
    const DOING: &str = "recording the submission";
    let (last, to) = (rows::last(db, DOING)?, to.to_string());
    let find = "SELECT id, endpoint_id, total FROM submissions WHERE key = ?";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(i64, String, i64)> =
        one(db, find, [&chunk.key], read).map_err(failed(DOING))?;
    let Some((submission, endpoint, total)) = found else {
        let insert = "INSERT INTO submissions (key, endpoint_id, total, created_at_ms) \
             VALUES (?, ?, ?, ?)";
        let values = params![chunk.key, to, signed(chunk.total), signed(chunk.now_ms)];
        run(db, insert, values).map_err(failed(DOING))?;
        return Ok(Place { submission: db.last_insert_rowid(), new: true, last });
    };
    let differs = |what: String| {
        Err(Error::Conflict(format!(
            "the key '{}' is that of another submission: {what}; choose another key",
            chunk.key
        )))
    };
    if endpoint != to {
        return differs(format!("it went to the endpoint {endpoint}"));
    }
    if unsigned(total) != chunk.total {
        return differs(format!("it has {total} tasks, this one has {}", chunk.total));
    }
    Ok(Place { submission, new: false, last })
}

/// The tasks of the chunk that are recorded already, by index.
fn known(db: &Connection, submission: i64, chunk: &Chunk) -> Result<BTreeMap<u64, Known>> {
    let find = "SELECT t.idx, t.seq, t.state, t.created_at_ms, t.current_attempt, p.body \
         FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.submission = ? AND t.idx >= ? AND t.idx < ?";
    let (first, count) = (chunk.first, chunk.specs.len() as u64);
    let values = params![submission, signed(first), signed(first.saturating_add(count))];
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Known {
            idx: row.get(0)?,
            seq: row.get(1)?,
            state: row.get(2)?,
            created_at_ms: row.get(3)?,
            current_attempt: row.get(4)?,
            body: row.get(5)?,
        })
    };
    let rows = all(db, find, values, read);
    let rows = rows.map_err(failed("comparing the tasks with those recorded"))?;
    Ok(rows.into_iter().map(|row| (unsigned(row.idx), row)).collect())
}

/// A task that was recorded before, if it is the same.
fn again(row: &Known, spec: &TaskSpec, key: &str) -> Result<Begun> {
    let first = doubts::task(row.seq, &row.body, 1)?;
    if spec.task(first.id, unsigned(row.created_at_ms)) != first {
        return Err(Error::Conflict(format!(
            "the key '{key}' is that of another submission: its task {} differs from this one; \
             choose another key",
            row.idx
        )));
    }
    let state = parsed(&row.state)?;
    let task = Task { attempt: row.current_attempt, ..first };
    let body = if task.attempt == 1 { row.body.clone() } else { encoded(&task)? };
    Ok(Begun { seq: row.seq, task, body, state })
}

fn insert(
    db: &Connection,
    endpoint: i64,
    submission: i64,
    fresh: &[Fresh<'_>],
    now_ms: u64,
) -> rusqlite::Result<()> {
    let tasks = "tasks (seq, id, endpoint, submission, idx, name, command, state, created_at_ms)";
    rows::insert(db, tasks, fresh, |values, Fresh { index, begun }| {
        let task = &begun.task;
        values.bind(begun.seq)?.bind(rows::id(&task.id))?.bind(endpoint)?.bind(submission)?;
        values.bind(signed(*index))?.bind(&task.name)?.bind(command(task))?;
        values.bind(begun.state.as_str())?.bind(signed(now_ms))?;
        Ok(())
    })?;
    rows::insert(db, "payloads (task, body)", fresh, |values, Fresh { begun, .. }| {
        values.bind(begun.seq)?.bind(&begun.body)?;
        Ok(())
    })
}

/// A task as it travels.
pub(super) fn encoded(task: &Task) -> Result<String> {
    serde_json::to_string(task).map_err(|error| Error::Unreadable(error.to_string()))
}

/// The beginning of the command line, for people.
fn command(task: &Task) -> String {
    let process = match &task.work {
        Work::Process(process) => process,
        Work::Call(call) => return beginning(&call.to_string()),
    };
    let words = process.argv.iter().map(ByteString::shown);
    let mut shown = String::new();
    for word in words {
        if !shown.is_empty() {
            shown.push(' ');
        }
        let beginning: String = word.chars().take(COMMAND_SHOWN + 1).collect();
        shown.push_str(&quoted(&beginning));
        if shown.chars().count() > COMMAND_SHOWN {
            return shown.chars().take(COMMAND_SHOWN).chain(['…']).collect();
        }
    }
    shown
}

/// As much of a text as is shown.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(COMMAND_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A word as a shell would need it.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |char: char| char.is_alphanumeric() || "-_./=:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_shown_as_a_shell_would_need_them() {
        assert_eq!(quoted("--in=/a/b.c"), "--in=/a/b.c");
        assert_eq!(quoted("exit 1"), "'exit 1'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
