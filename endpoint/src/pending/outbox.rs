//! The outbox in memory: the newest results, so that a result can leave before
//! its record is on disk. Pure state behind a lock.
//!
//! This holds every result that is not on disk yet, whether or not it was sent,
//! and a bounded number of the newest ones that are. The disk holds the rest
//! until it is released. A publisher that is behind reads from disk until it
//! has caught up. Few results are not on disk: whoever makes them waits for
//! that before making more.

use crate::storage::journal::{Finished, OutSeq};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How many of the newest results are kept in memory.
const MAX_RECORDS: usize = 1024;
/// How many bytes of them.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where the publisher finds the next records.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Here.
    Fresh(Vec<(OutSeq, Arc<Finished>)>),
    /// On disk; when the disk has none either, all before this one are released.
    Disk(OutSeq),
    /// There are none.
    None,
}

struct Fresh {
    seq: OutSeq,
    result: Arc<Finished>,
    on_disk: bool,
}

struct State {
    fresh: VecDeque<Fresh>,
    bytes: usize,
    free: OutSeq,
}

/// The outbox; shared by engine and subscriber (put), and publisher (takes).
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

impl Outbox {
    /// An outbox whose first free name is `free`; all before are on disk or
    /// released.
    pub(crate) fn new(free: OutSeq) -> Self {
        Self {
            state: Mutex::new(State { fresh: VecDeque::new(), bytes: 0, free }),
            filled: Notify::new(),
        }
    }

    /// Adds a result; they may come slightly out of order.
    pub(crate) fn put(&self, seq: OutSeq, result: Arc<Finished>) {
        let mut state = self.lock();
        state.bytes += result.bytes.len();
        let at = state.position(seq);
        state.fresh.insert(at, Fresh { seq, result, on_disk: false });
        state.free = state.free.max(OutSeq(seq.0 + 1));
        state.trim(OutSeq(0));
        drop(state);
        self.filled.notify_one();
    }

    /// Forgets results that are no longer needed, on disk or not.
    pub(crate) fn released(&self, seqs: &[OutSeq]) {
        let mut state = self.lock();
        for seq in seqs {
            let at = state.position(*seq);
            if state.fresh.get(at).is_some_and(|fresh| fresh.seq == *seq)
                && let Some(fresh) = state.fresh.remove(at)
            {
                state.bytes -= fresh.result.bytes.len();
            }
        }
    }

    /// Notes that results are on disk.
    pub(crate) fn on_disk(&self, seqs: &[OutSeq]) {
        let mut state = self.lock();
        for seq in seqs {
            let at = state.position(*seq);
            if let Some(fresh) = state.fresh.get_mut(at).filter(|fresh| fresh.seq == *seq) {
                fresh.on_disk = true;
            }
        }
        state.trim(OutSeq(0));
    }

    /// The records from `next` on: at most `max_records`, at most `max_bytes`
    /// unless the first alone is larger.
    pub(crate) fn from(&self, next: OutSeq, max_records: usize, max_bytes: usize) -> Next {
        let mut state = self.lock();
        state.trim(next);
        let start = state.position(next);
        let mut bytes = 0;
        let mut taken = Vec::new();
        for (expected, Fresh { seq, result, .. }) in (next.0..).zip(state.fresh.range(start..)) {
            bytes += result.bytes.len();
            let full = taken.len() == max_records || (bytes > max_bytes && !taken.is_empty());
            if seq.0 != expected || full {
                break;
            }
            taken.push((*seq, Arc::clone(result)));
        }
        if !taken.is_empty() {
            Next::Fresh(taken)
        } else if next >= state.free {
            Next::None
        } else {
            Next::Disk(state.fresh.get(start).map_or(state.free, |fresh| fresh.seq))
        }
    }

    /// Waits until a result may have been put since the last look.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where `seq` is, or would be.
    fn position(&self, seq: OutSeq) -> usize {
        self.fresh.partition_point(|fresh| fresh.seq < seq)
    }

    /// Drops the oldest of those on disk: all before `next`, and what is too
    /// much.
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
    fn a_publisher_that_keeps_up_is_served_from_memory() {
        let outbox = Outbox::new(OutSeq(0));
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::None);
        outbox.put(OutSeq(1), result(1));
        outbox.put(OutSeq(0), result(1));
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0, 1]);
        outbox.on_disk(&[OutSeq(0), OutSeq(1)]);
        assert_eq!(outbox.from(OutSeq(2), 10, 1000), Next::None);
    }

    #[test]
    fn a_publisher_that_is_behind_reads_the_disk_up_to_what_memory_holds() {
        let outbox = Outbox::new(OutSeq(7));
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(7)));
        outbox.put(OutSeq(7), result(1));
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(7)));
        assert_eq!(seqs(outbox.from(OutSeq(7), 10, 1000)), [7]);
    }

    #[test]
    fn a_gap_is_never_jumped_over() {
        let outbox = Outbox::new(OutSeq(0));
        outbox.put(OutSeq(0), result(1));
        outbox.put(OutSeq(2), result(1));
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0]);
        assert_eq!(outbox.from(OutSeq(1), 10, 1000), Next::Disk(OutSeq(2)));
    }

    #[test]
    fn memory_is_bounded_and_the_overflow_is_left_to_the_disk() {
        let outbox = Outbox::new(OutSeq(0));
        let count = MAX_RECORDS as u64 + 5;
        for seq in 0..count {
            outbox.put(OutSeq(seq), result(1));
            outbox.on_disk(&[OutSeq(seq)]);
        }
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(5)));
        outbox.put(OutSeq(count), result(MAX_BYTES + 1));
        outbox.on_disk(&[OutSeq(count)]);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(count + 1)));
    }

    #[test]
    fn what_is_not_on_disk_stays_though_it_was_sent_and_is_found_by_the_next_link() {
        let outbox = Outbox::new(OutSeq(0));
        outbox.put(OutSeq(0), result(MAX_BYTES + 1));
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0]);
        assert_eq!(outbox.from(OutSeq(1), 10, 1000), Next::None);
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0], "a new link starts anew");
        outbox.on_disk(&[OutSeq(0)]);
        assert_eq!(outbox.from(OutSeq(0), 10, 1000), Next::Disk(OutSeq(1)));
    }

    #[test]
    fn what_was_released_is_not_sent_by_the_next_link_though_an_earlier_one_waits() {
        let outbox = Outbox::new(OutSeq(0));
        for seq in 0..3 {
            outbox.put(OutSeq(seq), result(1));
        }
        outbox.released(&[OutSeq(1), OutSeq(7)]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 10, 1000)), [0]);
        assert_eq!(outbox.from(OutSeq(1), 10, 1000), Next::Disk(OutSeq(2)));
        assert_eq!(seqs(outbox.from(OutSeq(2), 10, 1000)), [2]);
    }

    #[test]
    fn a_take_is_bounded_by_number_and_bytes_but_never_empty() {
        let outbox = Outbox::new(OutSeq(0));
        for seq in 0..5 {
            outbox.put(OutSeq(seq), result(100));
        }
        assert_eq!(seqs(outbox.from(OutSeq(0), 2, 1000)), [0, 1]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 9, 250)), [0, 1]);
        assert_eq!(seqs(outbox.from(OutSeq(0), 9, 10)), [0]);
    }
}
