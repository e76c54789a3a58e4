//! Reports the unaccounted attempts to people: since when a result is missing, when the
//! endpoint was asked, and whether it has answered.
//!
//! Touches the database only.

use super::engine::{Columns, Db, FromRow, values};
use super::{Result, Store};
use crate::model::{Asked, Missing};
use clutch_common::wire::Presence;

impl FromRow for Missing {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            endpoint: columns.next()?,
            tasks: columns.next()?,
            unanswered: columns.next()?,
            unasked: columns.next()?,
            since_ms: columns.next()?,
            asked_at_ms: columns.next()?,
        })
    }
}

impl Store {
    /// The endpoints with unaccounted attempts, by name.
    pub(crate) async fn missing(&self) -> Result<Vec<Missing>> {
        self.read("looking for tasks that are missing", |db| {
            let find = "SELECT coalesce(e.name, u.endpoint_id), count(*), \
                 count(*) FILTER (WHERE u.answered_at_ms IS NULL), \
                 count(*) FILTER (WHERE u.asked_at_ms IS NULL), \
                 min(coalesce(t.submitted_at_ms, t.created_at_ms)), min(u.asked_at_ms) \
                 FROM unaccounted u JOIN tasks t ON t.seq = u.task \
                 LEFT JOIN endpoints e ON e.id = u.endpoint_id \
                 GROUP BY u.endpoint_id, e.name ORDER BY 1";
            db.all(find, &[])
        })
        .await
    }
}

/// Whether and when the endpoint was asked for a task, if that is unaccounted for.
pub(super) fn asked(db: &Db<'_>, task: i64) -> Result<Option<Asked>> {
    let find = "SELECT asked_at_ms, answered_at_ms FROM unaccounted WHERE task = ?";
    let asked = |(asked_at_ms, answered_at_ms)| Asked { asked_at_ms, answered_at_ms };
    Ok(db.one(find, values![task])?.map(asked))
}

/// Records that a state has read a roll call: it has every attempt of it that it does not
/// report lost.
pub(super) fn answer(db: &Db<'_>, presence: &Presence, now_ms: u64) -> Result<()> {
    if presence.answered {
        let update = "UPDATE unaccounted SET answered_at_ms = ? \
             WHERE endpoint_id = ? AND asked = ? AND answered_at_ms IS NULL";
        db.run(update, values![now_ms, presence.endpoint_id, &presence.state_id])?;
    }
    Ok(())
}
