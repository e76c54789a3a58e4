//! The content of the disk over time, from the writes and syncs of an endpoint's state
//! folder. Pure, and written from `design/0004-disk-queue.md` alone.
//!
//! The store's own format is not read. A task or a result has been written with a
//! write to the store's file that holds both what its record's key says of it, from
//! the task's id on, and what is in the record: its payload's beginning, or the place
//! of its payload in the spool, where the payload must be. It is durable with
//! the end of the first sync of that file that began after that write.

use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The sizes of a key from the task's id on (attempt, form), and of a place.
const KEY: usize = 16 + 4 + 1;
const PLACE: usize = 4 * 8;
const TASK: &[u8] = br#"{"id":""#;
const RESULT: &[u8] = br#"{"task_id":""#;
const TEMPORARY: &str = ".tmp";

/// A task by its id, and which attempt.
pub(super) type Attempt = (Uuid, u32);

/// The kind of record that keeps a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// It waits or runs.
    Inbox,
    /// It ended before its group was written: its result stands for it.
    Outbox,
    /// Its result was even released by then: it is remembered.
    Seen,
}

/// The steps that make a spooled payload durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spooled {
    /// It is not in the file that the record names.
    NotWritten,
    /// The file had not been synced when it got its name.
    FileNotSynced,
    /// The file did not have its name.
    NotNamed,
    /// The folder had not been synced since the file got its name.
    FolderNotSynced,
    /// All were taken.
    Durable,
}

/// The first record of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// When the write had ended.
    written: u64,
    /// When the sync that covers it had ended.
    pub(super) durable: Option<u64>,
    /// How its payload stood when the write began; none if it lies in the record.
    pub(super) spooled: Option<Spooled>,
}

/// A state folder's disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The attempts to look for, and the first bytes of their ids.
    known: HashMap<[u8; 16], u32>,
    firsts: HashSet<u8>,
    records: HashMap<Attempt, Record>,
    /// Those that are not durable yet.
    young: Vec<Attempt>,
    files: HashMap<String, File>,
    /// How many syncs of the store's file have succeeded.
    pub(super) syncs: usize,
}

#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    written: u64,
    synced: Option<u64>,
    /// When it was given its name, and whether it was synced by then.
    named: Option<(u64, bool)>,
    entered: Option<u64>,
}

/// The content of one write to the store's file.
#[derive(Default)]
struct Found {
    keys: Vec<(Attempt, u8)>,
    inline: HashMap<Uuid, Kind>,
    places: HashMap<Uuid, (Kind, Spooled)>,
    seen: Vec<Attempt>,
}

impl Disk {
    /// Has an attempt looked for in what is written from now on.
    pub(super) fn expect(&mut self, (task, attempt): Attempt) {
        let id = task.into_bytes();
        self.firsts.insert(id[0]);
        self.known.insert(id, attempt);
    }

    /// The first record of an attempt.
    pub(super) fn record(&self, attempt: &Attempt) -> Option<&Record> {
        self.records.get(attempt)
    }

    /// Bytes were written to the store's file.
    pub(super) fn stored(&mut self, bytes: &[u8], begun: u64, ended: u64) {
        let found = self.look(bytes, begun);
        let mut note = |attempt, kind, spooled| {
            self.records.entry(attempt).or_insert_with(|| {
                self.young.push(attempt);
                Record { kind, written: ended, durable: None, spooled }
            });
        };
        for (attempt, form) in found.keys {
            match form {
                0 => found.inline.get(&attempt.0).map(|kind| note(attempt, *kind, None)),
                _ => found.places.get(&attempt.0).map(|(kind, at)| note(attempt, *kind, Some(*at))),
            };
        }
        for attempt in found.seen {
            note(attempt, Kind::Seen, None);
        }
    }

    /// The store's file was synced.
    pub(super) fn store_synced(&mut self, begun: u64, ended: u64) {
        self.syncs += 1;
        let Self { young, records, .. } = self;
        young.retain(|attempt| {
            let Some(record) = records.get_mut(attempt) else { return false };
            let covered = record.written < begun;
            if covered {
                record.durable = Some(ended);
            }
            !covered
        });
    }

    /// Bytes were appended to a file of the spool.
    pub(super) fn spooled(&mut self, name: &str, bytes: &[u8], ended: u64) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.bytes.extend_from_slice(bytes);
        file.written = ended;
    }

    /// A file of the spool was synced.
    pub(super) fn file_synced(&mut self, name: &str, begun: u64, ended: u64) {
        if let Some(file) = self.files.get_mut(name)
            && file.written < begun
        {
            file.synced = Some(ended);
        }
    }

    /// A file of the spool was given another name.
    pub(super) fn renamed(&mut self, from: &str, to: &str, begun: u64, ended: u64) {
        if let Some(mut file) = self.files.remove(from) {
            let whole = file.synced.is_some_and(|synced| synced < begun && file.written < synced);
            file.named = Some((ended, whole));
            self.files.insert(to.to_owned(), file);
        }
    }

    /// The spool's folder was synced.
    pub(super) fn folder_synced(&mut self, begun: u64, ended: u64) {
        for file in self.files.values_mut() {
            if file.named.is_some_and(|(named, _)| named < begun) && file.entered.is_none() {
                file.entered = Some(ended);
            }
        }
    }

    /// A file of the spool was removed.
    pub(super) fn removed(&mut self, name: &str) {
        self.files.remove(name);
    }

    fn look(&self, bytes: &[u8], begun: u64) -> Found {
        let mut found = Found::default();
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            if let Some((task, kind)) = payload(rest) {
                found.inline.insert(task, kind);
            }
            if let Some((task, kind, state)) = self.place(rest, begun) {
                found.places.insert(task, (kind, state));
            }
            if !self.firsts.contains(&rest[0]) {
                continue;
            }
            let Some((id, tail)) = rest.split_first_chunk::<16>() else { continue };
            let Some(&attempt) = self.known.get(id) else { continue };
            let entry = (Uuid::from_bytes(*id), attempt);
            if tail.starts_with(&attempt.to_be_bytes()) && rest.len() >= KEY && tail[4] <= 1 {
                found.keys.push((entry, tail[4]));
            } else if tail.starts_with(&attempt.to_le_bytes()) {
                found.seen.push(entry);
            }
        }
        found
    }

    /// Reads the place of a payload from the beginning of these bytes, and how far the payload
    /// is on the disk.
    fn place(&self, bytes: &[u8], begun: u64) -> Option<(Uuid, Kind, Spooled)> {
        let (words, _) = bytes.get(..PLACE)?.as_chunks::<8>();
        let [number, offset, length, crc] = words else { return None };
        let [number, offset, length, crc] =
            [number, offset, length, crc].map(|word| u64::from_le_bytes(*word));
        // Few of all bytes are worth asking a map of files about.
        if [number, offset, length, crc].iter().any(|word| *word > u64::from(u32::MAX)) {
            return None;
        }
        let name = format!("{number:016x}");
        let file = match self.files.get(&name) {
            Some(file) => file,
            None => self.files.get(&(name + TEMPORARY))?,
        };
        let end = offset.checked_add(length)?;
        let whole = file.bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?;
        let (task, kind) = payload(whole)?;
        let right = u64::from(crc32fast::hash(whole)) == crc;
        Some((task, kind, if right { file.state(begun) } else { Spooled::NotWritten }))
    }
}

impl File {
    /// How it stood when something began.
    fn state(&self, begun: u64) -> Spooled {
        match (self.named, self.entered) {
            (None, _) => Spooled::NotNamed,
            (Some((_, false)), _) => Spooled::FileNotSynced,
            (Some(_), Some(entered)) if entered < begun => Spooled::Durable,
            (Some(_), _) => Spooled::FolderNotSynced,
        }
    }
}

/// The task that a payload is of, by its first bytes.
fn payload(bytes: &[u8]) -> Option<(Uuid, Kind)> {
    let (start, kind) = [(TASK, Kind::Inbox), (RESULT, Kind::Outbox)]
        .into_iter()
        .find(|(start, _)| bytes.starts_with(start))?;
    let id = bytes.get(start.len()..start.len() + 36)?;
    Some((Uuid::try_parse_ascii(id).ok()?, kind))
}
