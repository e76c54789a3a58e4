//! Looks whether a daemon could use a state folder, and changes nothing in it. To open the
//! queue itself would count as a start: tasks that ran before would count as dead with the
//! daemon, and the folder as settled where it is. So a copy is opened.
//!
//! Touches: the state folder's lock, which is held while it is copied, and a folder of its
//! own in the state folder, which goes again. Spool files, which never change once they
//! are written, have a second name in it rather than a copy.

use super::folder;
use super::open::{OpenError, Options, QUEUE};
use super::{DiskQueue, Error};
use clutch_common::system::removal;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The outcome of a look at a state folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FolderLook {
    /// No queue: one can be made.
    Nothing,
    /// A queue that opens.
    Pending {
        /// How many tasks are not finished.
        tasks: usize,
        /// How many results are not released.
        results: u64,
    },
}

/// Looks whether a daemon could use a state folder.
pub(crate) fn look(options: &Options) -> Result<FolderLook, OpenError> {
    folder::writable(&options.path)?;
    if !options.path.join(QUEUE).exists() {
        return Ok(FolderLook::Nothing);
    }
    let _lock = folder::hold(&options.path)?;
    let copy = Copy(options.path.join(format!(".check-{}", uuid::Uuid::now_v7())));
    copy.make(&options.path).map_err(|source| {
        let doing = "copying, to look at it,";
        Error { path: options.path.clone(), doing, source: source.into() }
    })?;
    let opened = DiskQueue::open(&Options { path: copy.0.clone(), ..options.clone() });
    let (queue, tasks) = opened.map_err(|error| error.at(&options.path))?;
    Ok(FolderLook::Pending { tasks: tasks.len(), results: queue.waiting() })
}

/// A copy of what a queue is opened from; removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn make(&self, from: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.0)?;
        for file in ["mark", "running"] {
            fine_if_gone(fs::copy(from.join(file), self.0.join(file)).map(drop))?;
        }
        copy_folder(&from.join(QUEUE), &self.0.join(QUEUE), &|from, to| {
            fs::copy(from, to).map(drop)
        })?;
        let link = |from: &Path, to: &Path| match fs::hard_link(from, to) {
            // Some file systems have no second names.
            Err(error) if error.kind() != ErrorKind::NotFound => fs::copy(from, to).map(drop),
            linked => linked,
        };
        fine_if_gone(copy_folder(&from.join("spool"), &self.0.join("spool"), &link))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = removal::remove_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a copy to look at stays behind");
        }
    }
}

/// Copies the files of a folder and of those in it, to a depth that any of ours has.
fn copy_folder(
    from: &Path,
    to: &Path,
    copy: &dyn Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        let entries = fs::read_dir(&from)?;
        DirBuilder::new().mode(0o700).create(&to)?;
        for entry in entries {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((source, target));
            } else if kind.is_file() {
                copy(&source, &target)?;
            }
        }
    }
    Ok(())
}

fn fine_if_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
