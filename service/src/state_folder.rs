//! Where the service keeps what it keeps: the state folder, the names in it, and the database,
//! which may be elsewhere.
//! Touches the file system only in [`StateFolder::prepare`],
//! [`StateFolder::check`] and the locks.

use crate::failure::{CANNOT_CREATE, Failure};
use clutch_common::system::file_system::network_kind;
use clutch_common::system::folder::{make_private, tighten, writable};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The longest path a Unix socket can be bound to, in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// The file of the database, unless another one is named.
const DATABASE: &str = "clutch.db";
/// The file that a running `serve` has locked.
const SERVE_LOCK: &str = "serve.lock";
/// The ending of the file beside the database that a running `serve` has locked as well: the
/// database may be that of several state folders.
const DATABASE_SERVE_LOCK: &str = ".serve.lock";
/// How long a `serve` that was killed may keep its lock: until the last of its
/// threads is gone, which a supervisor that starts it again does not wait for.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder that holds the API's socket, and the database unless that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFolder {
    folder: PathBuf,
    database: PathBuf,
}

/// The process that runs on a state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// None.
    None,
    /// A `serve`.
    Serve,
}

/// Holds locks until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _files: Vec<File>,
}

impl StateFolder {
    /// The folder at `path`, whether it exists or not.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let folder = path.into();
        Self { database: folder.join(DATABASE), folder }
    }

    /// The same folder with the database in another file: a path from the folder on, or an
    /// absolute one.
    #[must_use]
    pub(crate) fn with_database(self, path: &Path) -> Self {
        Self { database: self.folder.join(path), ..self }
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
        Some(Self::new(base.join("clutch/service")))
    }

    /// The folder itself.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// The database.
    #[must_use]
    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// The database, if it is not where it is unless another place is named.
    #[must_use]
    pub(crate) fn named_database(&self) -> Option<&Path> {
        Some(self.database()).filter(|database| *database != self.folder.join(DATABASE))
    }

    /// The path by which a person knows the records: the state folder, or the database if that is
    /// elsewhere.
    #[must_use]
    pub(crate) fn records(&self) -> &Path {
        self.named_database().unwrap_or(&self.folder)
    }

    /// The folder of the database.
    #[must_use]
    pub(crate) fn database_folder(&self) -> &Path {
        self.database.parent().unwrap_or(&self.folder)
    }

    /// A file beside the database.
    fn beside_database(&self, ending: &str) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    /// The API's socket.
    #[must_use]
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("clutch.sock")
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

    /// Makes the folder (mode 0700) unless it is there, and the database's.
    ///
    /// # Errors
    /// When it cannot be made, its name is too long for the socket, or the database cannot be
    /// where it would be.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.fits_socket()?;
        self.check_database()?;
        let private = make_private(&self.folder, &[DATABASE, SERVE_LOCK]).map_err(|error| {
            self.unusable(&format!("{error}; choose another folder with --state DIR"))
        })?;
        let folder = self.database_folder();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| {
            let (folder, other) = (folder.display(), "choose another place with --database PATH");
            self.unusable(&format!("the database's folder {folder}: {error}; {other}"))
        })?;
        if !private {
            tracing::warn!(
                state = %self.folder.display(),
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
        drop(self.open(&self.database)?);
        for end in ["", "-wal", "-shm", ".lock", DATABASE_SERVE_LOCK] {
            let path = self.beside_database(end);
            tighten(&path).map_err(|error| {
                let path = path.display();
                self.unusable(&format!("{path} can be read by others: {error}; chmod 600 it"))
            })?;
        }
        Ok(())
    }

    /// Checks that the database can be where it would be.
    fn check_database(&self) -> anyhow::Result<()> {
        let database = &self.database;
        let refused = |why: &str| {
            let database = database.display();
            Err(self.unusable(&format!("the database {database}: {why}")))
        };
        // SQLite keeps its log beside the file that a link leads to, where no lock would be.
        if database.is_symlink() {
            return refused("it is a symbolic link; give the file that it leads to, by --database");
        }
        let holds_the_folder = self.folder.starts_with(database);
        if database.file_name().is_none() || database.is_dir() || holds_the_folder {
            return refused("it is a folder; give a file in it, as in --database DIR/clutch.db");
        }
        match network_kind(self.database_folder()) {
            Ok(None) => Ok(()),
            Ok(Some(kind)) => refused(&format!(
                "it would be on a network file system ({kind}), where locks and the database's \
                 shared memory are not to be relied on; choose a file on a disk of this host with \
                 --database PATH, or another folder with --state DIR"
            )),
            Err(error) => refused(&format!("its file system does not answer: {error}")),
        }
    }

    /// Looks whether `serve` could use the folder or is running on it, without
    /// making anything.
    ///
    /// # Errors
    /// When its name is too long for the socket, it cannot be made or written to, or the database
    /// cannot be where it would be.
    pub(crate) fn check(&self) -> anyhow::Result<Holder> {
        self.fits_socket()?;
        self.check_database()?;
        let folders = [(self.path(), "--state DIR"), (self.database_folder(), "--database PATH")];
        for (folder, option) in folders {
            writable(folder).map_err(|(place, error)| {
                let place = place.display();
                self.unusable(&format!("{place}: {error}; choose another place with {option}"))
            })?;
        }
        for path in self.serve_locks() {
            let failed = |error: &dyn std::fmt::Display| {
                self.unusable(&format!("{}: {error}", path.display()))
            };
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Holder::Serve),
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(Holder::None)
    }

    /// The files that a running `serve` has locked.
    fn serve_locks(&self) -> [PathBuf; 2] {
        [self.folder.join(SERVE_LOCK), self.beside_database(DATABASE_SERVE_LOCK)]
    }

    fn fits_socket(&self) -> anyhow::Result<()> {
        self.fits().map_err(|words| self.unusable(&format!("{words}; choose a shorter --state")))
    }

    /// Takes the locks that one `serve` per folder and database holds for as long as it runs,
    /// after a moment for one that is ending.
    ///
    /// # Errors
    /// When another process keeps one of them, or a folder cannot be written to.
    pub(crate) async fn lock(&self) -> anyhow::Result<Lock> {
        let until = Instant::now() + PREDECESSOR_ENDS;
        let mut files = Vec::new();
        for (path, option) in self.serve_locks().into_iter().zip(["--state DIR", "--database PATH"])
        {
            let file = self.open(&path)?;
            while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if error != Errno::WOULDBLOCK {
                    return Err(self.unusable(&format!("locking {}: {error}", path.display())));
                }
                if Instant::now() >= until {
                    return Err(self.unusable(&format!(
                        "another `clutch-service serve` is running on it ({} is locked); stop that \
                         one, or choose another place with {option}",
                        path.display()
                    )));
                }
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            files.push(file);
        }
        Ok(Lock { _files: files })
    }

    /// Waits for the lock that guards the making of the database: it is held
    /// for moments.
    pub(crate) fn lock_database(&self) -> anyhow::Result<Lock> {
        let file = self.open(&self.beside_database(".lock"))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| self.unusable(&error.to_string()))?;
        Ok(Lock { _files: vec![file] })
    }

    fn open(&self, path: &Path) -> anyhow::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| self.unusable(&format!("{}: {error}", path.display())))
    }

    fn unusable(&self, reason: &str) -> anyhow::Error {
        let message =
            format!("the state folder {} cannot be used: {reason}", self.folder.display());
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

    #[tokio::test]
    async fn a_second_serve_on_the_database_is_refused_from_whatever_folder() {
        let temp = tempfile::tempdir().unwrap();
        let one = StateFolder::new(temp.path().join("one"));
        let other = StateFolder::new(temp.path().join("other")).with_database(one.database());
        let own = StateFolder::new(temp.path().join("own")).with_database(Path::new("a/b.db"));
        for folder in [&one, &other, &own] {
            folder.prepare().unwrap();
        }
        assert_eq!(own.database(), temp.path().join("own/a/b.db"));
        assert_eq!((one.named_database(), own.named_database()), (None, Some(own.database())));
        let first = one.lock().await.unwrap();
        assert_eq!(other.check().unwrap(), Holder::Serve);
        let words = other.lock().await.unwrap_err().to_string();
        assert!(words.contains("clutch.db.serve.lock is locked"), "{words}");
        let beside = own.lock().await.unwrap();
        drop(first);
        other.lock().await.unwrap();
        drop(beside);
    }

    #[test]
    fn a_database_that_is_a_folder_or_a_link_is_refused_in_words() {
        let temp = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(temp.path().join("state"));
        std::os::unix::fs::symlink("elsewhere.db", temp.path().join("link.db")).unwrap();
        for (path, words) in [
            (temp.path().to_owned(), "it is a folder"),
            (PathBuf::from("."), "it is a folder"),
            (PathBuf::from(".."), "it is a folder"),
            (PathBuf::from("/"), "it is a folder"),
            (temp.path().join("link.db"), "it is a symbolic link"),
        ] {
            let folder = folder.clone().with_database(&path);
            for refused in [folder.prepare(), folder.check().map(|_| ())] {
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains(words), "{}: {refused}", path.display());
            }
        }
        assert!(!folder.path().exists(), "nothing is made");
        folder.with_database(Path::new("../beside/x.db")).prepare().unwrap();
        assert!(temp.path().join("state").is_dir() && temp.path().join("beside").is_dir());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_in_words() {
        let folder = StateFolder::new(format!("/tmp/{}", "x".repeat(120)));
        for refused in [folder.prepare(), folder.check().map(|_| ())] {
            assert!(refused.unwrap_err().to_string().contains("choose a shorter --state"));
        }
    }
}
