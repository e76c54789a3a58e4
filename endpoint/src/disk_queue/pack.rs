//! Packs: the places of several results in one record, as bytes. Pure.
//!
//! What the store keeps of a record in memory and on disk is many times a place.
//! So where results gather, [`PACK`] of them share a record. A pack is written
//! twice, under its own key and as its twin: if one is damaged, the other still
//! says which results there are.

use super::record::{self, Space};
use crate::spool::Place;
use clutch_common::id::{Attempt, TaskId};
use uuid::Uuid;

/// How many results share a record: it has some 900 bytes.
pub(super) const PACK: usize = 16;

/// What a key ends with that is a pack's; other records end with their form.
const PACKED: u8 = 2;
const KEY: usize = 1 + 8 + 1;
const ENTRY: usize = 8 + 16 + 4 + 8 + 8 + 8 + 4;

/// A result in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packed {
    /// Its name.
    pub(super) seq: u64,
    /// What it is the result of.
    pub(super) attempt: Attempt,
    /// Where it is.
    pub(super) place: Place,
}

/// The key of the pack whose first result is, or was, named `first`.
#[must_use]
pub(super) fn key(first: u64) -> Vec<u8> {
    let mut bytes = record::numbered(Space::Outbox, first);
    bytes.push(PACKED);
    bytes
}

/// The key of its twin.
#[must_use]
pub(super) fn twin(first: u64) -> Vec<u8> {
    record::numbered(Space::Twin, first)
}

/// The name in a pack's key; none if the key is something else's.
#[must_use]
pub(super) fn first(key: &[u8]) -> Option<u64> {
    let pack = key.len() == KEY && key[0] == Space::Outbox as u8 && key[KEY - 1] == PACKED;
    if pack { record::number(key) } else { None }
}

/// Results as the content of a pack.
#[must_use]
pub(super) fn encode(results: &[Packed]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(results.len() * ENTRY);
    for Packed { seq, attempt, place } in results {
        let Place { file, offset, len, crc } = place;
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(attempt.task_id.0.as_bytes());
        bytes.extend_from_slice(&attempt.attempt.to_le_bytes());
        for number in [file, offset, len] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// Results from the content of a pack; none if it is none.
#[must_use]
pub(super) fn decode(content: &[u8]) -> Option<Vec<Packed>> {
    let (entries, []) = content.as_chunks::<ENTRY>() else { return None };
    entries.iter().map(|entry| decode_one(entry)).collect()
}

fn decode_one(entry: &[u8]) -> Option<Packed> {
    let (seq, rest) = entry.split_first_chunk()?;
    let (task_id, rest) = rest.split_first_chunk()?;
    let (attempt, rest) = rest.split_first_chunk()?;
    let (numbers, crc) = rest.split_first_chunk::<24>()?;
    let [file, offset, len] = record::decode_numbers(numbers)?;
    let crc = u32::from_le_bytes(*crc.first_chunk()?);
    let task_id = TaskId(Uuid::from_bytes(*task_id));
    Some(Packed {
        seq: u64::from_le_bytes(*seq),
        attempt: Attempt { task_id, attempt: u32::from_le_bytes(*attempt) },
        place: Place { file, offset, len, crc },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pack_survives_and_its_key_is_no_other_record() {
        let one = |seq| Packed {
            seq,
            attempt: Attempt { task_id: TaskId::new(), attempt: u32::MAX },
            place: Place { file: 3, offset: 1 << 40, len: 7, crc: u32::MAX },
        };
        let pack: Vec<Packed> = (5..21).map(one).collect();
        assert_eq!(decode(&encode(&pack)), Some(pack));
        assert_eq!(first(&key(u64::MAX)), Some(u64::MAX));
        assert_eq!(record::Key::decode(&key(1)), None);
        assert_eq!([first(&twin(1)), first(&[])], [None, None]);
    }

    proptest! {
        #[test]
        fn foreign_content_never_panics(bytes: Vec<u8>) {
            let _ = (decode(&bytes), first(&bytes));
        }
    }
}
