//! Removes endpoints from the records. What they did stays recorded.

use super::rows::{all, run, task_id};
use super::{Result, Store, failed};
use clutch_common::id::{Attempt, EndpointId};
use rusqlite::{Connection, params};

/// The tasks of an endpoint that have no outcome.
const OPEN: &str = "FROM tasks t JOIN names n ON n.n = t.endpoint WHERE n.id = ? \
     AND t.state IN ('submitting', 'submitted', 'resubmitting', 'returned', 'refused')";

impl Store {
    /// How many tasks of an endpoint have no outcome.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn count_open(&self, endpoint: EndpointId) -> Result<u64> {
        const DOING: &str = "counting an endpoint's tasks";
        self.read(DOING, move |db| count_open(db, endpoint, DOING)).await
    }

    /// The attempts under way of up to `limit` tasks that have no outcome.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn open_attempts(
        &self,
        endpoint: EndpointId,
        limit: u32,
    ) -> Result<Vec<Attempt>> {
        const DOING: &str = "listing an endpoint's tasks";
        self.read(DOING, move |db| {
            let find = format!("SELECT t.id, t.current_attempt {OPEN} ORDER BY t.seq LIMIT ?");
            let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(Vec<u8>, u32)> {
                Ok((row.get(0)?, row.get(1)?))
            };
            let found = all(db, &find, params![endpoint.to_string(), limit], read);
            let attempt =
                |(id, attempt): (Vec<u8>, u32)| Ok(Attempt { task_id: task_id(&id)?, attempt });
            found.map_err(failed(DOING))?.into_iter().map(attempt).collect()
        })
        .await
    }

    /// Removes an endpoint, unless a task of it has no outcome; says whether it is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_endpoint(&self, endpoint: EndpointId) -> Result<bool> {
        const DOING: &str = "removing the endpoint";
        self.write(DOING, move |write| {
            if count_open(&write.db, endpoint, DOING)? > 0 {
                return Ok(false);
            }
            for delete in
                ["DELETE FROM states WHERE endpoint_id = ?", "DELETE FROM endpoints WHERE id = ?"]
            {
                run(&write.db, delete, [endpoint.to_string()]).map_err(failed(DOING))?;
            }
            Ok(true)
        })
        .await
    }
}

fn count_open(db: &Connection, endpoint: EndpointId, doing: &'static str) -> Result<u64> {
    let count = format!("SELECT count(*) {OPEN}");
    let counted = all(db, &count, [endpoint.to_string()], |row| row.get::<_, i64>(0));
    Ok(counted.map_err(failed(doing))?.into_iter().map(super::unsigned).sum())
}
