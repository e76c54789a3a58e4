//! Keys and values of the disk queue, as bytes. Pure.
//!
//! The first byte of a key is its [`Space`]. A record's key carries its
//! sequence number, task and attempt, and whether its payload is in the spool,
//! so a record whose value is damaged still says what was lost. A value is a
//! CRC-32 over key and content, then the content.

use crate::spool::Place;
use clutch_common::id::{Attempt, TaskId};
use uuid::Uuid;

/// The largest payload that lies in its record, in bytes; a larger one is
/// spooled. The store keeps at least 256 pages of some 17 records in memory.
pub(crate) const INLINE_MAX: usize = 1536;

const CRC: usize = 4;

/// The kinds of keys, in the order they lie on disk. What is rewritten with
/// every commit lies last, away from the payloads, because the store rewrites
/// neighbours together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Space {
    /// How often the daemon died while a task ran.
    Deaths = b'd',
    /// Tasks accepted and not finished.
    Inbox = b'i',
    /// Format version and state id.
    Meta = b'm',
    /// Results not yet released.
    Outbox = b'o',
    /// Packs of results, for a second time.
    Twin = b'p',
    /// Damaged records, under their old key.
    Quarantine = b'q',
    /// Attempts finished, oldest first.
    Seen = b's',
    /// The next sequence numbers.
    Counters = b't',
    /// Marks of tasks whose start is on disk.
    Started = b'u',
    /// Marks of tasks that somebody else may be given as well.
    Unsecured = b'v',
}

/// Where a record's payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// In the record.
    Inline,
    /// In a spool file; the record holds its [`Place`].
    Spooled,
}

/// The key of an inbox or outbox record, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// [`Space::Inbox`] or [`Space::Outbox`].
    pub(crate) space: Space,
    /// The sequence number.
    pub(crate) seq: u64,
    /// What the record is about.
    pub(crate) attempt: Attempt,
    /// Where its payload is.
    pub(crate) form: Form,
}

impl Key {
    const LEN: usize = 1 + 8 + 16 + 4 + 1;

    /// As bytes; they sort by sequence number.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = numbered(self.space, self.seq);
        bytes.extend_from_slice(self.attempt.task_id.0.as_bytes());
        bytes.extend_from_slice(&self.attempt.attempt.to_be_bytes());
        bytes.push(match self.form {
            Form::Inline => 0,
            Form::Spooled => 1,
        });
        bytes
    }

    /// From bytes; none if they are not the key of a record.
    #[must_use]
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::LEN {
            return None;
        }
        let (&space, rest) = bytes.split_first()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (task_id, rest) = rest.split_first_chunk()?;
        let (attempt, rest) = rest.split_first_chunk()?;
        Some(Self {
            space: [Space::Inbox, Space::Outbox].into_iter().find(|known| *known as u8 == space)?,
            seq: u64::from_be_bytes(*seq),
            attempt: Attempt {
                task_id: TaskId(Uuid::from_bytes(*task_id)),
                attempt: u32::from_be_bytes(*attempt),
            },
            form: match rest {
                [0] => Form::Inline,
                [1] => Form::Spooled,
                _ => return None,
            },
        })
    }
}

/// The start of every key in `space` numbered `number`; for [`Space::Seen`],
/// [`Space::Started`] and [`Space::Unsecured`] the whole key.
#[must_use]
pub(crate) fn numbered(space: Space, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Key::LEN);
    bytes.push(space as u8);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// The number in a key made by [`numbered`] or [`Key::encode`].
#[must_use]
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A key by name.
#[must_use]
pub(crate) fn named(space: Space, name: &str) -> Vec<u8> {
    [&[space as u8], name.as_bytes()].concat()
}

/// The value that holds `content` under `key`.
#[must_use]
pub(crate) fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC + content.len());
    value.extend_from_slice(&checksum(key, content).to_le_bytes());
    value.extend_from_slice(content);
    value
}

/// The content of a value under `key`; none if it is damaged.
#[must_use]
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, content) = value.split_first_chunk()?;
    (u32::from_le_bytes(*crc) == checksum(key, content)).then_some(content)
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// A list of numbers as content.
#[must_use]
pub(crate) fn encode_numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Exactly `N` numbers from content.
#[must_use]
pub(crate) fn decode_numbers<const N: usize>(content: &[u8]) -> Option<[u64; N]> {
    let (chunks, []) = content.as_chunks::<8>() else { return None };
    let numbers: Vec<u64> = chunks.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    numbers.try_into().ok()
}

/// The content of a record whose payload is spooled.
#[must_use]
pub(crate) fn encode_place(place: Place) -> Vec<u8> {
    let Place { file, offset, len, crc } = place;
    encode_numbers(&[file, offset, len, u64::from(crc)])
}

/// Where the payload is, from the content of a record.
#[must_use]
pub(crate) fn decode_place(content: &[u8]) -> Option<Place> {
    let [file, offset, len, crc] = decode_numbers(content)?;
    Some(Place { file, offset, len, crc: u32::try_from(crc).ok()? })
}

/// The spool file of an inbox or outbox record; none if its payload is inline
/// or the record damaged.
#[must_use]
pub(crate) fn spool_file(raw: &[u8], value: &[u8]) -> Option<u64> {
    Key::decode(raw).filter(|key| key.form == Form::Spooled)?;
    Some(decode_place(unseal(raw, value)?)?.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seq: u64, attempt: u32, spooled: bool) -> Key {
        Key {
            space: Space::Outbox,
            seq,
            attempt: Attempt { task_id: TaskId::new(), attempt },
            form: if spooled { Form::Spooled } else { Form::Inline },
        }
    }

    proptest! {
        #[test]
        fn keys_survive_and_sort_by_sequence(a: u64, b: u64, attempt: u32, spooled: bool) {
            let (first, second) = (key(a, attempt, spooled), key(b, attempt, spooled));
            prop_assert_eq!(Key::decode(&first.encode()), Some(first));
            prop_assert_eq!(number(&first.encode()), Some(a));
            if a != b {
                prop_assert_eq!(first.encode().cmp(&second.encode()), a.cmp(&b));
            }
        }

        #[test]
        fn foreign_keys_and_values_never_panic(bytes: Vec<u8>) {
            let _ = (Key::decode(&bytes), number(&bytes), unseal(b"k", &bytes));
            let _ = (decode_place(&bytes), decode_numbers::<3>(&bytes));
        }

        #[test]
        fn any_flipped_bit_is_noticed(content: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let mut value = seal(b"key", &content);
            prop_assert_eq!(unseal(b"key", &value), Some(&content[..]));
            prop_assert_eq!(unseal(b"kez", &value), None);
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert_eq!(unseal(b"key", &value), None);
        }
    }

    #[test]
    fn places_survive() {
        let place = Place { file: u64::MAX, offset: 3, len: 1 << 40, crc: u32::MAX };
        assert_eq!(decode_place(&encode_place(place)), Some(place));
    }
}
