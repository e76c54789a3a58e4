//! The journal: the async side of the disk queue. One thread owns the queue, takes all
//! changes that wait as one *group* and makes them durable in one commit ([`writer`]).
//!
//! A change is handed over as soon as there is room for it; the [`Commit`] that
//! [`Reservation::submit`] returns resolves when it is durable. When the disk fails, it
//! fails for good, and every later call says so.

pub(crate) mod commit;
mod linger;
mod notifier;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub(crate) use crate::storage::disk_queue::{
    Accepted, Deaths, Error as DiskError, Finished, Note, NotedRun, OpenError, Origin, OutSeq,
    OutboxRecord, RunNotes, Running, Seq,
};
pub(crate) use commit::Commit;

use crate::storage::disk_queue::{Change, DiskQueue, Options, SeenView};
use crate::system::disk_space::DiskSpace;
use crate::system::troubles::Troubles;
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::{Task, Work};
use commit::{Answer, Pulse};
use notifier::Notifier;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use writer::{Finding, JournalCommand, Reading, Submission, Writer};

/// How many commands may wait for the writer.
const WAITING_MAX: usize = 1024;

/// How long the disk may take for one group.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How to keep the journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalConfig {
    /// The state folder.
    pub(crate) path: PathBuf,
    /// The endpoint that it belongs to.
    pub(crate) endpoint_id: EndpointId,
    /// How many bytes are to stay free on the file system; 64 MiB is a good
    /// choice.
    pub(crate) reserve_bytes: u64,
    /// How many finished attempts to remember at least; a million is a good
    /// choice.
    pub(crate) seen_max: usize,
    /// Where a full disk is told.
    pub(crate) troubles: Troubles,
}

/// The content of a state folder as it was opened.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The state folder's id, made once.
    pub(crate) state_id: StateId,
    /// How the folder came to be where it is.
    pub(crate) origin: Origin,
    /// How many commits it had seen when it was opened.
    pub(crate) age: u64,
    /// How many commits it has seen, as time goes on.
    pub(crate) durable: Arc<AtomicU64>,
    /// The tasks in the inbox, in the order they were accepted.
    pub(crate) tasks: Vec<Accepted>,
    /// How many results wait in the outbox.
    pub(crate) outbox: u64,
    /// The sequence number of the next task.
    pub(crate) next_task: Seq,
    /// The sequence number of the next result.
    pub(crate) next_out: OutSeq,
    /// How often the daemon died while each task ran; a task that is not in
    /// the inbox may be delivered again.
    pub(crate) deaths: HashMap<Attempt, Deaths>,
    /// The file that says which tasks run.
    pub(crate) running: Arc<Running>,
}

impl Recovered {
    /// An empty state folder.
    #[cfg(test)]
    pub(crate) fn empty(state_id: StateId) -> Self {
        Self {
            state_id,
            origin: Origin::Own,
            age: 0,
            durable: Arc::default(),
            tasks: Vec::new(),
            outbox: 0,
            next_task: Seq(0),
            next_out: OutSeq(0),
            deaths: HashMap::new(),
            running: Arc::new(Running::open(std::path::Path::new("/dev/null")).unwrap().0),
        }
    }

    /// The content of a queue that was opened with these tasks in its inbox.
    pub(crate) fn of(queue: &DiskQueue, tasks: Vec<Accepted>) -> Self {
        Self {
            state_id: queue.state_id(),
            origin: queue.origin().clone(),
            age: queue.commits(),
            durable: queue.durable(),
            tasks,
            outbox: queue.waiting(),
            next_task: queue.next_numbers().0,
            next_out: queue.next_numbers().1,
            deaths: queue.deaths().clone(),
            running: queue.running(),
        }
    }
}

/// Why the journal cannot go on. Nothing that was committed is lost by it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The disk failed.
    #[error(
        "the disk queue cannot go on: look at the disk, and whether the state folder is still there, \
         and restart the endpoint; it goes on with what the disk has, and the broker has what was not \
         acknowledged"
    )]
    Failed(#[source] Arc<DiskError>),
    /// The folder is not the one any more that was opened.
    #[error(
        "the state folder {path} was moved, deleted or replaced while the endpoint ran: it ends \
         rather than keep records where nobody finds them. Nothing was acknowledged since. If the \
         folder still exists, move it back before the endpoint starts again; if not, the service \
         asks what became of its tasks"
    )]
    Displaced {
        /// The state folder.
        path: PathBuf,
    },
    /// The store gave up in a way that it has no error for.
    #[error("the disk queue in {path} gave up unexpectedly: restart the endpoint")]
    Broken {
        /// The state folder.
        path: PathBuf,
    },
    /// The disk took too long.
    #[error(
        "the disk queue in {path} has not finished a write in {limit:?}: look at the disk and \
         restart the endpoint"
    )]
    Stalled {
        /// The state folder.
        path: PathBuf,
        /// How long it may take.
        limit: Duration,
    },
    /// The journal was closed before this was durable.
    #[error("the journal is closed")]
    Closed,
}

/// The endpoint's journal.
pub(crate) struct Journal {
    commands: mpsc::Sender<JournalCommand>,
    seen: SeenView,
    pulse: Arc<Pulse>,
    threads: Mutex<Threads>,
}

/// The thread and the task that run for a journal until it is closed.
#[derive(Default)]
pub(crate) struct Threads {
    writer: Option<JoinHandle<()>>,
    notifier: Option<tokio::task::JoinHandle<()>>,
}

/// Tells how many bytes are free where the queue is.
type Probe = Box<dyn FnMut() -> std::io::Result<u64> + Send>;

/// Opens the journal in a state folder and starts its thread. Blocks while it
/// reads what is there; damaged tasks have become results in the outbox.
pub(crate) fn open(config: JournalConfig) -> Result<(Journal, Recovered), OpenError> {
    let mut room = DiskSpace::in_folder(&config.path);
    // Better not begun than begun: a store that finds no room as it opens may fail in
    // ways that look like damage. What else is wrong with the folder, opening it tells.
    if room.free().is_ok_and(|free| free == 0) {
        return Err(OpenError::NoRoom { path: config.path });
    }
    open_with(config, Box::new(move || room.free()), STALL_LIMIT)
}

fn open_with(
    config: JournalConfig,
    probe: Probe,
    stall_limit: Duration,
) -> Result<(Journal, Recovered), OpenError> {
    let JournalConfig { path, endpoint_id, reserve_bytes, seen_max, troubles } = config;
    let (queue, tasks) = DiskQueue::open(&Options { path: path.clone(), endpoint_id, seen_max })?;
    let recovered = Recovered::of(&queue, tasks);
    let seen = queue.seen();
    let pulse = Arc::new(Pulse::new(path.clone(), stall_limit));
    let (commands, receiver) = mpsc::channel(WAITING_MAX);
    let (notify, notifier) = Notifier::start();
    let told = (pulse.clone(), notify, troubles);
    let writer = Writer::new(queue, receiver, told, probe, reserve_bytes);
    let writer = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::Thread { path, source })?;
    let threads = Threads { writer: Some(writer), notifier };
    Ok((Journal::over(commands, seen, pulse, threads), recovered))
}

impl Journal {
    /// A journal over the writer that takes its commands.
    pub(crate) fn over(
        commands: mpsc::Sender<JournalCommand>,
        seen: SeenView,
        pulse: Arc<Pulse>,
        threads: Threads,
    ) -> Self {
        Self { commands, seen, pulse, threads: Mutex::new(threads) }
    }

    /// Waits until there is room for a submission.
    pub(crate) async fn reserve(&self) -> Result<Reservation<'_>, JournalError> {
        Ok(Reservation { journal: self, permit: self.permit().await? })
    }

    /// The results in the outbox from `from` on, in order: at most `max`,
    /// and `max_bytes` in all unless the first alone is larger. What was
    /// finished before this call is among them, and durable, unless the disk
    /// is full.
    pub(crate) async fn outbox(
        &self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxRecord>, JournalError> {
        let (reply, records) = oneshot::channel();
        let reading = Reading { from, max, max_bytes, reply };
        self.permit().await?.send(JournalCommand::Read(reading));
        Answer::new(records, self.pulse.clone()).await
    }

    /// The attempts, of these, that are accepted and not finished, or finished and not
    /// released, after all that was handed over before; all of them where very many results
    /// wait.
    pub(crate) async fn held(
        &self,
        attempts: HashSet<Attempt>,
    ) -> Result<HashSet<Attempt>, JournalError> {
        let (reply, held) = oneshot::channel();
        self.permit().await?.send(JournalCommand::Find(Finding { attempts, reply }));
        Answer::new(held, self.pulse.clone()).await
    }

    /// The highest attempt at a task that was accepted or finished, those not
    /// yet committed included. Reads the disk only where memory says that the
    /// task may have come by long ago.
    pub(crate) fn seen(&self, task: TaskId) -> Result<Option<u32>, JournalError> {
        self.seen.highest(task).map_err(|error| JournalError::Failed(Arc::new(error)))
    }

    /// Commits what was handed over, closes the queue and ends its threads.
    /// Later calls get [`JournalError::Closed`].
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let Ok(permit) = self.permit().await else { return };
        permit.send(JournalCommand::Close(done));
        if let Err(error) = Answer::new(closed, self.pulse.clone()).await {
            tracing::error!(error = %error, "the journal could not be closed in order");
            return;
        }
        let Threads { writer, notifier } =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The writer has answered as the last thing it does, and the notifier ends with it.
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
        if let Some(notifier) = notifier
            && notifier.await.is_err()
        {
            tracing::error!("the journal's notifier panicked");
        }
    }

    async fn permit(&self) -> Result<mpsc::Permit<'_, JournalCommand>, JournalError> {
        if let Some(error) = self.pulse.failure() {
            return Err(error);
        }
        self.commands.reserve().await.map_err(|_| self.pulse.end())
    }
}

/// Room for one submission.
pub(crate) struct Reservation<'a> {
    journal: &'a Journal,
    permit: mpsc::Permit<'a, JournalCommand>,
}

impl Reservation<'_> {
    /// Hands changes over, which are made all or none, in the order of the calls. An attempt
    /// is seen from now on if it is accepted or finished, and forgotten if it is handed back.
    pub(crate) fn submit(self, changes: Vec<Change>) -> Commit {
        let Self { journal, permit } = self;
        for change in &changes {
            match change {
                Change::Accept { task, .. } => journal.seen.note(task.attempt()),
                Change::Finish { result, .. } => journal.seen.note(result.attempt),
                Change::HandBack { .. }
                | Change::Secure { .. }
                | Change::Start { .. }
                | Change::Release { .. } => {}
            }
        }
        // The last one noted first: the attempt before it is then known again.
        for change in changes.iter().rev() {
            if let Change::HandBack { before, result, .. } = change {
                journal.seen.forget(result.attempt, *before);
            }
        }
        let bytes = changes.iter().map(bytes_on_disk).sum();
        let (done, committed) = oneshot::channel();
        permit.send(JournalCommand::Submit(Submission { changes, bytes, done }));
        Commit::new(Answer::new(committed, journal.pulse.clone()))
    }
}

/// About how many bytes a change adds to the disk; 0 for one that makes room.
fn bytes_on_disk(change: &Change) -> usize {
    match change {
        Change::Accept { task, .. } => task_bytes(task),
        Change::Start { .. } => 1,
        Change::Finish { result, .. } | Change::HandBack { result, .. } => result.bytes.len() + 1,
        Change::Secure { .. } | Change::Release { .. } => 0,
    }
}

/// About how many bytes a task takes on disk.
fn task_bytes(task: &Task) -> usize {
    let process = match &task.work {
        Work::Process(process) => process,
        Work::Call(call) => return 256 + call.size(),
    };
    let env = process.env.iter().map(|(name, value)| name.len() + value.len() + 6);
    let argv = process.argv.iter().map(|argument| argument.len() + 3);
    256 + argv.chain(env).sum::<usize>() + process.stdin.0.len() * 4 / 3
}
