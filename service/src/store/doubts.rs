//! Attempts of which it is not known who has them: listed, asked for, and ended
//! by a result, by another attempt, or as `interrupted`.

use super::listing::RARE;
use super::moves::shift;
use super::rows::{parsed, task_id};
use super::submissions::encoded;
use super::{Error, Result, Store, assembled, failed, json_list, query, signed};
use crate::api::types::TaskState;
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::task::Task;
use futures_util::TryStreamExt as _;
use serde_json::json;
use sqlx::QueryBuilder;
use sqlx::sqlite::{Sqlite, SqliteConnection};

/// How many new attempts are read at once, and how many bytes of them.
const RESUBMITTED_AT_ONCE: i64 = 1000;
const RESUBMITTED_BYTES: usize = 16 * 1024 * 1024;

/// An attempt to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The task's row.
    pub(crate) task: i64,
    /// The attempt.
    pub(crate) attempt: Attempt,
}

/// A new attempt at a task, to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resubmission {
    /// Its row.
    pub(crate) seq: i64,
    /// Where it goes.
    pub(crate) endpoint: EndpointId,
    /// The task, with the number of the attempt.
    pub(crate) task: Task,
    /// It, as it travels.
    pub(crate) body: String,
}

impl Store {
    /// The endpoints that have doubts nobody was asked for.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn doubtful(&self) -> Result<Vec<EndpointId>> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT endpoint_id FROM doubts WHERE asked IS NULL")
                .fetch_all(&self.reader)
                .await
                .map_err(failed("looking for doubts"))?;
        ids.iter().map(|id| parsed(id)).collect()
    }

    /// Up to `limit` attempts that the endpoint's active state is to be asked
    /// for. One whose publishing is not confirmed is not yet: a roll call has to
    /// come behind it in the queue.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn to_ask(&self, endpoint: EndpointId, limit: usize) -> Result<Vec<Doubt>> {
        let rows: Vec<(i64, Vec<u8>, u32)> = sqlx::query_as(
            "SELECT d.task, t.id, d.attempt FROM doubts d JOIN tasks t ON t.seq = d.task \
             WHERE d.endpoint_id = ? AND d.asked IS NULL AND t.state = 'submitted' LIMIT ?",
        )
        .bind(endpoint.to_string())
        .bind(signed(limit as u64))
        .fetch_all(&self.reader)
        .await
        .map_err(failed("looking for doubts"))?;
        let doubt = |(task, id, attempt): (i64, Vec<u8>, u32)| {
            Ok(Doubt { task, attempt: Attempt { task_id: task_id(&id)?, attempt } })
        };
        rows.into_iter().map(doubt).collect()
    }

    /// Records that a state was asked for these: a roll call is in its queue.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn asked(&self, doubts: &[Doubt], state: StateId) -> Result<()> {
        const DOING: &str = "recording a roll call";
        let mut tx = self.begin(DOING).await?;
        let rows = doubts.iter().map(|doubt| json!([doubt.task, doubt.attempt.attempt]));
        sqlx::query(
            "UPDATE doubts SET asked = ?1 FROM json_each(?2) AS told \
             WHERE task = told.value ->> 0 AND attempt = told.value ->> 1",
        )
        .bind(state.to_string())
        .bind(json_list(rows)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
        self.commit(tx, DOING).await
    }

    /// Every doubt is to be asked for again, whoever was asked before.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn ask_again(&self) -> Result<()> {
        const DOING: &str = "preparing roll calls";
        let mut tx = self.begin(DOING).await?;
        sqlx::query("UPDATE doubts SET asked = NULL WHERE asked IS NOT NULL")
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?;
        self.commit(tx, DOING).await
    }

    /// New attempts that are to be published, of endpoints not named: some, as
    /// they may be large.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn to_resubmit(&self, not_for: &[EndpointId]) -> Result<Vec<Resubmission>> {
        const DOING: &str = "looking for tasks to submit again";
        let mut rows = sqlx::query_as::<_, (i64, String, u32, String)>(assembled(&[
            "SELECT t.seq, n.id, t.current_attempt, p.body FROM tasks t \
             JOIN names n ON n.n = t.endpoint JOIN payloads p ON p.task = t.seq \
             WHERE t.state = 'resubmitting'",
            RARE,
            " AND n.id NOT IN (SELECT value FROM json_each(?)) ORDER BY t.seq LIMIT ?",
        ]))
        .bind(json_list(not_for)?)
        .bind(RESUBMITTED_AT_ONCE)
        .fetch(&self.reader);
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some((seq, endpoint, attempt, body)) =
            rows.try_next().await.map_err(failed(DOING))?
        {
            let task = task(seq, &body, attempt)?;
            let body = encoded(&task)?;
            bytes += body.len();
            found.push(Resubmission { seq, endpoint: parsed(&endpoint)?, task, body });
            if bytes >= RESUBMITTED_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// Records that the broker has these attempts.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn resubmitted(&self, done: &[(i64, u32)]) -> Result<()> {
        const DOING: &str = "recording that the broker has the new attempts";
        let mut tx = self.begin(DOING).await?;
        let rows: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM tasks JOIN json_each(?) AS told ON seq = told.value ->> 0 \
             AND current_attempt = told.value ->> 1",
        )
        .bind(json_list(done)?)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(DOING))?;
        shift(&mut tx, &rows, &[TaskState::Resubmitting], TaskState::Submitted, DOING).await?;
        self.commit(tx, DOING).await
    }
}

/// A task as its current attempt is published.
pub(super) fn task(seq: i64, body: &str, attempt: u32) -> Result<Task> {
    let task: Task = serde_json::from_str(body)
        .map_err(|error| Error::Unreadable(format!("the task in row {seq}: {error}")))?;
    Ok(Task { attempt, ..task })
}

/// Puts all in doubt that the endpoint was or is being sent, and has not
/// answered; says how much that is.
pub(super) async fn doubt_all(db: &mut SqliteConnection, endpoint: EndpointId) -> Result<u64> {
    let doubted = sqlx::query(
        "INSERT INTO doubts (task, endpoint_id, attempt) \
         SELECT t.seq, n.id, t.current_attempt FROM tasks t JOIN names n ON n.n = t.endpoint \
         WHERE n.id = ? AND t.state IN ('submitting', 'submitted', 'resubmitting') \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL",
    )
    .bind(endpoint.to_string())
    .execute(db)
    .await
    .map_err(failed("putting tasks in doubt"))?;
    Ok(doubted.rows_affected())
}

/// Puts one attempt in doubt; it is to be asked for, again if it was before.
pub(super) async fn doubt(
    db: &mut SqliteConnection,
    task: i64,
    endpoint: &str,
    attempt: u32,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO doubts (task, endpoint_id, attempt) VALUES (?, ?, ?) \
         ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, asked = NULL",
    )
    .bind(task)
    .bind(endpoint)
    .bind(attempt)
    .execute(db)
    .await
    .map_err(failed("putting a task in doubt"))?;
    Ok(())
}

/// There is no doubt about a task any more.
pub(super) async fn end(db: &mut SqliteConnection, task: i64) -> Result<()> {
    let mut sql = query("");
    push_end(&mut sql, [&task])?;
    sql.build().execute(db).await.map_err(failed("ending doubts"))?;
    Ok(())
}

/// Adds the statement that ends all doubt about these tasks.
pub(super) fn push_end<'a>(
    sql: &mut QueryBuilder<Sqlite>,
    tasks: impl IntoIterator<Item = &'a i64>,
) -> Result<()> {
    // Nearly always there are none.
    sql.push("DELETE FROM doubts WHERE EXISTS (SELECT 1 FROM doubts) AND task IN ");
    sql.push("(SELECT value FROM json_each(").push_bind(json_list(tasks)?).push("));");
    Ok(())
}

/// The endpoint's doubts are to be asked for again: another state is active.
pub(super) async fn ask_again(db: &mut SqliteConnection, endpoint: EndpointId) -> Result<()> {
    sqlx::query("UPDATE doubts SET asked = NULL WHERE endpoint_id = ? AND asked IS NOT NULL")
        .bind(endpoint.to_string())
        .execute(db)
        .await
        .map_err(failed("preparing roll calls"))?;
    Ok(())
}

/// Whether nothing is in doubt, as nearly always.
async fn none(db: &mut SqliteConnection, doing: &'static str) -> Result<bool> {
    sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM doubts)")
        .fetch_one(db)
        .await
        .map_err(failed(doing))
}

/// Whether one of these tasks is in doubt.
pub(super) async fn any(db: &mut SqliteConnection, tasks: &[i64]) -> Result<bool> {
    if none(db, "looking for doubts").await? {
        return Ok(false);
    }
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM doubts WHERE task IN (SELECT value FROM json_each(?)))",
    )
    .bind(json_list(tasks)?)
    .fetch_one(db)
    .await
    .map_err(failed("looking for doubts"))
}

#[cfg(test)]
mod tests;
