//! Numbers that stand for the ids of endpoints and states in tables with many rows. The
//! number of an id never changes, so it is remembered once it was looked up.

use super::Result;
use super::engine::{Db, values};
use std::collections::HashMap;
use std::fmt::Display;

/// The most ids that are remembered.
const REMEMBERED: usize = 10_000;

/// The numbers that were looked up. Those of the transaction under way count for later ones
/// once it is committed.
#[derive(Debug, Default)]
pub(super) struct InternedIds {
    committed: HashMap<String, i64>,
    uncommitted: HashMap<String, i64>,
}

impl InternedIds {
    /// The number of an id, made if the id is new.
    pub(super) fn number(&mut self, db: &Db<'_>, id: impl Display) -> Result<i64> {
        let id = id.to_string();
        if let Some(number) = self.committed.get(&id).or_else(|| self.uncommitted.get(&id)) {
            return Ok(*number);
        }
        // The update changes nothing, and has the row returned either way.
        let upsert = "INSERT INTO interned_ids (id) VALUES (?) \
             ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING n";
        let (number,) = db.only(upsert, values![&id])?;
        self.uncommitted.insert(id, number);
        Ok(number)
    }

    /// Begins a transaction; what an earlier one made and did not commit is not there.
    pub(super) fn begin(&mut self) {
        self.uncommitted.clear();
    }

    /// Notes that the transaction is committed.
    pub(super) fn commit(&mut self) {
        if self.committed.len() + self.uncommitted.len() > REMEMBERED {
            self.committed.clear();
        }
        self.committed.extend(self.uncommitted.drain());
    }
}
