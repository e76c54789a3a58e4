//! SQLite, the engine of a service on one machine: connections, transactions, and what
//! SQLite does differently from other engines.
//!
//! Touches: the database and the files beside it. A commit writes to the write-ahead log
//! and does not wait for the disk; [`wal`] syncs the log for all commits before it. There
//! is one writer at a time; several processes share the file, and wait for each other.

mod changed_rows;
mod files;
mod identity;
mod layout;
#[cfg(test)]
mod tests;
mod wal;

pub(crate) use identity::service_in;

use super::engine::{
    Connection, Db, Dialect, EachRow, Engine, Row, RowChange, Saved, Statement, Transaction, Value,
};
use super::{Error, Result};
use crate::state_folder::StateFolder;
use changed_rows::ChangedRows;
use files::DatabaseFiles;
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ToSql, TransactionBehavior};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use wal::WriteAheadLog;

/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many pages the log grows by before they are moved into the database: the
/// more, the fewer of them are moved twice.
const CHECKPOINT_PAGES: i64 = 4000;
/// Of the pages of the file, one in so many may hold nothing, and so many in any case: they
/// are for what is recorded next.
const KEPT_FREE: i64 = 20;
/// See [`KEPT_FREE`].
const KEPT_FREE_MIN: i64 = 256;
/// How many queries may run beside the writer.
const READERS: usize = 3;
/// How many statements a connection keeps compiled: more than there are.
const STATEMENTS: usize = 100;

/// The key of `results` is the task's row times 2^32, plus the attempt: rows are found and
/// added without an index beside them.
static DIALECT: Dialect = Dialect {
    is_result: "r.n BETWEEN t.seq << 32 AND (t.seq << 32) + 4294967295",
    is_result_of: "n BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295",
    is_decisive_result: "r.n = (t.seq << 32) | t.attempt",
    result_key: &["n"],
    bind_result_key: |values, task, attempt| {
        values.push(Value::Integer((task << 32) | i64::from(attempt)));
    },
    next_submission: "(SELECT max(coalesce((SELECT max(id) FROM submissions), 0), coalesce((SELECT \
         CAST(value AS INTEGER) FROM facts WHERE name = 'last_submission'), 0)) + 1)",
    // The `+` keeps the planner from the index of endpoints.
    endpoint_in_submission: "+t.endpoint",
};

/// Opens the database of a state folder, or makes it.
pub(super) fn open(folder: &StateFolder) -> anyhow::Result<Engine> {
    let _lock = folder.lock_database()?;
    folder.keep_private()?;
    let path = folder.database();
    let failed = |error: Error| error.during("opening it");
    let writer = writing(path).map_err(failed)?;
    let readers = (0..READERS).map(|_| reading(path));
    let readers = readers.collect::<Result<Vec<_>>>().map_err(failed)?;
    let files = DatabaseFiles::of(path)?;
    let connection = |db, behavior| -> Box<dyn Connection> {
        let changed = ChangedRows::default();
        Box::new(SqliteConnection { db, behavior, files: files.clone(), changed })
    };
    Ok(Engine {
        writer: connection(writer, TransactionBehavior::Immediate),
        readers: readers
            .into_iter()
            .map(|db| connection(db, TransactionBehavior::Deferred))
            .collect(),
        durability: Arc::new(WriteAheadLog::of(path, files)),
    })
}

/// The connection that writes, with the tables made.
fn writing(path: &Path) -> Result<rusqlite::Connection> {
    let mut db = opened(path)?;
    // Counts for a new database only: pages that hold nothing can be given back.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    layout::prepare(&mut db)?;
    Ok(db)
}

/// A connection that cannot write.
fn reading(path: &Path) -> Result<rusqlite::Connection> {
    let db = opened(path)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn opened(path: &Path) -> Result<rusqlite::Connection> {
    let db = rusqlite::Connection::open(path)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    // Or a statement would be compiled again for every value that is bound to it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::engine(error)
    }
}

struct SqliteConnection {
    db: rusqlite::Connection,
    behavior: TransactionBehavior,
    files: DatabaseFiles,
    changed: ChangedRows,
}

impl Connection for SqliteConnection {
    fn transact(&mut self, job: &mut dyn FnMut(&Db<'_>) -> Result<()>) -> Result<()> {
        self.changed.clear();
        let transaction = SqliteTransaction {
            transaction: self.db.transaction_with_behavior(self.behavior)?,
            changed: &self.changed,
        };
        job(&transaction)?;
        Ok(transaction.transaction.commit()?)
    }

    fn collect_changes(&mut self, on: bool) {
        self.changed.collect(&mut self.db, on);
    }

    fn rescue(&self) -> Result<Saved> {
        self.files.rescue(&self.db)
    }
}

struct SqliteTransaction<'a> {
    transaction: rusqlite::Transaction<'a>,
    changed: &'a ChangedRows,
}

impl Transaction for SqliteTransaction<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn prepare<'a>(&'a self, sql: &str) -> Result<Box<dyn Statement + 'a>> {
        Ok(Box::new(SqliteStatement(self.transaction.prepare_cached(sql)?)))
    }

    fn changed_tasks(&self) -> Vec<(i64, RowChange)> {
        self.changed.take()
    }

    /// The rows after the last one, which may be forgotten: a transaction that writes excludes
    /// other writers.
    fn reserve_tasks(&self, count: usize) -> Result<Vec<i64>> {
        let db: &Db<'_> = self;
        let find = "SELECT max(coalesce((SELECT max(seq) FROM tasks), 0), coalesce((SELECT \
             CAST(value AS INTEGER) FROM facts WHERE name = 'last_task'), 0))";
        let (last,) = db.only::<(i64,)>(find, &[])?;
        Ok((last + 1..).take(count).collect())
    }

    /// Moves the last pages of the file to free places before them, and cuts it off.
    fn release_pages(&self, most: u32) -> Result<bool> {
        let db: &Db<'_> = self;
        let (pages,) = db.only::<(i64,)>("PRAGMA page_count", &[])?;
        let kept = (pages / KEPT_FREE).max(KEPT_FREE_MIN);
        let free = || db.only::<(i64,)>("PRAGMA freelist_count", &[]);
        let (before,) = free()?;
        if before <= kept {
            return Ok(false);
        }
        let most = i64::from(most).min(before - kept);
        let vacuum = format!("PRAGMA incremental_vacuum({most})");
        self.prepare(&vacuum)?.query(&[], &mut |_| Ok(ControlFlow::Continue(())))?;
        let (after,) = free()?;
        Ok(after > kept && after < before)
    }
}

struct SqliteStatement<'a>(CachedStatement<'a>);

impl SqliteStatement<'_> {
    fn bind(&mut self, values: &[Value<'_>]) -> rusqlite::Result<()> {
        (1..).zip(values).try_for_each(|(at, value)| self.0.raw_bind_parameter(at, value))
    }
}

impl Statement for SqliteStatement<'_> {
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64> {
        self.bind(values)?;
        Ok(self.0.raw_execute()? as u64)
    }

    fn query(&mut self, values: &[Value<'_>], each: &mut EachRow<'_>) -> Result<()> {
        self.bind(values)?;
        let mut rows = self.0.raw_query();
        while let Some(row) = rows.next()? {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn integer(&self, column: usize) -> Result<Option<i64>> {
        Ok(self.get(column)?)
    }

    fn text(&self, column: usize) -> Result<Option<String>> {
        Ok(self.get(column)?)
    }

    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>> {
        Ok(self.get(column)?)
    }
}
