//! The state folder: made, checked and locked, so that one daemon at a time uses it.
//!
//! The lock is `flock` on the file `lock`, which holds the holder's process id
//! for people. It goes with the process, however that ends.

use clutch_common::system::folder::{make_private, tighten, tighten_all};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// Another daemon uses it.
    #[error(
        "the state folder {path} is in use by another clutch-endpoint{}: stop that one, or give \
         this one a state folder of its own",
        pid_words(pid)
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other daemon's process id, where it could be read.
        pid: Option<u32>,
    },
    /// There is something else at its path.
    #[error(
        "the state path {path} is not a folder: move what is there, or name another state folder"
    )]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{doing} the state folder {path} failed: {}", advice(source))]
    Refused {
        /// The folder.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

fn pid_words(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ROFS) => "it is on a read-only file system, name another state folder",
        Some(Errno::ACCESS | Errno::PERM) => {
            "this user may not write there, change its owner or name another state folder"
        }
        Some(Errno::NOSPC | Errno::DQUOT) => "the disk or the quota is full, make room",
        _ => "make sure that it can be written, or name another state folder",
    }
}

/// A state folder, locked by this process until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder (mode 0700) if need be, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let refused = |doing: &'static str| move |source| refused(path, doing, source);
        let private = make_private(path, &["queue", "lock"]).map_err(refused("making"))?;
        if !private {
            tracing::warn!(
                state = %path.display(),
                "other users can look into the state folder: it holds other things than this \
                 endpoint's, or is another user's; give the endpoint one of its own, or chmod 700"
            );
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(refused("locking"))?;
        take(&mut lock, path)?;
        sign(&mut lock).map_err(refused("writing into"))?;
        for name in ["lock", "home", "mark", "running", "drained", "spool", "sandbox", "workers"] {
            tighten(&path.join(name)).map_err(refused("taking from other users"))?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Keeps the files of the store, which makes them itself, from other users.
    pub(crate) fn tighten_store(&self, below: &Path) -> Result<(), FolderError> {
        tighten_all(below)
            .map_err(|source| refused(&self.path, "taking from other users what is in", source))
    }

    /// Makes the names in the folder and in `below` durable.
    pub(crate) fn sync(&self, below: &Path) -> io::Result<()> {
        for folder in [below, &self.path] {
            File::open(folder)?.sync_all()?;
        }
        match self.path.parent() {
            Some(here) if here.as_os_str().is_empty() => File::open(".")?.sync_all(),
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Looks whether a state folder can be made, or written to if there is one.
pub(super) fn writable(path: &Path) -> Result<(), FolderError> {
    clutch_common::system::folder::writable(path)
        .map_err(|(_, source)| refused(path, "writing into", source))
}

/// Takes the lock of a state folder, and changes nothing in it; none where no daemon ever
/// used it.
pub(super) fn hold(path: &Path) -> Result<Option<File>, FolderError> {
    let mut lock = match File::open(path.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(refused(path, "locking", source)),
    };
    take(&mut lock, path)?;
    Ok(Some(lock))
}

/// Takes the lock of a state folder.
fn take(lock: &mut File, path: &Path) -> Result<(), FolderError> {
    let locked = patiently(
        || flock(&*lock, FlockOperation::NonBlockingLockExclusive),
        |errno| *errno == Errno::WOULDBLOCK,
    );
    match locked {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(FolderError::Locked { path: path.to_owned(), pid: holder(lock) })
        }
        Err(errno) => Err(refused(path, "locking", errno.into())),
    }
}

fn refused(path: &Path, doing: &'static str, source: io::Error) -> FolderError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOTDIR | Errno::EXIST) => FolderError::NotAFolder { path: path.to_owned() },
        _ => FolderError::Refused { path: path.to_owned(), doing, source },
    }
}

/// Tries for a second to take a lock: a predecessor that was killed may hold
/// its own a moment longer, by a process that it was just starting.
pub(super) fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match attempt() {
            Err(error) if locked(&error) && Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_folder_is_private_and_the_second_daemon_is_told_who_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = Folder::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let words = Folder::open(&path).unwrap_err().to_string();
        assert!(words.contains(path.to_str().unwrap()), "{words}");
        assert!(words.contains(&format!("process {}", std::process::id())), "{words}");
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_others_could_read_is_taken_from_them_with_what_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let below = path.join("queue");
        std::fs::create_dir_all(&below).unwrap();
        let files = [path.join("mark"), below.join("db")];
        for file in &files {
            std::fs::write(file, "").unwrap();
        }
        for exposed in [&path, &below].into_iter().chain(&files) {
            std::fs::set_permissions(exposed, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Folder::open(&path).unwrap().tighten_store(&below).unwrap();
        for closed in [&path, &below].into_iter().chain(&files) {
            let mode = std::fs::metadata(closed).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", closed.display());
        }
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("below")] {
            assert!(matches!(Folder::open(&path), Err(FolderError::NotAFolder { .. })));
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_advice() {
        let words = Folder::open(Path::new("/proc/clutch/state")).unwrap_err().to_string();
        assert!(words.starts_with("making the state folder /proc/clutch/state failed"), "{words}");
        assert!(advice(&Errno::ROFS.into()).contains("read-only"));
        assert!(advice(&Errno::ACCESS.into()).contains("may not write"));
    }
}
