//! The endpoint's durable queue: an inbox of tasks accepted, an outbox of
//! results not yet released, and what was seen. The only file that knows sled
//! is this one; what the queue does with it is in [`queue`], how it is opened
//! in [`open`], what becomes of damaged records in [`damage`].
//!
//! Sync, one writer. A commit is durable, all of it or none. Promises:
//! - durable means that sled has written *and* `fdatasync` has returned: sled's
//!   own flush leaves the bytes in caches that a power cut empties;
//! - values stay so small (1.5 KiB) that a page of them stays below a quarter of
//!   a segment: larger pages sled puts into files that it never syncs. Larger
//!   payloads of a commit, and all of them where results gather, go into one
//!   [`crate::storage::spool`] file for tasks and one for results, which are durable
//!   before the commit that points to them and removed after the commit that
//!   drops the last pointer;
//! - a damaged record is put into quarantine and becomes a result that says so.
//!
//! sled's background flusher stays off: with it, this work deadlocks.

mod ahead;
mod damage;
mod deaths;
mod files;
mod folder;
mod gathering;
mod home;
mod look;
mod lying;
mod mark;
mod open;
mod payloads;
mod queue;
mod quiet;
mod record;
mod results;
mod running;
mod seen;
mod seen_view;
#[cfg(test)]
mod tests;

pub(crate) use deaths::Deaths;
pub(crate) use folder::FolderError;
pub(crate) use home::Origin;
pub(crate) use look::{Found, look};
pub(crate) use open::{OpenError, Options};
pub(crate) use queue::DiskQueue;
pub(crate) use running::Running;
pub(crate) use seen_view::SeenView;

use clutch_common::id::Attempt;
use clutch_common::task::Task;
use futures_util::FutureExt as _;
use record::Space;
use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store writes and reuses its file in pieces of this many bytes. A page of
/// 21 values (16, and the 5 a neighbour may bring) is far below a quarter of it.
const SEGMENT: usize = 512 * 1024;

/// What sled may cache, in bytes. It keeps at least 256 pages all the same; the
/// system's own cache does the rest.
const CACHE: u64 = 1024 * 1024;

/// What the system says of a path where nothing is.
const GONE: [ErrorKind; 2] = [ErrorKind::NotFound, ErrorKind::NotADirectory];

/// Names a task in the inbox; grows in the order of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Seq(pub u64);

/// Names a result in the outbox; grows in the order of finishing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct OutSeq(pub u64);

/// A result on its way into the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finished {
    /// What it is the result of.
    pub(crate) attempt: Attempt,
    /// The result as [`clutch_common::wire::encode_result`] wrote it.
    pub(crate) bytes: Vec<u8>,
}

/// A result in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OutboxRecord {
    /// Its name, for releasing it.
    pub(crate) seq: OutSeq,
    /// What it is the result of.
    pub(crate) attempt: Attempt,
    /// The result as [`clutch_common::wire::encode_result`] wrote it.
    pub(crate) bytes: Vec<u8>,
}

/// A task found in the inbox.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Accepted {
    /// Its name, for starting and finishing it.
    pub(crate) seq: Seq,
    /// The task.
    pub(crate) task: Task,
    /// Whether its start is on disk: it may have run.
    pub(crate) started: bool,
    /// What is to be known of a task that is not [secured](Change::Secure).
    pub(crate) unsecured: Option<Unsecured>,
}

/// A task that somebody else may be given as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unsecured {
    /// The highest attempt at the task that was known before it.
    pub(crate) before: Option<u32>,
}

/// One change to the queue.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A task comes in.
    Accept {
        /// Its name, above all used before.
        seq: Seq,
        /// The task.
        task: Arc<Task>,
        /// Whether nobody else can have it.
        secured: bool,
    },
    /// Nobody else can have a task any more.
    Secure {
        /// Which.
        seq: Seq,
    },
    /// A task is about to start.
    Start {
        /// Which.
        seq: Seq,
    },
    /// A task leaves the inbox, and its result enters the outbox.
    Finish {
        /// Which; none for a task that was never in the inbox.
        inbox: Option<Seq>,
        /// The result's name, above all used before.
        out: OutSeq,
        /// The result.
        result: Arc<Finished>,
    },
    /// A task leaves the inbox as if it had never come, and a result that says so
    /// enters the outbox.
    HandBack {
        /// Which.
        inbox: Seq,
        /// The result's name, above all used before.
        out: OutSeq,
        /// The result.
        result: Arc<Finished>,
    },
    /// A result leaves the outbox.
    Release {
        /// Which.
        out: OutSeq,
    },
}

/// Why the queue cannot go on. Nothing that was committed is lost by it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the disk queue in {path} failed")]
pub(crate) struct Error {
    path: PathBuf,
    doing: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// Changes to keys that are committed together.
#[derive(Default)]
struct Writes {
    batch: sled::Batch,
    any: bool,
}

impl Writes {
    fn put(&mut self, key: &[u8], content: &[u8]) {
        self.put_raw(key, record::seal(key, content));
    }

    fn put_raw(&mut self, key: &[u8], value: Vec<u8>) {
        self.batch.insert(key, value);
        self.any = true;
    }

    fn remove(&mut self, key: &[u8]) {
        self.batch.remove(key);
        self.any = true;
    }
}

/// A key and its value, as they lie on disk.
type Entry = (Vec<u8>, Vec<u8>);

/// One ordered map of keys to values, in a folder of its own.
#[derive(Clone)]
struct Store {
    db: sled::Db,
    file: Arc<File>,
    path: PathBuf,
}

impl Store {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: Box<dyn StdError + Send + Sync>| Error {
            path: path.to_owned(),
            doing: "opening",
            source,
        };
        let config = sled::Config::default()
            .path(path)
            .segment_size(SEGMENT)
            .cache_capacity(CACHE)
            .use_compression(false)
            .flush_every_ms(None);
        let open = || quiet::quietly(|| config.open().inspect(start_threads))?;
        // The state folder is ours: whoever still holds sled's lock is dying.
        let db = folder::patiently(open, is_locked).map_err(|error| failed(plain(error)))?;
        // sled does not sync the file of its own settings.
        let synced = File::open(path.join("conf")).and_then(|conf| conf.sync_all());
        synced.map_err(|error| failed(error.into()))?;
        let file = File::options().read(true).write(true).open(path.join("db"));
        let file = file.map_err(|error| failed(error.into()))?;
        Ok(Self { db, file: Arc::new(file), path: path.to_owned() })
    }

    fn failed(
        &self,
        doing: &'static str,
    ) -> impl Fn(Box<dyn StdError + Send + Sync>) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error { path: path.clone(), doing, source }
    }

    /// The value of a key, as it lies there.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let failed = self.failed("reading");
        let value = self.db.get(key).map_err(|error| failed(error.into()))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// The keys of `space` from `from` on and their values, in order.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
    ) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        let failed = self.failed("reading");
        let end = [space as u8 + 1];
        self.db.range::<&[u8], _>(from..&end[..]).map(move |entry| {
            let (key, value) = entry.map_err(|error| failed(error.into()))?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    /// Whether there is any key of a kind that this build does not know.
    fn any(&self, kind: u8) -> Result<bool, Error> {
        let first = self.db.scan_prefix([kind]).next().transpose();
        Ok(first.map_err(|error| self.failed("reading")(error.into()))?.is_some())
    }

    /// The last key of `space` up to `to` and its value, if there is any.
    fn last(&self, space: Space, to: &[u8]) -> Result<Option<Entry>, Error> {
        let start = [space as u8];
        let Some(entry) = self.db.range::<&[u8], _>(&start[..]..=to).next_back() else {
            return Ok(None);
        };
        let (key, value) = entry.map_err(|error| self.failed("reading")(error.into()))?;
        Ok(Some((key.to_vec(), value.to_vec())))
    }

    /// Makes all of `writes` durable, or none.
    fn commit(&self, writes: Writes) -> Result<(), Error> {
        if !writes.any {
            return Ok(());
        }
        let failed = self.failed("writing to");
        self.db.apply_batch(writes.batch).map_err(|error| failed(plain(error)))?;
        self.db.flush().map_err(|error| failed(plain(error)))?;
        self.file.sync_data().map_err(|error| failed(error.into()))?;
        match self.is_here() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("its file is not at its path any more".into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Whether the file is the one at its path.
    fn is_here(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match std::fs::symlink_metadata(self.path.join("db")) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if GONE.contains(&error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Has sled start its threads, which are this thread's children then.
fn start_threads(db: &sled::Db) {
    // Polled once, it has given a thread its work, which is nothing; what becomes of that
    // the first commit says as well.
    drop(db.flush_async().now_or_never());
}

/// sled's error, or the system's that it came from.
fn plain(error: sled::Error) -> Box<dyn StdError + Send + Sync> {
    match error {
        sled::Error::Io(error) => error.into(),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => error.into(),
    }
}

/// sled has no error of its own for its file being locked.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}
