//! Spare sandboxes: folders of tasks that are over, handed to the next tasks. On ext4 two
//! threads that make and remove a folder for each task wait for each other, which takes a
//! fifth of the rate of short processes.
//!
//! Touches folders of the sandbox root: those it is given, and its own `.spare-N`. Promises
//! that a spare is empty and has the mode, the owner and the extended attributes of a folder
//! just made, whenever a task changed what it had; and that at most [`MOST`] wait.

use rustix::process::{getegid, geteuid};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many spares wait at most. More tasks hardly end at once.
const MOST: usize = 16;
/// The beginning of their names.
const PREFIX: &str = ".spare-";

/// The spares below one root, which go with it.
#[derive(Debug)]
pub(super) struct Spares {
    root: PathBuf,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    waiting: Vec<u64>,
    used: u64,
}

impl Spares {
    /// The spares below `root`; none waits yet.
    pub(super) fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), numbers: Mutex::default() }
    }

    /// Whether a folder of the root is a spare, or was one of an earlier run.
    pub(super) fn owns(path: &Path) -> bool {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    }

    /// Keeps the folder of a task of which no process is left, if it is as it was made.
    /// False if the folder is still at its path.
    pub(super) fn keep(&self, folder: &Path) -> bool {
        if !is_as_made(folder).unwrap_or(false) {
            return false;
        }
        let Some(number) = self.number() else { return false };
        let kept = fs::rename(folder, self.path(number)).is_ok();
        if kept {
            self.numbers().waiting.push(number);
        }
        kept
    }

    /// Puts a spare to a path where no folder is, if one waits and can be put there.
    pub(super) fn give(&self, path: &Path) -> bool {
        let Some(number) = self.numbers().waiting.pop() else { return false };
        let given = fs::rename(self.path(number), path);
        match given {
            Ok(()) => true,
            Err(error) => {
                // Its root was removed, and the spare with it, or the path is taken.
                if error.kind() != io::ErrorKind::NotFound {
                    self.numbers().waiting.push(number);
                }
                false
            }
        }
    }

    fn number(&self) -> Option<u64> {
        let mut numbers = self.numbers();
        numbers.used += 1;
        (numbers.waiting.len() < MOST).then_some(numbers.used)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{PREFIX}{number}"))
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        for number in self.numbers().waiting.drain(..) {
            // A spare that stays is removed at the next start.
            drop(fs::remove_dir(self.path(number)));
        }
    }
}

/// Whether a folder is empty, and as one that the endpoint has just made.
fn is_as_made(folder: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    let owned = (found.uid(), found.gid()) == (geteuid().as_raw(), getegid().as_raw());
    let as_made = found.is_dir() && owned && found.mode() & 0o7777 == 0o700;
    Ok(as_made && fs::read_dir(folder)?.next().is_none() && !has_attributes(folder)?)
}

/// Whether a folder has extended attributes, but for those that only the system sets.
fn has_attributes(folder: &Path) -> io::Result<bool> {
    let mut names = [0_u8; 256];
    match rustix::fs::listxattr(folder, &mut names) {
        Ok(length) => {
            let mut names = names[..length].split(|byte| *byte == 0);
            Ok(names.any(|name| !name.is_empty() && !name.starts_with(b"security.")))
        }
        Err(rustix::io::Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{DirBuilder, Permissions};
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

    fn made(root: &Path, name: &str) -> PathBuf {
        let path = root.join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        path
    }

    #[test]
    fn a_folder_that_is_as_it_was_made_is_the_next_one_and_no_other_is() {
        let root = tempfile::tempdir().unwrap();
        let spares = Spares::below(root.path());
        let (one, two) = (made(root.path(), "one"), root.path().join("two"));
        let number = fs::metadata(&one).unwrap().ino();
        assert!(!spares.give(&two), "none waits");
        assert!(spares.keep(&one) && !one.exists());
        assert!(spares.give(&two));
        assert_eq!(fs::metadata(&two).unwrap().ino(), number);

        let changes: [fn(&Path); 4] = [
            |path| fs::write(path.join("file"), "x").unwrap(),
            |path| fs::create_dir(path.join("folder")).unwrap(),
            |path| fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap(),
            |path| {
                let flags = rustix::fs::XattrFlags::empty();
                match rustix::fs::setxattr(path, "user.note", b"x", flags) {
                    Ok(()) => (),
                    Err(rustix::io::Errno::NOTSUP) => fs::write(path.join("file"), "x").unwrap(),
                    Err(error) => panic!("{error}"),
                }
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let path = made(root.path(), &format!("changed-{index}"));
            change(&path);
            assert!(!spares.keep(&path) && path.exists(), "change {index} went unseen");
        }
        std::os::unix::fs::symlink(&two, root.path().join("link")).unwrap();
        assert!(!spares.keep(&root.path().join("link")));
    }

    #[test]
    fn a_spare_waits_for_a_free_path_few_do_and_none_stays() {
        let root = tempfile::tempdir().unwrap();
        let spares = Spares::below(root.path());
        let kept = (0..MOST + 3).filter(|at| spares.keep(&made(root.path(), &at.to_string())));
        assert_eq!(kept.count(), MOST);
        let taken = made(root.path(), "taken");
        fs::write(taken.join("file"), "x").unwrap();
        assert!(!spares.give(&taken) && taken.join("file").exists());
        assert!(spares.give(&root.path().join("free")));
        assert!(fs::read_dir(root.path()).unwrap().flatten().any(|one| Spares::owns(&one.path())));
        drop(spares);
        assert!(!fs::read_dir(root.path()).unwrap().flatten().any(|one| Spares::owns(&one.path())));
    }
}
