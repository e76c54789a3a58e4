//! The service's records: endpoints, their states, submissions, tasks and
//! results, in SQLite.
//! Only this file, its submodules and `migrations/` know SQL.
//!
//! What a method has returned from is on disk, unless it says that it is only
//! recorded: then it is after [`Store::durable`]. A commit writes to the log and
//! does not wait for the disk; one sync makes all commits before it durable.
//! There is one writer per process; several processes share the file, and wait
//! for each other.
//!
//! A method is one job for a thread that has the database open, so it costs two
//! turns of threads however many statements it takes. What is [`Age::Fresh`] is read
//! where it is asked for, and costs none.

mod ages;
mod doubts;
mod endpoints;
mod identity;
mod layout;
mod listing;
mod losses;
mod missing;
mod moves;
mod names;
mod near;
mod overdue;
mod place;
mod removal;
mod results;
mod rows;
mod states;
mod submissions;
mod sync;
#[cfg(test)]
pub(crate) mod tests;
mod threads;

pub(crate) use doubts::Resubmission;
pub(crate) use endpoints::{Endpoint, Registration};
pub(crate) use identity::service_in;
pub(crate) use listing::Filter;
pub(crate) use overdue::Overdue;
pub(crate) use place::Saved;
pub(crate) use results::{Batch, Tally};
pub(crate) use states::{Standing, Word};
pub(crate) use submissions::{Begun, Chunk};

use names::Names;
use near::Near;
use sync::Log;
use threads::Threads;

use crate::paths::StateFolder;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many pages the log grows by before they are moved into the database: the
/// more, the fewer of them are moved twice.
const CHECKPOINT_PAGES: i64 = 4000;
/// How many queries may run beside the writer.
const READERS: usize = 3;
/// How many statements a connection keeps compiled: more than there are.
const STATEMENTS: usize = 100;

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: Threads<Writer>,
    readers: Threads<Connection>,
    near: Near,
    log: Log,
}

/// When what is read was written, or read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Whenever: it may have to come from the disk.
    Any,
    /// Just now: it is in memory.
    Fresh,
}

/// The connection that writes, and what is remembered along with it.
struct Writer {
    connection: Connection,
    names: Names,
}

/// A transaction that writes.
struct Write<'a> {
    db: Transaction<'a>,
    names: &'a mut Names,
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
        source: rusqlite::Error,
    },
    /// The disk failed under the database's log. Trying again may help.
    #[error("the database's log could not be written to the disk")]
    Log(#[source] std::io::Error),
    /// The files of the database were moved, deleted or replaced while it was open.
    #[error(
        "the database was moved, deleted or replaced while the service ran; the service ends, and \
         nothing that came since then is acknowledged"
    )]
    Displaced,
    /// The database was closed, or what it was asked for ended in a panic.
    #[error("the database does not answer")]
    Silent,
    /// The database is from a newer version.
    #[error(
        "the database has layout {found}, and this version knows {known}: it is from a newer \
         version of clutch-service, use that"
    )]
    Newer {
        /// The layout it has.
        found: i64,
        /// The latest that this build knows.
        known: i64,
    },
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
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || {
            let _lock = folder.lock_database()?;
            folder.keep_private()?;
            let path = folder.database();
            let writer = Writer { connection: writing(&path)?, names: Names::default() };
            let readers = (0..READERS).map(|_| reading(&path)).collect::<Result<Vec<_>>>()?;
            Ok(Self {
                writer: Threads::start("records", vec![writer])?,
                readers: Threads::start("reading", readers)?,
                near: Near::over(reading(&path)?)?,
                log: Log::of(&path)?,
            })
        })
        .await?
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.near.close();
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Waits until everything recorded before is on disk.
    ///
    /// # Errors
    /// When the disk fails; then it is not known what is on it.
    pub(crate) async fn durable(&self) -> Result<()> {
        self.log.sync().await
    }

    /// Returns when the database is not the one at its path any more.
    pub(crate) async fn displaced(&self) {
        self.log.displaced().cancelled().await;
    }

    /// Looks whether the database is the one at its path; [`Store::displaced`] returns if
    /// it is not.
    pub(crate) fn look(&self) {
        if let Err(error) = self.log.look() {
            tracing::debug!(%error, "the state folder was looked at");
        }
    }

    /// Brings what is recorded in a database that is [displaced](Store::displaced) to where
    /// it is found again. Nothing is closed after that: SQLite would remove what has the
    /// names of its files.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) async fn save(self) -> Result<Saved> {
        let place = self.log.place().clone();
        let saved = self.writer.run(move |writer: &mut Writer, _| place.save(&writer.connection));
        let saved = saved.await;
        std::mem::forget(self);
        saved?
    }

    /// Reads.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let read = move |db: &mut Connection, _| {
            // One state of the database for all that is read.
            let snapshot = db.transaction().map_err(failed(doing))?;
            job(&snapshot)
        };
        self.readers.run(read).await?
    }

    /// Reads a few rows, on this thread if they are fresh and nothing is in the way.
    async fn read_few<T: Send + 'static>(
        &self,
        doing: &'static str,
        age: Age,
        job: impl Fn(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if age == Age::Fresh
            && let Ok(read) = self.near.read(doing, &job)
        {
            return Ok(read);
        }
        self.read(doing, job).await
    }

    /// Writes, all or nothing, to the log, where readers see it: then `recorded` is
    /// called.
    async fn record_only<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
        recorded: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        let log = self.log.clone();
        let write = move |writer: &mut Writer, _| {
            writer.write(doing, &log, job).inspect(|done| recorded(done))
        };
        self.writer.run(write).await?
    }

    /// Writes, all or nothing, to the disk.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = self.log.clone();
        let write = move |writer: &mut Writer, alone| {
            let done = writer.write(doing, &log, job)?;
            // Where nobody waits for the writer it syncs by itself: that saves two
            // turns of threads. Otherwise the next may go on meanwhile.
            if alone {
                log.sync_here()?;
            }
            Ok(done)
        };
        let done = self.writer.run(write).await??;
        self.durable().await?;
        Ok(done)
    }
}

impl Writer {
    /// A transaction that has the write lock from its start.
    fn write<T>(
        &mut self,
        doing: &'static str,
        log: &Log,
        job: impl FnOnce(&mut Write<'_>) -> Result<T>,
    ) -> Result<T> {
        let db = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed(doing))?;
        self.names.begin();
        let mut write = Write { db, names: &mut self.names };
        let done = job(&mut write)?;
        let Write { db, names } = write;
        db.commit().map_err(failed(doing))?;
        names.commit();
        log.written();
        Ok(done)
    }
}

/// The connection that writes, with the tables as they are to be.
fn writing(path: &Path) -> Result<Connection> {
    const DOING: &str = "opening it";
    let mut db = opened(path)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed(DOING))?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(failed(DOING))?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed(DOING))?;
    layout::bring_up_to_date(&mut db)?;
    Ok(db)
}

/// A connection that cannot write.
fn reading(path: &Path) -> Result<Connection> {
    let db = opened(path)?;
    db.pragma_update(None, "query_only", true).map_err(failed("opening it"))?;
    Ok(db)
}

fn opened(path: &Path) -> Result<Connection> {
    const DOING: &str = "opening it";
    let db = Connection::open(path).map_err(failed(DOING))?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(failed(DOING))?;
    // Or a statement would be compiled again for every value that is bound to it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed(DOING))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Database { doing, source }
}

/// As SQLite keeps it; what does not fit is as large as can be.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
