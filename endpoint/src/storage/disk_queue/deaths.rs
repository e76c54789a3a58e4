//! How often the daemon died while a task ran, counted when the next daemon opens the
//! queue. Kept under task and attempt, not under a sequence number: a task may kill its
//! daemon before its acceptance is on disk, and is delivered again then.

use super::Error;
use super::packing::RecordStore;
use super::record::{self, Space};
use super::running::Run;
use super::store::Writes;
use crate::storage::spool::Spool;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::system::clock::now_ms;
use std::collections::HashMap;
use uuid::Uuid;

/// How long the count of a task is kept that has not come back, in
/// milliseconds: 30 days. It may have gone to another endpoint, or be
/// withdrawn.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// How often the daemon died while a task ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Deaths {
    /// How often.
    pub(crate) count: u64,
    /// When the run began that was the last to end so, in milliseconds since
    /// the Unix epoch.
    pub(crate) last_started_at_ms: u64,
}

impl Deaths {
    fn encode(self) -> Vec<u8> {
        record::encode_numbers(&[self.count, self.last_started_at_ms])
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let [count, last_started_at_ms] = record::decode_numbers(content)?;
        Some(Self { count, last_started_at_ms })
    }
}

/// The counts of the tasks with which the daemon died.
#[derive(Default)]
pub(super) struct DeathCounts(HashMap<Attempt, Deaths>);

impl DeathCounts {
    /// Reads the counts, and counts one death more for each of `left`, the runs that ended
    /// with the last daemon. Durable before any task starts.
    pub(super) fn load(
        records: &RecordStore,
        spool: &Spool,
        is_pending: impl Fn(Attempt) -> bool,
        left: &[Run],
    ) -> Result<Self, Error> {
        let mut counts = HashMap::<Attempt, Deaths>::new();
        let mut writes = Writes::default();
        let now = now_ms();
        for entry in records.scan(Space::Deaths, &[Space::Deaths as u8]) {
            let (raw, value) = entry?;
            let deaths = record::unseal(&raw, &value).and_then(Deaths::decode);
            let (Some(attempt), Some(deaths)) = (decode_key(&raw), deaths) else {
                records.quarantine(&mut writes, (raw, value), None, spool);
                continue;
            };
            if is_pending(attempt) || now.saturating_sub(deaths.last_started_at_ms) < KEPT_MS {
                counts.insert(attempt, deaths);
            } else {
                writes.remove(&raw);
            }
        }
        for Run { attempt, started_at_ms } in left {
            let deaths = counts.entry(*attempt).or_default();
            deaths.count += 1;
            deaths.last_started_at_ms = *started_at_ms;
            writes.put(&key(*attempt), &deaths.encode());
            tracing::warn!(task = %attempt, deaths = deaths.count, "the daemon died while a task ran");
        }
        records.commit(writes)?;
        Ok(Self(counts))
    }

    /// The count of each task with which the daemon ever died.
    pub(super) fn all(&self) -> &HashMap<Attempt, Deaths> {
        &self.0
    }

    /// Forgets the counts of tasks that have their results.
    pub(super) fn forget(&mut self, writes: &mut Writes, finished: &[Attempt]) {
        for attempt in finished {
            if self.0.remove(attempt).is_some() {
                writes.remove(&key(*attempt));
            }
        }
    }
}

fn key(attempt: Attempt) -> Vec<u8> {
    let task = attempt.task_id.0.as_bytes();
    [&[Space::Deaths as u8], &task[..], &attempt.attempt.to_be_bytes()].concat()
}

fn decode_key(raw: &[u8]) -> Option<Attempt> {
    let (task_id, rest) = raw.get(1..)?.split_first_chunk()?;
    let attempt = u32::from_be_bytes(rest.try_into().ok()?);
    Some(Attempt { task_id: TaskId(Uuid::from_bytes(*task_id)), attempt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_survives_as_bytes() {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 7 };
        assert_eq!(decode_key(&key(attempt)), Some(attempt));
        assert_eq!(decode_key(&key(attempt)[1..]), None);
        let deaths = Deaths { count: 2, last_started_at_ms: u64::MAX };
        assert_eq!(Deaths::decode(&deaths.encode()), Some(deaths));
    }
}
