//! The attempts that finished, so that a task delivered again is known for one that ran.
//!
//! The attempts that finished last are in small records of the store, until there are
//! enough for a *run*: some thousand attempts in a spool file, and one record with its
//! place. What memory keeps of both is in [`super::seen`]. The oldest runs are forgotten.

use super::Error;
use super::packing::RecordStore;
use super::record::{self, Space};
use super::seen::{self, Index};
use super::spool_files::SpoolFiles;
use super::store::{Store, Writes};
use crate::storage::spool::{Place, ReadError, Spool};
use clutch_common::id::{Attempt, TaskId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first byte of a record of attempts: whether it has the place of a run, or attempts.
pub(super) const RUN: u8 = 1;
const RECENT: u8 = 0;

/// How many attempts share a record until a run is full.
const RECENT_MAX: usize = 48;

/// Up to how many attempts in a record the next commit's join them there. When a run is
/// full its records go in one commit, for which the store keeps a copy of a page for
/// each: some 5 MB if all 2,048 attempts had records of their own.
const JOINED_MAX: usize = 8;

/// A full run: its number, and its attempts.
pub(super) type FullRun = (u64, Vec<Attempt>);

/// The history, as the queue writes it.
pub(super) struct History {
    view: SeenView,
    recent: RecentAttempts,
}

/// The attempts that finished since the last run was written, and the records they are in.
struct RecentAttempts {
    attempts: Vec<Attempt>,
    records: Vec<u64>,
    /// How many of the attempts are in the last of the records.
    in_last: usize,
    /// The number of the next record.
    next: u64,
    /// How many attempts are to be remembered.
    seen_max: usize,
}

impl History {
    /// The history in the store and the spool, in which damaged parts are put aside.
    pub(super) fn load(
        records: &RecordStore,
        spool: &mut SpoolFiles,
        seen_max: usize,
    ) -> Result<Self, Error> {
        let view = SeenView {
            index: Arc::default(),
            store: Arc::clone(records.store()),
            spool: spool.spool().clone(),
            path: records.path().to_owned(),
        };
        let recent = RecentAttempts {
            attempts: Vec::new(),
            records: Vec::new(),
            in_last: 0,
            next: 0,
            seen_max,
        };
        let mut history = Self { view, recent };
        let mut writes = Writes::default();
        for entry in records.scan(Space::Seen, &[Space::Seen as u8]) {
            let (raw, value) = entry?;
            let content = record::unseal(&raw, &value).and_then(<[u8]>::split_first);
            let (is_run, place, attempts) = match content {
                Some((&RUN, content)) => {
                    let place = record::decode_place(content);
                    (true, place, place.map_or(Ok(None), |place| history.view.read_run(place))?)
                }
                Some((_, content)) => (false, None, seen::decode(content)),
                None => (false, None, None),
            };
            let file = place.map(|place| place.file);
            let (Some(number), Some(attempts)) = (record::number(&raw), attempts) else {
                records.quarantine(&mut writes, (raw, value), file, spool.spool());
                continue;
            };
            file.into_iter().for_each(|file| spool.refer(file));
            history.restore(number, attempts, is_run);
        }
        records.commit(writes)?;
        Ok(history)
    }

    fn restore(&mut self, number: u64, attempts: Vec<Attempt>, is_run: bool) {
        self.recent.next = number + 1;
        let mut index = self.view.lock();
        if is_run {
            index.seal(number, &attempts);
        } else {
            attempts.iter().for_each(|attempt| index.note(*attempt));
            self.recent.in_last = attempts.len();
            self.recent.attempts.extend(attempts);
            self.recent.records.push(number);
        }
    }

    /// The history as others may ask it.
    pub(super) fn view(&self) -> &SeenView {
        &self.view
    }

    /// Adds attempts that finish with a commit. The runs that are full with them are
    /// written, and returned for [`History::seal`].
    pub(super) fn add(
        &mut self,
        writes: &mut Writes,
        spool: &mut SpoolFiles,
        finished: &[Attempt],
    ) -> std::io::Result<Vec<FullRun>> {
        let runs = self.recent.add(writes, finished);
        for (number, attempts) in &runs {
            let place = spool.write_alone(&seen::encode(attempts))?;
            let content = [&[RUN][..], &record::encode_place(place)].concat();
            writes.put(&record::numbered(Space::Seen, *number), &content);
        }
        let mut index = self.view.lock();
        finished.iter().for_each(|attempt| index.note(*attempt));
        Ok(runs)
    }

    /// Forgets the oldest runs, as long as enough attempts remain. Returns their files, to
    /// be removed once that is committed.
    pub(super) fn forget_oldest(&mut self, writes: &mut Writes) -> Result<Vec<u64>, Error> {
        let mut files = Vec::new();
        loop {
            let oldest = self.view.lock().forget(self.recent.seen_max);
            let Some(run) = oldest else { return Ok(files) };
            files.extend(self.view.run_place(run)?.map(|place| place.file));
            writes.remove(&record::numbered(Space::Seen, run));
        }
    }

    /// Notes that runs are durable, so that memory need not hold their attempts.
    pub(super) fn seal(&mut self, runs: &[FullRun]) {
        for (number, attempts) in runs {
            self.view.lock().seal(*number, attempts);
        }
    }
}

impl RecentAttempts {
    /// Writes attempts that finished, unless they make runs full together with
    /// those before: the runs are returned, and the remaining attempts written.
    fn add(&mut self, writes: &mut Writes, finished: &[Attempt]) -> Vec<FullRun> {
        self.attempts.extend_from_slice(finished);
        let run_len = seen::run_len(self.seen_max);
        if self.attempts.len() < run_len {
            self.write(writes, finished.len());
            return Vec::new();
        }
        self.in_last = 0;
        for number in std::mem::take(&mut self.records) {
            writes.remove(&record::numbered(Space::Seen, number));
        }
        let mut runs = Vec::new();
        while self.attempts.len() >= run_len {
            let rest = self.attempts.split_off(run_len);
            runs.push((self.next, std::mem::replace(&mut self.attempts, rest)));
            self.next += 1;
        }
        self.write(writes, self.attempts.len());
        runs
    }

    /// Writes the last `count` attempts: into the last record if that stays small, else
    /// into records of their own.
    fn write(&mut self, writes: &mut Writes, count: usize) {
        let joins = count > 0 && self.in_last + count <= JOINED_MAX;
        let last = if joins { self.records.pop() } else { None };
        let joined = last.map_or(0, |_| self.in_last);
        let from = self.attempts.len() - count - joined;
        for attempts in self.attempts[from..].chunks(RECENT_MAX) {
            let number = last.unwrap_or(self.next);
            let content = [&[RECENT][..], &seen::encode(attempts)].concat();
            writes.put(&record::numbered(Space::Seen, number), &content);
            self.records.push(number);
            self.in_last = attempts.len();
            self.next = self.next.max(number + 1);
        }
    }
}

/// Tells which attempts were accepted or finished, from any thread while the queue is
/// written: from memory, and from the disk where memory says that a run may hold the task.
#[derive(Clone)]
pub(crate) struct SeenView {
    index: Arc<Mutex<Index>>,
    store: Arc<dyn Store>,
    spool: Spool,
    path: PathBuf,
}

impl SeenView {
    /// Remembers an attempt from now on, before it is on disk.
    pub(crate) fn note(&self, attempt: Attempt) {
        self.lock().note(attempt);
    }

    /// Forgets an attempt that was noted and has not finished. `before` is the highest
    /// attempt at its task that was known before it was noted.
    pub(crate) fn forget(&self, attempt: Attempt, before: Option<u32>) {
        self.lock().unnote(attempt, before);
    }

    /// The highest attempt at a task that is remembered.
    pub(crate) fn highest(&self, task: TaskId) -> Result<Option<u32>, Error> {
        let (mut highest, runs) = self.lock().look_up(task);
        for run in runs {
            let place = self.run_place(run)?;
            let attempts = place.map_or(Ok(None), |place| self.read_run(place))?;
            highest = highest.max(attempts.and_then(|attempts| seen::highest(&attempts, task)));
        }
        Ok(highest)
    }

    /// The attempts of a run; none if it is damaged, or forgotten meanwhile.
    fn read_run(&self, place: Place) -> Result<Option<Vec<Attempt>>, Error> {
        match self.spool.reader().read(place) {
            Ok(bytes) => Ok(seen::decode(&bytes)),
            Err(ReadError::Damaged(_)) => Ok(None),
            Err(error @ ReadError::Io { .. }) => {
                Err(failed(&self.path, "reading the spool of", error.into()))
            }
        }
    }

    /// The place of a run; none if it is forgotten.
    fn run_place(&self, run: u64) -> Result<Option<Place>, Error> {
        let key = record::numbered(Space::Seen, run);
        let value = self.store.get(&key).map_err(|error| failed(&self.path, "reading", error))?;
        let content = value.as_deref().and_then(|value| record::unseal(&key, value));
        Ok(content.and_then(|content| record::decode_place(content.strip_prefix(&[RUN])?)))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(path: &Path, doing: &'static str, source: super::store::StoreError) -> Error {
    Error { path: path.to_owned(), doing, source }
}
