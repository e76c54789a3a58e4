//! A connection to a folder: a session file that is locked for as long as the
//! session lives, the leases it holds, and the threads that work for it.

use super::disk;
use super::root::Root;
use crate::link::{Fault, Terms};
use crate::system::clock::now_ms;
use crate::system::host;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::watch;

/// The part that inlets, outlets and their connection share. It ends when it is closed,
/// or when the last of them is dropped.
pub(super) struct FolderSession {
    /// The folder.
    pub(super) root: Root,
    /// The terms it was opened with.
    pub(super) terms: Terms,
    /// Unique among all sessions.
    pub(super) id: String,
    holder: Holder,
    /// Locked for as long as the session lives.
    _lock: File,
    leases: Mutex<BTreeMap<String, File>>,
    members: AtomicU64,
    workers: Mutex<Vec<Worker>>,
    end: watch::Sender<Option<Fault>>,
}

/// A thread and how to ask it to end.
struct Worker {
    stop: Box<dyn Fn() + Send>,
    thread: JoinHandle<()>,
}

/// Describes the holder of a lock, for people.
#[derive(Clone, Serialize, Deserialize)]
struct Holder {
    name: String,
    host: String,
    pid: u32,
    since_ms: u64,
}

impl FolderSession {
    /// Opens a session. `name` is what an operator sees in the folder.
    pub(super) fn open(root: Root, terms: Terms, name: &str) -> Result<Self, Fault> {
        let id = uuid::Uuid::now_v7().to_string();
        let path = root.session(&id);
        // A session is taken for dead if its file is found unlocked: the file gets its name
        // once it is locked.
        let hidden = root.session(&format!(".{id}"));
        let holder = Holder {
            name: name.to_owned(),
            host: host::name(),
            pid: std::process::id(),
            since_ms: now_ms(),
        };
        let opened = disk::open_for_writing(&hidden, root.access()).and_then(|lock| {
            lock.try_lock()?;
            holder.write(&lock)?;
            std::fs::rename(&hidden, &path)?;
            Ok(lock)
        });
        let lock = opened.map_err(|error| root.fault("opening a session in", &path, &error))?;
        let (end, _) = watch::channel(None);
        Ok(Self {
            root,
            terms,
            id,
            holder,
            _lock: lock,
            leases: Mutex::default(),
            members: AtomicU64::new(0),
            workers: Mutex::default(),
            end,
        })
    }

    /// Fails if the session has ended, with the reason.
    pub(super) fn is_open(&self) -> Result<(), Fault> {
        self.end.borrow().clone().map_or(Ok(()), Err)
    }

    /// A name for a producer or consumer of this session.
    pub(super) fn member(&self) -> String {
        format!("{}.{}", self.id, self.members.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Watches for the session's end.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Fault>> {
        self.end.subscribe()
    }

    /// Takes a lease, which lasts as long as the session.
    ///
    /// # Errors
    /// [`Fault::Locked`] when another session has it.
    pub(super) fn lease(&self, name: &str) -> Result<(), Fault> {
        let mut leases = lock(&self.leases);
        if leases.contains_key(name) {
            return Ok(());
        }
        let path = self.root.lease(name);
        let folder = self.root.path().join("leases");
        let above = path.parent().unwrap_or(&folder);
        disk::make_folders(&folder, above, self.root.access())
            .map_err(|error| self.root.fault("making", above, &error))?;
        let held = self.take(&path, &format!("the lease '{name}'"), true)?;
        leases.insert(name.to_owned(), held);
        Ok(())
    }

    /// Looks whether a lease could be taken.
    ///
    /// # Errors
    /// [`Fault::Locked`] when another session has it.
    pub(super) fn lease_is_free(&self, name: &str) -> Result<(), Fault> {
        let path = self.root.lease(name);
        match File::open(&path).and_then(|file| Ok(file.try_lock_shared()?)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Fault::Locked(format!("the lease '{name}' is held by {}", Holder::read(&path))))
            }
            Err(error) => Err(self.root.fault("looking at", &path, &error)),
        }
    }

    /// Locks a file, against all sessions or against those that lock it exclusively.
    ///
    /// # Errors
    /// [`Fault::Locked`], with the holder.
    pub(super) fn take(&self, path: &Path, what: &str, exclusive: bool) -> Result<File, Fault> {
        let failed = |error: io::Error| self.root.fault("locking", path, &error);
        let file = disk::open_for_writing(path, self.root.access()).map_err(failed)?;
        let locked = if exclusive { file.try_lock() } else { file.try_lock_shared() };
        match locked {
            Ok(()) => {
                self.holder.write(&file).map_err(failed)?;
                Ok(file)
            }
            Err(TryLockError::WouldBlock) => {
                Err(Fault::Locked(format!("{what} is held by {}", Holder::read(path))))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Starts a thread that works for this session until `stop` is called.
    pub(super) fn work(
        &self,
        what: &str,
        stop: impl Fn() + Send + 'static,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Fault> {
        let thread = std::thread::Builder::new().name(format!("clutch-{what}")).spawn(work);
        let thread = thread
            .map_err(|error| Fault::Closed(format!("starting a thread for the folder: {error}")))?;
        let mut workers = lock(&self.workers);
        workers.retain(|worker| !worker.thread.is_finished());
        workers.push(Worker { stop: Box::new(stop), thread });
        Ok(())
    }

    /// Whether a session other than this is dead, with the lock that proves it;
    /// a session without a file is dead too.
    pub(super) fn is_dead(&self, id: &str) -> io::Result<Option<DeadSession>> {
        if id == self.id {
            return Ok(None);
        }
        let file = match OpenOptions::new().read(true).write(true).open(self.root.session(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Some(DeadSession(None)));
            }
            // Another user's, a moment before it is opened to the group.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error),
        };
        // Two that look at once do not take each other for the living.
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(DeadSession(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Ends the session for its inlets and outlets.
    pub(super) fn end(&self, fault: Fault) {
        self.end.send_replace(Some(fault));
    }

    /// Stops the threads, waits for them, and lets go of the leases.
    pub(super) fn finish(&self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        workers.iter().for_each(|worker| (worker.stop)());
        for worker in workers {
            if worker.thread.join().is_err() {
                tracing::error!("a thread that worked on the folder panicked");
            }
        }
        self.remove();
    }

    /// Lets go of the leases and removes the session's file.
    fn remove(&self) {
        lock(&self.leases).clear();
        if let Err(error) = disk::remove_if_there(&self.root.session(&self.id)) {
            tracing::debug!(%error, session = self.id, "the session's file stays behind");
        }
    }
}

impl Drop for FolderSession {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A dead session: its file stays locked while it is looked after.
pub(super) struct DeadSession(#[expect(dead_code, reason = "holds the lock")] Option<File>);

impl Holder {
    /// Writes the holder into a locked file. It is the lock that counts, so a
    /// full disk is no reason to fail.
    fn write(&self, mut file: &File) -> io::Result<()> {
        file.set_len(0)?;
        match file.write_all(&serde_json::to_vec(self)?) {
            Err(error) if !disk::is_short_of_room(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn read(path: &Path) -> String {
        let held: Option<Self> =
            std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        held.map_or_else(
            || "another session".to_owned(),
            |held| {
                let since = UNIX_EPOCH + Duration::from_millis(held.since_ms);
                format!(
                    "{} (process {} on {}, since {})",
                    held.name,
                    held.pid,
                    held.host,
                    humantime::format_rfc3339_seconds(since)
                )
            },
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
