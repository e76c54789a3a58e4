//! The store of the disk queue in sled, which only this file knows.
//!
//! Promises: flushed means that sled has written *and* `fdatasync` has returned, as sled's
//! own flush leaves the bytes in caches that a power cut empties. sled's background flusher
//! stays off: with it, this work deadlocks. Touches the folder `queue` of the state folder.

use super::folder;
use super::store::{Entries, Entry, Store, StoreError, Writes};
use super::timer_slack;
use futures_util::FutureExt as _;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// sled writes and reuses its file in pieces of this many bytes. A page of 21 values (16,
/// and the 5 that a neighbour may bring) is far below a quarter of it; sled puts larger
/// pages into files that it never syncs.
pub(super) const SEGMENT: usize = 512 * 1024;

/// The size of sled's cache, in bytes. It keeps at least 256 pages all the same; the
/// system's own cache does the rest.
const CACHE: u64 = 1024 * 1024;

/// The system's errors for a path where nothing is.
const GONE: [ErrorKind; 2] = [ErrorKind::NotFound, ErrorKind::NotADirectory];

/// sled, open in a folder of its own.
pub(super) struct SledStore {
    db: sled::Db,
    file: File,
    /// The device and inode number of the file, its own while it is open.
    inode: (u64, u64),
    /// How long the file was when it was looked at last.
    length: AtomicU64,
    path: PathBuf,
}

impl SledStore {
    /// Opens the store, making it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::default()
            .path(path)
            .segment_size(SEGMENT)
            .cache_capacity(CACHE)
            .use_compression(false)
            .flush_every_ms(None);
        let open = || timer_slack::with_slack(|| config.open().inspect(start_threads))?;
        // The state folder is locked by this process: a process that still holds sled's
        // lock is dying.
        let db = folder::patiently(open, is_locked).map_err(plain)?;
        // sled does not sync the file of its own settings.
        File::open(path.join("conf")).and_then(|conf| conf.sync_all())?;
        let file = File::options().read(true).write(true).open(path.join("db"))?;
        let found = file.metadata()?;
        let (inode, length) = ((found.dev(), found.ino()), AtomicU64::new(found.len()));
        Ok(Self { db, file, inode, length, path: path.to_owned() })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], end: &[u8]) -> Entries {
        let entries = self.db.range::<&[u8], _>(from..end);
        Box::new(entries.map(|entry| entry.map(owned).map_err(StoreError::from)))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Entry>, StoreError> {
        let last = self.db.range::<&[u8], _>(from..=to).next_back();
        Ok(last.transpose()?.map(owned))
    }

    fn apply(&self, writes: Writes) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(plain)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(plain)?;
        Ok(self.file.sync_data()?)
    }

    fn is_here(&self) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path.join("db")) {
            Ok(found) => {
                let is_ours = (found.dev(), found.ino()) == self.inode;
                if is_ours {
                    self.length.store(found.len(), Ordering::Relaxed);
                }
                Ok(is_ours)
            }
            Err(error) if GONE.contains(&error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> Option<(&File, u64)> {
        Some((&self.file, self.length.load(Ordering::Relaxed)))
    }
}

fn owned((key, value): (sled::IVec, sled::IVec)) -> Entry {
    (key.to_vec(), value.to_vec())
}

/// Has sled start its threads, which are this thread's children then.
fn start_threads(db: &sled::Db) {
    // Polled once, it has given a thread its work, which is nothing; whether that failed
    // the first commit says as well.
    drop(db.flush_async().now_or_never());
}

/// sled's error, or the system's that it came from.
fn plain(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => error.into(),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => error.into(),
    }
}

/// Whether sled's file is locked, for which sled has no error of its own.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}
