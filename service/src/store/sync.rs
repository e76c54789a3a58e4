//! Makes commits durable: one sync of SQLite's log for all that wait.
//!
//! With `synchronous = NORMAL` SQLite writes a commit to the log and syncs the log
//! only before it moves pages from there into the database
//! (<https://sqlite.org/pragma.html#pragma_synchronous>). That survives the death
//! of the process, not a power cut. Here `fdatasync` is called on the log instead:
//! after it, all commits before it survive both.
//!
//! Touches the log's file. Promises that a sync which begins after a commit covers
//! it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// The log of one database; clones are the same log.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// How many commits were written.
    written: AtomicU64,
    /// How many of them are on disk. Whoever holds it syncs.
    synced: Mutex<u64>,
}

impl Log {
    /// The log of the database at `path`.
    pub(super) fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (written, synced) = (AtomicU64::new(0), Mutex::new(0));
        Self(Arc::new(Shared { path: log.into(), written, synced }))
    }

    /// Notes that a commit was written.
    pub(super) fn written(&self) {
        self.0.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until what was written before is on disk.
    ///
    /// # Errors
    /// What the disk says. Nothing counts as synced then.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let mine = self.0.written.load(Ordering::Acquire);
        let mut synced = self.0.synced.lock().await;
        if *synced >= mine {
            return Ok(());
        }
        let all = self.0.written.load(Ordering::Acquire);
        let shared = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || sync(&shared.path)).await??;
        *synced = all;
        Ok(())
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
