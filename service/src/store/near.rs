//! Reads on the thread that asks. Waking another one takes longer than to read a few
//! rows that were written just now and are in memory; that is all this is for, as
//! whoever asks can do nothing else meanwhile.
//!
//! Touches: the database, through a connection of its own. Never waits for anybody: a
//! database that is busy is an error.

use super::{Error, Result, failed};
use rusqlite::Connection;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A connection that only reads, until it is closed; clones are the same one.
#[derive(Clone)]
pub(super) struct Near(Arc<Mutex<Option<Connection>>>);

impl Near {
    /// Reads through this connection.
    ///
    /// # Errors
    /// When it cannot be told not to wait.
    pub(super) fn over(connection: Connection) -> Result<Self> {
        connection.busy_timeout(Duration::ZERO).map_err(failed("opening it"))?;
        Ok(Self(Arc::new(Mutex::new(Some(connection)))))
    }

    /// Reads one state of the database.
    ///
    /// # Errors
    /// The job's; when the database is busy, and once this is closed.
    pub(super) fn read<T>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let connection = connection.as_mut().ok_or(Error::Silent)?;
        job(&*connection.transaction().map_err(failed(doing))?)
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Near")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_is_an_error_and_a_later_read_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Connection::open(folder.path().join("db")).unwrap();
        let other = open();
        other.execute_batch("PRAGMA user_version = 7").unwrap();
        let near = Near::over(open()).unwrap();
        let read = || {
            near.read("looking", |db| {
                let version = db.query_row("PRAGMA user_version", [], |row| row.get(0));
                version.map_err(failed("looking"))
            })
        };
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let busy: Result<i64> = read();
        assert!(busy.unwrap_err().to_string().contains("looking"));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(read().unwrap(), 7);
        near.close();
        assert!(matches!(read(), Err(Error::Silent)));
    }
}
