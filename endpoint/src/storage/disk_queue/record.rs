//! Keys and values of the disk queue, as bytes. Pure.
//!
//! The first byte of a key is its [`Space`]. A record of the inbox or the outbox
//! holds one payload or several small ones, of its *members*. Its key has the sequence
//! number, task and attempt of each, and whether the payload is in the spool, so that a
//! record with a damaged value still says what was lost. A value is a CRC-32 over key
//! and content, then the content.

use crate::storage::spool::Place;
use clutch_common::id::{Attempt, TaskId};
use uuid::Uuid;

/// The largest payload that is put into its record, in bytes; a larger one is
/// spooled. Several in a record are no larger together. The store keeps at least
/// 256 pages of some 17 records in memory.
pub(crate) const INLINE_MAX: usize = 1536;

/// How many payloads share a record at most.
pub(crate) const MEMBERS_MAX: usize = 16;

const CRC: usize = 4;
/// The size of the length that is before each payload of several, in bytes.
pub(crate) const LEN: usize = 4;

/// The kinds of keys, in the order they lie on disk. What is rewritten with
/// every commit lies last, away from the payloads, because the store rewrites
/// neighbours together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    /// Damaged records, under their old key.
    Quarantine = b'q',
    /// Attempts finished, oldest first.
    Seen = b's',
    /// The next sequence numbers.
    Counters = b't',
    /// Flags of tasks that are marked as started.
    Started = b'u',
    /// Flags of tasks that another instance may be given as well.
    Unsecured = b'v',
}

/// Where a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// In the record.
    Inline,
    /// In a spool file; the record holds its [`Place`].
    Spooled,
}

/// A task or result that a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// The sequence number.
    pub(crate) seq: u64,
    /// The attempt that it is about.
    pub(crate) attempt: Attempt,
    /// Where its payload is.
    pub(crate) form: Form,
}

impl Member {
    const LEN: usize = 8 + 16 + 4 + 1;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(self.attempt.task_id.0.as_bytes());
        bytes.extend_from_slice(&self.attempt.attempt.to_be_bytes());
        bytes.push(match self.form {
            Form::Inline => 0,
            Form::Spooled => 1,
        });
    }

    fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (task_id, rest) = rest.split_first_chunk()?;
        let (attempt, rest) = rest.split_first_chunk()?;
        Some(Self {
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

/// The key of an inbox or outbox record, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// [`Space::Inbox`] or [`Space::Outbox`].
    pub(crate) space: Space,
    /// The members: one at least, in the order of their numbers.
    pub(crate) members: Vec<Member>,
}

impl Key {
    /// As bytes; they sort by the first sequence number.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.members.len() * Member::LEN);
        bytes.push(self.space as u8);
        for member in &self.members {
            member.encode(&mut bytes);
        }
        bytes
    }

    /// From bytes; none if they are not the key of a record.
    #[must_use]
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&space, members) = bytes.split_first()?;
        let space =
            [Space::Inbox, Space::Outbox].into_iter().find(|known| *known as u8 == space)?;
        let (members, []) = members.as_chunks() else { return None };
        let members: Vec<Member> = members.iter().map(Member::decode).collect::<Option<_>>()?;
        let ordered = members.is_sorted_by(|a, b| a.seq < b.seq);
        (ordered && !members.is_empty()).then_some(Self { space, members })
    }
}

/// The start of every key in `space` numbered `number`; for [`Space::Seen`],
/// [`Space::Started`] and [`Space::Unsecured`] the whole key.
#[must_use]
pub(crate) fn numbered(space: Space, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + size_of::<u64>());
    bytes.push(space as u8);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// The first number in a key made by [`numbered`] or [`Key::encode`].
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

/// The content of a record that has the place of a spooled payload.
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

/// The content of a record with these payloads or places, one at least.
#[must_use]
pub(crate) fn join(contents: &[&[u8]]) -> Vec<u8> {
    if let [content] = contents {
        return content.to_vec();
    }
    let mut bytes = Vec::with_capacity(contents.iter().map(|content| LEN + content.len()).sum());
    for content in contents {
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// The payloads or places of `count` members; none if there are not as many.
#[must_use]
pub(crate) fn split(content: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    if count == 1 {
        return Some(vec![content]);
    }
    let (mut contents, mut rest) = (Vec::with_capacity(count), content);
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk()?;
        let (content, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        contents.push(content);
        rest = after;
    }
    rest.is_empty().then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seqs: &[u64], attempt: u32, spooled: bool) -> Key {
        let form = if spooled { Form::Spooled } else { Form::Inline };
        let member =
            |seq| Member { seq, attempt: Attempt { task_id: TaskId::new(), attempt }, form };
        Key { space: Space::Outbox, members: seqs.iter().copied().map(member).collect() }
    }

    proptest! {
        #[test]
        fn keys_survive_and_sort_by_their_first_number(
            a in prop::collection::btree_set(any::<u64>(), 1..20),
            b: u64,
            attempt: u32,
            spooled: bool,
        ) {
            let a: Vec<u64> = a.into_iter().collect();
            let (first, second) = (key(&a, attempt, spooled), key(&[b], attempt, spooled));
            prop_assert_eq!(number(&first.encode()), Some(a[0]));
            if a[0] != b {
                prop_assert_eq!(first.encode().cmp(&second.encode()), a[0].cmp(&b));
            }
            prop_assert_eq!(Key::decode(&first.encode()), Some(first));
        }

        #[test]
        fn what_shares_a_record_survives(contents: Vec<Vec<u8>>) {
            prop_assume!(!contents.is_empty());
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let joined = join(&contents);
            prop_assert_eq!(split(&joined, contents.len()), Some(contents.clone()));
            if contents.len() > 1 {
                prop_assert_eq!(split(&joined, contents.len() + 1), None);
            }
        }

        #[test]
        fn foreign_keys_and_values_never_panic(bytes: Vec<u8>, count in 1..20usize) {
            let _ = (Key::decode(&bytes), number(&bytes), unseal(b"k", &bytes));
            let _ = (decode_place(&bytes), decode_numbers::<3>(&bytes), split(&bytes, count));
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
    fn a_key_has_members_in_order() {
        assert_eq!(Key::decode(&key(&[], 1, false).encode()), None);
        assert_eq!(Key::decode(&key(&[2, 2], 1, false).encode()), None);
        assert_eq!(Key::decode(&key(&[2, 1], 1, false).encode()), None);
    }

    #[test]
    fn places_survive() {
        let place = Place { file: u64::MAX, offset: 3, len: 1 << 40, crc: u32::MAX };
        assert_eq!(decode_place(&encode_place(place)), Some(place));
    }
}
