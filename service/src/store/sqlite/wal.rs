//! Makes commits durable: one sync of SQLite's write-ahead log for all of them.
//!
//! With `synchronous = NORMAL` SQLite writes a commit to the log and syncs the log
//! only before it moves pages from there into the database
//! (<https://sqlite.org/pragma.html#pragma_synchronous>). That survives the death
//! of the process, not a power cut. Here `fdatasync` is called on the log instead:
//! after it, all commits before it survive both.
//!
//! Touches the log's file. Promises that a sync which begins after a commit covers
//! it, and that no commit to a displaced database counts as durable.

use super::files::DatabaseFiles;
use crate::store::engine::Durability;
use crate::store::{Error, Result};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The log of one database.
#[derive(Debug)]
pub(super) struct WriteAheadLog {
    path: PathBuf,
    /// How many commits were written.
    written: AtomicU64,
    /// How many of them are on disk.
    synced: AtomicU64,
    /// Held during a sync.
    syncing: Mutex<()>,
    files: DatabaseFiles,
    displaced: CancellationToken,
}

impl WriteAheadLog {
    /// The log of the database at `path`, which is open.
    pub(super) fn of(path: &Path, files: DatabaseFiles) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self {
            path: log.into(),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            syncing: Mutex::new(()),
            files,
            displaced: CancellationToken::new(),
        }
    }

    fn has_synced(&self, commits: u64) -> bool {
        self.synced.load(Ordering::Acquire) >= commits
    }
}

impl Durability for WriteAheadLog {
    fn committed(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    fn is_durable(&self) -> bool {
        self.has_synced(self.written.load(Ordering::Acquire))
    }

    fn sync(&self) -> Result<()> {
        let mine = self.written.load(Ordering::Acquire);
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_synced(mine) {
            return Ok(());
        }
        let all = self.written.load(Ordering::Acquire);
        sync(&self.path).map_err(Error::Log)?;
        self.check_place()?;
        self.synced.store(all, Ordering::Release);
        Ok(())
    }

    fn check_place(&self) -> Result<()> {
        if self.files.are_in_place().map_err(Error::Log)? {
            return Ok(());
        }
        self.displaced.cancel();
        Err(Error::Displaced)
    }

    fn displaced(&self) -> &CancellationToken {
        &self.displaced
    }
}

/// Syncs the file, which is opened each time: SQLite removes the log with the last
/// connection and makes it with the next. If there is none, its pages are in the database,
/// which SQLite synced before it removed the log.
fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(log) => log.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
