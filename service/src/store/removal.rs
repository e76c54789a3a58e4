//! Removes endpoints. Their tasks and results stay recorded.

use super::engine::{Db, values};
use super::rows::OPEN_STATES;
use super::stored_state::StoredState;
use super::{Result, Store, cancel_requests};
use crate::topics::Change;
use clutch_common::id::{Attempt, EndpointId};

/// The tasks of an endpoint that have no outcome.
fn open() -> String {
    format!(
        "FROM tasks t JOIN interned_ids n ON n.n = t.endpoint WHERE n.id = ? \
         AND t.state IN {OPEN_STATES}"
    )
}

impl Store {
    /// How many tasks of an endpoint have no outcome.
    pub(crate) async fn count_open(&self, endpoint: EndpointId) -> Result<u64> {
        self.read("counting an endpoint's tasks", move |db| count_open(db, endpoint)).await
    }

    /// The attempts under way of up to `limit` tasks that have no outcome, and their states.
    pub(crate) async fn open_attempts(
        &self,
        endpoint: EndpointId,
        limit: u32,
    ) -> Result<Vec<(Attempt, StoredState)>> {
        self.read("listing an endpoint's tasks", move |db| {
            let find = format!(
                "SELECT t.id, t.current_attempt, t.state {} ORDER BY t.seq LIMIT ?",
                open()
            );
            let found = db.all(&find, values![endpoint, limit])?;
            let attempt = |(task_id, attempt, state)| (Attempt { task_id, attempt }, state);
            Ok(found.into_iter().map(attempt).collect())
        })
        .await
    }

    /// Removes an endpoint, unless a task of it has no outcome; returns whether it is gone.
    pub(crate) async fn remove_endpoint(&self, endpoint: EndpointId) -> Result<bool> {
        self.write("removing the endpoint", move |write| {
            if count_open(write.db, endpoint)? > 0 {
                return Ok(false);
            }
            for delete in
                ["DELETE FROM states WHERE endpoint_id = ?", "DELETE FROM endpoints WHERE id = ?"]
            {
                write.db.run(delete, values![endpoint])?;
            }
            cancel_requests::forget(write.db, endpoint)?;
            write.topics.add(Change::Removed(endpoint), None);
            Ok(true)
        })
        .await
    }
}

fn count_open(db: &Db<'_>, endpoint: EndpointId) -> Result<u64> {
    let (count,) = db.only(&format!("SELECT count(*) {}", open()), values![endpoint])?;
    Ok(count)
}
