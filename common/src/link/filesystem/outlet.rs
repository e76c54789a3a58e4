//! Publishes to queues: a thread takes all that waits, writes it as groups,
//! and settles it once it is durable. While one group is being synced the next
//! one gathers.

use super::disk;
use super::names::FileName;
use super::session::FolderSession;
use super::topology::{Cached, Table};
use super::writer::Writer;
use crate::link::{self, Destination, Fault, Message, Outlet, Settlement, Ticket};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Most messages taken at once, and most bytes of them, one message more or
/// less.
const BURST: usize = 1000;
const BURST_BYTES: usize = 4 * 1024 * 1024;
/// How long more is waited for when the last burst was one of many: a fraction of
/// what a sync takes, and more messages share it.
const GATHER: Duration = Duration::from_micros(500);
/// A burst of so many is one of many.
const MANY: usize = 8;
/// How soon a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// Most messages that may be open; the programs keep at most 1,000 open.
const OPEN_MAX: usize = 4096;
/// How often the thread is told to stop: when the outlet is dropped, and when the session
/// is closed.
const STOPS: usize = 2;

/// A request to the thread.
enum WriterCommand {
    Publish(Box<Job>),
    Stop,
}

struct Job {
    ticket: Ticket,
    destination: Destination,
    message: Message,
}

/// How the thread is doing.
#[derive(Clone, Debug)]
enum Condition {
    Up(Instant),
    Blocked { since: Instant, reason: String },
    Down(Fault),
}

/// An [`Outlet`] into a folder.
pub(super) struct FolderOutlet {
    session: Arc<FolderSession>,
    ended: watch::Receiver<Option<Fault>>,
    commands: SyncSender<WriterCommand>,
    settled: mpsc::Receiver<Vec<(Ticket, Settlement)>>,
    condition: watch::Receiver<Condition>,
    last: u64,
    /// The open messages, in the order they are settled, and since when the first is
    /// the first.
    open: VecDeque<Ticket>,
    waiting_since: Instant,
}

impl FolderOutlet {
    /// Starts the thread.
    pub(super) fn open(session: &Arc<FolderSession>) -> Result<Self, Fault> {
        session.is_open()?;
        session.root.is_there()?;
        // Both have room for all that is open: neither side ever waits for the other.
        let (commands, received) = sync_channel(OPEN_MAX + STOPS);
        let (settle, settled) = mpsc::channel(OPEN_MAX);
        let (tell, condition) = watch::channel(Condition::Up(Instant::now()));
        let publisher = BurstWriter {
            session: Arc::clone(session),
            writer: Writer::new(session),
            topology: Cached::default(),
            commands: received,
            waiting: VecDeque::new(),
            last_burst: 0,
            settle,
            tell,
        };
        let stop = commands.clone();
        // A thread that has ended already needs no telling.
        session.work(
            "publish",
            move || drop(stop.try_send(WriterCommand::Stop)),
            move || publisher.run(),
        )?;
        Ok(Self {
            session: Arc::clone(session),
            ended: session.watch(),
            commands,
            settled,
            condition,
            last: 0,
            open: VecDeque::new(),
            waiting_since: Instant::now(),
        })
    }

    fn alive(&self) -> Result<(), Fault> {
        if let Condition::Down(fault) = &*self.condition.borrow() {
            return Err(fault.clone());
        }
        self.ended.borrow().clone().map_or(Ok(()), Err)
    }

    /// Notes what is settled.
    fn note(&mut self, settled: Vec<(Ticket, Settlement)>) -> Vec<(Ticket, Settlement)> {
        self.open.drain(..settled.len().min(self.open.len()));
        self.waiting_since = Instant::now();
        settled
    }

    /// When waiting becomes a fault, and which.
    fn deadline(&self) -> Option<(Instant, Fault)> {
        let terms = &self.session.terms;
        match &*self.condition.borrow() {
            Condition::Down(_) => None,
            Condition::Blocked { since, reason } => Some((
                *since + terms.blocked_timeout,
                Fault::Blocked { reason: reason.clone(), after: terms.blocked_timeout },
            )),
            Condition::Up(since) => {
                self.open.front()?;
                let patience = terms.confirm_timeout;
                let from = (*since).max(self.waiting_since);
                Some((from + patience, Fault::ConfirmTimeout(patience)))
            }
        }
    }
}

impl Drop for FolderOutlet {
    fn drop(&mut self) {
        drop(self.commands.try_send(WriterCommand::Stop));
    }
}

#[async_trait]
impl Outlet for FolderOutlet {
    async fn publish(
        &mut self,
        destination: &Destination,
        mut message: Message,
    ) -> Result<Ticket, Fault> {
        self.alive()?;
        link::fits(&message)?;
        if self.open.len() >= OPEN_MAX {
            let reason = format!("{OPEN_MAX} messages are published and not settled: that is all");
            return Err(Fault::Protocol(reason));
        }
        message.deaths.clear();
        message.routing_key = destination.key_at_an_exchange();
        message.message_id.get_or_insert_with(|| uuid::Uuid::now_v7().to_string());
        self.last += 1;
        let ticket = Ticket(self.last);
        let job = Box::new(Job { ticket, destination: destination.clone(), message });
        if self.commands.try_send(WriterCommand::Publish(job)).is_err() {
            self.alive()?;
            return Err(Fault::Closed("the thread that writes has ended".to_owned()));
        }
        if self.open.is_empty() {
            self.waiting_since = Instant::now();
        }
        self.open.push_back(ticket);
        Ok(ticket)
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        loop {
            // What is settled comes before the fault that came after it.
            if let Ok(settled) = self.settled.try_recv()
                && !settled.is_empty()
            {
                return Ok(self.note(settled));
            }
            self.alive()?;
            let deadline = self.deadline();
            let until = deadline.as_ref().map(|(deadline, _)| *deadline);
            tokio::select! {
                settled = self.settled.recv() => match settled {
                    Some(settled) if settled.is_empty() => {}
                    Some(settled) => return Ok(self.note(settled)),
                    None => {
                        self.alive()?;
                        return Err(Fault::Closed("the thread that writes has ended".to_owned()));
                    }
                },
                _ = self.condition.changed() => {}
                _ = self.ended.changed() => {}
                () = async { sleep_until(until.unwrap_or_else(Instant::now)).await },
                    if until.is_some() => {
                    if let Some((_, fault)) = deadline {
                        return Err(fault);
                    }
                }
            }
        }
    }

    fn open(&self) -> usize {
        self.open.len()
    }
}

/// The thread.
struct BurstWriter {
    session: Arc<FolderSession>,
    writer: Writer,
    topology: Cached,
    commands: Receiver<WriterCommand>,
    /// The messages to be written: they may have come while the disk was full.
    waiting: VecDeque<Job>,
    last_burst: usize,
    settle: mpsc::Sender<Vec<(Ticket, Settlement)>>,
    tell: watch::Sender<Condition>,
}

/// Why the thread ends.
enum WriterEnd {
    Stopped,
    Failed(Fault),
}

impl BurstWriter {
    fn run(mut self) {
        loop {
            let done = self.burst().and_then(|burst| self.commit(&burst));
            match done {
                Ok(()) => {}
                Err(WriterEnd::Stopped) => return,
                Err(WriterEnd::Failed(fault)) => {
                    self.tell.send_replace(Condition::Down(fault));
                    return;
                }
            }
        }
    }

    /// Waits for messages and takes all that are there; none when it is time to
    /// look whether the folder is.
    fn burst(&mut self) -> Result<Vec<Job>, WriterEnd> {
        if self.waiting.is_empty() {
            match self.commands.recv_timeout(self.session.root.options.poll) {
                Ok(WriterCommand::Publish(job)) => self.waiting.push_back(*job),
                Ok(WriterCommand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(WriterEnd::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.session.root.is_there().map_err(WriterEnd::Failed)?;
                }
            }
        }
        let gather = if self.last_burst >= MANY { GATHER } else { Duration::ZERO };
        let until = std::time::Instant::now() + gather;
        let mut bytes: usize = self.waiting.iter().map(|job| job.message.body.len()).sum();
        while !self.waiting.is_empty() && self.waiting.len() < BURST && bytes < BURST_BYTES {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.commands.recv_timeout(left) {
                Ok(WriterCommand::Publish(job)) => {
                    bytes += job.message.body.len();
                    self.waiting.push_back(*job);
                }
                Ok(WriterCommand::Stop) => return Err(WriterEnd::Stopped),
                Err(_) => break,
            }
        }
        self.last_burst = self.waiting.len();
        let count = self.waiting.len().min(BURST);
        Ok(self.waiting.drain(..count).collect())
    }

    /// Writes, syncs and settles a burst.
    fn commit(&mut self, burst: &[Job]) -> Result<(), WriterEnd> {
        if burst.is_empty() {
            return Ok(());
        }
        let table = self.topology.get(&self.session.root).map_err(WriterEnd::Failed)?;
        let mut plan = RoutedBurst::new(&table, burst);
        for (queue, messages) in &plan.queues {
            let placed = match table.max_length(queue) {
                None => self.put(queue, messages)?,
                Some(most) => self.put_at_most(queue, messages, most)?,
            };
            for (place, _) in messages.iter().skip(placed) {
                if let Some((_, settlement)) = plan.settled.get_mut(*place) {
                    *settlement = Settlement::Refused;
                }
            }
        }
        // It fails once the outlet is dropped: then no settlement is wanted.
        drop(self.settle.try_send(plan.settled));
        plan.fault.map_or(Ok(()), |fault| Err(WriterEnd::Failed(fault)))
    }

    /// Puts messages into a queue, as few files; says how many: all.
    fn put(&mut self, queue: &str, messages: &[(usize, &Message)]) -> Result<usize, WriterEnd> {
        let mut rest = messages;
        while !rest.is_empty() {
            let each = rest.iter().map(|(_, message)| *message);
            let (group, after) = rest.split_at(self.writer.fits(each));
            let each = group.iter().map(|(_, message)| *message);
            self.when_there_is_room(queue, |writer| writer.put(queue, each.clone()))?;
            rest = after;
        }
        self.when_there_is_room(queue, |writer| writer.sync(queue))?;
        Ok(messages.len())
    }

    /// Puts as many messages into a bounded queue as it takes; says how many.
    /// Those that publish to it take turns, and a message is a file, so that
    /// counting files counts messages.
    fn put_at_most(
        &mut self,
        queue: &str,
        messages: &[(usize, &Message)],
        most: u64,
    ) -> Result<usize, WriterEnd> {
        let root = self.session.root.clone();
        let failed = |error: io::Error| {
            WriterEnd::Failed(root.fault("counting what is in", &root.queue(queue), &error))
        };
        let turn = root.queue(queue).join("producer");
        let turn = disk::open_for_writing(&turn, root.access()).map_err(failed)?;
        turn.lock().map_err(failed)?;
        let mut waiting = 0;
        for producer in disk::names(&root.ready(queue)).map_err(failed)? {
            let names = disk::names(&root.ready(queue).join(producer)).map_err(failed)?;
            waiting += names.iter().filter(|name| FileName::parse(name).is_some()).count();
        }
        let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(waiting);
        let taken = messages.len().min(room);
        for (_, message) in messages.iter().take(taken) {
            let one = std::iter::once(*message);
            self.when_there_is_room(queue, |writer| writer.put(queue, one.clone()))?;
        }
        self.when_there_is_room(queue, |writer| writer.sync(queue))?;
        Ok(taken)
    }

    /// Does what needs room on the disk, for as long as there is none.
    fn when_there_is_room(
        &mut self,
        queue: &str,
        mut work: impl FnMut(&mut Writer) -> io::Result<()>,
    ) -> Result<(), WriterEnd> {
        let mut blocked = false;
        loop {
            match work(&mut self.writer) {
                Ok(()) => {
                    if blocked {
                        self.tell.send_replace(Condition::Up(Instant::now()));
                    }
                    return Ok(());
                }
                Err(error) if disk::is_short_of_room(&error) => {
                    if !blocked {
                        blocked = true;
                        let (since, reason) = (Instant::now(), error.to_string());
                        tracing::warn!(%error, queue, "the folder takes no more for now");
                        self.tell.send_replace(Condition::Blocked { since, reason });
                    }
                    self.pause()?;
                }
                Err(error) => {
                    let path = self.session.root.ready(queue);
                    let fault = self.session.root.fault("writing to", &path, &error);
                    return Err(WriterEnd::Failed(fault));
                }
            }
        }
    }

    /// Waits a moment, unless it is time to stop.
    fn pause(&mut self) -> Result<(), WriterEnd> {
        let until = std::time::Instant::now() + FULL_PAUSE;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.commands.recv_timeout(left) {
                Ok(WriterCommand::Publish(job)) => self.waiting.push_back(*job),
                Ok(WriterCommand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(WriterEnd::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
            }
        }
    }
}

/// A burst of messages, by the queues that they go to.
struct RoutedBurst<'a> {
    /// The messages for each queue, in order, with their places in `settled`.
    queues: BTreeMap<String, Vec<(usize, &'a Message)>>,
    /// The settlements once those are durable, in order.
    settled: Vec<(Ticket, Settlement)>,
    /// The fault that ends the outlet then: later messages are not in the burst.
    fault: Option<Fault>,
}

impl<'a> RoutedBurst<'a> {
    fn new(table: &Table, burst: &'a [Job]) -> Self {
        let mut plan = Self { queues: BTreeMap::new(), settled: Vec::new(), fault: None };
        for Job { ticket, destination, message } in burst {
            let queues = match table.route(destination) {
                Ok(queues) => queues,
                Err(fault) => {
                    plan.fault = Some(fault);
                    break;
                }
            };
            let settlement = if queues.is_empty() {
                Settlement::Returned(format!(
                    "312 NO_ROUTE (exchange '{}', routing key '{}')",
                    destination.exchange, destination.routing_key
                ))
            } else {
                for queue in queues {
                    let place = plan.settled.len();
                    plan.queues.entry(queue.to_owned()).or_default().push((place, message));
                }
                Settlement::Confirmed
            };
            plan.settled.push((*ticket, settlement));
        }
        plan
    }
}
