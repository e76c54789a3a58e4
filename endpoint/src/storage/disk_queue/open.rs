//! Opening the queue: lock the folder, check what it is, take up what is in
//! it, repair what is damaged, sweep what nobody refers to.

use super::ahead::Ahead;
use super::damage::Damaged;
use super::files::Files;
use super::folder::{Folder, FolderError};
use super::home::{Home, Origin};
use super::lying::{Keys, One};
use super::mark::Mark;
use super::queue::{DiskQueue, Lately, Next, RUN, Slot};
use super::record::{self, Key, Space};
use super::running::Running;
use super::seen_view::SeenView;
use super::{Accepted, Error, Seq, Store, Unsecured, Writes, seen};
use crate::storage::spool::Spool;
use crate::system::os_error::{Handling, Operation, classify, io_cause};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::task::Task;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// The format this build writes.
const FORMAT: u64 = 3;
/// The formats before it, in which each record has one payload: what is in them is in
/// this one as well. Only the second had other records besides.
const ONE_A_RECORD: [u64; 2] = [1, 2];
/// The kind of keys that were in the second format only, where results had gathered.
const TWINS: u8 = b'p';
/// The folder of the store, in the state folder.
pub(super) const QUEUE: &str = "queue";

/// How to open a queue.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The state folder.
    pub(crate) path: PathBuf,
    /// Whose results the queue writes for damaged tasks.
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
        /// What the store said.
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
        /// What the system said.
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
        /// Whose it is.
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
        /// What is there.
        found: String,
    },
}

impl OpenError {
    /// Whether the host lacks something that it may have later: then opening it again
    /// may do.
    pub(crate) fn may_pass(&self) -> bool {
        let passes = |error: &std::io::Error| classify(Operation::Records, error) == Handling::Wait;
        matches!(self, Self::NoRoom { .. }) || io_cause(self).is_some_and(passes)
    }

    /// The same, of the folder at another path.
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

impl DiskQueue {
    /// Opens the queue in a state folder, making it if there is none. The tasks
    /// in the inbox are returned in the order they were accepted; damaged ones
    /// have become results.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(options: &Options) -> Result<(Self, Vec<Accepted>), OpenError> {
        let folder = Folder::open(&options.path)?;
        // sled panics on some damaged files.
        std::panic::catch_unwind(AssertUnwindSafe(|| open(options, folder))).unwrap_or_else(
            |panic| {
                let what = panic.downcast_ref::<String>().cloned();
                let what = what.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).into()));
                let what = what.unwrap_or_else(|| "the store panicked".to_owned());
                Err(OpenError::Broken { path: options.path.clone(), what })
            },
        )
    }
}

fn open(options: &Options, folder: Folder) -> Result<(DiskQueue, Vec<Accepted>), OpenError> {
    let failed = |doing: &'static str| {
        let path = options.path.clone();
        move |error: std::io::Error| Error { path, doing, source: error.into() }
    };
    let below = options.path.join(QUEUE);
    let spool =
        Spool::open(&options.path.join("spool")).map_err(failed("making the spool folder of"))?;
    let store = Store::open(&below)?;
    folder.tighten_store(&below)?;
    let mark_of = || Mark::open(&options.path.join("mark")).map_err(failed("opening the mark of"));
    let mark = mark_of()?;
    let marked = mark.read().map_err(failed("reading the mark of"))?;
    let (running, left) = Running::open(&options.path.join("running"))
        .map_err(failed("finding out what ran before with"))?;
    folder.sync(&below).map_err(failed("syncing the folder of"))?;
    let stored = identify(&store, options)?;
    let home = Home::of(&options.path).map_err(failed("finding out the place of"))?;
    let before = Home::noted(&options.path).map_err(failed("reading the place of"))?;
    let origin = before.as_ref().map_or(Origin::Own, |before| home.origin(before, stored));
    let state_id = if origin.is_own() { stored } else { StateId::new() };
    let index = Arc::default();
    let seen = SeenView { index, store: store.clone(), spool: spool.clone() };
    let mut queue = DiskQueue {
        store,
        spool,
        files: Files::default(),
        mark,
        endpoint_id: options.endpoint_id,
        state_id,
        inbox: BTreeMap::new(),
        next: Next::default(),
        seen,
        lately: Lately { seen_max: options.seen_max, ..Lately::default() },
        keys: Keys::default(),
        deaths: HashMap::new(),
        running: Arc::new(running),
        ahead: Ahead::default(),
        durable: Arc::default(),
        origin,
        folder,
    };
    queue.load_counters(marked)?;
    if queue.next.commits < marked {
        let what = format!("its last {} commits are missing", marked - queue.next.commits);
        return Err(OpenError::Broken { path: options.path.clone(), what });
    }
    queue.load_seen()?;
    queue.load_files()?;
    let (tasks, damaged) = queue.load_inbox()?;
    queue.count_deaths(&left)?;
    queue.repair(damaged)?;
    if !queue.origin.is_own() {
        queue.settle_in()?;
    }
    home.settle(&options.path).map_err(failed("noting the place of"))?;
    queue.mark = mark_of()?;
    queue.durable.store(queue.next.commits, Ordering::Relaxed);
    Ok((queue, tasks))
}

/// Checks format and owner, and reads the state id; a new store gets all three.
fn identify(store: &Store, options: &Options) -> Result<StateId, OpenError> {
    let path = &options.path;
    let foreign = |found: String| OpenError::Foreign { path: path.clone(), found };
    let key = record::named(Space::Meta, "state");
    let owner_key = record::named(Space::Meta, "endpoint");
    let format_key = record::named(Space::Meta, "format");
    let Some(format) = store.get(&format_key)? else {
        if store.scan(Space::Started, &[]).next().is_some() {
            return Err(foreign("no format".to_owned()));
        }
        let state_id = StateId::new();
        let mut writes = Writes::default();
        writes.put(&format_key, &record::encode_numbers(&[FORMAT]));
        writes.put(&key, state_id.0.as_bytes());
        writes.put(&owner_key, options.endpoint_id.0.as_bytes());
        store.commit(writes)?;
        return Ok(state_id);
    };
    match record::unseal(&format_key, &format).and_then(record::decode_numbers) {
        Some([FORMAT]) => (),
        Some([2]) if store.any(TWINS)? => {
            let found = "format 2, with results that had gathered";
            return Err(foreign(found.to_owned()));
        }
        Some([format]) if ONE_A_RECORD.contains(&format) => {
            let mut writes = Writes::default();
            writes.put(&format_key, &record::encode_numbers(&[FORMAT]));
            store.commit(writes)?;
        }
        Some([other]) => return Err(foreign(format!("format {other}"))),
        None => return Err(foreign("a format that cannot be read".to_owned())),
    }
    let owner = EndpointId(identity(store, &owner_key, path, "the endpoint's id")?);
    if owner != options.endpoint_id {
        return Err(OpenError::Owner { path: path.clone(), owner });
    }
    identity(store, &key, path, "the id of the state folder").map(StateId)
}

fn identity(store: &Store, key: &[u8], path: &Path, what: &str) -> Result<Uuid, OpenError> {
    store
        .get(key)?
        .as_deref()
        .and_then(|value| record::unseal(key, value))
        .and_then(|content| Uuid::from_slice(content).ok())
        .ok_or_else(|| OpenError::Broken {
            path: path.to_owned(),
            what: format!("{what} cannot be read"),
        })
}

impl DiskQueue {
    /// Makes a copy of another state folder one of its own: it gets its id, and what is
    /// in its inbox another instance may have, or have had.
    fn settle_in(&mut self) -> Result<(), Error> {
        let mut writes = Writes::default();
        writes.put(&record::named(Space::Meta, "state"), self.state_id.0.as_bytes());
        for seq in self.inbox.keys() {
            writes.put(&record::numbered(Space::Unsecured, seq.0), &[]);
        }
        self.store.commit(writes)
    }

    fn load_seen(&mut self) -> Result<(), Error> {
        let mut writes = Writes::default();
        for entry in self.store.scan(Space::Seen, &[Space::Seen as u8]) {
            let (raw, value) = entry?;
            let content = record::unseal(&raw, &value).and_then(<[u8]>::split_first);
            let (is_run, place, attempts) = match content {
                Some((&RUN, content)) => {
                    let place = record::decode_place(content);
                    (true, place, place.map_or(Ok(None), |place| self.seen.read_run(place))?)
                }
                Some((_, content)) => (false, None, seen::decode(content)),
                None => (false, None, None),
            };
            let file = place.map(|place| place.file);
            let (Some(number), Some(attempts)) = (record::number(&raw), attempts) else {
                self.quarantine(&mut writes, &raw, value, file);
                continue;
            };
            self.lately.next = number + 1;
            file.into_iter().for_each(|file| self.files.refer(file));
            let mut index = self.seen.lock();
            if is_run {
                index.seal(number, &attempts);
            } else {
                self.lately.in_last = attempts.len();
                attempts.iter().for_each(|attempt| index.note(*attempt));
                self.lately.attempts.extend(attempts);
                self.lately.records.push(number);
            }
        }
        self.store.commit(writes)
    }

    /// Counts the results, and who refers to which spool file, and removes files that
    /// nobody refers to: written for a commit that never came, or left over by a
    /// removal.
    fn load_files(&mut self) -> Result<(), Error> {
        let (mut files, mut waiting) = (Files::default(), 0);
        for found in self.all(Space::Inbox, 0)?.chain(self.all(Space::Outbox, 0)?) {
            let (space, held) = match found? {
                Ok(one) => {
                    one.file().into_iter().for_each(|file| files.refer(file));
                    (Some(one.space), 1)
                }
                Err(damaged) => {
                    let held = damaged.members().len() as u64;
                    (damaged.key.map(|key| key.space), held)
                }
            };
            waiting += if space == Some(Space::Outbox) { held } else { 0 };
        }
        self.files.join(files);
        self.next.waiting = waiting;
        let free = self.spool.sweep(|file| self.files.is_live(file));
        let free = free.map_err(|e| self.store.failed("sweeping the spool of")(e.into()))?;
        self.files.free_from(free);
        Ok(())
    }

    fn load_inbox(&mut self) -> Result<(Vec<Accepted>, Vec<Damaged>), Error> {
        let started = self.marks(Space::Started)?;
        let unsecured = self.marks(Space::Unsecured)?;
        let is_own = self.origin.is_own();
        let spool = self.spool.clone();
        let mut reader = spool.reader();
        let (mut tasks, mut damaged) = (Vec::new(), Vec::new());
        for found in self.all(Space::Inbox, 0)? {
            let one = match found? {
                Ok(one) => one,
                Err(record) => {
                    record.members().iter().for_each(|member| self.used(member.seq));
                    damaged.push(*record);
                    continue;
                }
            };
            self.used(one.member.seq);
            let task = self.payload(&mut reader, &one)?.and_then(|payload| {
                serde_json::from_slice::<Task>(&payload)
                    .map_err(|error| format!("it cannot be read: {error}"))
            });
            match task {
                Ok(task) => {
                    let started = started.contains(&one.member.seq);
                    let secured = is_own && !unsecured.contains(&one.member.seq);
                    tasks.push(self.take_up(&one, task, started, secured)?);
                }
                Err(how) => damaged.push(one.damaged(how)),
            }
        }
        Ok((tasks, damaged))
    }

    /// Gives out no task's number again.
    fn used(&mut self, seq: u64) {
        self.next.seq = self.next.seq.max(seq.saturating_add(1));
    }

    fn take_up(
        &mut self,
        one: &One,
        task: Task,
        started: bool,
        secured: bool,
    ) -> Result<Accepted, Error> {
        let (attempt, seq) = (one.member.attempt, Seq(one.member.seq));
        let before = if secured { None } else { self.seen.highest(task.id)? };
        self.seen.note(task.attempt());
        self.keys.note(Space::Inbox, &one.member, &one.raw);
        self.inbox.insert(seq, Slot { attempt, file: one.file(), started, secured });
        let unsecured = (!secured).then_some(Unsecured { before });
        Ok(Accepted { seq, task, started, unsecured })
    }

    /// The numbers of the tasks that have a mark of this kind.
    fn marks(&self, space: Space) -> Result<HashSet<u64>, Error> {
        let mut marks = HashSet::new();
        for entry in self.store.scan(space, &[space as u8]) {
            marks.extend(record::number(&entry?.0));
        }
        Ok(marks)
    }

    /// The counters as they were written; found anew where they are damaged.
    fn load_counters(&mut self, marked: u64) -> Result<(), Error> {
        let key = [Space::Counters as u8];
        let Some(value) = self.store.get(&key)? else { return Ok(()) };
        if let Some(next) = record::unseal(&key, &value).and_then(Next::decode) {
            self.next = next;
            return Ok(());
        }
        self.next.commits = marked;
        let end = record::numbered(Space::Outbox, u64::MAX);
        let last = self.store.last(Space::Outbox, &end)?;
        let last = last.and_then(|(raw, _)| Key::decode(&raw));
        let member = last.and_then(|key| key.members.last().copied());
        self.next.out = member.map_or(0, |member| member.seq + 1);
        let mut writes = Writes::default();
        self.quarantine(&mut writes, &key, value, None);
        writes.put(&key, &self.next.encode());
        self.store.commit(writes)
    }
}
