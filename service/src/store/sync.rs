//! Makes commits durable: one sync of SQLite's log for all that wait.
//!
//! With `synchronous = NORMAL` SQLite writes a commit to the log and syncs the log
//! only before it moves pages from there into the database
//! (<https://sqlite.org/pragma.html#pragma_synchronous>). That survives the death
//! of the process, not a power cut. Here `fdatasync` is called on the log instead:
//! after it, all commits before it survive both.
//!
//! Touches the log's file. Promises that a sync which begins after a commit covers
//! it, and that nothing counts as durable which is not where people find it.

use super::place::Place;
use super::{Error, Result};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The log of one database; clones are the same log.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// How many commits were written.
    written: AtomicU64,
    /// How many of them are on disk.
    synced: AtomicU64,
    /// Whoever syncs has it.
    syncing: Mutex<()>,
    place: Place,
    /// Cancelled once the database is not at its path any more.
    displaced: CancellationToken,
}

impl Log {
    /// The log of the database at `path`, which is open.
    ///
    /// # Errors
    /// When its files cannot be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self(Arc::new(Shared {
            path: log.into(),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            syncing: Mutex::new(()),
            place: Place::of(path)?,
            displaced: CancellationToken::new(),
        })))
    }

    /// Where the database is.
    pub(super) fn place(&self) -> &Place {
        &self.0.place
    }

    /// Cancelled once the database is not at its path any more.
    pub(super) fn displaced(&self) -> &CancellationToken {
        &self.0.displaced
    }

    /// Looks whether the database is at its path.
    ///
    /// # Errors
    /// [`Error::Displaced`] when it is not, or what the disk says.
    pub(super) fn look(&self) -> Result<()> {
        if self.0.place.holds().map_err(Error::Log)? {
            return Ok(());
        }
        self.0.displaced.cancel();
        Err(Error::Displaced)
    }

    /// Notes that a commit was written.
    pub(super) fn written(&self) {
        self.0.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until what was written before is on disk.
    ///
    /// # Errors
    /// What the disk says, or [`Error::Displaced`]. Nothing counts as synced then.
    pub(super) async fn sync(&self) -> Result<()> {
        if self.has_synced(self.0.written.load(Ordering::Acquire)) {
            return Ok(());
        }
        let log = self.clone();
        let synced = tokio::task::spawn_blocking(move || log.sync_here()).await;
        synced.map_err(|error| Error::Log(error.into()))?
    }

    /// The same, on this thread.
    ///
    /// # Errors
    /// What the disk says, or [`Error::Displaced`]. Nothing counts as synced then.
    pub(super) fn sync_here(&self) -> Result<()> {
        let mine = self.0.written.load(Ordering::Acquire);
        let _turn = self.0.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_synced(mine) {
            return Ok(());
        }
        let all = self.0.written.load(Ordering::Acquire);
        sync(&self.0.path).map_err(Error::Log)?;
        self.look()?;
        self.0.synced.store(all, Ordering::Release);
        Ok(())
    }

    /// Whether all that was written is on disk.
    #[cfg(test)]
    pub(super) fn is_synced(&self) -> bool {
        self.has_synced(self.0.written.load(Ordering::Acquire))
    }

    fn has_synced(&self, commits: u64) -> bool {
        self.0.synced.load(Ordering::Acquire) >= commits
    }
}

/// Opened each time: the log goes with the last connection and comes with the
/// next. Where there is none, its pages are in the database, and SQLite has
/// synced that before it removed the log.
fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(log) => log.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
