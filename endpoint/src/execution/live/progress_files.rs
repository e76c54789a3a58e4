//! The files in which processes tell their progress: one for each attempt, in a folder of the
//! endpoint's own, named to the process in [`VARIABLE`].
//!
//! Touches what is in that folder. Promises that a running process costs nothing before it
//! writes its file; that nothing but a plain file is read, and no more of it than
//! [`READ_MAX`] bytes; and that the file of an attempt which does not run is removed.

use super::progress;
use clutch_common::id::Attempt;
use clutch_common::system::removal::remove_all;
use clutch_common::wire::TaskProgress;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The variable that names the file to a process.
pub(crate) const VARIABLE: &str = "CLUTCH_PROGRESS";
/// The most bytes of the end of a file that are read.
const READ_MAX: u64 = 64 * 1024;
/// How many entries of the folder are looked at together.
const ENTRIES_MAX: usize = 4096;

/// The folder of progress files.
#[derive(Debug)]
pub(crate) struct ProgressFiles {
    folder: PathBuf,
    /// The progress that was read from each file, and how the file was then.
    read: Mutex<HashMap<Attempt, (Version, TaskProgress)>>,
}

/// A file as it was: its inode, its size, and when it was written.
type Version = (u64, i64, i64, u64);

impl ProgressFiles {
    /// Makes the folder, and removes what an earlier run left in it.
    pub(crate) fn below(folder: &Path) -> io::Result<Self> {
        remove_all(folder)?;
        make(folder)?;
        Ok(Self { folder: folder.to_owned(), read: Mutex::default() })
    }

    /// Returns the file of an attempt.
    pub(super) fn path(&self, attempt: Attempt) -> PathBuf {
        self.folder.join(name(attempt))
    }

    /// Lists the names in the folder, which is made again if it was removed.
    pub(super) fn list(&self) -> Vec<PathBuf> {
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                paths.take(ENTRIES_MAX).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Err(error) = make(&self.folder) {
                    tracing::debug!(%error, "the folder of progress files cannot be made again");
                }
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(%error, "the folder of progress files cannot be read");
                Vec::new()
            }
        }
    }

    /// Reads the listed files of attempts that run, and removes all others.
    pub(super) fn read(
        &self,
        listed: Vec<PathBuf>,
        running: &HashSet<Attempt>,
        now_ms: u64,
    ) -> HashMap<Attempt, TaskProgress> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|attempt, _| running.contains(attempt));
        let by_name: HashMap<String, Attempt> =
            running.iter().map(|attempt| (name(*attempt), *attempt)).collect();
        for path in listed {
            let attempt = path.file_name().and_then(|name| by_name.get(name.to_str()?));
            let Some(attempt) = attempt else {
                if let Err(error) = remove_all(&path) {
                    tracing::debug!(%error, "a progress file cannot be removed");
                }
                continue;
            };
            let before = known.get(attempt).map(|(version, _)| *version);
            if let Some(told) = read_file(&path, before, now_ms) {
                known.insert(*attempt, told);
            }
        }
        known.iter().map(|(attempt, (_, progress))| (*attempt, progress.clone())).collect()
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn name(attempt: Attempt) -> String {
    format!("{}.{}", attempt.task_id, attempt.attempt)
}

/// Reads the progress in a file, unless the file is as it was before, or no plain file.
fn read_file(path: &Path, before: Option<Version>, now_ms: u64) -> Option<(Version, TaskProgress)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(open(path, flags, Mode::empty()).ok()?);
    let stat = fstat(&file).ok()?;
    let nanoseconds = stat.st_mtime_nsec;
    let version = (stat.st_ino, stat.st_size, stat.st_mtime, nanoseconds);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || before == Some(version) {
        return None;
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let from = size.saturating_sub(READ_MAX);
    let mut bytes = vec![0; usize::try_from(size - from).ok()?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(filled);
    let mut written = bytes.as_slice();
    if from > 0 {
        // The first line that is whole.
        let start = written.iter().position(|byte| *byte == b'\n')?;
        written = &written[start + 1..];
    }
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let at_ms = seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000).min(now_ms);
    Some((version, progress::last_line(written, at_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use rustix::fs::{CWD, mknodat};
    use std::os::unix::fs::symlink;

    fn attempt() -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: 1 }
    }

    fn message(files: &ProgressFiles, attempt: Attempt) -> Option<String> {
        let told = files.read(files.list(), &[attempt].into(), u64::MAX);
        told.get(&attempt).and_then(|progress| progress.message.clone())
    }

    #[test]
    fn the_last_line_of_a_file_is_told_until_the_attempt_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let files = ProgressFiles::below(&folder.path().join("progress")).unwrap();
        let attempt = attempt();
        let path = files.path(attempt);
        assert_eq!(message(&files, attempt), None);
        fs::write(&path, "0.5 one\n").unwrap();
        assert_eq!(message(&files, attempt).as_deref(), Some("one"));
        assert_eq!(message(&files, attempt).as_deref(), Some("one"), "it is kept");
        fs::write(&path, "0.5 one\n0.6 two\n").unwrap();
        assert_eq!(message(&files, attempt).as_deref(), Some("two"));
        files.read(files.list(), &HashSet::new(), 0);
        assert!(!path.exists());
        fs::remove_dir(&files.folder).unwrap();
        assert_eq!(message(&files, attempt), None);
        assert!(files.folder.is_dir(), "it is made again");
        fs::write(&path, "left").unwrap();
        let files = ProgressFiles::below(&files.folder).unwrap();
        assert!(files.list().is_empty(), "an earlier run left it");
    }

    #[test]
    fn nothing_but_a_plain_file_is_read_and_no_more_than_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let files = ProgressFiles::below(&folder.path().join("progress")).unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "a secret").unwrap();
        let [link, fifo, folded, huge, endless] = [0; 5].map(|_| attempt());
        symlink(&secret, files.path(link)).unwrap();
        mknodat(CWD, files.path(fifo), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(files.path(folded)).unwrap();
        for (attempt, end) in [(huge, "\nthe end\n"), (endless, "")] {
            let file = fs::File::create(files.path(attempt)).unwrap();
            file.set_len(1 << 40).unwrap();
            file.write_at(end.as_bytes(), 1 << 40).unwrap();
        }
        let all: HashSet<Attempt> = [link, fifo, folded, huge, endless].into();
        let told = files.read(files.list(), &all, u64::MAX);
        let found: Vec<_> = told.into_iter().map(|(found, told)| (found, told.message)).collect();
        assert_eq!(found, [(huge, Some("the end".to_owned()))]);
        files.read(files.list(), &HashSet::new(), 0);
        assert!(files.list().is_empty() && secret.exists());
    }
}
