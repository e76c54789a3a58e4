//! The outbox in memory: the newest results, so that a result can be sent before its record
//! is on disk. Pure.
//!
//! A result that is *held back* is sent only from disk: a crash must not take back that a task does
//! not start.
//!
//! This has every result that is not on disk yet, whether or not it was sent, and a bounded
//! number of the newest ones that are. The disk has the rest until it is released. A
//! publisher that is behind reads from disk until it has caught up. Few results are not on
//! disk, as each holds a slot, or a delivery, until it is.

use crate::storage::journal::{Finished, OutSeq, OutboxRecord};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// How many of the newest results are kept in memory.
const MAX_RECORDS: usize = 1024;
/// How many bytes of them.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where the publisher finds the next results.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// In memory.
    Fresh(Vec<(OutSeq, Arc<Finished>)>),
    /// On disk, once it has all that was handed to it; when it has none either, all before this
    /// one are released.
    Disk(OutSeq),
    /// There are none.
    None,
}

#[derive(Debug)]
struct RecentResult {
    seq: OutSeq,
    result: Arc<Finished>,
    on_disk: bool,
    held_back: bool,
}

/// The results that are not released.
#[derive(Debug)]
pub(crate) struct Outbox {
    fresh: VecDeque<RecentResult>,
    bytes: usize,
    /// The sequence number of the next result.
    next: OutSeq,
    /// How many results the broker has not confirmed.
    undelivered: u64,
    /// Released, and maybe on disk still: neither sent again nor counted.
    releasing: BTreeSet<OutSeq>,
}

impl Outbox {
    /// An outbox in which the next result gets the number `next`; of the results before,
    /// `undelivered` are on disk and the others released.
    pub(crate) fn new(next: OutSeq, undelivered: u64) -> Self {
        let (fresh, releasing) = (VecDeque::new(), BTreeSet::new());
        Self { fresh, bytes: 0, next, undelivered, releasing }
    }

    /// Adds a result; returns its sequence number.
    pub(crate) fn put(&mut self, result: Arc<Finished>) -> OutSeq {
        let seq = self.next;
        self.next = OutSeq(seq.0 + 1);
        self.undelivered += 1;
        self.bytes += result.bytes.len();
        self.fresh.push_back(RecentResult { seq, result, on_disk: false, held_back: false });
        self.trim(OutSeq(0));
        seq
    }

    /// How many results the broker has not confirmed.
    pub(crate) fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// Forgets results that the broker has confirmed, on disk or not.
    pub(crate) fn release(&mut self, seqs: &[OutSeq]) {
        for seq in seqs {
            if self.releasing.insert(*seq) {
                self.undelivered = self.undelivered.saturating_sub(1);
            }
            if let Some(at) = self.find(*seq)
                && let Some(fresh) = self.fresh.remove(at)
            {
                self.bytes -= fresh.result.bytes.len();
            }
        }
    }

    /// Notes that the disk has released results.
    pub(crate) fn released(&mut self, seqs: &[OutSeq]) {
        for seq in seqs {
            self.releasing.remove(seq);
        }
    }

    /// Holds a result back that was just added.
    pub(crate) fn hold_back(&mut self, seq: OutSeq) {
        if let Some(at) = self.find(seq) {
            self.fresh[at].held_back = true;
        }
    }

    /// Notes that results are on disk.
    pub(crate) fn on_disk(&mut self, seqs: &[OutSeq]) {
        for seq in seqs {
            if let Some(at) = self.find(*seq) {
                self.fresh[at].on_disk = true;
            }
        }
        self.trim(OutSeq(0));
    }

    /// The results from `next` on: at most `max_records`, at most `max_bytes`
    /// unless the first alone is larger.
    pub(crate) fn from(&mut self, next: OutSeq, max_records: usize, max_bytes: usize) -> Next {
        self.trim(next);
        let start = self.position(next);
        let mut bytes = 0;
        let mut taken = Vec::new();
        for (expected, RecentResult { seq, result, on_disk, held_back }) in
            (next.0..).zip(self.fresh.range(start..))
        {
            bytes += result.bytes.len();
            let full = taken.len() == max_records || (bytes > max_bytes && !taken.is_empty());
            if seq.0 != expected || full || (*held_back && !on_disk) {
                break;
            }
            taken.push((*seq, Arc::clone(result)));
        }
        if !taken.is_empty() {
            Next::Fresh(taken)
        } else if next >= self.next {
            Next::None
        } else {
            Next::Disk(self.fresh.get(start).map_or(self.next, |fresh| fresh.seq))
        }
    }

    /// The results to be sent, of all that the disk has in a range. Releases of results that
    /// it has no longer need not be remembered.
    pub(crate) fn unreleased(
        &mut self,
        range: Range<OutSeq>,
        page: Vec<OutboxRecord>,
    ) -> Vec<OutboxRecord> {
        let (releases, records) =
            page.into_iter().partition::<Vec<_>, _>(|record| self.releasing.contains(&record.seq));
        self.releasing.retain(|seq| !range.contains(seq));
        self.releasing.extend(releases.iter().map(|record| record.seq));
        records
    }

    /// Where `seq` is, or would be.
    fn position(&self, seq: OutSeq) -> usize {
        self.fresh.partition_point(|fresh| fresh.seq < seq)
    }

    /// Where `seq` is, if it is in memory.
    fn find(&self, seq: OutSeq) -> Option<usize> {
        let at = self.position(seq);
        self.fresh.get(at).filter(|fresh| fresh.seq == seq).map(|_| at)
    }

    /// Drops the oldest results that are on disk: all before `next`, and more where there
    /// are too many.
    fn trim(&mut self, next: OutSeq) {
        while let Some(oldest) = self.fresh.front().filter(|oldest| oldest.on_disk) {
            let much = self.fresh.len() > MAX_RECORDS || self.bytes > MAX_BYTES;
            if oldest.seq >= next && !much {
                return;
            }
            self.bytes -= oldest.result.bytes.len();
            self.fresh.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::{Attempt, TaskId};

    fn result(size: usize) -> Arc<Finished> {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        Arc::new(Finished { attempt, bytes: vec![0; size] })
    }

    fn seqs(next: Next) -> Vec<u64> {
        match next {
            Next::Fresh(records) => records.iter().map(|(seq, _)| seq.0).collect(),
            Next::Disk(_) | Next::None => panic!("not fresh: {next:?}"),
        }
    }

    #[test]
    fn one_that_is_held_back_is_read_from_disk_unless_it_is_known_to_be_there() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        let [first, second, third] = [(); 3].map(|()| outbox.put(result(1)));
        outbox.hold_back(second);
        assert_eq!(seqs(outbox.from(first, 10, 1000)), [0]);
        assert_eq!(outbox.from(second, 10, 1000), Next::Disk(second));
        assert_eq!(seqs(outbox.from(third, 10, 1000)), [2]);
        outbox.on_disk(&[second]);
        assert_eq!(seqs(outbox.from(second, 10, 1000)), [1, 2]);
    }

    #[test]
    fn a_publisher_that_keeps_up_is_served_from_memory() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::None);
        assert_eq!([outbox.put(result(1)), outbox.put(result(1))], [OutSeq(0), OutSeq(1)]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0, 1]);
        outbox.on_disk(&[OutSeq(0), OutSeq(1)]);
        assert_eq!(outbox.from(OutSeq(2), 10, 1000), Next::None);
    }

    #[test]
    fn a_publisher_that_is_behind_reads_the_disk_up_to_what_memory_holds() {
        let mut outbox = Outbox::new(OutSeq(7), 7);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(7)));
        outbox.put(result(1));
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(7)));
        assert_eq!(seqs(outbox.from(OutSeq(7), 10, 1000)), [7]);
    }

    #[test]
    fn memory_is_bounded_and_the_overflow_is_left_to_the_disk() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        let count = MAX_RECORDS as u64 + 5;
        for seq in 0..count {
            outbox.put(result(1));
            outbox.on_disk(&[OutSeq(seq)]);
        }
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(5)));
        outbox.put(result(MAX_BYTES + 1));
        outbox.on_disk(&[OutSeq(count)]);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(count + 1)));
    }

    #[test]
    fn what_is_not_on_disk_stays_though_it_was_sent_and_is_found_by_the_next_link() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        outbox.put(result(MAX_BYTES + 1));
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0]);
        assert_eq!(outbox.from(OutSeq(1), 10, 1000), Next::None);
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0], "a new link starts anew");
        outbox.on_disk(&[OutSeq(0)]);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(1)));
    }

    #[test]
    fn what_was_released_is_not_sent_by_the_next_link_though_an_earlier_one_waits() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        for _ in 0..3 {
            outbox.put(result(1));
        }
        outbox.release(&[OutSeq(1)]);
        outbox.release(&[OutSeq(1)]);
        assert_eq!(outbox.undelivered(), 2);
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0]);
        assert_eq!(outbox.from(OutSeq(1), 10, 1000), Next::Disk(OutSeq(2)));
        assert_eq!(seqs(outbox.from(OutSeq(2), 10, 1000)), [2]);
    }

    #[test]
    fn a_take_is_bounded_by_number_and_bytes_but_never_empty() {
        let mut outbox = Outbox::new(OutSeq(0), 0);
        for _ in 0..5 {
            outbox.put(result(100));
        }
        assert_eq!(seqs(outbox.from(OutSeq(0), 2, 1000)), [0, 1]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 9, 250)), [0, 1]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 9, 10)), [0]);
    }
}
