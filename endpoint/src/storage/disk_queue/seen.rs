//! The index of the history: the highest attempt at each task that was accepted or
//! finished, so that a redelivery is known for one. Pure.
//!
//! Attempts under way and those that finished last are held exactly. Older ones are on disk
//! in *runs* of some thousand, a file each; of each run memory keeps the range of its ids
//! and a Bloom filter (2 bytes per attempt), which says whether the run is worth reading.
//! Ids sort by time, so nearly always none or one is.

use clutch_common::id::{Attempt, TaskId};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use uuid::Uuid;

const ENTRY: usize = 16 + 4;
const RUN_MAX: usize = 2048;
const FILTER_BITS_PER_ENTRY: usize = 16;
const FILTER_PROBES: u64 = 8;

/// How many attempts a run holds when `seen_max` are to be kept: few enough
/// to forget in small steps.
#[must_use]
pub(crate) fn run_len(seen_max: usize) -> usize {
    (seen_max / 8).clamp(1, RUN_MAX)
}

/// Attempts as bytes.
#[must_use]
pub(crate) fn encode(attempts: &[Attempt]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(attempts.len() * ENTRY);
    for attempt in attempts {
        bytes.extend_from_slice(attempt.task_id.0.as_bytes());
        bytes.extend_from_slice(&attempt.attempt.to_le_bytes());
    }
    bytes
}

/// Attempts from bytes.
#[must_use]
pub(crate) fn decode(content: &[u8]) -> Option<Vec<Attempt>> {
    let (entries, []) = content.as_chunks::<ENTRY>() else { return None };
    entries
        .iter()
        .map(|entry| {
            let (task_id, rest) = entry.split_first_chunk()?;
            Some(Attempt {
                task_id: TaskId(Uuid::from_bytes(*task_id)),
                attempt: u32::from_le_bytes(*rest.first_chunk()?),
            })
        })
        .collect()
}

/// The highest attempt at `task` among `attempts`.
#[must_use]
pub(crate) fn highest(attempts: &[Attempt], task: TaskId) -> Option<u32> {
    attempts.iter().filter(|seen| seen.task_id == task).map(|seen| seen.attempt).max()
}

/// A run on disk: its number, the range of its ids, and its filter.
#[derive(Debug)]
struct IndexedRun {
    number: u64,
    len: usize,
    low: TaskId,
    high: TaskId,
    filter: Box<[u64]>,
}

/// The attempts held exactly, and the runs.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<TaskId, u32>,
    runs: VecDeque<IndexedRun>,
    in_runs: usize,
}

impl Index {
    /// Holds an attempt exactly.
    pub(crate) fn note(&mut self, attempt: Attempt) {
        let highest = self.exact.entry(attempt.task_id).or_insert(attempt.attempt);
        *highest = attempt.attempt.max(*highest);
    }

    /// Takes back the note of an attempt; `before` was the highest one before it.
    pub(crate) fn unnote(&mut self, attempt: Attempt, before: Option<u32>) {
        if self.exact.get(&attempt.task_id) != Some(&attempt.attempt) {
            return;
        }
        match before {
            Some(before) => self.exact.insert(attempt.task_id, before),
            None => self.exact.remove(&attempt.task_id),
        };
    }

    /// Hands attempts over to the run `number`, which is on disk.
    pub(crate) fn seal(&mut self, number: u64, attempts: &[Attempt]) {
        let Some(run) = IndexedRun::new(number, attempts) else { return };
        self.in_runs += run.len;
        self.runs.push_back(run);
        for attempt in attempts {
            if self.exact.get(&attempt.task_id) == Some(&attempt.attempt) {
                self.exact.remove(&attempt.task_id);
            }
        }
    }

    /// Forgets the oldest run if at least `keep` attempts remain in the others.
    pub(crate) fn forget(&mut self, keep: usize) -> Option<u64> {
        let oldest = self.runs.front()?;
        if self.in_runs - oldest.len < keep {
            return None;
        }
        self.in_runs -= oldest.len;
        self.runs.pop_front().map(|run| run.number)
    }

    /// The highest attempt held exactly, and the runs that may hold another.
    #[must_use]
    pub(crate) fn look_up(&self, task: TaskId) -> (Option<u32>, Vec<u64>) {
        let runs = self.runs.iter().filter(|run| run.may_hold(task)).map(|run| run.number);
        (self.exact.get(&task).copied(), runs.collect())
    }
}

impl IndexedRun {
    fn new(number: u64, attempts: &[Attempt]) -> Option<Self> {
        let ids = || attempts.iter().map(|attempt| attempt.task_id);
        let words = (attempts.len() * FILTER_BITS_PER_ENTRY).div_ceil(64);
        let mut filter = vec![0; words].into_boxed_slice();
        for id in ids() {
            for (word, mask) in probes(id, words) {
                filter[word] |= mask;
            }
        }
        Some(Self { number, len: attempts.len(), low: ids().min()?, high: ids().max()?, filter })
    }

    fn may_hold(&self, task: TaskId) -> bool {
        (self.low..=self.high).contains(&task)
            && probes(task, self.filter.len()).all(|(word, mask)| self.filter[word] & mask != 0)
    }
}

fn probes(task: TaskId, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let mut hasher = DefaultHasher::new();
    task.hash(&mut hasher);
    let first = hasher.finish();
    let step = first.rotate_left(32) | 1;
    (0..FILTER_PROBES).map(move |probe| {
        let hash = first.wrapping_add(probe.wrapping_mul(step));
        let bit = usize::try_from(hash % (words as u64 * 64)).unwrap_or(0);
        (bit / 64, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(count: usize, n: u32) -> Vec<Attempt> {
        (0..count).map(|_| Attempt { task_id: TaskId(Uuid::new_v4()), attempt: n }).collect()
    }

    #[test]
    fn a_run_survives() {
        let run = attempts(RUN_MAX, 7);
        assert_eq!(decode(&encode(&run)), Some(run));
        assert_eq!(decode(&[0; ENTRY + 1]), None);
    }

    #[test]
    fn a_run_never_misses_what_it_holds_and_rarely_claims_what_it_does_not() {
        let mut index = Index::default();
        let run = attempts(RUN_MAX, 1);
        index.seal(3, &run);
        assert!(run.iter().all(|held| index.look_up(held.task_id) == (None, vec![3])));
        let wrong = attempts(10_000, 1)
            .iter()
            .filter(|other| !index.look_up(other.task_id).1.is_empty())
            .count();
        assert!(wrong < 50, "{wrong} of 10000");
    }

    #[test]
    fn sealing_keeps_what_is_newer_than_the_run() {
        let mut index = Index::default();
        let first = attempts(1, 1)[0];
        let second = Attempt { attempt: 2, ..first };
        index.note(first);
        index.note(second);
        index.seal(0, &[first]);
        assert_eq!(index.look_up(first.task_id), (Some(2), vec![0]));
        index.seal(1, &[second]);
        assert_eq!(index.look_up(first.task_id), (None, vec![0, 1]));
    }

    #[test]
    fn what_was_noted_is_taken_back_in_the_reverse_order() {
        let mut index = Index::default();
        let first = attempts(1, 1)[0];
        let second = Attempt { attempt: 2, ..first };
        let highest = |index: &Index| index.look_up(first.task_id).0;
        index.note(first);
        index.note(second);
        index.unnote(second, Some(1));
        assert_eq!(highest(&index), Some(1));
        index.note(second);
        index.unnote(first, None);
        assert_eq!(highest(&index), Some(2), "a later one was noted meanwhile");
        index.unnote(second, None);
        assert_eq!(highest(&index), None);
    }

    #[test]
    fn the_oldest_run_goes_first_and_only_when_enough_remain() {
        let mut index = Index::default();
        for number in 0..3 {
            index.seal(number, &attempts(4, 1));
        }
        assert_eq!(index.forget(8), Some(0));
        assert_eq!(index.forget(8), None);
        assert_eq!(index.forget(4), Some(1));
    }
}
