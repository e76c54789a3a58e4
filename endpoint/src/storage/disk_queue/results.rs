//! The outbox on disk: results are added, read in order, and released.

use super::packing::Damaged;
use super::queue::{DiskQueue, OpenCommit};
use super::record::{Member, Space};
use super::spool_files::payload;
use super::{Error, Finished, OutSeq, OutboxRecord};
use clutch_common::id::Attempt;
use std::collections::HashSet;

/// The most waiting results that are searched for an attempt: about a second's work.
const SEARCH_MAX: u64 = 100_000;

impl DiskQueue {
    /// Adds a result, unless the same commit releases it.
    pub(super) fn add_result(
        &mut self,
        group: &mut OpenCommit,
        out: OutSeq,
        result: &Finished,
        is_released: bool,
    ) -> Result<(), Error> {
        group.counters.out = group.counters.out.max(out.0 + 1);
        if is_released {
            return Ok(());
        }
        group.counters.waiting += 1;
        let form = group.form(&result.bytes);
        let member = Member { seq: out.0, attempt: result.attempt, form };
        self.add_member(group, Space::Outbox, member, &result.bytes).map(drop)
    }

    /// Removes a result, if it is there.
    pub(super) fn release(&mut self, group: &mut OpenCommit, out: OutSeq) -> Result<(), Error> {
        let found = self.records.find_result(&mut group.batch, out.0)?;
        let Some((raw, file)) = found else { return Ok(()) };
        group.batch.remove(raw, out.0);
        group.counters.waiting = group.counters.waiting.saturating_sub(1);
        group.released.extend(file);
        Ok(())
    }

    /// The attempts, of these, that are in the inbox or in the outbox. All of them where so
    /// many results wait that searching them takes long.
    ///
    /// # Errors
    /// The disk failed. The queue must not be used any more.
    pub(crate) fn held(&self, attempts: &HashSet<Attempt>) -> Result<HashSet<Attempt>, Error> {
        if self.waiting() > SEARCH_MAX {
            return Ok(attempts.clone());
        }
        let mut held = HashSet::new();
        for space in [Space::Inbox, Space::Outbox] {
            for found in self.records.members(space, 0)? {
                match found? {
                    Ok(stored) => held.extend(attempts.get(&stored.member.attempt)),
                    Err(damaged) => held.extend(
                        damaged.members().iter().filter_map(|one| attempts.get(&one.attempt)),
                    ),
                }
            }
        }
        Ok(held)
    }

    /// The results from `from` on, in order: at most `max`, and `max_bytes`
    /// in all unless the first alone is larger. A damaged one is replaced on
    /// disk by a result that says so.
    ///
    /// # Errors
    /// The disk failed. The queue must not be used any more.
    pub(crate) fn outbox(
        &mut self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxRecord>, Error> {
        let (records, damaged) = self.read_outbox(from, max, max_bytes)?;
        if damaged.is_empty() {
            return Ok(records);
        }
        self.repair(damaged)?;
        self.read_outbox(from, max, max_bytes).map(|(records, _)| records)
    }

    fn read_outbox(
        &self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<(Vec<OutboxRecord>, Vec<Damaged>), Error> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        let mut reader = self.spool.spool().reader();
        let mut bytes = 0;
        for found in self.records.members(Space::Outbox, from.0)?.take(max) {
            let stored = match found? {
                Ok(stored) => stored,
                Err(record) => {
                    damaged.push(*record);
                    continue;
                }
            };
            match payload(&self.records, &mut reader, &stored)? {
                Ok(payload) => {
                    bytes += payload.len();
                    if bytes > max_bytes && !records.is_empty() {
                        break;
                    }
                    let (seq, attempt) = (OutSeq(stored.member.seq), stored.member.attempt);
                    records.push(OutboxRecord { seq, attempt, bytes: payload });
                }
                Err(how) => damaged.push(stored.damaged(how)),
            }
        }
        Ok((records, damaged))
    }
}
