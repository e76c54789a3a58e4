//! The rows of tasks that a transaction inserts, changes or answers, collected by a hook of SQLite
//! while a client listens to the feed.

use crate::store::engine::RowChange;
use rusqlite::hooks::Action;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rows, in the order of the changes.
#[derive(Default)]
pub(super) struct ChangedRows {
    rows: Arc<Mutex<Vec<(i64, RowChange)>>>,
    on: bool,
}

impl ChangedRows {
    /// Sets the hook, or removes it; the hook sees each row of each statement.
    pub(super) fn collect(&mut self, db: &mut rusqlite::Connection, on: bool) {
        if self.on == on {
            return;
        }
        let rows = Arc::clone(&self.rows);
        let hook = move |action: Action, _: &str, table: &str, row: i64| {
            let change = match (table, action) {
                ("tasks", Action::SQLITE_INSERT) => (row, RowChange::Inserted),
                ("tasks", Action::SQLITE_UPDATE) => (row, RowChange::Changed),
                // The key of a result begins with the row of its task.
                ("results", Action::SQLITE_INSERT) => (row >> 32, RowChange::Answered),
                _ => return,
            };
            lock(&rows).push(change);
        };
        match db.update_hook(on.then_some(hook)) {
            Ok(()) => self.on = on,
            Err(error) => tracing::error!(%error, "events of tasks cannot be told"),
        }
    }

    /// Forgets what a transaction left that was rolled back.
    pub(super) fn clear(&self) {
        if self.on {
            lock(&self.rows).clear();
        }
    }

    /// The rows since the last time.
    pub(super) fn take(&self) -> Vec<(i64, RowChange)> {
        std::mem::take(&mut *lock(&self.rows))
    }
}

fn lock(rows: &Mutex<Vec<(i64, RowChange)>>) -> MutexGuard<'_, Vec<(i64, RowChange)>> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}
