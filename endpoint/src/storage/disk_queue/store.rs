//! The store below the disk queue, as a trait: an ordered map from keys to values, and the
//! changes that are made to it. In the daemon it is [`super::sled_store`]; in a simulation
//! it is memory, which loses at a crash what was not flushed.
//!
//! Promises of a store: changes that are applied together are kept together or not at all;
//! what was applied before a flush returned survives the host's end.

use super::record;
use std::error::Error as StdError;
use std::fs::File;
use std::io;

/// Why a store failed.
pub(crate) type StoreError = Box<dyn StdError + Send + Sync>;

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// The entries of a range, read one by one.
pub(crate) type Entries = Box<dyn Iterator<Item = Result<Entry, StoreError>> + Send>;

/// An ordered map from keys to values.
pub(crate) trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The entries from `from` on and before `end`, in order.
    fn range(&self, from: &[u8], end: &[u8]) -> Entries;

    /// The last entry from `from` up to and including `to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Entry>, StoreError>;

    /// Makes changes, all or none. They are durable after the next [`Store::flush`].
    fn apply(&self, writes: Writes) -> Result<(), StoreError>;

    /// Makes durable what was applied.
    fn flush(&self) -> Result<(), StoreError>;

    /// Whether the store still is at the path where it was opened.
    fn is_here(&self) -> io::Result<bool>;

    /// The file that grows as records are added, if the store has one, and its length in
    /// bytes at the last [`Store::is_here`].
    fn file(&self) -> Option<(&File, u64)>;
}

/// Changes to keys that are committed together; of two to the same key the later counts.
#[derive(Default)]
pub(crate) struct Writes(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Writes {
    /// Writes `content` under a key, with its checksum.
    pub(super) fn put(&mut self, key: &[u8], content: &[u8]) {
        self.put_raw(key, record::seal(key, content));
    }

    /// Writes a value as it is.
    pub(super) fn put_raw(&mut self, key: &[u8], value: Vec<u8>) {
        self.0.push((key.to_vec(), Some(value)));
    }

    /// Removes a key, if it is there.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.0.push((key.to_vec(), None));
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Writes {
    type Item = (Vec<u8>, Option<Vec<u8>>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    /// Keys with their new values, none where one is removed, in the order of the calls.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
