//! Reads tasks and results: listings by keyset, progress, one task in full.

use super::rows::{
    self, RESULT_COLUMNS, RESULT_TABLES, ResultRow, SUMMARY_COLUMNS, SUMMARY_TABLES, SummaryRow,
    parsed,
};
use super::{Result, Store, assembled, failed, query, signed, unsigned};
use crate::api::types::{
    Progress, Recorded, ResultPage, TaskDetail, TaskOutcome, TaskPage, TaskState,
};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::result::Outcome;
use futures_util::TryStreamExt as _;
use sqlx::{FromRow as _, Row as _};

/// As the index `tasks_rare` has it.
pub(super) const RARE: &str = " AND t.state NOT IN ('submitting', 'submitted', 'succeeded')";
/// A page of results stops growing at this many bytes of output.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only those of this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    /// Only those in this state.
    pub(crate) state: Option<TaskState>,
    /// Only those of this submission.
    pub(crate) submission: Option<i64>,
    /// Only those that come after the page with this `next`.
    pub(crate) before: Option<u64>,
    /// At most this many.
    pub(crate) limit: u64,
}

/// A condition that all tasks in a state meet, in the words of the index that holds
/// them, so that it is used.
pub(super) fn index_of(state: TaskState) -> &'static str {
    match state {
        TaskState::Submitting | TaskState::Submitted | TaskState::Done(Outcome::Succeeded) => "",
        TaskState::Returned | TaskState::Refused | TaskState::Resubmitting | TaskState::Done(_) => {
            RARE
        }
    }
}

impl Store {
    /// Lists tasks, newest first; those of one submission by falling index.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn tasks(&self, filter: &Filter) -> Result<TaskPage> {
        const DOING: &str = "listing tasks";
        // A submission belongs to one endpoint, so that its own index serves
        // best; the `+` keeps the planner from another.
        let (order, endpoint) = match filter.submission {
            Some(_) => ("t.idx", " AND +t.endpoint = "),
            None => ("t.seq", " AND t.endpoint = "),
        };
        let mut sql = query("SELECT ");
        sql.push(SUMMARY_COLUMNS).push(SUMMARY_TABLES).push("WHERE TRUE");
        if let Some(submission) = filter.submission {
            sql.push(" AND t.submission = ").push_bind(submission);
        }
        if let Some(id) = filter.endpoint {
            sql.push(endpoint).push("(SELECT n FROM names WHERE id = ").push_bind(id.to_string());
            sql.push(")");
        }
        if let Some(state) = filter.state {
            sql.push(" AND t.state = ").push_bind(state.as_str()).push(index_of(state));
        }
        if let Some(before) = filter.before {
            sql.push(" AND ").push(order).push(" < ").push_bind(signed(before));
        }
        sql.push(" ORDER BY ").push(order).push(" DESC LIMIT ").push_bind(signed(filter.limit));
        let rows: Vec<SummaryRow> =
            sql.build_query_as().fetch_all(&self.reader).await.map_err(failed(DOING))?;
        let full = rows.len() as u64 == filter.limit;
        let last = rows.last().filter(|_| full);
        let by_index = filter.submission.is_some();
        let next = last.and_then(|row| if by_index { row.idx } else { Some(row.seq) });
        let tasks = rows.into_iter().map(SummaryRow::summary).collect::<Result<_>>()?;
        Ok(TaskPage { tasks, next: next.map(unsigned) })
    }

    /// The submission with that key.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn submission(&self, key: &str) -> Result<Option<i64>> {
        sqlx::query_scalar("SELECT id FROM submissions WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed("looking up the submission"))
    }

    /// How far a submission is.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn submission_progress(&self, submission: i64) -> Result<Progress> {
        const DOING: &str = "counting a submission's tasks";
        let rows: Vec<(i64, Option<String>, Option<i64>)> = sqlx::query_as(
            "SELECT s.total, c.state, c.tasks FROM submissions s \
             LEFT JOIN counts c ON c.submission = s.id AND c.tasks > 0 WHERE s.id = ?",
        )
        .bind(submission)
        .fetch_all(&self.reader)
        .await
        .map_err(failed(DOING))?;
        let total = rows.first().map_or(0, |row| unsigned(row.0));
        let states = rows
            .into_iter()
            .filter_map(|(_, state, tasks)| state.zip(tasks))
            .map(|(state, tasks)| Ok((parsed(&state)?, unsigned(tasks))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Progress::of(total, states))
    }

    /// How far these tasks are; and those of them that nobody knows.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn tasks_progress(&self, tasks: &[TaskId]) -> Result<(Progress, Vec<TaskId>)> {
        let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(
            "SELECT id, state FROM tasks WHERE id IN (SELECT unhex(value) FROM json_each(?))",
        )
        .bind(rows::id_list(tasks.iter().copied())?)
        .fetch_all(&self.reader)
        .await
        .map_err(failed("looking up tasks"))?;
        let mut unknown: std::collections::BTreeSet<TaskId> = tasks.iter().copied().collect();
        let total = unknown.len() as u64;
        let mut states: Vec<(TaskState, u64)> = Vec::with_capacity(rows.len());
        for (id, state) in rows {
            unknown.remove(&rows::task_id(&id)?);
            states.push((parsed(&state)?, 1));
        }
        Ok((Progress::of(total, states), unknown.into_iter().collect()))
    }

    /// Everything known about a task.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn task(&self, id: TaskId) -> Result<Option<TaskDetail>> {
        const DOING: &str = "reading a task";
        let row: Option<SummaryRow> = sqlx::query_as(assembled(&[
            "SELECT ",
            SUMMARY_COLUMNS,
            SUMMARY_TABLES,
            "WHERE t.id = ?",
        ]))
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.reader)
        .await
        .map_err(failed(DOING))?;
        let Some(row) = row else { return Ok(None) };
        let seq = row.seq;
        let payload: Option<(String, u32)> = sqlx::query_as(
            "SELECT p.body, t.current_attempt FROM tasks t JOIN payloads p ON p.task = t.seq \
             WHERE t.seq = ?",
        )
        .bind(seq)
        .fetch_optional(&self.reader)
        .await
        .map_err(failed(DOING))?;
        let task =
            payload.map(|(body, attempt)| super::doubts::task(seq, &body, attempt)).transpose()?;
        let results: Vec<ResultRow> = sqlx::query_as(assembled(&[
            "SELECT ",
            RESULT_COLUMNS,
            " FROM results r ",
            RESULT_TABLES,
            "WHERE r.n BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295 ORDER BY r.n",
        ]))
        .bind(seq)
        .fetch_all(&self.reader)
        .await
        .map_err(failed(DOING))?;
        let results: Vec<Recorded> =
            results.into_iter().map(|row| row.recorded(id)).collect::<Result<_>>()?;
        Ok(Some(TaskDetail { summary: row.summary()?, task, results }))
    }

    /// The results of a submission in order, from index `from` on: up to
    /// `limit` tasks, or fewer where they have much output.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn results(
        &self,
        submission: i64,
        from: u64,
        limit: u64,
    ) -> Result<ResultPage> {
        const DOING: &str = "reading results";
        let total: i64 = sqlx::query_scalar("SELECT total FROM submissions WHERE id = ?")
            .bind(submission)
            .fetch_one(&self.reader)
            .await
            .map_err(failed(DOING))?;
        let mut rows = sqlx::query(assembled(&[
            "SELECT ",
            SUMMARY_COLUMNS,
            ", ",
            RESULT_COLUMNS,
            SUMMARY_TABLES,
            RESULT_TABLES,
            "WHERE t.submission = ? AND t.idx >= ? ORDER BY t.idx LIMIT ?",
        ]))
        .bind(submission)
        .bind(signed(from))
        .bind(signed(limit))
        .fetch(&self.reader);
        let mut page = ResultPage { results: Vec::new(), total: unsigned(total), next: None };
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(failed(DOING))? {
            let summary = SummaryRow::from_row(&row).map_err(failed(DOING))?.summary()?;
            let outcome: Option<String> = row.try_get("r_outcome").map_err(failed(DOING))?;
            let result = match outcome {
                Some(_) => {
                    let row = ResultRow::from_row(&row).map_err(failed(DOING))?;
                    Some(row.recorded(summary.id)?)
                }
                None => None,
            };
            let following = summary.index.map(|index| index + 1);
            bytes += result.as_ref().map_or(0, |one| one.result.output());
            page.results.push(TaskOutcome { summary, result });
            if page.results.len() as u64 == limit || bytes >= PAGE_BYTES {
                page.next = following;
                break;
            }
        }
        Ok(page)
    }
}
