//! Submissions: tasks recorded before they are published, known by key and
//! index, so that submitting again continues instead of repeating.

use super::moves::{Moves, shift};
use super::rows::parsed;
use super::{Error, Result, Store, doubts, failed, json_list, query, signed, unsigned};
use crate::api::types::{TaskSpec, TaskState};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::{Task, Work};
use sqlx::sqlite::SqliteConnection;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How many rows one statement inserts: 9 values each, far below SQLite's
/// bound on parameters.
const ROWS_PER_INSERT: usize = 100;
/// How much of a command line a listing shows, in characters.
const COMMAND_SHOWN: usize = 80;

/// A part of a submission.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// Where the tasks go.
    pub(crate) endpoint: EndpointId,
    /// The submission's key.
    pub(crate) key: &'a str,
    /// How many tasks the submission has.
    pub(crate) total: u64,
    /// The index of the first task here.
    pub(crate) first: u64,
    /// The tasks.
    pub(crate) specs: &'a [TaskSpec],
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

#[derive(sqlx::FromRow)]
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
    /// already, and returns them in order. Those that the broker returned or
    /// refused before are `submitting` again.
    ///
    /// # Errors
    /// A conflict when the key is that of other tasks; then nothing is
    /// recorded.
    pub(crate) async fn begin_submission(&self, chunk: &Chunk<'_>) -> Result<Vec<Begun>> {
        const DOING: &str = "recording the tasks";
        let mut tx = self.begin(DOING).await?;
        let Place { submission, new, mut last } = place(&mut tx, chunk).await?;
        let mut known =
            if new { BTreeMap::new() } else { known(&mut tx, submission, chunk).await? };
        reopen(&mut tx, &mut known).await?;
        let mut begun = Vec::with_capacity(chunk.specs.len());
        for (index, spec) in (chunk.first..).zip(chunk.specs) {
            if let Some(row) = known.get(&index) {
                begun.push(again(row, spec, chunk.key)?);
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
        let endpoint = self.names.number(&mut tx, chunk.endpoint).await?;
        for rows in fresh.chunks(ROWS_PER_INSERT) {
            insert(&mut tx, submission, endpoint, chunk, rows).await.map_err(failed(DOING))?;
        }
        let mut moves = Moves::default();
        moves.come(submission, TaskState::Submitting, signed(fresh.len() as u64));
        moves.write(&mut tx).await?;
        self.commit(tx, DOING).await?;
        Ok(begun)
    }

    /// Marks tasks as confirmed by the broker, where that is news. Tells whether
    /// one of them is in doubt: it can be asked for now.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn mark_submitted(&self, tasks: &[i64], now_ms: u64) -> Result<bool> {
        const DOING: &str = "recording that the broker has the tasks";
        if tasks.is_empty() {
            return Ok(false);
        }
        let mut tx = self.begin(DOING).await?;
        shift(&mut tx, tasks, &TaskState::UNSUBMITTED, TaskState::Submitted, DOING).await?;
        sqlx::query(
            "UPDATE tasks SET submitted_at_ms = ?1 WHERE submitted_at_ms IS NULL \
             AND seq IN (SELECT value FROM json_each(?2))",
        )
        .bind(signed(now_ms))
        .bind(json_list(tasks)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
        let in_doubt = doubts::any(&mut tx, tasks).await?;
        self.commit(tx, DOING).await?;
        Ok(in_doubt)
    }

    /// Marks tasks as ones that the broker did not take, where nothing else is
    /// known of them.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn mark_unplaced(&self, tasks: &[i64], state: TaskState) -> Result<()> {
        const DOING: &str = "recording that the broker did not take the tasks";
        if tasks.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin(DOING).await?;
        shift(&mut tx, tasks, &[TaskState::Submitting], state, DOING).await?;
        self.commit(tx, DOING).await
    }
}

/// Makes what the broker did not take `submitting` again: it is about to be
/// published, and may then be at the broker before that is known.
async fn reopen(db: &mut SqliteConnection, known: &mut BTreeMap<u64, Known>) -> Result<()> {
    let mut seqs = Vec::new();
    for row in known.values_mut() {
        if matches!(parsed(&row.state)?, TaskState::Returned | TaskState::Refused) {
            TaskState::Submitting.as_str().clone_into(&mut row.state);
            seqs.push(row.seq);
        }
    }
    let from = [TaskState::Returned, TaskState::Refused];
    let doing = "recording that tasks are submitted again";
    shift(db, &seqs, &from, TaskState::Submitting, doing).await
}

/// Where the chunk goes; its submission is made if it is new.
async fn place(db: &mut SqliteConnection, chunk: &Chunk<'_>) -> Result<Place> {
    const DOING: &str = "recording the submission";
    type Found = (i64, Option<i64>, Option<String>, Option<i64>);
    let (last, id, endpoint, total): Found = sqlx::query_as(
        "SELECT (SELECT coalesce(max(seq), 0) FROM tasks), id, endpoint_id, total \
         FROM (SELECT 1) LEFT JOIN submissions ON key = ?",
    )
    .bind(chunk.key)
    .fetch_one(&mut *db)
    .await
    .map_err(failed(DOING))?;
    let (Some(submission), Some(endpoint), Some(total)) = (id, endpoint, total) else {
        let submission = sqlx::query_scalar(
            "INSERT INTO submissions (key, endpoint_id, total, created_at_ms) \
             VALUES (?, ?, ?, ?) RETURNING id",
        )
        .bind(chunk.key)
        .bind(chunk.endpoint.to_string())
        .bind(signed(chunk.total))
        .bind(signed(chunk.now_ms))
        .fetch_one(&mut *db)
        .await
        .map_err(failed(DOING))?;
        return Ok(Place { submission, new: true, last });
    };
    let differs = |what: String| {
        Err(Error::Conflict(format!(
            "the key '{}' is that of another submission: {what}; choose another key",
            chunk.key
        )))
    };
    if endpoint != chunk.endpoint.to_string() {
        return differs(format!("it went to the endpoint {endpoint}"));
    }
    if unsigned(total) != chunk.total {
        return differs(format!("it has {total} tasks, this one has {}", chunk.total));
    }
    Ok(Place { submission, new: false, last })
}

/// The tasks of the chunk that are recorded already, by index.
async fn known(
    db: &mut SqliteConnection,
    submission: i64,
    chunk: &Chunk<'_>,
) -> Result<BTreeMap<u64, Known>> {
    let rows: Vec<Known> = sqlx::query_as(
        "SELECT t.idx, t.seq, t.state, t.created_at_ms, t.current_attempt, p.body FROM tasks t \
         JOIN payloads p ON p.task = t.seq WHERE t.submission = ? AND t.idx >= ? AND t.idx < ?",
    )
    .bind(submission)
    .bind(signed(chunk.first))
    .bind(signed(chunk.first.saturating_add(chunk.specs.len() as u64)))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("comparing the tasks with those recorded"))?;
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

async fn insert(
    db: &mut SqliteConnection,
    submission: i64,
    endpoint: i64,
    chunk: &Chunk<'_>,
    rows: &[Fresh<'_>],
) -> std::result::Result<(), sqlx::Error> {
    let mut sql = query(
        "INSERT INTO tasks (seq, id, endpoint, submission, idx, name, command, state, \
         created_at_ms) ",
    );
    sql.push_values(rows, |mut values, Fresh { index, begun }| {
        let task = &begun.task;
        values
            .push_bind(begun.seq)
            .push_bind(task.id.0.as_bytes().as_slice())
            .push_bind(endpoint)
            .push_bind(submission)
            .push_bind(signed(*index))
            .push_bind(task.name.as_deref())
            .push_bind(command(task))
            .push_bind(TaskState::Submitting.as_str())
            .push_bind(signed(chunk.now_ms));
    });
    sql.push("; INSERT INTO payloads (task, body) ");
    sql.push_values(rows, |mut values, row| {
        values.push_bind(row.begun.seq).push_bind(row.begun.body.as_str());
    });
    sql.build().execute(db).await?;
    Ok(())
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
    let words = process.argv.iter().map(String::as_str);
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
