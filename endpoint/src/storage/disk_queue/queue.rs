//! The queue itself: makes changes durable, group by group.

use super::commit_counter::CommitCounter;
use super::deaths::{DeathCounts, Deaths};
use super::folder::Folder;
use super::history::{History, SeenView};
use super::home::Origin;
use super::packing::{Batch, RecordStore};
use super::record::{self, Form, Member, Space};
use super::reserve::Reserve;
use super::running::Running;
use super::spill_policy;
use super::spool_files::SpoolFiles;
use super::store::{Store, Writes};
use super::{Change, Error, OutSeq, Seq};
use crate::storage::spool::Writing;
use clutch_common::id::{Attempt, EndpointId, StateId};
use clutch_common::task::Task;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How large a task is, in bytes, that is encoded in pieces: as one buffer it would be
/// in memory twice.
const LARGE: usize = 256 * 1024;

/// The queue, open and locked.
pub(crate) struct DiskQueue {
    pub(super) records: RecordStore,
    pub(super) spool: SpoolFiles,
    pub(super) history: History,
    pub(super) deaths: DeathCounts,
    pub(super) inbox: BTreeMap<Seq, InboxEntry>,
    pub(super) counters: Counters,
    pub(super) commit_counter: CommitCounter,
    /// How many commits are durable, for others to read.
    pub(super) durable: Arc<AtomicU64>,
    pub(super) identity: Identity,
    pub(super) running: Arc<Running>,
    pub(super) reserve: Reserve,
    // Last, so that the folder stays locked until all else is closed.
    pub(super) _lock: Option<Folder>,
}

/// The endpoint and the state folder that a queue is of.
pub(super) struct Identity {
    pub(super) endpoint_id: EndpointId,
    pub(super) state_id: StateId,
    /// How the folder came to be where it is.
    pub(super) origin: Origin,
}

/// The part of a task in the inbox that is in memory.
pub(super) struct InboxEntry {
    pub(super) attempt: Attempt,
    /// The spool file that its payload is in.
    pub(super) file: Option<u64>,
    pub(super) started: bool,
    pub(super) secured: bool,
}

/// Numbers that must survive, even when the queue is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counters {
    /// The sequence number of the next task.
    pub(super) seq: u64,
    /// The sequence number of the next result.
    pub(super) out: u64,
    /// How many results wait in the outbox.
    pub(super) waiting: u64,
    /// How many commits there have been.
    pub(super) commits: u64,
}

impl Counters {
    pub(super) fn encode(self) -> Vec<u8> {
        let Self { seq, out, waiting, commits } = self;
        record::encode_numbers(&[seq, out, waiting, commits])
    }

    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        let [seq, out, waiting, commits] = record::decode_numbers(content)?;
        Some(Self { seq, out, waiting, commits })
    }
}

/// A commit that is being made.
pub(super) struct OpenCommit {
    pub(super) writes: Writes,
    pub(super) batch: Batch,
    /// The largest payload that is put into its record, in bytes.
    pub(super) inline_max: usize,
    /// The spool files of records that are removed, one for each record.
    pub(super) released: Vec<u64>,
    /// The attempts that have their results with this commit.
    pub(super) finished: Vec<Attempt>,
    pub(super) counters: Counters,
}

impl OpenCommit {
    /// Where a payload is to be put.
    pub(super) fn form(&self, payload: &[u8]) -> Form {
        if payload.len() <= self.inline_max { Form::Inline } else { Form::Spooled }
    }
}

impl DiskQueue {
    /// The state folder's id, made once.
    pub(crate) fn state_id(&self) -> StateId {
        self.identity.state_id
    }

    /// How the folder came to be where it is.
    pub(crate) fn origin(&self) -> &Origin {
        &self.identity.origin
    }

    /// How many commits are durable, as time goes on.
    pub(crate) fn durable(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.durable)
    }

    /// How many results wait in the outbox.
    pub(crate) fn waiting(&self) -> u64 {
        self.counters.waiting
    }

    /// The sequence numbers of the next task and the next result.
    pub(crate) fn next_numbers(&self) -> (Seq, OutSeq) {
        (Seq(self.counters.seq), OutSeq(self.counters.out))
    }

    /// How many commits there have been.
    pub(crate) fn commits(&self) -> u64 {
        self.counters.commits
    }

    /// The file that says which tasks run.
    pub(crate) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running)
    }

    /// How often the daemon died while each task ran; without the tasks during which it
    /// never did.
    pub(crate) fn deaths(&self) -> &HashMap<Attempt, Deaths> {
        self.deaths.all()
    }

    /// The state folder.
    pub(crate) fn path(&self) -> &Path {
        self.records.path()
    }

    /// A handle of the store, to be kept for ever once the disk has failed: sled writes once
    /// more when its last handle is dropped, and panics where it cannot.
    pub(crate) fn hold(&self) -> Arc<dyn Store> {
        Arc::clone(self.records.store())
    }

    /// The error that a failed look at the file system's free space is.
    pub(crate) fn failed_to_look(&self, error: io::Error) -> Error {
        self.records.failed("looking at the free space of")(error.into())
    }

    /// Whether the queue still is at the path where it was opened: records that are written
    /// elsewhere are not found again.
    pub(crate) fn is_here(&self) -> io::Result<bool> {
        self.records.store().is_here()
    }

    /// Has the file system put aside the room that the store takes for the next commits.
    /// False if the host has no room for that.
    pub(crate) fn reserve_room(&mut self) -> io::Result<bool> {
        self.records.store().file().map_or(Ok(true), |(file, len)| self.reserve.get(file, len))
    }

    /// The attempts that were accepted or finished.
    pub(crate) fn seen(&self) -> SeenView {
        self.history.view().clone()
    }

    /// Makes changes durable, all or none. An attempt that is accepted must have been
    /// [noted](SeenView::note) before. A task that is accepted and finished by the same
    /// changes is not written, nor is a result that is also released. Releasing, securing
    /// or starting what is not there changes nothing; a result is taken whether or not its
    /// task is in the inbox.
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
        group.inline_max = spill_policy::inline_max(self.counters.waiting, changes, &releasing);
        // Where all payloads are spooled, 16 of their places share a record.
        group.batch.packs_places = group.inline_max == 0;
        for change in changes {
            match change {
                Change::Accept { seq, task, secured } => {
                    group.counters.seq = group.counters.seq.max(seq.0 + 1);
                    if !finishing.contains(seq) {
                        let secured = *secured || securing.contains(seq);
                        self.add_task(&mut group, *seq, task, secured)?;
                    }
                }
                Change::Secure { seq } => self.secure(&mut group, *seq),
                Change::Start { seq } => self.start(&mut group, *seq),
                Change::Finish { inbox, out, result } => {
                    if let Some(seq) = inbox {
                        self.remove_task(&mut group, *seq);
                    }
                    group.finished.push(result.attempt);
                    self.add_result(&mut group, *out, result, releasing.contains(out))?;
                }
                Change::HandBack { inbox, out, result, .. } => {
                    self.remove_task(&mut group, *inbox);
                    self.add_result(&mut group, *out, result, releasing.contains(out))?;
                }
                Change::Release { .. } => {}
            }
        }
        // Each once, as its file counts one record less.
        for out in releasing {
            self.release(&mut group, out)?;
        }
        self.commit(group)
    }

    /// A commit without changes.
    pub(super) fn group(&self) -> OpenCommit {
        OpenCommit {
            writes: Writes::default(),
            batch: Batch::default(),
            inline_max: record::INLINE_MAX,
            released: Vec::new(),
            finished: Vec::new(),
            counters: self.counters,
        }
    }

    fn add_task(
        &mut self,
        group: &mut OpenCommit,
        seq: Seq,
        task: &Task,
        secured: bool,
    ) -> Result<(), Error> {
        let attempt = task.attempt();
        let file = self.write_task(group, seq, task)?;
        if !secured {
            group.writes.put(&record::numbered(Space::Unsecured, seq.0), &[]);
        }
        self.inbox.insert(seq, InboxEntry { attempt, file, started: false, secured });
        Ok(())
    }

    /// Writes a task; returns the number of its spool file, if it is in one.
    fn write_task(
        &mut self,
        group: &mut OpenCommit,
        seq: Seq,
        task: &Task,
    ) -> Result<Option<u64>, Error> {
        let attempt = task.attempt();
        if task.work.size() <= LARGE {
            let bytes = serde_json::to_vec(task)
                .map_err(|error| self.records.failed("encoding for")(error.into()))?;
            let member = Member { seq: seq.0, attempt, form: group.form(&bytes) };
            return self.add_member(group, Space::Inbox, member, &bytes);
        }
        let put = |writing: &mut Writing| {
            writing.put_in_pieces(|to| serde_json::to_writer(to, task).map_err(Into::into))
        };
        let place = self.spool.append(Space::Inbox, put);
        let place = place.map_err(|error| self.records.failed_to_spool(error))?;
        let member = Member { seq: seq.0, attempt, form: Form::Spooled };
        group.batch.add(Space::Inbox, member, record::encode_place(place));
        Ok(Some(place.file))
    }

    /// Writes a payload as a member of the inbox or the outbox; returns the number of its
    /// spool file, if its form says that it is in one.
    pub(super) fn add_member(
        &mut self,
        group: &mut OpenCommit,
        space: Space,
        member: Member,
        payload: &[u8],
    ) -> Result<Option<u64>, Error> {
        if member.form == Form::Inline {
            group.batch.add(space, member, payload.to_vec());
            return Ok(None);
        }
        let place = self.spool.append(space, |writing| writing.put(payload));
        let place = place.map_err(|error| self.records.failed_to_spool(error))?;
        group.batch.add(space, member, record::encode_place(place));
        Ok(Some(place.file))
    }

    fn secure(&mut self, group: &mut OpenCommit, seq: Seq) {
        if let Some(entry) = self.inbox.get_mut(&seq).filter(|entry| !entry.secured) {
            entry.secured = true;
            group.writes.remove(&record::numbered(Space::Unsecured, seq.0));
        }
    }

    fn start(&mut self, group: &mut OpenCommit, seq: Seq) {
        if let Some(entry) = self.inbox.get_mut(&seq) {
            entry.started = true;
            group.writes.put(&record::numbered(Space::Started, seq.0), &[]);
        }
    }

    fn remove_task(&mut self, group: &mut OpenCommit, seq: Seq) {
        let Some(entry) = self.inbox.remove(&seq) else { return };
        if let Some(raw) = self.records.take_key(Space::Inbox, seq.0) {
            group.batch.remove(raw, seq.0);
        }
        if entry.started {
            group.writes.remove(&record::numbered(Space::Started, seq.0));
        }
        if !entry.secured {
            group.writes.remove(&record::numbered(Space::Unsecured, seq.0));
        }
        group.released.extend(entry.file);
    }

    /// Makes a commit durable.
    pub(super) fn commit(&mut self, mut group: OpenCommit) -> Result<(), Error> {
        self.records.write_batch(&mut group.writes, group.batch)?;
        self.deaths.forget(&mut group.writes, &group.finished);
        let runs = self.history.add(&mut group.writes, &mut self.spool, &group.finished);
        let runs = runs.map_err(|error| self.records.failed_to_spool(error))?;
        self.spool.finish().map_err(|error| self.records.failed_to_spool(error))?;
        group.released.extend(self.history.forget_oldest(&mut group.writes)?);
        if !group.writes.is_empty() || group.counters != self.counters {
            group.counters.commits += 1;
            group.writes.put(&[Space::Counters as u8], &group.counters.encode());
            self.counters = group.counters;
            self.records.commit(group.writes)?;
            self.commit_counter
                .write(self.counters.commits)
                .map_err(|error| self.records.failed("counting a commit of")(error.into()))?;
            self.durable.store(self.counters.commits, Ordering::Relaxed);
        }
        self.history.seal(&runs);
        // The records are gone: a file left behind is swept at the next start.
        for file in group.released {
            self.spool.release(file);
        }
        Ok(())
    }
}
