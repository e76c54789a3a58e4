//! The outbox on disk: results are put in, read back in order, and released.

use super::damage::Damaged;
use super::queue::{DiskQueue, Group};
use super::record::{Member, Space};
use super::{Error, Finished, OutSeq, OutboxRecord};
use clutch_common::id::Attempt;
use std::collections::HashSet;

/// The most waiting results that are looked through for an attempt: about a second's work.
const LOOKED_THROUGH: u64 = 100_000;

impl DiskQueue {
    pub(super) fn put_result(
        &mut self,
        group: &mut Group,
        out: OutSeq,
        result: &Finished,
    ) -> Result<(), Error> {
        group.next.waiting += 1;
        let form = group.form(&result.bytes);
        let member = Member { seq: out.0, attempt: result.attempt, form };
        self.put(group, Space::Outbox, member, &result.bytes).map(drop)
    }

    pub(super) fn release(&mut self, group: &mut Group, out: OutSeq) -> Result<(), Error> {
        let Some((raw, file)) = self.seek_result(&mut group.moves, out.0)? else { return Ok(()) };
        group.moves.go(raw, out.0);
        group.next.waiting = group.next.waiting.saturating_sub(1);
        group.released.extend(file);
        Ok(())
    }

    /// Which of these attempts are in the inbox or in the outbox. All of them are
    /// taken to be where so many results wait that looking through them takes long.
    ///
    /// # Errors
    /// The disk failed. The queue must not be used any more.
    pub(crate) fn held(&self, attempts: &HashSet<Attempt>) -> Result<HashSet<Attempt>, Error> {
        if self.waiting() > LOOKED_THROUGH {
            return Ok(attempts.clone());
        }
        let mut held = HashSet::new();
        for space in [Space::Inbox, Space::Outbox] {
            for found in self.all(space, 0)? {
                match found? {
                    Ok(one) => held.extend(attempts.get(&one.member.attempt)),
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
        let mut reader = self.spool.reader();
        let mut bytes = 0;
        for found in self.all(Space::Outbox, from.0)?.take(max) {
            let found = found?.map(|one| (self.payload(&mut reader, &one), one));
            match found {
                Ok((payload, one)) => match payload? {
                    Ok(payload) => {
                        bytes += payload.len();
                        if bytes > max_bytes && !records.is_empty() {
                            break;
                        }
                        let (seq, attempt) = (OutSeq(one.member.seq), one.member.attempt);
                        records.push(OutboxRecord { seq, attempt, bytes: payload });
                    }
                    Err(how) => damaged.push(one.damaged(how)),
                },
                Err(record) => damaged.push(*record),
            }
        }
        Ok((records, damaged))
    }
}
