//! The service's records: endpoints, their states, submissions, tasks and
//! results, in SQLite.
//! Only this file, its submodules and `migrations/` know SQL.
//!
//! What a method has returned from is on disk (WAL, `synchronous = FULL`).
//! There is one writer per process; several processes share the file, and wait
//! for each other.

mod doubts;
mod endpoints;
mod listing;
mod losses;
mod results;
mod rows;
mod states;
mod submissions;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use doubts::Resubmission;
pub(crate) use endpoints::{Endpoint, Registration};
pub(crate) use listing::Filter;
pub(crate) use results::Tally;
pub(crate) use states::Standing;
pub(crate) use submissions::{Begun, Chunk};

use crate::paths::StateFolder;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder, Transaction};
use std::time::Duration;

/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many queries may run beside the writer.
const READERS: u32 = 3;

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database failed: locked, full, broken. Trying again may help.
    #[error("the database failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database says.
        source: sqlx::Error,
    },
    /// The database's layout could not be brought up to date.
    #[error("the database cannot be brought up to date; is it from a newer version?")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A row holds something this build does not know.
    #[error("a record cannot be read: {0}")]
    Unreadable(String),
    /// What is asked for contradicts what is recorded.
    #[error("{0}")]
    Conflict(String),
}

type Result<T> = std::result::Result<T, Error>;

impl Store {
    /// Opens the database in `folder`, or makes it.
    ///
    /// # Errors
    /// When it cannot be opened, or comes from a newer version.
    pub(crate) async fn open(folder: &StateFolder) -> anyhow::Result<Self> {
        let folder_of_lock = folder.clone();
        let lock = tokio::task::spawn_blocking(move || folder_of_lock.lock_database()).await??;
        let options = SqliteConnectOptions::new()
            .filename(folder.database())
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .after_release(|connection, _| Box::pin(is_sound(connection)))
            .connect_with(options.clone())
            .await
            .map_err(failed("opening it"))?;
        sqlx::migrate!().run(&writer).await.map_err(Error::Migration)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("query_only", "on"));
        drop(lock);
        Ok(Self { writer, reader })
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// A transaction that writes: it has the write lock from its start.
    async fn begin(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed(doing))
    }
}

/// Whether a connection may be used again. SQLite ends a transaction by itself
/// when the disk is full or fails; sqlx then takes it to be open for ever, and
/// begins no other.
async fn is_sound(connection: &mut SqliteConnection) -> std::result::Result<bool, sqlx::Error> {
    // Whatever was dropped is rolled back by then.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Database { doing, source }
}

/// A query built of constant text: values go in with `push_bind` only.
fn query(text: &'static str) -> QueryBuilder<Sqlite> {
    QueryBuilder::new(text)
}

/// Ids as one bound value, for `IN (SELECT value FROM json_each(?))`.
fn json_list<T: serde::Serialize>(values: impl IntoIterator<Item = T>) -> Result<String> {
    let values: Vec<T> = values.into_iter().collect();
    serde_json::to_string(&values).map_err(|error| Error::Unreadable(error.to_string()))
}

/// As SQLite keeps it; what does not fit is as large as can be.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Text assembled from constants of these files.
fn assembled(parts: &[&'static str]) -> AssertSqlSafe<String> {
    AssertSqlSafe(parts.concat())
}
