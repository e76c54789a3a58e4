//! Opening the queue: locks the folder, checks that it is this endpoint's, reads what is in
//! it, repairs what is damaged, and removes spool files that no record refers to.

use super::commit_counter::CommitCounter;
use super::deaths::DeathCounts;
use super::folder::{Folder, FolderError};
use super::history::History;
use super::home::{Home, Origin};
use super::packing::{Damaged, RecordStore, StoredMember};
use super::queue::{Counters, DiskQueue, Identity, InboxEntry};
use super::record::{self, Key, Space};
use super::reserve::Reserve;
use super::running::{Run, Running};
use super::sled_store::SledStore;
use super::spool_files::{SpoolFiles, payload};
use super::store::{Store, Writes};
use super::{Accepted, Error, Seq, Unsecured};
use crate::storage::spool::Spool;
use crate::system::os_error::{Handling, Operation, classify, io_cause};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::task::Task;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// The format of the store that this build reads and writes.
const FORMAT: u64 = 1;
/// The folder of the store, in the state folder.
pub(super) const QUEUE: &str = "queue";
/// The file of the commit counter, in the state folder.
const COUNTER: &str = "mark";

/// How to open a queue.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The state folder.
    pub(crate) path: PathBuf,
    /// The endpoint that it belongs to.
    pub(crate) endpoint_id: EndpointId,
    /// How many finished attempts to remember at least; a quarter more at most.
    pub(crate) seen_max: usize,
}

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The disk or the store failed.
    #[error(
        "the disk queue could not be opened: if the disk is sound, move the folder aside (its \
         tasks that were not finished must then be submitted again) and start again"
    )]
    Failed(#[from] Error),
    /// The store gave up in a way that it has no error for.
    #[error(
        "the disk queue in {path} is damaged beyond repair ({what}): move the folder aside (its \
         tasks that were not finished must then be submitted again) and start again"
    )]
    Broken {
        /// The state folder.
        path: PathBuf,
        /// The store's words.
        what: String,
    },
    /// There is no room to open it.
    #[error(
        "the disk of the state folder {path} has no room left, or no inode, or the quota is used \
         up: free some space there"
    )]
    NoRoom {
        /// The state folder.
        path: PathBuf,
    },
    /// The system would not give the queue a thread.
    #[error("no thread could be started for the disk queue in {path}")]
    Thread {
        /// The state folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// It is another endpoint's.
    #[error(
        "the state folder {path} belongs to another endpoint, {owner}: start that one on it, or \
         give this one a state folder of its own"
    )]
    Owner {
        /// The state folder.
        path: PathBuf,
        /// The endpoint that it belongs to.
        owner: EndpointId,
    },
    /// Another build, or something else altogether, wrote it.
    #[error(
        "the disk queue in {path} has {found}, this build reads format {FORMAT}: use the \
         clutch-endpoint that wrote it, or name another state folder"
    )]
    Foreign {
        /// The state folder.
        path: PathBuf,
        /// The format that was found.
        found: String,
    },
}

impl OpenError {
    /// Whether the host lacks something that it may have later, so that opening the queue
    /// again may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        let passes = |error: &std::io::Error| classify(Operation::Records, error) == Handling::Wait;
        matches!(self, Self::NoRoom { .. }) || io_cause(self).is_some_and(passes)
    }

    /// The same error, of the folder at another path.
    pub(super) fn at(self, path: &Path) -> Self {
        let path = path.to_owned();
        match self {
            Self::Folder(error) => Self::Folder(error),
            Self::Failed(error) => Self::Failed(Error { path, ..error }),
            Self::Broken { what, .. } => Self::Broken { path, what },
            Self::NoRoom { .. } => Self::NoRoom { path },
            Self::Thread { source, .. } => Self::Thread { path, source },
            Self::Owner { owner, .. } => Self::Owner { path, owner },
            Self::Foreign { found, .. } => Self::Foreign { path, found },
        }
    }
}

/// The places in which a queue is kept.
pub(crate) struct Parts {
    /// Where records are.
    pub(crate) store: Arc<dyn Store>,
    /// Where large payloads are.
    pub(crate) spool: Spool,
    /// How many commits there have been.
    pub(crate) commit_counter: CommitCounter,
    /// Which tasks run.
    pub(crate) running: Running,
    /// The runs that had not ended when the last daemon did.
    pub(crate) left: Vec<Run>,
    /// The id of a state folder that has none yet.
    pub(crate) new_id: StateId,
    /// The folder that all this is in; none in a simulation.
    pub(crate) folder: Option<StateFolder>,
}

/// A locked state folder, and how it is told from a copy.
pub(crate) struct StateFolder {
    lock: Folder,
    home: Home,
    /// Where the folder was when it was used last.
    before: Option<Home>,
}

impl DiskQueue {
    /// Opens the queue in a state folder, making it if there is none. The tasks
    /// in the inbox are returned in the order they were accepted; damaged ones
    /// have become results.
    pub(crate) fn open(options: &Options) -> Result<(Self, Vec<Accepted>), OpenError> {
        let folder = Folder::open(&options.path)?;
        // sled panics on some damaged files.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            Self::restore(open_parts(options, folder)?, options)
        }))
        .unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).into()));
            let what = what.unwrap_or_else(|| "the store panicked".to_owned());
            Err(OpenError::Broken { path: options.path.clone(), what })
        })
    }

    /// Reads the queue that is in its parts; see [`DiskQueue::open`].
    pub(crate) fn restore(
        parts: Parts,
        options: &Options,
    ) -> Result<(Self, Vec<Accepted>), OpenError> {
        let Parts { store, spool, commit_counter, running, left, new_id, folder } = parts;
        let path = options.path.clone();
        let records = RecordStore::new(store, path.clone());
        let counted =
            commit_counter.read().map_err(failed(&path, "reading the commit counter of"))?;
        let stored = identify(&records, options, new_id)?;
        let (lock, home, origin) = match folder {
            Some(StateFolder { lock, home, before }) => {
                let origin = before.map_or(Origin::Own, |before| home.origin(&before, stored));
                (Some(lock), Some(home), origin)
            }
            None => (None, None, Origin::Own),
        };
        let state_id = if origin.is_own() { stored } else { StateId::new() };
        let counters = load_counters(&records, spool.clone(), counted)?;
        if counters.commits < counted {
            let what = format!("its last {} commits are missing", counted - counters.commits);
            return Err(OpenError::Broken { path, what });
        }
        let mut spool = SpoolFiles::new(spool);
        let mut queue = Self {
            history: History::load(&records, &mut spool, options.seen_max)?,
            deaths: DeathCounts::default(),
            records,
            spool,
            inbox: BTreeMap::new(),
            counters,
            commit_counter,
            durable: Arc::default(),
            identity: Identity { endpoint_id: options.endpoint_id, state_id, origin },
            running: Arc::new(running),
            reserve: Reserve::default(),
            _lock: lock,
        };
        queue.load_files()?;
        let (tasks, damaged) = queue.load_inbox()?;
        let is_pending = |attempt| queue.inbox.values().any(|entry| entry.attempt == attempt);
        let spool = queue.spool.spool();
        queue.deaths = DeathCounts::load(&queue.records, spool, is_pending, &left)?;
        queue.repair(damaged)?;
        if !queue.identity.origin.is_own() {
            queue.settle_in()?;
        }
        if let Some(home) = home {
            home.settle(&path).map_err(failed(&path, "noting the place of"))?;
            queue.commit_counter = open_counter(&path)?;
        }
        queue.durable.store(queue.counters.commits, Ordering::Relaxed);
        Ok((queue, tasks))
    }
}

/// The error of what was being `doing` that an error of the system is.
fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error { path, doing, source: error.into() }
}

fn open_counter(path: &Path) -> Result<CommitCounter, Error> {
    let opened = CommitCounter::open(&path.join(COUNTER));
    opened.map_err(failed(path, "opening the commit counter of"))
}

/// Opens the files of a state folder.
fn open_parts(options: &Options, lock: Folder) -> Result<Parts, OpenError> {
    let path = &options.path;
    let below = path.join(QUEUE);
    let spool = Spool::open(&path.join("spool"));
    let spool = spool.map_err(failed(path, "making the spool folder of"))?;
    let store = SledStore::open(&below).map_err(|source| Error {
        path: below.clone(),
        doing: "opening",
        source,
    })?;
    lock.tighten_store(&below)?;
    let commit_counter = open_counter(path)?;
    let (running, left) = Running::open(&path.join("running"))
        .map_err(failed(path, "finding out what ran before with"))?;
    lock.sync(&below).map_err(failed(path, "syncing the folder of"))?;
    let home = Home::of(path).map_err(failed(path, "finding out the place of"))?;
    let before = Home::noted(path).map_err(failed(path, "reading the place of"))?;
    Ok(Parts {
        store: Arc::new(store),
        spool,
        commit_counter,
        running,
        left,
        new_id: StateId::new(),
        folder: Some(StateFolder { lock, home, before }),
    })
}

/// Checks format and owner, and reads the state id; a new store gets all three.
fn identify(
    records: &RecordStore,
    options: &Options,
    new_id: StateId,
) -> Result<StateId, OpenError> {
    let path = &options.path;
    let foreign = |found: String| OpenError::Foreign { path: path.clone(), found };
    let key = record::named(Space::Meta, "state");
    let owner_key = record::named(Space::Meta, "endpoint");
    let format_key = record::named(Space::Meta, "format");
    let Some(format) = records.get(&format_key)? else {
        if records.scan(Space::Started, &[]).next().is_some() {
            return Err(foreign("no format".to_owned()));
        }
        let mut writes = Writes::default();
        writes.put(&format_key, &record::encode_numbers(&[FORMAT]));
        writes.put(&key, new_id.0.as_bytes());
        writes.put(&owner_key, options.endpoint_id.0.as_bytes());
        records.commit(writes)?;
        return Ok(new_id);
    };
    match record::unseal(&format_key, &format).and_then(record::decode_numbers) {
        Some([FORMAT]) => (),
        Some([other]) => return Err(foreign(format!("format {other}"))),
        None => return Err(foreign("a format that cannot be read".to_owned())),
    }
    let owner = EndpointId(read_id(records, &owner_key, "the endpoint's id")?);
    if owner != options.endpoint_id {
        return Err(OpenError::Owner { path: path.clone(), owner });
    }
    read_id(records, &key, "the id of the state folder").map(StateId)
}

fn read_id(records: &RecordStore, key: &[u8], what: &str) -> Result<Uuid, OpenError> {
    let value = records.get(key)?;
    let content = value.as_deref().and_then(|value| record::unseal(key, value));
    content.and_then(|content| Uuid::from_slice(content).ok()).ok_or_else(|| OpenError::Broken {
        path: records.path().to_owned(),
        what: format!("{what} cannot be read"),
    })
}

/// The counters as they were written; found anew where they are damaged, with `counted`
/// commits.
fn load_counters(records: &RecordStore, spool: Spool, counted: u64) -> Result<Counters, Error> {
    let key = [Space::Counters as u8];
    let Some(value) = records.get(&key)? else { return Ok(Counters::default()) };
    if let Some(counters) = record::unseal(&key, &value).and_then(Counters::decode) {
        return Ok(counters);
    }
    let end = record::numbered(Space::Outbox, u64::MAX);
    let last = records.last(Space::Outbox, &end)?;
    let last = last.and_then(|(raw, _)| Key::decode(&raw));
    let member = last.and_then(|key| key.members.last().copied());
    let out = member.map_or(0, |member| member.seq + 1);
    let counters = Counters { out, commits: counted, ..Counters::default() };
    let mut writes = Writes::default();
    records.quarantine(&mut writes, (key.to_vec(), value), None, &spool);
    writes.put(&key, &counters.encode());
    records.commit(writes)?;
    Ok(counters)
}

impl DiskQueue {
    /// Makes a copy of another state folder one of its own: it gets its id, and the tasks
    /// in its inbox count as unsecured, as another instance may have them.
    fn settle_in(&mut self) -> Result<(), Error> {
        let mut writes = Writes::default();
        let state_id = self.identity.state_id;
        writes.put(&record::named(Space::Meta, "state"), state_id.0.as_bytes());
        for seq in self.inbox.keys() {
            writes.put(&record::numbered(Space::Unsecured, seq.0), &[]);
        }
        self.records.commit(writes)
    }

    /// Counts the results, and the records that refer to each spool file, and removes the
    /// files that no record refers to.
    fn load_files(&mut self) -> Result<(), Error> {
        let mut waiting = 0;
        let inbox = self.records.members(Space::Inbox, 0)?;
        for found in inbox.chain(self.records.members(Space::Outbox, 0)?) {
            let (space, held) = match found? {
                Ok(stored) => {
                    stored.file().into_iter().for_each(|file| self.spool.refer(file));
                    (Some(stored.space), 1)
                }
                Err(damaged) => {
                    let held = damaged.members().len() as u64;
                    (damaged.key.map(|key| key.space), held)
                }
            };
            waiting += if space == Some(Space::Outbox) { held } else { 0 };
        }
        self.counters.waiting = waiting;
        let swept = self.spool.sweep();
        swept.map_err(|error| self.records.failed("sweeping the spool of")(error.into()))
    }

    fn load_inbox(&mut self) -> Result<(Vec<Accepted>, Vec<Damaged>), Error> {
        let started = self.flagged(Space::Started)?;
        let unsecured = self.flagged(Space::Unsecured)?;
        let is_own = self.identity.origin.is_own();
        let spool = self.spool.spool().clone();
        let mut reader = spool.reader();
        let (mut tasks, mut damaged) = (Vec::new(), Vec::new());
        for found in self.records.members(Space::Inbox, 0)? {
            let stored = match found? {
                Ok(stored) => stored,
                Err(record) => {
                    record.members().iter().for_each(|member| self.used(member.seq));
                    damaged.push(*record);
                    continue;
                }
            };
            let seq = stored.member.seq;
            self.used(seq);
            let task = payload(&self.records, &mut reader, &stored)?.and_then(|payload| {
                serde_json::from_slice::<Task>(&payload)
                    .map_err(|error| format!("it cannot be read: {error}"))
            });
            match task {
                Ok(task) => {
                    let started = started.contains(&seq);
                    let secured = is_own && !unsecured.contains(&seq);
                    tasks.push(self.restore_task(&stored, task, started, secured)?);
                }
                Err(how) => damaged.push(stored.damaged(how)),
            }
        }
        Ok((tasks, damaged))
    }

    /// Gives out no task's number again.
    fn used(&mut self, seq: u64) {
        self.counters.seq = self.counters.seq.max(seq.saturating_add(1));
    }

    fn restore_task(
        &mut self,
        stored: &StoredMember,
        task: Task,
        started: bool,
        secured: bool,
    ) -> Result<Accepted, Error> {
        let (attempt, seq) = (stored.member.attempt, Seq(stored.member.seq));
        let seen = self.history.view();
        let before = if secured { None } else { seen.highest(task.id)? };
        seen.note(task.attempt());
        self.records.note_key(stored);
        self.inbox.insert(seq, InboxEntry { attempt, file: stored.file(), started, secured });
        let unsecured = (!secured).then_some(Unsecured { before });
        Ok(Accepted { seq, task, started, unsecured })
    }

    /// The numbers of the tasks that have a flag of this kind.
    fn flagged(&self, space: Space) -> Result<HashSet<u64>, Error> {
        let mut flagged = HashSet::new();
        for entry in self.records.scan(space, &[space as u8]) {
            flagged.extend(record::number(&entry?.0));
        }
        Ok(flagged)
    }
}
