//! Room that the file system puts aside for the store before it is needed: a store that
//! finds none in the middle of a commit has failed, and the daemon with it.
//!
//! Touches: the blocks behind the end of the store's file.

use crate::system::disk_space::allocate;
use crate::system::os_error::{Handling, Operation, classify};
use std::fs::File;
use std::io;

/// How much is put aside at least before a commit, in bytes: the segments that a group
/// takes, and those that the store rewrites meanwhile.
const MARGIN: u64 = 2 * 1024 * 1024;
/// How much is put aside at once.
const PIECE: u64 = 2 * MARGIN;

/// The room that is put aside for one file.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// How long the file was when it was looked at last.
    len: u64,
    /// Up to where it has its room.
    until: u64,
}

impl Reserve {
    /// Has room put aside for a file of `len` bytes where it has too little. False if the
    /// host has none.
    pub(super) fn get(&mut self, file: &File, len: u64) -> io::Result<bool> {
        if !self.wants(len) {
            return Ok(true);
        }
        match allocate(file, len, PIECE) {
            Ok(()) => {
                self.until = len + PIECE;
                Ok(true)
            }
            Err(error) if classify(Operation::Records, &error) == Handling::Wait => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a file of this length is to have more room. A file that became shorter has
    /// lost the room that was put aside for it.
    fn wants(&mut self, len: u64) -> bool {
        if len < self.len {
            self.until = len;
        }
        self.len = len;
        len + MARGIN > self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_has_room_before_it_grows_and_again_after_it_was_cut() {
        let mut ahead = Reserve::default();
        assert!(ahead.wants(0));
        ahead.until = PIECE;
        assert!(!ahead.wants(0) && !ahead.wants(MARGIN));
        assert!(ahead.wants(MARGIN + 1));
        ahead.until = MARGIN + PIECE;
        assert!(ahead.wants(MARGIN), "it was cut");
    }

    #[test]
    fn the_room_is_there_and_the_file_is_as_long_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let file = File::create(&path).unwrap();
        assert!(Reserve::default().get(&file, 0).unwrap());
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.len(), 0);
        assert!(found.blocks() * 512 >= MARGIN, "the file system put nothing aside");
    }
}
