//! Folders that tasks left as they were made, for tasks to come: to rename one takes
//! a sixth of the time that it takes to remove one and make another.
//!
//! Touches only `.spare-N` below the sandbox root. Promises that what it gives is as
//! new: nothing in it, and nothing of it changed since the endpoint gave it its name.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are kept at most.
const KEPT_MAX: usize = 64;
/// What their names begin with. No task's folder has such a name.
const PREFIX: &str = ".spare-";

/// The spare folders below one root. They are removed when this is dropped.
#[derive(Debug)]
pub(super) struct Spares {
    root: PathBuf,
    shelf: Mutex<Shelf>,
}

/// Which numbers are in use.
#[derive(Debug)]
struct Shelf {
    /// Those of folders that are there, as they were put there.
    kept: Vec<(usize, Untouched)>,
    free: Vec<usize>,
}

/// A folder as it was when it got its name.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Untouched {
    inode: (u64, u64),
    owner: (u32, u32, u32),
    /// When it was changed last; all but what comes within a tick of the kernel's
    /// clock (1 to 10 ms) is seen by this.
    changed: (i64, i64),
}

impl Untouched {
    /// A folder as it is now.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn now(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self::of(&found))
    }

    fn of(found: &Metadata) -> Self {
        Self {
            inode: (found.dev(), found.ino()),
            owner: (found.mode(), found.uid(), found.gid()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the folder is still so, and empty.
    fn still(&self, path: &Path) -> io::Result<bool> {
        Ok(Self::now(path)? == *self && std::fs::read_dir(path)?.next().is_none())
    }
}

impl Spares {
    /// None yet.
    pub(super) fn below(root: &Path) -> Self {
        let shelf = Shelf { kept: Vec::new(), free: (0..KEPT_MAX).rev().collect() };
        Self { root: root.to_owned(), shelf: Mutex::new(shelf) }
    }

    /// Whether a name below a root is a spare's.
    pub(super) fn owns(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
    }

    /// Gives a folder the name `path`, if there is one and nothing but an empty folder
    /// has that name.
    pub(super) fn give(&self, path: &Path) -> bool {
        let Some((number, was)) = self.shelf().kept.pop() else { return false };
        let spare = self.path(number);
        // Whoever found it meanwhile may have it: it is no spare any more.
        let good = was.still(&spare).unwrap_or(false);
        let given = good && std::fs::rename(&spare, path).is_ok();
        if given {
            self.shelf().free.push(number);
        } else if good {
            self.shelf().kept.push((number, was));
        }
        given
    }

    /// Takes the folder `path` if it is as it was; tells whether it did.
    pub(super) fn take(&self, path: &Path, was: &Untouched) -> bool {
        if !was.still(path).unwrap_or(false) {
            return false;
        }
        let Some(number) = self.shelf().free.pop() else { return false };
        let spare = self.path(number);
        if std::fs::rename(path, &spare).is_err() {
            self.shelf().free.push(number);
            return false;
        }
        if let Ok(now) = Untouched::now(&spare) {
            self.shelf().kept.push((number, now));
        }
        true
    }

    fn path(&self, number: usize) -> PathBuf {
        self.root.join(format!("{PREFIX}{number}"))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        for (number, _) in std::mem::take(&mut self.shelf().kept) {
            // What stays is empty, and the next sweep takes it.
            drop(std::fs::remove_dir(self.path(number)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    struct Rig {
        root: tempfile::TempDir,
        spares: Spares,
    }

    impl Rig {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            Self { spares: Spares::below(root.path()), root }
        }

        fn folder(&self) -> (PathBuf, Untouched) {
            let path = self.root.path().join("task");
            std::fs::create_dir(&path).unwrap();
            let was = Untouched::now(&path).unwrap();
            (path, was)
        }
    }

    #[test]
    fn a_folder_that_nobody_touched_is_given_again() {
        let rig = Rig::new();
        assert!(!rig.spares.give(&rig.root.path().join("none")), "there is none");
        let (path, was) = rig.folder();
        assert!(rig.spares.take(&path, &was));
        assert!(!path.exists());
        let next = rig.root.path().join("next");
        assert!(rig.spares.give(&next));
        let now = Untouched::now(&next).unwrap();
        assert_eq!((now.inode, now.owner), (was.inode, was.owner));
        assert!(!rig.spares.give(&path), "it is given once");
    }

    #[test]
    fn a_folder_that_somebody_touched_is_not_taken() {
        let touches: [fn(&Path); 5] = [
            |path| std::fs::write(path.join("file"), "x").unwrap(),
            |path| std::fs::create_dir(path.join("folder")).unwrap(),
            |path| set_permissions(path, Permissions::from_mode(0o755)).unwrap(),
            |path| std::fs::remove_dir(path).unwrap(),
            |path| {
                // Later than a tick: no trace is left but the time.
                std::thread::park_timeout(Duration::from_millis(50));
                std::fs::write(path.join("file"), "x").unwrap();
                std::fs::remove_file(path.join("file")).unwrap();
            },
        ];
        for touch in touches {
            let rig = Rig::new();
            let (path, was) = rig.folder();
            touch(&path);
            assert!(!rig.spares.take(&path, &was));
        }
        let rig = Rig::new();
        let (path, was) = rig.folder();
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(rig.root.path(), &path).unwrap();
        assert!(!rig.spares.take(&path, &was), "a link is no folder");
    }

    #[test]
    fn no_name_that_is_in_use_is_taken_over() {
        let rig = Rig::new();
        let (path, was) = rig.folder();
        assert!(rig.spares.take(&path, &was));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        assert!(!rig.spares.give(&path));
        assert!(path.join("file").exists());
        assert!(rig.spares.give(&rig.root.path().join("other")), "it is still there");
    }

    #[test]
    fn one_that_somebody_found_is_not_given() {
        let finds: [fn(&Path); 2] = [
            |path| std::fs::remove_dir(path).unwrap(),
            |path| std::fs::write(path.join("file"), "x").unwrap(),
        ];
        for find in finds {
            let rig = Rig::new();
            let (path, was) = rig.folder();
            assert!(rig.spares.take(&path, &was));
            find(&rig.spares.path(0));
            assert!(!rig.spares.give(&path));
            let (path, was) = rig.folder();
            assert!(rig.spares.take(&path, &was));
            assert!(rig.spares.give(&path), "another is");
        }
    }

    #[test]
    fn only_so_many_are_kept_and_none_is_left() {
        let rig = Rig::new();
        let kept = |_: &usize| {
            let (path, was) = rig.folder();
            let taken = rig.spares.take(&path, &was);
            if !taken {
                std::fs::remove_dir(&path).unwrap();
            }
            taken
        };
        assert_eq!((0..KEPT_MAX + 3).filter(kept).count(), KEPT_MAX);
        let entries = || std::fs::read_dir(rig.root.path()).unwrap().flatten();
        assert!(entries().all(|entry| Spares::owns(&entry.path())));
        let Rig { root, spares } = rig;
        drop(spares);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
