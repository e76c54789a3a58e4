//! What the queue does: takes changes in, makes them durable, remembers what was
//! seen. How they lie there is in [`super::lying`].

use super::ahead::Ahead;
use super::deaths::Deaths;
use super::files::Files;
use super::folder::Folder;
use super::gathering;
use super::home::Origin;
use super::lying::{Keys, Moves};
use super::mark::Mark;
use super::record::{self, Form, Space};
use super::running::Running;
use super::seen_view::SeenView;
use super::{Change, Error, OutSeq, Seq, Store, Writes, seen};
use crate::storage::spool::{Spool, Writing};
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::task::Task;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The queue, open and ours.
pub(crate) struct DiskQueue {
    pub(super) store: Store,
    pub(super) spool: Spool,
    pub(super) files: Files,
    pub(super) mark: Mark,
    pub(super) endpoint_id: EndpointId,
    pub(super) state_id: StateId,
    /// How the folder came to be where it is.
    pub(super) origin: Origin,
    pub(super) inbox: BTreeMap<Seq, Slot>,
    pub(super) next: Next,
    pub(super) seen: SeenView,
    pub(super) lately: Lately,
    pub(super) keys: Keys,
    pub(super) deaths: HashMap<Attempt, Deaths>,
    pub(super) running: Arc<Running>,
    pub(super) ahead: Ahead,
    /// How many commits are durable, for others to see.
    pub(super) durable: Arc<AtomicU64>,
    // Last, so that the folder stays locked until all else is closed.
    pub(super) folder: Folder,
}

/// What memory keeps of a task in the inbox.
pub(super) struct Slot {
    pub(super) attempt: Attempt,
    /// The spool file that its payload is in.
    pub(super) file: Option<u64>,
    pub(super) started: bool,
    pub(super) secured: bool,
}

/// Numbers that must survive, whatever is left in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Next {
    pub(super) seq: u64,
    pub(super) out: u64,
    /// How many results wait in the outbox.
    pub(super) waiting: u64,
    /// How many commits there have been.
    pub(super) commits: u64,
}

impl Next {
    pub(super) fn encode(self) -> Vec<u8> {
        let Self { seq, out, waiting, commits } = self;
        record::encode_numbers(&[seq, out, waiting, commits])
    }

    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        let [seq, out, waiting, commits] = record::decode_numbers(content)?;
        Some(Self { seq, out, waiting, commits })
    }
}

/// Attempts finished since the last run was written, and where they are.
#[derive(Default)]
pub(super) struct Lately {
    pub(super) attempts: Vec<Attempt>,
    pub(super) records: Vec<u64>,
    /// How many of the attempts are in the last of the records.
    pub(super) in_last: usize,
    pub(super) next: u64,
    pub(super) seen_max: usize,
}

/// A record of attempts is marked by whether it is a full run, in the spool.
pub(super) const RUN: u8 = 1;
pub(super) const RECENT: u8 = 0;

/// How many attempts share a record until a run is full.
const RECENT_MAX: usize = 48;

/// Up to how many attempts in a record the next commit's join them there. When a run is
/// full its records go in one commit, for which the store keeps a copy of a page for
/// each: some 5 MB if all 2,048 attempts had records of their own.
const JOINED_MAX: usize = 8;

/// What one group comes to, before it is committed.
pub(super) struct Group {
    pub(super) writes: Writes,
    pub(super) moves: Moves,
    /// The group's files: of tasks and of results, which stay for longer.
    pub(super) writing: [Option<Writing>; 2],
    /// The largest payload that lies in its record, in bytes.
    inline_max: usize,
    /// The spool files of the records that go, one for each.
    pub(super) released: Vec<u64>,
    pub(super) finished: Vec<Attempt>,
    pub(super) next: Next,
}

impl DiskQueue {
    /// The state folder's id, made once.
    #[must_use]
    pub(crate) fn state_id(&self) -> StateId {
        self.state_id
    }

    /// How the folder came to be where it is.
    #[must_use]
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many commits are durable, as time goes on.
    #[must_use]
    pub(crate) fn durable(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.durable)
    }

    /// How many results wait in the outbox.
    #[must_use]
    pub(crate) fn waiting(&self) -> u64 {
        self.next.waiting
    }

    /// The first names that are free.
    #[must_use]
    pub(crate) fn free_names(&self) -> (Seq, OutSeq) {
        (Seq(self.next.seq), OutSeq(self.next.out))
    }

    /// How many commits there have been.
    #[must_use]
    pub(crate) fn commits(&self) -> u64 {
        self.next.commits
    }

    /// Where it is noted which tasks run.
    #[must_use]
    pub(crate) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running)
    }

    /// Where the queue is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Something to be kept for ever once the disk has failed. sled writes once
    /// more when its last handle goes, and panics where it cannot.
    pub(crate) fn hold(&self) -> impl Send + use<> {
        self.store.clone()
    }

    /// The error for a look at the file system's free space that failed.
    #[must_use]
    pub(crate) fn failed_to_look(&self, error: io::Error) -> Error {
        self.store.failed("looking at the free space of")(error.into())
    }

    /// Whether the queue is where it was opened: nothing that is written elsewhere is
    /// found again.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn is_here(&self) -> io::Result<bool> {
        self.store.is_here()
    }

    /// Has the file system put aside what the next commits take of the store; whether it
    /// did, or the host has no room for that.
    ///
    /// # Errors
    /// What else the system says.
    pub(crate) fn get_ahead(&mut self) -> io::Result<bool> {
        self.ahead.get(&self.store.file)
    }

    /// What was seen.
    #[must_use]
    pub(crate) fn seen(&self) -> SeenView {
        self.seen.clone()
    }

    /// Makes changes durable, all or none. Whoever has a task accepted has
    /// [noted](SeenView::note) it. What begins and ends within the changes is not
    /// written at all. Releasing, securing or starting what is not there changes
    /// nothing; a result is taken whether or not its task is in the inbox.
    ///
    /// # Errors
    /// The disk failed. The queue must not be used any more.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut finishing = HashSet::new();
        let mut releasing = BTreeSet::new();
        let mut securing = HashSet::new();
        for change in changes {
            match change {
                Change::Finish { inbox: Some(seq), .. } | Change::HandBack { inbox: seq, .. } => {
                    finishing.insert(*seq);
                }
                Change::Release { out } => drop(releasing.insert(*out)),
                Change::Secure { seq } => drop(securing.insert(*seq)),
                Change::Finish { inbox: None, .. }
                | Change::Accept { .. }
                | Change::Start { .. } => {}
            }
        }
        let mut group = self.group();
        group.inline_max = gathering::inline_max(self.next.waiting, changes, &releasing);
        for change in changes {
            match change {
                Change::Accept { seq, task, secured } => {
                    group.next.seq = group.next.seq.max(seq.0 + 1);
                    if !finishing.contains(seq) {
                        let secured = *secured || securing.contains(seq);
                        self.take_in(&mut group, *seq, task, secured)?;
                    }
                }
                Change::Secure { seq } => self.secure(&mut group, *seq),
                Change::Start { seq } => self.start(&mut group, *seq),
                Change::Finish { inbox, out, result } => {
                    if let Some(seq) = inbox {
                        self.take_out(&mut group, *seq);
                    }
                    group.next.out = group.next.out.max(out.0 + 1);
                    group.finished.push(result.attempt);
                    if !releasing.contains(out) {
                        self.put_result(&mut group, *out, result)?;
                    }
                }
                Change::HandBack { inbox, out, result } => {
                    self.take_out(&mut group, *inbox);
                    group.next.out = group.next.out.max(out.0 + 1);
                    if !releasing.contains(out) {
                        self.put_result(&mut group, *out, result)?;
                    }
                }
                Change::Release { .. } => {}
            }
        }
        // Each once: its file counts one record less.
        for out in releasing {
            self.release(&mut group, out)?;
        }
        self.commit(group)
    }

    pub(super) fn group(&self) -> Group {
        Group {
            writes: Writes::default(),
            moves: Moves::default(),
            writing: [None, None],
            inline_max: record::INLINE_MAX,
            released: Vec::new(),
            finished: Vec::new(),
            next: self.next,
        }
    }

    fn take_in(
        &mut self,
        group: &mut Group,
        seq: Seq,
        task: &Task,
        secured: bool,
    ) -> Result<(), Error> {
        let attempt = task.attempt();
        let file = self.put_task(group, seq, task)?;
        if !secured {
            group.writes.put(&record::numbered(Space::Unsecured, seq.0), &[]);
        }
        self.inbox.insert(seq, Slot { attempt, file, started: false, secured });
        Ok(())
    }

    fn secure(&mut self, group: &mut Group, seq: Seq) {
        if let Some(slot) = self.inbox.get_mut(&seq).filter(|slot| !slot.secured) {
            slot.secured = true;
            group.writes.remove(&record::numbered(Space::Unsecured, seq.0));
        }
    }

    fn start(&mut self, group: &mut Group, seq: Seq) {
        if let Some(slot) = self.inbox.get_mut(&seq) {
            slot.started = true;
            group.writes.put(&record::numbered(Space::Started, seq.0), &[]);
        }
    }

    fn take_out(&mut self, group: &mut Group, seq: Seq) {
        let Some(slot) = self.inbox.remove(&seq) else { return };
        if let Some(raw) = self.keys.take(Space::Inbox, seq.0) {
            group.moves.go(raw, seq.0);
        }
        if slot.started {
            group.writes.remove(&record::numbered(Space::Started, seq.0));
        }
        if !slot.secured {
            group.writes.remove(&record::numbered(Space::Unsecured, seq.0));
        }
        group.released.extend(slot.file);
    }

    pub(super) fn commit(&mut self, mut group: Group) -> Result<(), Error> {
        self.lay(&mut group)?;
        self.forget_deaths(&mut group.writes, &group.finished);
        let runs = self.lately.finish(&mut group.writes, &group.finished);
        self.finish_files(&mut group, &runs).map_err(|error| self.failed_to_spool(error))?;
        let mut forgotten = Vec::new();
        {
            let mut index = self.seen.lock();
            for attempt in group.finished {
                index.note(attempt);
            }
            while let Some(run) = index.forget(self.lately.seen_max) {
                forgotten.push(run);
            }
        }
        for run in forgotten {
            group.released.extend(self.seen.run_place(run)?.map(|place| place.file));
            group.writes.remove(&record::numbered(Space::Seen, run));
        }
        if group.writes.any || group.next != self.next {
            group.next.commits += 1;
            group.writes.put(&[Space::Counters as u8], &group.next.encode());
            self.next = group.next;
            self.store.commit(group.writes)?;
            self.mark
                .write(self.next.commits)
                .map_err(|error| self.store.failed("marking a commit of")(error.into()))?;
            self.durable.store(self.next.commits, Ordering::Relaxed);
        }
        for (number, attempts) in runs {
            self.seen.lock().seal(number, &attempts);
        }
        for file in group.released {
            // The records are gone: a file left behind is swept at the next start.
            if self.files.release(file)
                && let Err(error) = self.spool.remove(file)
            {
                tracing::warn!(file, error = %error, "a spool file could not be removed");
            }
        }
        Ok(())
    }

    /// Writes `runs`, a file each, and makes the files of the group durable.
    fn finish_files(&mut self, group: &mut Group, runs: &[(u64, Vec<Attempt>)]) -> io::Result<()> {
        let mut any = !runs.is_empty();
        for writing in group.writing.iter_mut().filter_map(Option::take) {
            writing.finish()?;
            any = true;
        }
        for (number, attempts) in runs {
            let mut writing = self.spool.begin(self.files.next_number())?;
            let place = writing.put(&seen::encode(attempts))?;
            writing.finish()?;
            self.files.refer(place.file);
            let content = [&[RUN][..], &record::encode_place(place)].concat();
            group.writes.put(&record::numbered(Space::Seen, *number), &content);
        }
        if any { self.spool.sync() } else { Ok(()) }
    }
}

impl Group {
    /// Where a payload is to lie.
    pub(super) fn form(&self, payload: &[u8]) -> Form {
        if payload.len() <= self.inline_max { Form::Inline } else { Form::Spooled }
    }

    /// Whether its results are among those that gather.
    pub(super) fn gathers(&self) -> bool {
        self.inline_max == 0
    }
}

impl Lately {
    /// Writes attempts that finished, unless they make runs full together with
    /// those before: the runs are returned, numbered, and what is left written.
    fn finish(&mut self, writes: &mut Writes, finished: &[Attempt]) -> Vec<(u64, Vec<Attempt>)> {
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
