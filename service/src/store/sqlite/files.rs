//! Notices that the files of an open database were deleted, moved or replaced, and saves
//! the records of such a displaced database.
//!
//! SQLite goes on writing into files that were deleted or moved, without an error.
//! Touches: the names in the state folder, and `/proc/self/fd`. Opens none of the
//! database's files: to close one again would give up SQLite's locks on it.

use crate::store::engine::Saved;
use crate::store::{Error, Result};
use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The endings of the names of a database's files; the database itself comes first.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// The files that a database had when it was opened; clones share them.
#[derive(Clone, Debug)]
pub(super) struct DatabaseFiles(Arc<OpenedFiles>);

#[derive(Debug)]
struct OpenedFiles {
    database: PathBuf,
    files: Vec<(PathBuf, Inode)>,
}

/// Device and inode number: they stay a file's own while it is open in any process.
type Inode = (u64, u64);

impl DatabaseFiles {
    /// The files of a database that is open.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let files = SUFFIXES.map(|suffix| suffixed(database, suffix));
        let known = |path: PathBuf| match fs::symlink_metadata(&path) {
            Ok(found) => Some(Ok((path, inode(&found)))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        };
        let files = files.into_iter().filter_map(known).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(OpenedFiles { database: database.to_owned(), files })))
    }

    /// Whether every file is still at its path.
    pub(super) fn are_in_place(&self) -> io::Result<bool> {
        for (path, ours) in &self.0.files {
            if found(path)?.as_ref() != Some(ours) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings every record to a place where it is found again. Only for the last use of the
    /// database: if this fails, the records are lost with the process.
    pub(super) fn rescue(&self, db: &Connection) -> Result<Saved> {
        let OpenedFiles { database, files } = &*self.0;
        let ours = files.iter().find(|(path, _)| path == database).map(|(_, ours)| *ours);
        let at_path = found(database).map_err(Error::Log)?;
        if at_path.is_some() && at_path == ours {
            // Only the files that go with it are gone.
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(|error| Error::from(error).during("moving the log into the database"))?;
            return Ok(Saved::Back);
        }
        if let Some(path) = ours.and_then(elsewhere) {
            return Ok(Saved::Moved(path));
        }
        self.write_anew(db, at_path.is_none())
    }

    /// Writes a copy; to the database's path if nothing is there.
    fn write_anew(&self, db: &Connection, vacant: bool) -> Result<Saved> {
        let database = &self.0.database;
        let folder = database.parent().unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(Error::Log)?;
        let copy = suffixed(database, &format!(".saved-{}", uuid::Uuid::now_v7()));
        db.execute("VACUUM INTO ?", [copy.to_string_lossy()])
            .map_err(|error| Error::from(error).during("writing a copy of the database"))?;
        File::open(&copy).and_then(|copy| copy.sync_all()).map_err(Error::Log)?;
        if vacant {
            // A log that stayed is not that of the copy.
            for suffix in &SUFFIXES[1..] {
                fine_if_gone(fs::remove_file(suffixed(database, suffix))).map_err(Error::Log)?;
            }
            match renameat_with(CWD, &copy, CWD, database, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    File::open(folder).and_then(|it| it.sync_all()).map_err(Error::Log)?;
                    return Ok(Saved::Back);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::Log(error.into())),
            }
        }
        Ok(Saved::Beside(copy))
    }
}

/// The file at a path, if there is one.
fn found(path: &Path) -> io::Result<Option<Inode>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(inode(&found))),
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The path of a file that this process has open, if any name of it is left.
fn elsewhere(ours: Inode) -> Option<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let mut ours = open.filter(|handle| {
        let found = fs::metadata(handle.path());
        found.is_ok_and(|found| inode(&found) == ours && found.nlink() > 0)
    });
    ours.find_map(|handle| fs::read_link(handle.path()).ok())
}

fn inode(found: &Metadata) -> Inode {
    (found.dev(), found.ino())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn fine_if_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_folder::StateFolder;
    use crate::store::{Batch, Store};
    use crate::stub_broker::result;
    use clutch_common::id::TaskId;
    use clutch_common::task::result::Outcome;

    struct Rig {
        temp: tempfile::TempDir,
        store: Store,
        tasks: Vec<TaskId>,
    }

    /// A store in a folder of its own, with one result in it, on disk.
    async fn rig() -> Rig {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("state")).unwrap();
        let store = Store::open(&StateFolder::new(temp.path().join("state"))).await.unwrap();
        let mut rig = Rig { temp, store, tasks: Vec::new() };
        rig.record().await;
        rig.store.durable().await.unwrap();
        rig
    }

    impl Rig {
        fn state(&self) -> PathBuf {
            self.temp.path().join("state")
        }

        async fn record(&mut self) {
            let ours = result(Outcome::Succeeded);
            self.tasks.push(ours.task_id);
            let batch = Arc::new(Batch { results: vec![ours], ..Batch::default() });
            self.store.record(batch, 1, |_| {}).await.unwrap();
        }

        /// Records one more result, which must not count as durable.
        async fn displaced(&mut self) {
            self.record().await;
            assert!(matches!(self.store.durable().await, Err(Error::Displaced)));
            self.store.displaced().await;
        }

        async fn save(&self) -> Saved {
            self.store.clone().save().await.unwrap()
        }

        /// How many of the results are in a folder's database.
        async fn found_in(&self, folder: PathBuf) -> usize {
            let store = Store::open(&StateFolder::new(folder)).await.unwrap();
            let mut found = 0;
            for task in &self.tasks {
                found += usize::from(store.task(*task).await.unwrap().is_some());
            }
            found
        }
    }

    #[tokio::test]
    async fn records_in_deleted_files_are_restored() {
        let ways: [fn(&Path); 4] = [
            |state| fs::remove_dir_all(state).unwrap(),
            |state| fs::remove_file(state.join("clutch.db")).unwrap(),
            |state| fs::remove_file(state.join("clutch.db-wal")).unwrap(),
            |state| fs::remove_file(state.join("clutch.db-shm")).unwrap(),
        ];
        for delete in ways {
            let mut rig = rig().await;
            delete(&rig.state());
            rig.displaced().await;
            assert_eq!(rig.save().await, Saved::Back);
            assert_eq!(rig.found_in(rig.state()).await, 2);
        }
    }

    #[tokio::test]
    async fn a_moved_database_is_named_and_its_path_stays_empty() {
        let mut rig = rig().await;
        let moved = rig.temp.path().join("moved");
        fs::rename(rig.state(), &moved).unwrap();
        rig.displaced().await;
        assert_eq!(rig.save().await, Saved::Moved(moved.join("clutch.db")));
        assert!(!rig.state().exists());
        assert_eq!(rig.found_in(moved).await, 2);
    }

    #[tokio::test]
    async fn a_file_put_in_its_place_stays_and_the_records_are_beside_it() {
        let mut rig = rig().await;
        let database = rig.state().join("clutch.db");
        fs::write(rig.temp.path().join("other"), "another").unwrap();
        fs::rename(rig.temp.path().join("other"), &database).unwrap();
        rig.displaced().await;
        let Saved::Beside(copy) = rig.save().await else { panic!("nothing is beside it") };
        assert_eq!(fs::read(&database).unwrap(), b"another");
        let other = rig.temp.path().join("looked");
        fs::create_dir(&other).unwrap();
        fs::rename(copy, other.join("clutch.db")).unwrap();
        assert_eq!(rig.found_in(other).await, 2);
    }

    #[tokio::test]
    async fn a_database_where_it_belongs_is_left_alone() {
        let mut rig = rig().await;
        rig.record().await;
        rig.store.durable().await.unwrap();
        rig.store.check_place();
        assert!(futures_util::FutureExt::now_or_never(rig.store.displaced()).is_none());
    }
}
