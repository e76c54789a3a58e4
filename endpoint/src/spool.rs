//! Payloads too large for a record, as files of their own in one folder.
//!
//! A file appears under its name only when it is whole (written to a temporary
//! name, synced, renamed), and is durable once [`Spool::sync`] has returned.
//! What is read back is checked against length and checksum, so a torn file is
//! told from a whole one. Touches nothing outside its folder.

use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const TEMPORARY: &str = ".tmp";
const ASIDE: &str = ".damaged";

/// A folder of payload files.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

/// What a file must be to be whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// Its length in bytes.
    pub(crate) len: u64,
    /// The CRC-32 of its bytes.
    pub(crate) crc: u32,
}

impl Stamp {
    /// The stamp of `bytes`.
    #[must_use]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }
}

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The payload is gone for good; the text says how.
    #[error("{0}")]
    Damaged(String),
    /// The system would not let us read; the payload may be fine.
    #[error("the spool file {name} cannot be read")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Spool {
    /// Opens the folder, making it (mode 0700) if need be.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes a file whole. Durable after the next [`Spool::sync`].
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<Stamp> {
        let temporary = self.folder.join(format!("{name}{TEMPORARY}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.folder.join(name))?;
        Ok(Stamp::of(bytes))
    }

    /// Makes the names of all files written so far durable.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) fn read(&self, name: &str, stamp: Stamp) -> Result<Vec<u8>, ReadError> {
        let damaged = |how: &str| ReadError::Damaged(format!("the spool file {name} {how}"));
        let mut bytes = Vec::new();
        let read = File::open(self.folder.join(name))
            // One byte more than there should be tells a file that grew.
            .and_then(|file| file.take(stamp.len.saturating_add(1)).read_to_end(&mut bytes));
        match read {
            Ok(_) if Stamp::of(&bytes) == stamp => Ok(bytes),
            Ok(_) => Err(damaged("is not what was written")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged("is missing")),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                Err(damaged("is on a bad part of the disk"))
            }
            Err(source) => Err(ReadError::Io { name: name.to_owned(), source }),
        }
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        absent_is_fine(std::fs::remove_file(self.folder.join(name)))
    }

    /// Moves a damaged file out of the way, to be looked at by a person. One
    /// that is not there is fine.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn set_aside(&self, name: &str) -> io::Result<()> {
        absent_is_fine(std::fs::rename(
            self.folder.join(name),
            self.folder.join(format!("{name}{ASIDE}")),
        ))
    }

    /// The names of all files but those set aside, half-written ones included.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            if let Ok(name) = entry?.file_name().into_string()
                && !name.ends_with(ASIDE)
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    fn damage(read: Result<Vec<u8>, ReadError>) -> String {
        match read {
            Err(ReadError::Damaged(how)) => how,
            other => panic!("expected damage, got {other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let (_folder, spool) = spool();
        let stamp = spool.write("a", b"payload").unwrap();
        spool.sync().unwrap();
        assert_eq!(spool.read("a", stamp).unwrap(), b"payload");
        assert_eq!(spool.list().unwrap(), ["a"]);
        spool.remove("a").unwrap();
        spool.remove("a").unwrap();
        assert_eq!(damage(spool.read("a", stamp)), "the spool file a is missing");
    }

    #[test]
    fn a_file_that_was_cut_grew_or_changed_is_damaged() {
        let (folder, spool) = spool();
        let stamp = spool.write("a", b"payload").unwrap();
        for bytes in [&b"paylo"[..], b"payloads", b"paxload", b""] {
            std::fs::write(folder.path().join("spool/a"), bytes).unwrap();
            assert!(damage(spool.read("a", stamp)).contains("not what was written"));
        }
    }

    #[test]
    fn half_written_files_are_listed_and_those_set_aside_are_not() {
        let (folder, spool) = spool();
        spool.write("a", b"1").unwrap();
        spool.set_aside("a").unwrap();
        spool.set_aside("never").unwrap();
        std::fs::write(folder.path().join("spool/b.tmp"), b"ha").unwrap();
        assert_eq!(spool.list().unwrap(), ["b.tmp"]);
        assert!(folder.path().join("spool/a.damaged").exists());
    }
}
