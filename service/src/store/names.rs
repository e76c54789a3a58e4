//! The numbers of ids that many rows name: of endpoints, and of their states.
//! A number is given once and never changes, so what was looked up is
//! remembered.

use super::{Result, failed};
use sqlx::sqlite::SqliteConnection;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most ids that are remembered.
const REMEMBERED: usize = 10_000;

/// What was looked up. There is one writer, so what was looked up since it began
/// belongs to one transaction, and counts for later ones once that is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    committed: HashMap<String, i64>,
    fresh: HashMap<String, i64>,
}

impl Names {
    /// The number of an id, made if it is new.
    pub(super) async fn number(&self, db: &mut SqliteConnection, id: impl Display) -> Result<i64> {
        let id = id.to_string();
        if let Some(number) = self.lock().get(&id) {
            return Ok(number);
        }
        // The update changes nothing, and has the row returned either way.
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO names (id) VALUES (?) ON CONFLICT (id) DO UPDATE SET id = id RETURNING n",
        )
        .bind(&id)
        .fetch_one(db)
        .await
        .map_err(failed("looking up an endpoint"))?;
        self.lock().fresh.insert(id, number);
        Ok(number)
    }

    /// A transaction begins; what one before it made and did not commit is not
    /// there.
    pub(super) fn begin(&self) {
        self.lock().fresh.clear();
    }

    /// The transaction is committed.
    pub(super) fn commit(&self) {
        let mut known = self.lock();
        let fresh = std::mem::take(&mut known.fresh);
        if known.committed.len() + fresh.len() > REMEMBERED {
            known.committed.clear();
        }
        known.committed.extend(fresh);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn get(&self, id: &str) -> Option<i64> {
        self.committed.get(id).or_else(|| self.fresh.get(id)).copied()
    }
}
