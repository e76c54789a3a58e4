//! The commit counter: how many commits there have been, in a file beside the store.
//!
//! A store with a log that is damaged near its end opens as if its last commits had never
//! been made. The counter shows that: it is written after a commit is durable, and so is never
//! ahead of a sound store. It is not synced, and may lag behind after a power cut.

use super::record;
use crate::storage::files::StoredFile;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const KEY: &[u8] = b"mark";
const LEN: usize = 12;

/// The file with the count.
pub(crate) struct CommitCounter(Box<dyn StoredFile>);

impl CommitCounter {
    /// Opens the counter, making it if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self(Box::new(options.open(path)?)))
    }

    /// The counter in a file.
    #[cfg(test)]
    pub(crate) fn over(file: Box<dyn StoredFile>) -> Self {
        Self(file)
    }

    /// How many commits there have been at least.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut value = [0; LEN];
        match self.0.read_exact_at(&mut value, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => read?,
        }
        let commits = record::unseal(KEY, &value).and_then(record::decode_numbers);
        Ok(commits.map_or(0, |[commits]| commits))
    }

    pub(super) fn write(&self, commits: u64) -> io::Result<()> {
        self.0.write_all_at(&record::seal(KEY, &record::encode_numbers(&[commits])), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_one_written_last_and_a_torn_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let counter = CommitCounter::open(&path).unwrap();
        assert_eq!(counter.read().unwrap(), 0);
        counter.write(7).unwrap();
        counter.write(u64::MAX).unwrap();
        assert_eq!(CommitCounter::open(&path).unwrap().read().unwrap(), u64::MAX);
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..9]).unwrap();
        assert_eq!(counter.read().unwrap(), 0);
    }
}
