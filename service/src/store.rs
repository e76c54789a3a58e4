//! The service's records: endpoints, their states, submissions, tasks and
//! results, in SQLite.
//! Only this file, its submodules and `migrations/` know SQL.
//!
//! What a method has returned from is on disk, unless it says that it is only
//! recorded: then it is after [`Store::durable`]. A commit writes to the log and
//! does not wait for the disk; one sync makes all commits before it durable.
//! There is one writer per process; several processes share the file, and wait
//! for each other.

mod doubts;
mod endpoints;
mod listing;
mod losses;
mod moves;
mod names;
mod results;
mod rows;
mod states;
mod submissions;
mod sync;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use doubts::Resubmission;
pub(crate) use endpoints::{Endpoint, Registration};
pub(crate) use listing::Filter;
pub(crate) use results::Tally;
pub(crate) use states::Standing;
pub(crate) use submissions::{Begun, Chunk};

use names::Names;
use sync::Log;

use crate::paths::StateFolder;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder, Transaction};
use std::time::Duration;

/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many pages the log grows by before they are moved into the database: the
/// more, the fewer of them are moved twice.
const CHECKPOINT_PAGES: &str = "4000";
/// How many queries may run beside the writer.
const READERS: u32 = 3;

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    names: Names,
    log: Log,
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
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(is_sound(connection)))
            .connect_with(options.clone())
            .await
            .map_err(failed("opening it"))?;
        sqlx::migrate!().run(&writer).await.map_err(Error::Migration)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .test_before_acquire(false)
            .connect_lazy_with(options.pragma("query_only", "on"));
        drop(lock);
        let (names, log) = (Names::default(), Log::of(&folder.database()));
        Ok(Self { writer, reader, names, log })
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Waits until everything recorded before is on disk.
    ///
    /// # Errors
    /// When the disk fails; then it is not known what is on it.
    pub(crate) async fn durable(&self) -> Result<()> {
        self.log.sync().await.map_err(|source| Error::Database {
            doing: "writing its log to the disk",
            source: sqlx::Error::Io(source),
        })
    }

    /// A transaction that writes: it has the write lock from its start.
    async fn begin(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>> {
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed(doing))?;
        self.names.begin();
        Ok(begun)
    }

    /// Commits to the log, where readers see it.
    async fn record_only(&self, tx: Transaction<'_, Sqlite>, doing: &'static str) -> Result<()> {
        tx.commit().await.map_err(failed(doing))?;
        self.names.commit();
        self.log.written();
        Ok(())
    }

    /// Commits to the disk.
    async fn commit(&self, tx: Transaction<'_, Sqlite>, doing: &'static str) -> Result<()> {
        self.record_only(tx, doing).await?;
        self.durable().await
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

/// The last row that `tasks` has.
async fn last_row(db: &mut SqliteConnection, doing: &'static str) -> Result<i64> {
    sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM tasks")
        .fetch_one(db)
        .await
        .map_err(failed(doing))
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
