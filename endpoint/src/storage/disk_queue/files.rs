//! Which spool files are needed: how many records refer to each. Pure.

use std::collections::BTreeMap;

/// The files that records refer to; memory grows with the files, not with the
/// records.
#[derive(Debug, Default)]
pub(super) struct Files {
    live: BTreeMap<u64, u32>,
    free: u64,
}

impl Files {
    /// Counts a record that refers to `file`.
    pub(super) fn refer(&mut self, file: u64) {
        *self.live.entry(file).or_default() += 1;
        self.free_from(file + 1);
    }

    /// Counts all that `others` has counted.
    pub(super) fn join(&mut self, others: Self) {
        for (file, count) in others.live {
            *self.live.entry(file).or_default() += count;
        }
        self.free_from(others.free);
    }

    /// Counts a record gone, and says whether it was the last of its file.
    pub(super) fn release(&mut self, file: u64) -> bool {
        let Some(count) = self.live.get_mut(&file) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.live.remove(&file);
        }
        last
    }

    /// Whether any record refers to `file`.
    pub(super) fn is_live(&self, file: u64) -> bool {
        self.live.contains_key(&file)
    }

    /// Gives out no number below `free` from now on.
    pub(super) fn free_from(&mut self, free: u64) {
        self.free = self.free.max(free);
    }

    /// A number for a new file.
    pub(super) fn next_number(&mut self) -> u64 {
        self.free += 1;
        self.free - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_live_until_its_last_record_is_gone() {
        let mut files = Files::default();
        files.refer(4);
        files.refer(4);
        assert!(!files.release(4) && files.is_live(4));
        assert!(files.release(4) && !files.is_live(4));
        assert!(!files.release(4), "it is removed once");
    }

    #[test]
    fn numbers_are_above_all_that_were_used() {
        let mut files = Files::default();
        files.refer(4);
        assert_eq!([files.next_number(), files.next_number()], [5, 6]);
        files.free_from(3);
        files.release(4);
        assert_eq!(files.next_number(), 7);
    }
}
