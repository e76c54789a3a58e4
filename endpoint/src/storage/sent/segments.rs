//! The files of the sent log. Touches the log's own folder and nothing else.
//!
//! A segment is a file with its number as its name; records are appended to the newest.
//! A record is, little-endian, the CRC-32 of all that follows it (u32), the length of
//! the result (u32), task id (16 bytes), attempt (u32) and the result as on the wire.
//! A segment that a crash has torn ends at its first record that is not whole; later records
//! are appended to another one. Whole segments are removed, the oldest first, when all of
//! them are too large together, or when one is too old.

use super::{Recalled, SentConfig};
use crate::storage::journal::Finished;
use clutch_common::id::{Attempt, TaskId};
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use uuid::Uuid;

/// A segment has at most this share of all that is kept, in bytes and in time.
const SHARE: u64 = 8;
const HEADER: usize = 28;

/// The segment that is written to.
struct Open {
    file: File,
    bytes: u64,
    begun_ms: u64,
}

pub(super) struct Segments {
    config: SentConfig,
    open: Option<Open>,
    next: u64,
}

impl Segments {
    /// The segments in a folder, without those that are too old.
    pub(super) fn open(config: SentConfig, now_ms: u64) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&config.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut segments = Self { config, open: None, next: 0 };
        segments.next = segments.numbers()?.last().map_or(0, |last| last + 1);
        segments.prune(now_ms)?;
        Ok(segments)
    }

    /// The attempt of the newest record.
    pub(super) fn last(&self) -> io::Result<Option<Attempt>> {
        for number in self.numbers()?.into_iter().rev() {
            let mut last = None;
            self.read(number, |attempt, _| {
                last = Some(attempt);
                false
            })?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }

    /// Appends results. One that is larger than a segment is not kept.
    pub(super) fn append(&mut self, now_ms: u64, results: &[Arc<Finished>]) -> io::Result<()> {
        let most = self.config.keep_bytes / SHARE;
        let mut records = Vec::new();
        for result in results.iter().filter(|result| (result.bytes.len() as u64) < most) {
            encode(&mut records, result);
        }
        if records.is_empty() {
            return Ok(());
        }
        let span = millis(self.config.keep) / SHARE;
        let full = |open: &Open| open.bytes >= most || now_ms.saturating_sub(open.begun_ms) > span;
        if self.open.as_ref().is_none_or(full) {
            self.open = None;
            self.prune(now_ms)?;
            self.open = Some(self.begin(now_ms)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.bytes += records.len() as u64;
        let written = open.file.write_all(&records);
        if written.is_err() {
            // It may end in a part of a record, after which nothing could be read.
            self.open = None;
        }
        written
    }

    /// The results of these attempts: at most so many bytes of them, one result more
    /// or less, the newest segments first.
    pub(super) fn recall(
        &self,
        mut wanted: HashSet<Attempt>,
        max_bytes: usize,
    ) -> io::Result<Recalled> {
        let mut recalled = Recalled::default();
        let mut bytes = 0;
        for number in self.numbers()?.into_iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let more = &mut recalled.more;
            let found = self.read(number, |attempt, length| {
                let here = wanted.contains(&attempt) && !more.contains(&attempt);
                if here && bytes >= max_bytes {
                    more.insert(attempt);
                    return false;
                }
                bytes += if here { length } else { 0 };
                here
            })?;
            for result in found {
                if wanted.remove(&result.attempt) {
                    recalled.found.push(result);
                }
            }
        }
        Ok(recalled)
    }

    /// Reads a segment up to where it is sound: the results that are wanted.
    fn read(
        &self,
        number: u64,
        mut wants: impl FnMut(Attempt, usize) -> bool,
    ) -> io::Result<Vec<Finished>> {
        let file = match File::open(self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut left = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut found = Vec::new();
        let mut header = [0; HEADER];
        while left >= HEADER as u64 {
            file.read_exact(&mut header)?;
            left -= HEADER as u64;
            let Some((crc, length, attempt)) = parse(&header) else { break };
            if u64::from(length) > left {
                break;
            }
            left -= u64::from(length);
            if wants(attempt, length as usize) {
                let mut bytes = vec![0; length as usize];
                file.read_exact(&mut bytes)?;
                if checksum(&header, &bytes) != crc {
                    break;
                }
                found.push(Finished { attempt, bytes });
            } else {
                file.seek_relative(i64::from(length))?;
            }
        }
        Ok(found)
    }

    fn begin(&mut self, now_ms: u64) -> io::Result<Open> {
        let number = self.next;
        self.next += 1;
        let mut options = OpenOptions::new();
        let file = options.create_new(true).append(true).mode(0o600).open(self.path(number))?;
        Ok(Open { file, bytes: 0, begun_ms: now_ms })
    }

    /// Removes what is too much or too old, whole segments.
    fn prune(&self, now_ms: u64) -> io::Result<()> {
        let oldest_ms = now_ms.saturating_sub(millis(self.config.keep));
        let mut kept = 0;
        for number in self.numbers()?.into_iter().rev() {
            let about = std::fs::metadata(self.path(number))?;
            let written = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            kept += about.len();
            if kept > self.config.keep_bytes || millis(written) < oldest_ms {
                std::fs::remove_file(self.path(number))?;
            }
        }
        Ok(())
    }

    /// The segments, the oldest first.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.config.path)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.config.path.join(format!("{number:016x}"))
    }
}

fn encode(records: &mut Vec<u8>, result: &Finished) {
    let length = u32::try_from(result.bytes.len()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..24].copy_from_slice(result.attempt.task_id.0.as_bytes());
    header[24..].copy_from_slice(&result.attempt.attempt.to_le_bytes());
    let crc = checksum(&header, &result.bytes);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    records.extend_from_slice(&header);
    records.extend_from_slice(&result.bytes);
}

fn parse(header: &[u8; HEADER]) -> Option<(u32, u32, Attempt)> {
    let number =
        |from: usize| Some(u32::from_le_bytes(header.get(from..from + 4)?.try_into().ok()?));
    let task_id = TaskId(Uuid::from_slice(header.get(8..24)?).ok()?);
    Some((number(0)?, number(4)?, Attempt { task_id, attempt: number(24)? }))
}

fn checksum(header: &[u8; HEADER], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[4..]);
    hasher.update(bytes);
    hasher.finalize()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn result(bytes: usize) -> Arc<Finished> {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        Arc::new(Finished { attempt, bytes: vec![b'x'; bytes] })
    }

    fn config(folder: &tempfile::TempDir) -> SentConfig {
        let (path, keep) = (folder.path().join("sent"), Duration::from_millis(HOUR_MS));
        SentConfig { path, keep, keep_bytes: 8000 }
    }

    fn now() -> u64 {
        clutch_common::system::clock::now_ms()
    }

    fn recalls(segments: &Segments, result: &Finished) -> bool {
        let wanted = HashSet::from([result.attempt]);
        !segments.recall(wanted, usize::MAX).unwrap().found.is_empty()
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much_and_never_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        let results: Vec<_> = (0..100).map(|_| result(500)).collect();
        for one in &results {
            segments.append(now(), std::slice::from_ref(one)).unwrap();
        }
        let kept: Vec<bool> = results.iter().map(|one| recalls(&segments, one)).collect();
        assert!(!kept[0] && kept[99]);
        assert!(kept.is_sorted(), "{kept:?}");
        let bytes: u64 = std::fs::read_dir(folder.path().join("sent"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 8000 + 2000, "{bytes}");
    }

    #[test]
    fn what_is_too_old_goes_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        let one = result(10);
        segments.append(now(), std::slice::from_ref(&one)).unwrap();
        assert!(recalls(&Segments::open(config(&folder), now() + HOUR_MS / 2).unwrap(), &one));
        assert!(!recalls(&Segments::open(config(&folder), now() + 2 * HOUR_MS).unwrap(), &one));
    }

    #[test]
    fn a_torn_segment_ends_where_it_is_torn_and_the_next_life_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, torn, later) = (result(100), result(100), result(100));
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        segments.append(now(), &[Arc::clone(&whole), Arc::clone(&torn)]).unwrap();
        let file = OpenOptions::new().write(true).open(segments.path(0)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 30).unwrap();
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        assert_eq!(segments.last().unwrap(), Some(whole.attempt));
        segments.append(now(), std::slice::from_ref(&later)).unwrap();
        assert!(recalls(&segments, &whole) && recalls(&segments, &later));
        assert!(!recalls(&segments, &torn));
    }

    #[test]
    fn a_record_with_a_flipped_byte_is_not_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let one = result(100);
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        segments.append(now(), std::slice::from_ref(&one)).unwrap();
        let mut bytes = std::fs::read(segments.path(0)).unwrap();
        bytes[60] ^= 1;
        std::fs::write(segments.path(0), bytes).unwrap();
        assert!(!recalls(&segments, &one));
    }

    #[test]
    fn one_that_is_larger_than_a_segment_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (large, small) = (result(1001), result(10));
        let mut segments = Segments::open(config(&folder), now()).unwrap();
        segments.append(now(), &[Arc::clone(&large), Arc::clone(&small)]).unwrap();
        assert!(!recalls(&segments, &large) && recalls(&segments, &small));
    }
}
