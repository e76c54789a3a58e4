//! The payloads that are in spool files: written for a commit, read back, and the files
//! removed that no record refers to any more.

use super::Error;
use super::packing::{RecordStore, StoredMember};
use super::record::{self, Form, Space};
use crate::storage::spool::{Place, ReadError, Reader, Spool, Writing};
use std::collections::BTreeMap;
use std::io;

/// The spool, and how many records refer to each of its files.
pub(super) struct SpoolFiles {
    spool: Spool,
    uses: Uses,
    /// The files of the commit that is being made: one of tasks, and one of results, which
    /// stay for longer.
    open: [Option<Writing>; 2],
    /// Whether the name of a finished file is not durable yet.
    unsynced: bool,
}

impl SpoolFiles {
    /// The files of a spool, of which none is known to be needed.
    pub(super) fn new(spool: Spool) -> Self {
        Self { spool, uses: Uses::default(), open: [None, None], unsynced: false }
    }

    /// The spool itself.
    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Counts a record that refers to `file`.
    pub(super) fn refer(&mut self, file: u64) {
        self.uses.refer(file);
    }

    /// Appends to the commit's file of tasks or of results.
    pub(super) fn append(
        &mut self,
        space: Space,
        put: impl FnOnce(&mut Writing) -> io::Result<Place>,
    ) -> io::Result<Place> {
        let writing = match &mut self.open[usize::from(space == Space::Outbox)] {
            Some(writing) => writing,
            none => none.insert(self.spool.begin(self.uses.next_number())?),
        };
        let place = put(writing)?;
        self.uses.refer(place.file);
        Ok(place)
    }

    /// Writes a payload into a file of its own.
    pub(super) fn write_alone(&mut self, payload: &[u8]) -> io::Result<Place> {
        let mut writing = self.spool.begin(self.uses.next_number())?;
        let place = writing.put(payload)?;
        writing.finish()?;
        self.unsynced = true;
        self.uses.refer(place.file);
        Ok(place)
    }

    /// Makes the files of the commit durable.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        for writing in self.open.iter_mut().filter_map(Option::take) {
            writing.finish()?;
            self.unsynced = true;
        }
        if std::mem::take(&mut self.unsynced) { self.spool.sync() } else { Ok(()) }
    }

    /// Counts a record that referred to `file` and is gone, and removes the file with the
    /// last one. A file that could not be removed is removed by the next start.
    pub(super) fn release(&mut self, file: u64) {
        if self.uses.release(file)
            && let Err(error) = self.spool.remove(file)
        {
            tracing::warn!(file, error = %error, "a spool file could not be removed");
        }
    }

    /// Removes the files that no record refers to: written for a commit that was never made,
    /// or left over by a removal.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let free = self.spool.sweep(|file| self.uses.is_live(file))?;
        self.uses.free_from(free);
        Ok(())
    }
}

/// Reads the payload of a member: the payload, or how it is damaged.
pub(super) fn payload(
    records: &RecordStore,
    reader: &mut Reader<'_>,
    stored: &StoredMember,
) -> Result<Result<Vec<u8>, String>, Error> {
    if stored.member.form == Form::Inline {
        return Ok(Ok(stored.content.clone()));
    }
    let Some(place) = record::decode_place(&stored.content) else {
        return Ok(Err("its pointer to the spool is malformed".to_owned()));
    };
    match reader.read(place) {
        Ok(payload) => Ok(Ok(payload)),
        Err(ReadError::Damaged(how)) => Ok(Err(how)),
        Err(error @ ReadError::Io { .. }) => {
            Err(records.failed("reading the spool of")(error.into()))
        }
    }
}

/// How many records refer to each file. Memory grows with the files, not with the records.
#[derive(Debug, Default)]
struct Uses {
    live: BTreeMap<u64, u32>,
    free: u64,
}

impl Uses {
    fn refer(&mut self, file: u64) {
        *self.live.entry(file).or_default() += 1;
        self.free_from(file + 1);
    }

    /// Counts a record less, and says whether it was the last of its file.
    fn release(&mut self, file: u64) -> bool {
        let Some(count) = self.live.get_mut(&file) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.live.remove(&file);
        }
        last
    }

    fn is_live(&self, file: u64) -> bool {
        self.live.contains_key(&file)
    }

    /// Gives out no number below `free` from now on.
    fn free_from(&mut self, free: u64) {
        self.free = self.free.max(free);
    }

    /// A number for a new file.
    fn next_number(&mut self) -> u64 {
        self.free += 1;
        self.free - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_live_until_its_last_record_is_gone() {
        let mut uses = Uses::default();
        uses.refer(4);
        uses.refer(4);
        assert!(!uses.release(4) && uses.is_live(4));
        assert!(uses.release(4) && !uses.is_live(4));
        assert!(!uses.release(4), "it is removed once");
    }

    #[test]
    fn numbers_are_above_all_that_were_used() {
        let mut uses = Uses::default();
        uses.refer(4);
        assert_eq!([uses.next_number(), uses.next_number()], [5, 6]);
        uses.free_from(3);
        uses.release(4);
        assert_eq!(uses.next_number(), 7);
    }
}
