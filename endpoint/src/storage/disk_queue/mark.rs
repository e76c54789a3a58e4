//! The mark: how many commits there have been, kept beside the store.
//!
//! A store whose log is damaged near its end opens as if its last commits had
//! never been. The mark tells: it is written after a commit is durable, and so
//! never runs ahead of a sound store. It is not synced, and may lag behind
//! after a power cut; then it says less, never something wrong.

use super::record;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

const KEY: &[u8] = b"mark";
const LEN: usize = 12;

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self { file: options.open(path)? })
    }

    /// How many commits there have been at least.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut value = [0; LEN];
        let read = self.file.read_at(&mut value, 0)?;
        let commits = record::unseal(KEY, &value[..read]).and_then(record::decode_numbers);
        Ok(commits.map_or(0, |[commits]| commits))
    }

    pub(super) fn write(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&record::seal(KEY, &record::encode_numbers(&[commits])), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_what_was_written_last_and_a_torn_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let mark = Mark::open(&path).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
        mark.write(7).unwrap();
        mark.write(u64::MAX).unwrap();
        assert_eq!(Mark::open(&path).unwrap().read().unwrap(), u64::MAX);
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..9]).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
    }
}
