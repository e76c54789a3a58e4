//! Measures the free space of the state folder's file system: bytes, inodes, and the rest
//! of a quota, which only a trial shows.
//!
//! Touches: a file of its own in the state folder, which comes and goes. Promises that
//! where space, or a descriptor to look with, is lacking, the result is 0 and no error.

use crate::system::os_error::{Handling, Operation, classify};
use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many inodes are to stay free: a commit takes up to four.
const INODES: u64 = 16;
/// The size of a trial, in bytes; several commits' worth.
const TRIAL: u64 = 4 * 1024 * 1024;
/// How long a successful trial is valid.
const VALID_FOR: Duration = Duration::from_secs(1);

/// Measures the free space of one folder.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    folder: PathBuf,
    tried: Option<Instant>,
}

impl DiskSpace {
    /// Measures in a folder, which need not exist yet.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), tried: None }
    }

    /// Returns how many bytes are free; 0 without a free inode, or where the quota is used up.
    ///
    /// # Errors
    /// The system fails in another way than for lack of something.
    pub(crate) fn free(&mut self) -> io::Result<u64> {
        let free = usable(&statvfs(&self.folder)?);
        if free == 0 || self.tried.is_some_and(|tried| tried.elapsed() < VALID_FOR) {
            return Ok(free);
        }
        self.tried = None;
        match attempt(&self.folder.join(".room")) {
            Ok(()) => {
                self.tried = Some(Instant::now());
                Ok(free)
            }
            Err(error) if classify(Operation::Records, &error) == Handling::Wait => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Returns how many bytes of a folder's file system can be used.
pub(crate) fn available(folder: &Path) -> io::Result<u64> {
    Ok(usable(&statvfs(folder)?))
}

/// Returns the bytes that can be used. Some file systems count no inodes.
fn usable(found: &StatVfs) -> u64 {
    if found.f_files > 0 && found.f_favail < INODES {
        return 0;
    }
    found.f_bavail.saturating_mul(found.f_frsize)
}

/// Allocates some space, and frees it.
fn attempt(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let taken = allocate(&file, 0, TRIAL);
    drop(file);
    std::fs::remove_file(path)?;
    taken
}

/// Allocates `bytes` for a file from an offset on. Where the file system cannot do that, as
/// some network file systems, nothing is allocated, and that is no error.
///
/// # Errors
/// There is no space, for example.
pub(crate) fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_found_and_nothing_stays_of_the_trial() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DiskSpace::in_folder(folder.path()).free().unwrap() > 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let gone = DiskSpace::in_folder(&folder.path().join("gone")).free().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn without_inodes_there_is_no_room_unless_none_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let found = |f_files, f_favail| {
            let found = statvfs(folder.path()).unwrap();
            usable(&StatVfs { f_bavail: 10, f_frsize: 4096, f_files, f_favail, ..found })
        };
        assert_eq!(found(1000, INODES - 1), 0);
        assert_eq!(found(1000, INODES), 40_960);
        assert_eq!(found(0, 0), 40_960);
    }
}
