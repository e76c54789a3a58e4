//! The disk queue as the rest of the endpoint sees it: async, and never in the
//! way. One thread owns the queue, takes all that is waiting as one group and
//! makes it durable at once ([`writer`]).
//!
//! Calls return as soon as there is room to hand the change over; the
//! [`Commit`] they return resolves when it is durable. When the disk fails, it
//! fails for good, and every later call says so.

pub(crate) mod commit;
mod linger;
mod teller;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub(crate) use crate::storage::disk_queue::{
    Accepted, Deaths, Error as DiskError, Finished, OpenError, Origin, OutSeq, OutboxRecord,
    Running, Seq,
};
pub(crate) use commit::Commit;

use crate::storage::disk_queue::{Change, DiskQueue, Options, SeenView};
use crate::system::disk_space::DiskSpace;
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::{Task, Work};
use commit::{Answer, Pulse};
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use teller::Teller;
use tokio::sync::{mpsc, oneshot};
use writer::{Command, Finding, Reading, Submission, Writer};

/// How many commands may wait for the writer.
const WAITING_MAX: usize = 1024;

/// How long the disk may take for one group.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How to keep the journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalConfig {
    /// The state folder.
    pub(crate) path: PathBuf,
    /// The endpoint whose results it keeps.
    pub(crate) endpoint_id: EndpointId,
    /// How many bytes are to stay free on the file system; 64 MiB is a good
    /// choice.
    pub(crate) reserve_bytes: u64,
    /// How many finished attempts to remember at least; a million is a good
    /// choice.
    pub(crate) seen_max: usize,
}

/// What was found on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The state folder's id, made once.
    pub(crate) state_id: StateId,
    /// How the folder came to be where it is.
    pub(crate) origin: Origin,
    /// How many commits it has seen: what a run accepts, it has seen in the next.
    pub(crate) age: u64,
    /// How many it has seen as time goes on.
    pub(crate) durable: Arc<AtomicU64>,
    /// The tasks in the inbox, in the order they were accepted.
    pub(crate) tasks: Vec<Accepted>,
    /// How many results wait in the outbox.
    pub(crate) outbox: u64,
    /// The name that the next result will have.
    pub(crate) next_out: OutSeq,
    /// How often the daemon died while each task ran; a task that is not in
    /// the inbox may be delivered again.
    pub(crate) deaths: HashMap<Attempt, Deaths>,
    /// Where it is noted which tasks run.
    pub(crate) running: Arc<Running>,
}

impl Recovered {
    /// What was found as a queue was opened, with these tasks in its inbox.
    pub(crate) fn of(queue: &DiskQueue, tasks: Vec<Accepted>) -> Self {
        Self {
            state_id: queue.state_id(),
            origin: queue.origin().clone(),
            age: queue.commits(),
            durable: queue.durable(),
            tasks,
            outbox: queue.waiting(),
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

/// A task to hand back.
#[derive(Clone, Debug)]
pub(crate) struct HandBack {
    /// Which.
    pub(crate) inbox: Seq,
    /// The highest attempt that was [seen](Journal::seen) before it was accepted.
    pub(crate) before: Option<u32>,
    /// What says that it was not kept.
    pub(crate) result: Arc<Finished>,
}

/// The endpoint's journal; clones are the same journal.
#[derive(Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::Sender<Command>,
    names: Mutex<Names>,
    seen: SeenView,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The next names to give out. Held while a command is handed over, so that
/// commands are in the order of their names.
struct Names {
    seq: u64,
    out: u64,
}

/// Tells how many bytes are free where the queue is.
type Probe = Box<dyn FnMut() -> std::io::Result<u64> + Send>;

/// Opens the journal in a state folder and starts its thread. Blocks while it
/// reads what is there; damaged tasks have become results in the outbox.
///
/// # Errors
/// See [`OpenError`].
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
    let JournalConfig { path, endpoint_id, reserve_bytes, seen_max } = config;
    let (queue, tasks) = DiskQueue::open(&Options { path: path.clone(), endpoint_id, seen_max })?;
    let recovered = Recovered::of(&queue, tasks);
    let (free, seen) = (queue.next_numbers(), queue.seen());
    let pulse = Arc::new(Pulse::new(path.clone(), stall_limit));
    let (commands, receiver) = mpsc::channel(WAITING_MAX);
    let teller = Teller::start();
    let writer = Writer::new(queue, receiver, (pulse.clone(), teller), probe, reserve_bytes);
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::Thread { path, source })?;
    Ok((Journal::over(commands, free, seen, pulse, Some(thread)), recovered))
}

impl Journal {
    /// A journal over whatever answers its commands: a writer on `thread`, or
    /// one that others run. `free` are the first names that are free.
    pub(crate) fn over(
        commands: mpsc::Sender<Command>,
        (Seq(seq), OutSeq(out)): (Seq, OutSeq),
        seen: SeenView,
        pulse: Arc<Pulse>,
        thread: Option<JoinHandle<()>>,
    ) -> Self {
        let names = Mutex::new(Names { seq, out });
        let shared = Shared { commands, names, seen, pulse, thread: Mutex::new(thread) };
        Self { shared: Arc::new(shared) }
    }

    /// Puts tasks into the inbox, which nobody else can have.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn accept(
        &self,
        tasks: Vec<Arc<Task>>,
    ) -> Result<(Vec<Seq>, Commit), JournalError> {
        self.take_in(tasks, true).await
    }

    /// Puts tasks into the inbox, which somebody else may be given until they
    /// are [secured](Journal::secure).
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn accept_unsecured(
        &self,
        tasks: Vec<Arc<Task>>,
    ) -> Result<(Vec<Seq>, Commit), JournalError> {
        self.take_in(tasks, false).await
    }

    async fn take_in(
        &self,
        tasks: Vec<Arc<Task>>,
        secured: bool,
    ) -> Result<(Vec<Seq>, Commit), JournalError> {
        let bytes = tasks.iter().map(|task| task_bytes(task)).sum();
        self.submit(bytes, |names| {
            let mut seqs = Vec::with_capacity(tasks.len());
            let mut changes = Vec::with_capacity(tasks.len());
            for task in tasks {
                self.shared.seen.note(task.attempt());
                let seq = Seq(names.seq);
                names.seq += 1;
                seqs.push(seq);
                changes.push(Change::Accept { seq, task, secured });
            }
            (seqs, changes)
        })
        .await
    }

    /// Notes that nobody else can have these tasks any more: a crash before that
    /// is durable will find them [`Accepted::unsecured`].
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn secure(&self, seqs: Vec<Seq>) -> Result<Commit, JournalError> {
        let changes = seqs.into_iter().map(|seq| Change::Secure { seq }).collect();
        let (_, commit) = self.submit(0, |_| ((), changes)).await?;
        Ok(commit)
    }

    /// Marks a task as started: once that is durable, a crash will find it
    /// [`Accepted::started`].
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn start(&self, seq: Seq) -> Result<Commit, JournalError> {
        let (_, commit) = self.submit(1, |_| ((), vec![Change::Start { seq }])).await?;
        Ok(commit)
    }

    /// Moves a task from the inbox to the outbox, as its result. `inbox` is
    /// none for the result of a task that was never accepted.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn finish(
        &self,
        inbox: Option<Seq>,
        result: Arc<Finished>,
    ) -> Result<(OutSeq, Commit), JournalError> {
        self.submit(result.bytes.len() + 1, |names| {
            self.shared.seen.note(result.attempt);
            let out = OutSeq(names.out);
            names.out += 1;
            (out, vec![Change::Finish { inbox, out, result }])
        })
        .await
    }

    /// Moves tasks from the inbox to the outbox, as results that say that they were
    /// not kept, all or none, and forgets them: they may come again.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn hand_back(
        &self,
        tasks: Vec<HandBack>,
    ) -> Result<(Vec<OutSeq>, Commit), JournalError> {
        let bytes = tasks.iter().map(|task| task.result.bytes.len() + 1).sum();
        self.submit(bytes, |names| {
            // The last one noted first: what was before it is then known again.
            for HandBack { before, result, .. } in tasks.iter().rev() {
                self.shared.seen.forget(result.attempt, *before);
            }
            let mut outs = Vec::with_capacity(tasks.len());
            let mut changes = Vec::with_capacity(tasks.len());
            for HandBack { inbox, before, result } in tasks {
                let out = OutSeq(names.out);
                names.out += 1;
                outs.push(out);
                changes.push(Change::HandBack { inbox, before, out, result });
            }
            (outs, changes)
        })
        .await
    }

    /// Removes results from the outbox: whoever they are for has them.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn release(&self, out: Vec<OutSeq>) -> Result<Commit, JournalError> {
        let changes = out.into_iter().map(|out| Change::Release { out }).collect();
        let (_, commit) = self.submit(0, |_| ((), changes)).await?;
        Ok(commit)
    }

    /// The results in the outbox from `from` on, in order: at most `max`,
    /// and `max_bytes` in all unless the first alone is larger. What was
    /// finished before this call is among them, and durable, unless the disk
    /// is full.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn outbox(
        &self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxRecord>, JournalError> {
        let (reply, records) = oneshot::channel();
        let reading = Reading { from, max, max_bytes, reply };
        self.hand_over().await?.send(Command::Read(reading));
        Answer::new(records, self.shared.pulse.clone()).await
    }

    /// Which of these attempts are accepted and not finished, or finished and not
    /// released, as of all that was handed over before. Where very many results wait,
    /// all of them are taken to be.
    ///
    /// # Errors
    /// The journal has failed or is closed.
    pub(crate) async fn held(
        &self,
        attempts: HashSet<Attempt>,
    ) -> Result<HashSet<Attempt>, JournalError> {
        let (reply, held) = oneshot::channel();
        self.hand_over().await?.send(Command::Find(Finding { attempts, reply }));
        Answer::new(held, self.shared.pulse.clone()).await
    }

    /// The highest attempt at a task that was accepted or finished, those not
    /// yet committed included. Reads the disk only where memory says that the
    /// task may have come by long ago.
    ///
    /// # Errors
    /// The disk could not be read.
    pub(crate) fn seen(&self, task: TaskId) -> Result<Option<u32>, JournalError> {
        self.shared.seen.highest(task).map_err(|error| JournalError::Failed(Arc::new(error)))
    }

    /// Commits what was handed over, closes the queue and ends its thread.
    /// Other clones get [`JournalError::Closed`] from then on.
    pub(crate) async fn close(self) {
        let (done, closed) = oneshot::channel();
        let Ok(permit) = self.hand_over().await else { return };
        permit.send(Command::Close(done));
        if let Err(error) = Answer::new(closed, self.shared.pulse.clone()).await {
            tracing::error!(error = %error, "the journal could not be closed in order");
            return;
        }
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The thread has answered as the last thing it does.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
    }

    async fn submit<T>(
        &self,
        bytes: usize,
        make: impl FnOnce(&mut Names) -> (T, Vec<Change>),
    ) -> Result<(T, Commit), JournalError> {
        let permit = self.hand_over().await?;
        let (done, committed) = oneshot::channel();
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        let (named, changes) = make(&mut names);
        permit.send(Command::Submit(Submission { changes, bytes, done }));
        drop(names);
        Ok((named, Commit::new(Answer::new(committed, self.shared.pulse.clone()))))
    }

    async fn hand_over(&self) -> Result<mpsc::Permit<'_, Command>, JournalError> {
        if let Some(error) = self.shared.pulse.failure() {
            return Err(error);
        }
        self.shared.commands.reserve().await.map_err(|_| self.shared.pulse.end())
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
