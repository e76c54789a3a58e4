//! The numbers of ids that many rows name: of endpoints, and of their states.
//! A number is given once and never changes, so what was looked up is
//! remembered.

use super::{Result, failed};
use rusqlite::Connection;
use std::collections::HashMap;
use std::fmt::Display;

/// The most ids that are remembered.
const REMEMBERED: usize = 10_000;

/// What was looked up. What was since the last transaction began belongs to it, and
/// counts for later ones once it is committed.
#[derive(Debug, Default)]
pub(super) struct Names {
    committed: HashMap<String, i64>,
    fresh: HashMap<String, i64>,
}

impl Names {
    /// The number of an id, made if it is new.
    pub(super) fn number(&mut self, db: &Connection, id: impl Display) -> Result<i64> {
        let id = id.to_string();
        if let Some(number) = self.committed.get(&id).or_else(|| self.fresh.get(&id)) {
            return Ok(*number);
        }
        // The update changes nothing, and has the row returned either way.
        let number = db
            .prepare_cached(
                "INSERT INTO names (id) VALUES (?) \
                 ON CONFLICT (id) DO UPDATE SET id = id RETURNING n",
            )
            .and_then(|mut statement| statement.query_row([&id], |row| row.get(0)))
            .map_err(failed("looking up an endpoint"))?;
        self.fresh.insert(id, number);
        Ok(number)
    }

    /// A transaction begins; what one before it made and did not commit is not
    /// there.
    pub(super) fn begin(&mut self) {
        self.fresh.clear();
    }

    /// The transaction is committed.
    pub(super) fn commit(&mut self) {
        if self.committed.len() + self.fresh.len() > REMEMBERED {
            self.committed.clear();
        }
        self.committed.extend(self.fresh.drain());
    }
}
