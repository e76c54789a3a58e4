//! Where the service keeps what it keeps: the state folder and the names in it.
//! Touches the file system only in [`StateFolder::prepare`],
//! [`StateFolder::check`] and the locks.

use crate::failure::{CANNOT_CREATE, Failure};
use clutch_common::system::folder::{make_private, tighten};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The longest path a Unix socket can be bound to, in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// The file of the database.
const DATABASE: &str = "clutch.db";
/// The file that a running `serve` has locked.
const SERVE_LOCK: &str = "serve.lock";
/// How long a `serve` that was killed may keep its lock: until the last of its
/// threads is gone, which a supervisor that starts it again does not wait for.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder that holds the database and the API's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFolder(PathBuf);

/// The process that runs on a state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// None.
    None,
    /// A `serve`.
    Serve,
}

/// Holds a lock until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl StateFolder {
    /// The folder at `path`, whether it exists or not.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `$XDG_STATE_HOME/clutch/service`, else `~/.local/state/clutch/service`;
    /// nothing where neither variable is set.
    #[must_use]
    pub(crate) fn default_for(
        xdg_state_home: Option<OsString>,
        home: Option<OsString>,
    ) -> Option<Self> {
        let set = |value: Option<OsString>| value.filter(|value| !value.is_empty());
        let base = set(xdg_state_home)
            .map(PathBuf::from)
            .or_else(|| set(home).map(|home| Path::new(&home).join(".local/state")))?;
        Some(Self(base.join("clutch/service")))
    }

    /// The folder itself.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The database.
    #[must_use]
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    /// The API's socket.
    #[must_use]
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("clutch.sock")
    }

    /// Whether the socket's path is short enough; in words, if not.
    pub(crate) fn fits(&self) -> Result<(), String> {
        let length = self.socket().as_os_str().as_bytes().len();
        if length <= MAX_SOCKET_PATH {
            return Ok(());
        }
        Err(format!(
            "the socket in it would have a path of {length} bytes, and {MAX_SOCKET_PATH} is the \
             most a Unix socket can have"
        ))
    }

    /// Makes the folder (mode 0700) unless it is there.
    ///
    /// # Errors
    /// When it cannot be made, or its name is too long for the socket.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.fits_socket()?;
        let private = make_private(&self.0, &[DATABASE]).map_err(|error| {
            self.unusable(&format!("{error}; choose another folder with --state DIR"))
        })?;
        if !private {
            tracing::warn!(
                state = %self.0.display(),
                "other users can look into the state folder: it holds other things than this \
                 service's, or is another user's; choose one of its own, or chmod 700"
            );
        }
        Ok(())
    }

    /// Makes the database's file if it is not there, and keeps it and those beside it from
    /// other users: the database gives those it makes later the rights of the first.
    ///
    /// # Errors
    /// When the folder cannot be written to, or a file is another user's.
    pub(crate) fn keep_private(&self) -> anyhow::Result<()> {
        drop(self.open_lock(DATABASE)?);
        for end in ["", "-wal", "-shm", ".lock"] {
            let name = format!("{DATABASE}{end}");
            tighten(&self.0.join(&name)).map_err(|error| {
                self.unusable(&format!("{name} can be read by others: {error}; chmod 600 it"))
            })?;
        }
        Ok(())
    }

    /// Looks whether `serve` could use the folder or is running on it, without
    /// making anything.
    ///
    /// # Errors
    /// When its name is too long for the socket, or it cannot be made or written
    /// to.
    pub(crate) fn check(&self) -> anyhow::Result<Holder> {
        self.fits_socket()?;
        clutch_common::system::folder::writable(&self.0).map_err(|(place, error)| {
            self.unusable(&format!(
                "{}: {error}; choose another folder with --state DIR",
                place.display()
            ))
        })?;
        let file = match File::open(self.0.join(SERVE_LOCK)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Holder::None),
            Err(error) => return Err(self.unusable(&format!("{SERVE_LOCK}: {error}"))),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Holder::None),
            Err(Errno::WOULDBLOCK) => Ok(Holder::Serve),
            Err(error) => Err(self.unusable(&format!("{SERVE_LOCK}: {error}"))),
        }
    }

    fn fits_socket(&self) -> anyhow::Result<()> {
        self.fits().map_err(|words| self.unusable(&format!("{words}; choose a shorter --state")))
    }

    /// Takes the lock that one `serve` per folder holds for as long as it runs,
    /// after a moment for one that is ending.
    ///
    /// # Errors
    /// When another process keeps it, or the folder cannot be written to.
    pub(crate) async fn lock(&self) -> anyhow::Result<Lock> {
        let file = self.open_lock(SERVE_LOCK)?;
        let until = Instant::now() + PREDECESSOR_ENDS;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(self.unusable(&format!("locking {SERVE_LOCK}: {error}")));
            }
            if Instant::now() >= until {
                return Err(self.unusable(
                    "another `clutch-service serve` is running on it; stop that one, or choose \
                     another folder with --state DIR",
                ));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(Lock { _file: file })
    }

    /// Waits for the lock that guards the making of the database: it is held
    /// for moments.
    pub(crate) fn lock_database(&self) -> anyhow::Result<Lock> {
        let file = self.open_lock(&format!("{DATABASE}.lock"))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| self.unusable(&error.to_string()))?;
        Ok(Lock { _file: file })
    }

    fn open_lock(&self, name: &str) -> anyhow::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.0.join(name))
            .map_err(|error| self.unusable(&format!("{name}: {error}")))
    }

    fn unusable(&self, reason: &str) -> anyhow::Error {
        let message = format!("the state folder {} cannot be used: {reason}", self.0.display());
        Failure::new(CANNOT_CREATE, message).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_folder_follows_xdg_and_falls_back_to_home() {
        let path = |xdg: Option<&str>, home: Option<&str>| {
            StateFolder::default_for(xdg.map(OsString::from), home.map(OsString::from))
                .map(|folder| folder.path().display().to_string())
        };
        assert_eq!(path(Some("/x"), Some("/h")).as_deref(), Some("/x/clutch/service"));
        assert_eq!(path(Some(""), Some("/h")).as_deref(), Some("/h/.local/state/clutch/service"));
        assert_eq!(path(None, None), None);
    }

    #[tokio::test]
    async fn a_second_serve_on_the_folder_is_refused_until_the_first_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(temp.path().join("deep/er"));
        folder.prepare().unwrap();
        assert_eq!(folder.check().unwrap(), Holder::None);
        let first = folder.lock().await.unwrap();
        assert_eq!(folder.check().unwrap(), Holder::Serve);
        let words = folder.lock().await.unwrap_err().to_string();
        assert!(words.contains("another `clutch-service serve` is running"), "{words}");
        drop(first);
        assert_eq!(folder.check().unwrap(), Holder::None);
        folder.lock().await.unwrap();
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_in_words() {
        let folder = StateFolder::new(format!("/tmp/{}", "x".repeat(120)));
        for refused in [folder.prepare(), folder.check().map(|_| ())] {
            assert!(refused.unwrap_err().to_string().contains("choose a shorter --state"));
        }
    }
}
