//! Lists results in pages, counts the progress of tasks, and reads one task in full.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::{
    RESULT_COLUMNS, RESULT_TABLES, ResultRow, SUMMARY_COLUMNS, SummaryRow, decoded, summary_tables,
};
use super::stored_state::StoredState;
use super::{Result, Store, children, due, expiries, kept_messages, missing, retries};
use crate::model::{Page, Progress, TaskDetail, TaskOutcome};
use clutch_common::id::TaskId;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// A page of results stops growing at this many bytes of output.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

impl Store {
    /// The submission with that key.
    pub(crate) async fn submission(&self, key: &str) -> Result<Option<i64>> {
        let key = key.to_owned();
        self.read("looking up the submission", move |db| {
            let found = db.one("SELECT id FROM submissions WHERE key = ?", values![&key])?;
            Ok(found.map(|(id,)| id))
        })
        .await
    }

    /// The progress of a submission, its forgotten tasks among those that are done; nothing if
    /// the submission is forgotten.
    pub(crate) async fn submission_progress(&self, submission: i64) -> Result<Option<Progress>> {
        self.read("counting a submission's tasks", move |db| {
            let find = "SELECT s.total, c.state, c.tasks FROM submissions s \
                 LEFT JOIN counts c ON c.submission = s.id AND c.tasks > 0 WHERE s.id = ?";
            let rows: Vec<(u64, Option<StoredState>, Option<u64>)> =
                db.all(find, values![submission])?;
            let total = rows.first().map(|(total, _, _)| *total);
            let counts = rows.into_iter().filter_map(|(_, state, tasks)| state.zip(tasks));
            let shown = counts.map(|(state, tasks)| (state.shown(), tasks));
            Ok(total.map(|total| Progress::of(total, shown)))
        })
        .await
    }

    /// The progress of these tasks, and those of them that are not known.
    pub(crate) async fn tasks_progress(&self, tasks: &[TaskId]) -> Result<(Progress, Vec<TaskId>)> {
        let tasks: BTreeSet<TaskId> = tasks.iter().copied().collect();
        self.read("looking up tasks", move |db| {
            let (mut states, mut unknown) = (Vec::with_capacity(tasks.len()), Vec::new());
            for task in &tasks {
                match db.one("SELECT state FROM tasks WHERE id = ?", values![task])? {
                    Some((state,)) => states.push((StoredState::shown(state), 1)),
                    None => unknown.push(*task),
                }
            }
            Ok((Progress::of(tasks.len() as u64, states), unknown))
        })
        .await
    }

    /// Every record of a task.
    pub(crate) async fn task(&self, id: TaskId) -> Result<Option<TaskDetail>> {
        self.read("reading a task", move |db| task(db, id)).await
    }

    /// How many tasks a submission has, how many of them are forgotten, and the results of the
    /// others in order, from index `from` on: up to `limit` tasks, or fewer where they have much
    /// output.
    pub(crate) async fn results(
        &self,
        submission: i64,
        from: u64,
        limit: u64,
    ) -> Result<((u64, u64), Page<TaskOutcome>)> {
        self.read("reading results", move |db| results(db, submission, from, limit)).await
    }
}

fn task(db: &Db<'_>, id: TaskId) -> Result<Option<TaskDetail>> {
    let tables = summary_tables(db.dialect());
    let find = format!("SELECT {SUMMARY_COLUMNS}{tables}WHERE t.id = ?");
    let Some(SummaryRow { seq, summary }) = db.one(&find, values![&id])? else { return Ok(None) };
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let find = "SELECT p.body, t.current_attempt FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.seq = ?";
    let payload: Option<(String, u32)> = db.one(find, values![seq])?;
    let task = payload.map(|(body, attempt)| decoded(seq, &body, attempt)).transpose()?;
    let task = task.map(|task| expiries::current(db, seq, task)).transpose()?;
    let find = format!(
        "SELECT {RESULT_COLUMNS} FROM tasks t JOIN results r ON {}{RESULT_TABLES}\
         WHERE t.seq = ? ORDER BY r.attempt",
        db.dialect().is_result
    );
    let results: Vec<ResultRow> = db.all(&find, values![seq])?;
    let results = results.into_iter().filter_map(|row| row.of(id)).collect();
    let asked = missing::asked(db, seq)?;
    let retry_at_ms = retries::retry_at_ms(db, seq)?;
    let (due_at_ms, released_at_ms) = match &summary.key {
        Some(key) => due::of_submission(db, key)?,
        None => (None, None),
    };
    let family = children::family(db, seq, id)?;
    let kept_messages = kept_messages::count_of(db, seq)?;
    let (live, why, timeline) = (None, None, Vec::new());
    Ok(Some(TaskDetail {
        summary,
        task,
        due_at_ms,
        released_at_ms,
        late_ms: released_at_ms.zip(due_at_ms).map(|(at, due)| at.saturating_sub(due)),
        placement: None,
        retry_at_ms,
        asked,
        results,
        live,
        why,
        ring: Vec::new(),
        kept_messages,
        family,
        timeline,
    }))
}

/// A task of a page of results, with the result that decided its state.
struct OutcomeRow(SummaryRow, ResultRow);

impl FromRow for OutcomeRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self(SummaryRow::read(columns)?, ResultRow::read(columns)?))
    }
}

fn results(
    db: &Db<'_>,
    submission: i64,
    from: u64,
    limit: u64,
) -> Result<((u64, u64), Page<TaskOutcome>)> {
    let find = "SELECT total, forgotten FROM submissions WHERE id = ?";
    let counted = db.one(find, values![submission])?.unwrap_or_default();
    let tables = summary_tables(db.dialect());
    let find = format!(
        "SELECT {SUMMARY_COLUMNS}, {RESULT_COLUMNS}{tables}{RESULT_TABLES}\
         WHERE t.submission = ? AND t.idx >= ? ORDER BY t.idx LIMIT ?"
    );
    let mut page = Page { items: Vec::new(), next: None };
    let mut bytes = 0;
    db.each(&find, values![submission, from, limit], |OutcomeRow(row, result)| {
        let summary = row.summary;
        let result = result.of(summary.id);
        let following = summary.index.map(|index| index + 1);
        bytes += result.as_ref().map_or(0, |one| one.result.output());
        page.items.push(TaskOutcome { summary, result });
        if page.items.len() as u64 == limit || bytes >= PAGE_BYTES {
            page.next = following;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((counted, page))
}
