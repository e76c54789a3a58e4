//! The rows of tasks that a transaction inserts or changes, collected by a hook of SQLite while
//! a client listens to the feed.

use rusqlite::hooks::Action;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rows, and whether each was inserted.
#[derive(Default)]
pub(super) struct ChangedRows {
    rows: Arc<Mutex<Vec<(i64, bool)>>>,
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
            if table == "tasks" && action != Action::SQLITE_DELETE {
                lock(&rows).push((row, action == Action::SQLITE_INSERT));
            }
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
    pub(super) fn take(&self) -> Vec<(i64, bool)> {
        std::mem::take(&mut *lock(&self.rows))
    }
}

fn lock(rows: &Mutex<Vec<(i64, bool)>>) -> MutexGuard<'_, Vec<(i64, bool)>> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}
