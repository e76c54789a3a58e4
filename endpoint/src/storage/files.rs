//! The file system below the spool, as traits: a folder of files, and a file in it. In the
//! daemon both are the system's; in a simulation they are memory, which loses at a crash
//! what was not synced.
//!
//! A write waits, up to a bound, for a descriptor, or room on the disk or in a quota.

use crate::system::os_error::{Handling, Operation, classify};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a write waits for what the host lacks, and how often it is tried meanwhile.
/// The journal takes a commit of a minute for a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(250);

/// A folder of files, known by name.
pub(crate) trait Files: Send + Sync {
    /// Makes a file, or empties the one that is there, and opens it to be written.
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;

    /// Opens a file to be read.
    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;

    /// Renames a file; one that has the new name is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, but those that are not text.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub(crate) trait StoredFile: Send + Sync {
    /// Writes all of `bytes` from `offset` on.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset` on; an error if the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system.
pub(crate) struct DiskFolder(PathBuf);

impl DiskFolder {
    /// Opens a folder, making it (mode 0700) if need be.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Files for DiskFolder {
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = patiently(PATIENCE, || match options.open(&path) {
            // The folder was removed; the one that it is in mostly was not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&self.0)?;
                options.open(&path)
            }
            opened => opened,
        });
        Ok(Box::new(file?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(File::open(self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        patiently(PATIENCE, || std::fs::rename(self.0.join(from), self.0.join(to)))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.0)?;
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn sync(&self) -> io::Result<()> {
        patiently(PATIENCE, || File::open(&self.0))?.sync_all()
    }
}

impl StoredFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        patiently(PATIENCE, || FileExt::write_all_at(self, bytes, offset))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Tries something that takes a resource of the host, until the host has it or `limit` is
/// over. Blocks.
fn patiently<T>(limit: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match attempt() {
            Err(error)
                if classify(Operation::Records, &error) == Handling::Wait
                    && begun.elapsed() < limit =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        %error,
                        "the host lacks what writing to the state folder takes: waiting for it"
                    );
                }
                std::thread::park_timeout(PAUSE.min(limit));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn what_the_host_lacks_is_waited_for_and_nothing_else() {
        let fails = |errno: Errno, times: usize, limit: Duration| {
            let mut tries = 0;
            let done = patiently(limit, || {
                tries += 1;
                if tries <= times { Err(errno.into()) } else { Ok(()) }
            });
            (done.is_ok(), tries)
        };
        for errno in [Errno::DQUOT, Errno::NFILE, Errno::MFILE, Errno::NOSPC] {
            assert_eq!(fails(errno, 2, PATIENCE), (true, 3), "{errno:?}");
        }
        assert_eq!(fails(Errno::ROFS, 2, PATIENCE), (false, 1));
        assert_eq!(fails(Errno::DQUOT, 2, Duration::ZERO), (false, 1));
    }
}
