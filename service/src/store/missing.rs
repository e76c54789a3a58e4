//! What of the tasks in doubt is to be told to people: since when there is no result,
//! when an endpoint was asked, and whether it has answered.
//!
//! Touches the database only.

use super::rows::{all, one, run};
use super::{Result, Store, failed, signed, unsigned};
use crate::model::{Asked, Missing};
use clutch_common::wire::Presence;
use rusqlite::{Connection, params};

impl Store {
    /// The endpoints with tasks in doubt, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn missing(&self) -> Result<Vec<Missing>> {
        const DOING: &str = "looking for tasks that are missing";
        let find = "SELECT coalesce(e.name, d.endpoint_id), count(*), \
             sum(d.answered_at_ms IS NULL), sum(d.asked_at_ms IS NULL), \
             min(coalesce(t.submitted_at_ms, t.created_at_ms)), min(d.asked_at_ms) \
             FROM doubts d JOIN tasks t ON t.seq = d.task \
             LEFT JOIN endpoints e ON e.id = d.endpoint_id \
             GROUP BY d.endpoint_id ORDER BY 1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Missing {
                endpoint: row.get(0)?,
                tasks: unsigned(row.get(1)?),
                unanswered: unsigned(row.get(2)?),
                unasked: unsigned(row.get(3)?),
                since_ms: unsigned(row.get(4)?),
                asked_at_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
            })
        };
        self.read(DOING, move |db| all(db, find, [], read).map_err(failed(DOING))).await
    }
}

/// What is known of the doubt about a task, if there is one.
pub(super) fn asked(db: &Connection, task: i64) -> rusqlite::Result<Option<Asked>> {
    let find = "SELECT asked_at_ms, answered_at_ms FROM doubts WHERE task = ?";
    one(db, find, [task], |row| {
        let at = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(unsigned));
        Ok(Asked { asked_at_ms: at(0)?, answered_at_ms: at(1)? })
    })
}

/// Notes that a state has read what it was asked: what it does not say is lost it has.
pub(super) fn answer(db: &Connection, presence: &Presence, now_ms: u64) -> rusqlite::Result<()> {
    if presence.answered {
        let update = "UPDATE doubts SET answered_at_ms = ? WHERE endpoint_id = ? AND asked = ? \
             AND answered_at_ms IS NULL";
        let (endpoint, state) = (presence.endpoint_id.to_string(), presence.state_id.to_string());
        run(db, update, params![signed(now_ms), endpoint, state])?;
    }
    Ok(())
}
