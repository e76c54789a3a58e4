//! The data of a disk in a run: the entries of a store, and files. A crash takes changes from
//! them that were not flushed, a power cut also names and contents that were not synced.
//! Pure.

use crate::storage::disk_queue::store::{Entry, Writes};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound;

/// The file with the commit counter, which has no name.
pub(super) const COUNTER: u64 = 0;

/// A file's content.
#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As it was synced last.
    synced: Vec<u8>,
}

/// The entries and the files.
pub(super) struct Media {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The values before the changes that are not flushed, the latest last.
    unflushed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    /// As they were synced last.
    synced_names: BTreeMap<String, u64>,
    next_file: u64,
}

impl Media {
    /// An empty disk.
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            unflushed: Vec::new(),
            contents: BTreeMap::from([(COUNTER, Content::default())]),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            next_file: COUNTER + 1,
        }
    }

    /// The process has ended and may have lost what was not flushed; with `power_cut` the
    /// host has, too. `below` gives a number below another. Says whether changes that were
    /// applied and not flushed are there all the same.
    pub(super) fn crash(&mut self, power_cut: bool, mut below: impl FnMut(u64) -> u64) -> bool {
        let kept = !self.unflushed.is_empty() && below(2) == 0;
        for (key, before) in std::mem::take(&mut self.unflushed).into_iter().rev() {
            match before {
                _ if kept => {}
                Some(before) => drop(self.entries.insert(key, before)),
                None => drop(self.entries.remove(&key)),
            }
        }
        if power_cut {
            if below(2) == 0 {
                self.names = self.synced_names.clone();
            }
            for Content { bytes, synced } in self.contents.values_mut() {
                if bytes.starts_with(synced) {
                    let more = below((bytes.len() - synced.len()) as u64 + 1);
                    bytes.truncate(synced.len() + more as usize);
                } else if below(2) == 0 {
                    bytes.clone_from(synced);
                }
            }
        }
        kept
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    /// The first entry in a range.
    pub(super) fn first(&self, from: Bound<&[u8]>, end: &[u8]) -> Option<Entry> {
        let mut range = self.entries.range::<[u8], _>((from, Bound::Excluded(end)));
        range.next().map(|(key, value)| (key.clone(), value.clone()))
    }

    /// The last entry from `from` up to and including `to`.
    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> Option<Entry> {
        let mut range = self.entries.range::<[u8], _>((Bound::Included(from), Bound::Included(to)));
        range.next_back().map(|(key, value)| (key.clone(), value.clone()))
    }

    pub(super) fn apply(&mut self, writes: Writes) {
        for (key, value) in writes {
            let before = match value {
                Some(value) => self.entries.insert(key.clone(), value),
                None => self.entries.remove(&key),
            };
            self.unflushed.push((key, before));
        }
    }

    pub(super) fn flush(&mut self) {
        self.unflushed.clear();
    }

    /// Makes an empty file, in the place of one of this name.
    pub(super) fn create(&mut self, name: &str) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.contents.insert(file, Content::default());
        self.names.insert(name.to_owned(), file);
        file
    }

    pub(super) fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or(ErrorKind::NotFound.into())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.names.remove(from).ok_or(ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), file);
        Ok(())
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        self.names.insert(to.to_owned(), file);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.names.remove(name).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    pub(super) fn sync_names(&mut self) {
        self.synced_names.clone_from(&self.names);
        let named: Vec<u64> = self.names.values().copied().chain([COUNTER]).collect();
        self.contents.retain(|file, _| named.contains(file));
    }

    pub(super) fn write(&mut self, file: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let content = self.contents.get_mut(&file).ok_or(ErrorKind::NotFound)?;
        let (begin, end) = (offset as usize, offset as usize + bytes.len());
        content.bytes.resize(content.bytes.len().max(end), 0);
        content.bytes[begin..end].copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn read(&self, file: u64, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.contents.get(&file).ok_or(ErrorKind::NotFound)?;
        let begin = offset as usize;
        let found = content.bytes.get(begin..begin + bytes.len());
        bytes.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn sync(&mut self, file: u64) -> io::Result<()> {
        let content = self.contents.get_mut(&file).ok_or(ErrorKind::NotFound)?;
        content.synced.clone_from(&content.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(media: &Media, name: &str) -> Option<Vec<u8>> {
        let file = media.find(name).ok()?;
        Some(media.contents[&file].bytes.clone())
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_a_crash_does_not() {
        for power_cut in [false, true] {
            let mut media = Media::new();
            let file = media.create("synced");
            media.write(file, b"whole", 0).unwrap();
            media.sync(file).unwrap();
            media.sync_names();
            media.write(file, b" and more", 5).unwrap();
            media.create("unsynced");
            assert!(!media.crash(power_cut, |_| 0));
            assert_eq!(has(&media, "unsynced").is_none(), power_cut);
            let expected = if power_cut { &b"whole"[..] } else { b"whole and more" };
            assert_eq!(has(&media, "synced").unwrap(), expected);
        }
    }
}
