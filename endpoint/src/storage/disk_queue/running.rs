//! The tasks that run now, in a file beside the store, so that the next start
//! knows which ones ran when the daemon died.
//!
//! A record is written before a task's process starts or its call is sent to a worker, and
//! cleared when the end of that is seen. Nothing is synced: the file survives the
//! death of the daemon, which is what it is for, and not that of the host. A
//! record names the boot of the host, so that no task is blamed for a reboot.
//!
//! Promises: a daemon that was asked to stop leaves no record, however it ends.
//! A run that panics leaves its record: it takes the daemon down as well.

use super::record;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::system::clock::now_ms;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

const KEY: &[u8] = b"running";
/// CRC, boot, task, attempt, start.
const LEN: usize = 4 + 16 + 16 + 4 + 8;

/// Where Linux says which boot this is. Without it all boots are one.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A run that had not ended when the daemon died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) attempt: Attempt,
    pub(crate) started_at_ms: u64,
}

/// A run that goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotedRun {
    pub(crate) attempt: Attempt,
    pub(crate) started_at_ms: u64,
    /// When its attempt was accepted, where that is known.
    pub(crate) accepted_at_ms: Option<u64>,
}

/// The file; shared by all runs.
#[derive(Debug)]
pub(crate) struct Running {
    file: File,
    path: PathBuf,
    boot: Uuid,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    taken: Vec<Option<NotedRun>>,
    stopped: bool,
    warned: bool,
}

impl Running {
    /// Opens the file, and takes out what an earlier daemon left in it.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Run>)> {
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        let boot = boot.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Self::open_in(path, boot)
    }

    fn open_in(path: &Path, boot: Uuid) -> io::Result<(Self, Vec<Run>)> {
        let left = read(path, boot)?;
        // Counted twice would be worse than not at all: out first.
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok((Self { file, path: path.to_owned(), boot, slots: Mutex::default() }, left))
    }

    /// Notes that a run begins; it has ended when the note is dropped.
    pub(crate) fn note(self: &Arc<Self>, attempt: Attempt, accepted_at_ms: Option<u64>) -> Note {
        let started_at_ms = now_ms();
        let mut slots = self.lock();
        let free = slots.taken.iter().position(Option::is_none);
        let slot = free.unwrap_or(slots.taken.len());
        if free.is_none() {
            slots.taken.push(None);
        }
        slots.taken[slot] = Some(NotedRun { attempt, started_at_ms, accepted_at_ms });
        self.write(&mut slots, slot, &encode(attempt, started_at_ms, self.boot));
        drop(slots);
        Note { running: Arc::clone(self), slot }
    }

    /// Reads which runs are noted now; none where the file cannot be read.
    pub(crate) fn noted(&self) -> Vec<Run> {
        read(&self.path, self.boot).unwrap_or_default()
    }

    /// The daemon is to stop: whatever ends it from now on, no task did.
    pub(crate) fn stop(&self) {
        let mut slots = self.lock();
        if !std::mem::replace(&mut slots.stopped, true)
            && let Err(error) = self.file.set_len(0)
        {
            warn(&mut slots, &error);
        }
    }

    /// The daemon dies: nothing is written any more.
    #[cfg(test)]
    pub(crate) fn die(&self) {
        self.lock().stopped = true;
    }

    fn end(&self, slot: usize) {
        let mut slots = self.lock();
        self.write(&mut slots, slot, &[0; LEN]);
        slots.taken[slot] = None;
    }

    /// Returns the runs that go on.
    pub(crate) fn runs(&self) -> Vec<NotedRun> {
        self.lock().taken.iter().flatten().copied().collect()
    }

    /// Without its record a task runs all the same.
    fn write(&self, slots: &mut Slots, slot: usize, record: &[u8]) {
        if !slots.stopped
            && let Err(error) = self.file.write_all_at(record, (slot * LEN) as u64)
        {
            warn(slots, &error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs that a file names.
fn read(path: &Path, boot: Uuid) -> io::Result<Vec<Run>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let (records, _) = bytes.as_chunks::<LEN>();
    Ok(records.iter().filter_map(|record| decode(record, boot)).collect())
}

fn warn(slots: &mut Slots, error: &io::Error) {
    if !std::mem::replace(&mut slots.warned, true) {
        tracing::warn!(
            %error,
            "noting which tasks run failed: should the daemon die, its death may be counted \
             against the wrong task or none. Look at the disk of the state folder"
        );
    }
}

/// The right to note one run, for the executor that knows when its process or call runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunNotes(Option<(Arc<Running>, Attempt, Option<u64>)>);

impl RunNotes {
    /// Returns the right to note the run of an attempt.
    pub(crate) fn of(
        running: &Arc<Running>,
        attempt: Attempt,
        accepted_at_ms: Option<u64>,
    ) -> Self {
        Self(Some((Arc::clone(running), attempt, accepted_at_ms)))
    }

    /// Notes that the process or the call runs, until the note is dropped.
    pub(crate) fn begin(&self) -> Option<Note> {
        self.0.as_ref().map(|(running, attempt, accepted)| running.note(*attempt, *accepted))
    }
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Note {
    running: Arc<Running>,
    slot: usize,
}

impl Drop for Note {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.running.end(self.slot);
        }
    }
}

fn encode(attempt: Attempt, started_at_ms: u64, boot: Uuid) -> Vec<u8> {
    let mut content = Vec::with_capacity(LEN);
    content.extend_from_slice(boot.as_bytes());
    content.extend_from_slice(attempt.task_id.0.as_bytes());
    content.extend_from_slice(&attempt.attempt.to_le_bytes());
    content.extend_from_slice(&started_at_ms.to_le_bytes());
    record::seal(KEY, &content)
}

/// The run in a record; none if it is clear, torn, or of another boot.
fn decode(record: &[u8], boot: Uuid) -> Option<Run> {
    let (found, rest) = record::unseal(KEY, record)?.split_first_chunk()?;
    let (task_id, rest) = rest.split_first_chunk()?;
    let (attempt, rest) = rest.split_first_chunk()?;
    let attempt = Attempt {
        task_id: TaskId(Uuid::from_bytes(*task_id)),
        attempt: u32::from_le_bytes(*attempt),
    };
    let started_at_ms = u64::from_le_bytes(*rest.first_chunk()?);
    (Uuid::from_bytes(*found) == boot).then_some(Run { attempt, started_at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(n: u32) -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: n }
    }

    fn open(folder: &tempfile::TempDir) -> (Arc<Running>, Vec<Attempt>) {
        let (running, left) = Running::open(&folder.path().join("running")).unwrap();
        (Arc::new(running), left.iter().map(|run| run.attempt).collect())
    }

    #[test]
    fn the_next_start_finds_what_ran_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let (running, left) = open(&folder);
        assert_eq!(left, []);
        let [a, b, c] = [attempt(1), attempt(2), attempt(3)];
        let first = running.note(a, None);
        let second = running.note(b, None);
        drop(first);
        let third = running.note(c, Some(7));
        assert_eq!(running.noted().iter().map(|run| run.attempt).collect::<Vec<_>>(), [c, b]);
        let goes_on: Vec<_> =
            running.runs().iter().map(|run| (run.attempt, run.accepted_at_ms)).collect();
        assert_eq!(goes_on, [(c, Some(7)), (b, None)]);
        // The daemon dies: nothing is dropped.
        std::mem::forget((second, third));
        assert_eq!(open(&folder).1, [c, b], "the place of what ended is used again");
        assert_eq!(open(&folder).1, []);
    }

    #[test]
    fn a_daemon_that_is_stopping_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (running, _) = open(&folder);
        std::mem::forget(running.note(attempt(1), None));
        running.stop();
        std::mem::forget(running.note(attempt(2), None));
        assert_eq!(open(&folder).1, []);
    }

    #[test]
    fn a_run_that_panics_is_left_behind_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (running, _) = open(&folder);
        let (guilty, innocent) = (attempt(1), attempt(2));
        let note = running.note(innocent, None);
        let theirs = Arc::clone(&running);
        let panicked = std::thread::spawn(move || {
            let _note = theirs.note(guilty, None);
            panic!("as a run would");
        });
        assert!(panicked.join().is_err());
        drop(note);
        assert_eq!(open(&folder).1, [guilty]);
    }

    #[test]
    fn a_reboot_and_a_torn_record_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running");
        let boot = Uuid::from_u128(1);
        let note = || {
            let (running, _) = Running::open_in(&path, boot).unwrap();
            std::mem::forget(Arc::new(running).note(attempt(1), None));
        };
        note();
        assert_eq!(Running::open_in(&path, Uuid::from_u128(2)).unwrap().1, []);
        note();
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..LEN - 1]).unwrap();
        assert_eq!(Running::open_in(&path, boot).unwrap().1, []);
        note();
        assert_eq!(Running::open_in(&path, boot).unwrap().1.len(), 1);
    }
}
