//! The thread behind an inlet: claims groups while there is room for what is in
//! them, delivers their messages one by one, and settles them. A group's file
//! goes when all of it is settled; until then its name says how much is. For a
//! browser it claims and delivers one message at a time, when it is asked to.

mod damage;
mod looking;

use super::names::FileName;
use super::session::FolderSession;
use super::sources::{ClaimedFile, Sources};
use super::topology::Cached;
use super::wake::{WakeListener, WakeReason};
use super::writer::Writer;
use super::{disk, group, recovery};
use crate::link::{
    DELIVERY_LIMIT, Delivery, Destination, Fault, InletOptions, Message, REJECTED, Tag,
};
use crate::system::clock::now_ms;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;

/// How many polls lie between two sweeps.
const SWEEP: u32 = 30;

/// Asks the thread.
pub(super) enum ConsumerCommand {
    /// Everything up to this tag is done with.
    Acknowledge(Tag),
    /// This one is done with, and those before it are not.
    AcknowledgeOne(Tag),
    /// These are refused.
    Refuse(BTreeSet<Tag>),
    /// Tell when the disk says of everything acknowledged that it is.
    Secure(oneshot::Sender<()>),
    /// Hand out one more message, if there is one.
    Look(oneshot::Sender<Option<Delivery>>),
    /// This one is done with; tell when the disk says so.
    Remove(Tag, oneshot::Sender<()>),
}

/// The thread.
pub(super) struct Consumer {
    session: Arc<FolderSession>,
    queue: String,
    prefetch: usize,
    /// Whether others consume from the queue too, and want their part.
    shared: bool,
    /// Whether messages are settled in any order.
    one_by_one: bool,
    topology: Cached,
    claims: PathBuf,
    sources: Sources,
    listener: WakeListener,
    /// Held for as long as the thread runs.
    _lock: File,
    /// Takes what is refused.
    writer: Writer,
    /// The claimed groups, by the order of claiming.
    groups: BTreeMap<u64, Group>,
    claimed: u64,
    tag: u64,
    /// The unsettled deliveries: the group of each and its place in it.
    unsettled: BTreeMap<Tag, (u64, usize)>,
    /// The deliveries on their way to the dead-letter queue, and why.
    refused: BTreeMap<Tag, &'static str>,
    /// The callers that wait until the acknowledgements are on disk.
    securing: Vec<oneshot::Sender<()>>,
    short_of_room: bool,
    looked: Instant,
    looks: u32,
}

struct Group {
    claim: ClaimedFile,
    /// The messages still to be delivered.
    messages: VecDeque<Message>,
    /// The place of the first of those.
    next: usize,
    /// Where nothing is settled yet.
    open: BTreeSet<usize>,
    delivered: bool,
    /// Why its file can never be read: it stands for its messages, and is set aside
    /// when it is settled.
    damage: Option<String>,
}

impl Consumer {
    pub(super) fn new(
        session: &Arc<FolderSession>,
        options: &InletOptions,
        topology: Cached,
        claims: PathBuf,
        sources: Sources,
        listener: WakeListener,
        lock: File,
    ) -> Self {
        Self {
            session: Arc::clone(session),
            queue: options.queue.clone(),
            prefetch: usize::from(options.prefetch.max(1)),
            shared: options.lease.is_none(),
            one_by_one: options.one_by_one,
            topology,
            claims,
            sources,
            listener,
            _lock: lock,
            writer: Writer::new(session),
            groups: BTreeMap::new(),
            claimed: 0,
            tag: 0,
            unsettled: BTreeMap::new(),
            refused: BTreeMap::new(),
            securing: Vec::new(),
            short_of_room: false,
            looked: Instant::now(),
            looks: 0,
        }
    }

    /// Delivers nothing but what it is asked for, one message at a time.
    pub(super) fn on_demand(self) -> Self {
        Self { prefetch: 0, shared: true, ..self }
    }

    /// Consumes until `stop` is set, and gives back what is not settled then.
    pub(super) fn run(
        mut self,
        commands: &mut Receiver<ConsumerCommand>,
        stop: &AtomicBool,
        deliver: &Sender<Delivery>,
    ) -> Result<(), Fault> {
        let done = self.consume(commands, stop, deliver).map_err(|error| self.fault(&error));
        if let Err(error) = self.give_back() {
            tracing::debug!(%error, queue = self.queue, "claims stay for the next consumer to find");
        }
        done?
    }

    fn consume(
        &mut self,
        commands: &mut Receiver<ConsumerCommand>,
        stop: &AtomicBool,
        deliver: &Sender<Delivery>,
    ) -> io::Result<Result<(), Fault>> {
        loop {
            // Requests made before it was set are still carried out.
            let stopped = stop.load(Ordering::Acquire);
            loop {
                match commands.try_recv() {
                    Ok(ConsumerCommand::Acknowledge(up_to)) => self.acknowledge(up_to)?,
                    Ok(ConsumerCommand::AcknowledgeOne(tag)) => self.acknowledge_one(tag)?,
                    Ok(ConsumerCommand::Refuse(tags)) => {
                        self.refused.extend(tags.into_iter().map(|tag| (tag, REJECTED)));
                    }
                    Ok(ConsumerCommand::Secure(done)) => self.securing.push(done),
                    Ok(ConsumerCommand::Look(answer)) => self.look_at_next(answer)?,
                    Ok(ConsumerCommand::Remove(tag, done)) => self.remove(tag, done)?,
                    Err(TryRecvError::Empty) if !stopped => break,
                    Err(_) => return Ok(Ok(())),
                }
            }
            self.secure()?;
            let done = self.dead_letter().and_then(|()| self.fill(deliver));
            match done {
                Err(error) if disk::is_short_of_room(&error) => {
                    if !self.short_of_room {
                        let queue = &self.queue;
                        tracing::warn!(%error, queue, "the folder takes nothing for now");
                    }
                    self.short_of_room = true;
                }
                done => {
                    done?;
                    self.short_of_room = false;
                }
            }
            let poll = self.session.root.options.poll;
            match self.listener.listen(poll.saturating_sub(self.looked.elapsed()))? {
                WakeReason::Nothing => {}
                WakeReason::Changes(producers) => self.sources.stir(producers),
                WakeReason::Everything => self.sources.look()?,
            }
            if self.looked.elapsed() >= poll
                && let Err(fault) = self.look()?
            {
                return Ok(Err(fault));
            }
        }
    }

    /// Looks around, whether or not anything was heard.
    fn look(&mut self) -> io::Result<Result<(), Fault>> {
        self.looked = Instant::now();
        self.looks += 1;
        let root = &self.session.root;
        if let Err(fault) = root.is_there() {
            return Ok(Err(fault));
        }
        if !root.ready(&self.queue).is_dir() {
            return Ok(Err(Fault::Missing(format!("the queue '{}' was deleted", self.queue))));
        }
        if recovery::claims(&self.session, &self.queue)? > 0 {
            self.sources.forget();
        }
        if self.looks.is_multiple_of(SWEEP) {
            recovery::sweep(&self.session, &self.queue)?;
        }
        self.sources.look()?;
        Ok(Ok(()))
    }

    /// Delivers as much as there is room and messages for.
    fn fill(&mut self, deliver: &Sender<Delivery>) -> io::Result<()> {
        while self.unsettled.len() < self.prefetch {
            if let Some(delivery) = self.miss().or_else(|| self.pop()) {
                // It fails once the inlet is dropped; `stop` is set then.
                drop(deliver.try_send(delivery));
            } else if !self.claim(self.prefetch - self.unsettled.len())? {
                break;
            }
        }
        Ok(())
    }

    /// The next message of what is claimed.
    fn pop(&mut self) -> Option<Delivery> {
        let mut last = self.groups.last_entry()?;
        let (&number, group) = (&self.claimed, last.get_mut());
        let message = group.messages.pop_front()?;
        self.tag += 1;
        let tag = Tag(self.tag);
        self.unsettled.insert(tag, (number, group.next));
        group.next += 1;
        group.delivered = true;
        let redelivered = group.claim.entry.deliveries > 1;
        Some(Delivery { tag, redelivered, message })
    }

    /// Claims and reads the next group that has something to deliver; of one that
    /// has more than there is room for, as much as fits if others want the rest. Where
    /// messages are settled one by one, it takes one message of a group: a claim is settled
    /// from its start.
    fn claim(&mut self, room: usize) -> io::Result<bool> {
        let room = if self.one_by_one { 1 } else { room };
        let limit = self.delivery_limit();
        while let Some(mut claim) = self.sources.claim()? {
            let path = claim.path(&self.claims);
            let (mut messages, damage): (VecDeque<Message>, _) = match group::read(&path)? {
                Ok(messages) => {
                    let to = claim.entry.to.unwrap_or(messages.len());
                    (messages.into_iter().take(to).skip(claim.entry.from).collect(), None)
                }
                // A browser cannot report damage: the file is set aside.
                Err(reason) if self.prefetch == 0 => {
                    self.quarantine(&claim, &reason)?;
                    continue;
                }
                Err(reason) => {
                    let damage = Some(format!("a file of messages: {reason}"));
                    (VecDeque::from([Message { damage, ..Message::default() }]), Some(reason))
                }
            };
            if messages.is_empty() {
                disk::remove_if_there(&path)?;
                continue;
            }
            if (self.shared || self.one_by_one) && messages.len() > room {
                if let Err(error) = self.sources.split(&mut claim, room) {
                    let entry = FileName { deliveries: claim.entry.deliveries - 1, ..claim.entry };
                    let root = &self.session.root;
                    recovery::give_back(root, &self.queue, &path, &claim.producer, entry)?;
                    return Err(error);
                }
                messages.truncate(room);
            }
            let from = claim.entry.from;
            let open = (from..from + messages.len()).collect();
            let group = Group { messages, next: from, open, delivered: false, claim, damage };
            self.claimed += 1;
            let exceeded = limit.is_some_and(|limit| group.claim.entry.deliveries > limit + 1);
            self.groups.insert(self.claimed, group);
            if !exceeded {
                return Ok(true);
            }
            self.refuse_all(self.claimed);
        }
        Ok(false)
    }

    fn delivery_limit(&mut self) -> Option<u64> {
        let table = self.topology.get(&self.session.root).ok()?;
        table.delivery_limit(&self.queue)
    }

    /// Refuses a group that was delivered too often, instead of delivering it.
    fn refuse_all(&mut self, number: u64) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        tracing::warn!(
            queue = self.queue,
            deliveries = group.claim.entry.deliveries,
            messages = group.messages.len(),
            "messages were delivered too often and go to the dead-letter queue"
        );
        group.messages.clear();
        self.unsettled.retain(|_, (of, _)| *of != number);
        for &place in &group.open {
            self.tag += 1;
            self.unsettled.insert(Tag(self.tag), (number, place));
            self.refused.insert(Tag(self.tag), DELIVERY_LIMIT);
        }
    }

    fn acknowledge(&mut self, up_to: Tag) -> io::Result<()> {
        let later = self.unsettled.split_off(&Tag(up_to.0.saturating_add(1)));
        let settled = std::mem::replace(&mut self.unsettled, later);
        // What is refused stays open until the dead-letter queue has it.
        let (refused, settled): (BTreeMap<_, _>, BTreeMap<_, _>) =
            settled.into_iter().partition(|(tag, _)| self.refused.contains_key(tag));
        self.unsettled.extend(refused);
        self.settle(settled.into_values())
    }

    fn acknowledge_one(&mut self, tag: Tag) -> io::Result<()> {
        let settled =
            if self.refused.contains_key(&tag) { None } else { self.unsettled.remove(&tag) };
        self.settle(settled.into_iter())
    }

    /// Moves what is refused to the dead-letter queue.
    fn dead_letter(&mut self) -> io::Result<()> {
        while let Some((&tag, &reason)) = self.refused.first_key_value() {
            if let Some(&(number, place)) = self.unsettled.get(&tag) {
                if let Some(mut message) = self.read(number, place)? {
                    message.died(&self.queue, reason, Some(now_ms()));
                    self.bury(message)?;
                }
                self.unsettled.remove(&tag);
                self.settle([(number, place)].into_iter())?;
            }
            self.refused.remove(&tag);
        }
        Ok(())
    }

    /// A message of a claimed group, which may be delivered already.
    fn read(&self, number: u64, place: usize) -> io::Result<Option<Message>> {
        let Some(group) = self.groups.get(&number) else { return Ok(None) };
        let messages = group::read(&group.claim.path(&self.claims))?;
        Ok(messages.ok().and_then(|messages| messages.into_iter().nth(place)))
    }

    /// Puts a refused message where the queue's dead letters go; without such a
    /// place it goes nowhere, as at any broker. Where the place does not exist, the
    /// message is set aside.
    fn bury(&mut self, message: Message) -> io::Result<()> {
        let root = &self.session.root;
        let table = self.topology.get(root).map_err(io::Error::other)?;
        let Some(exchange) = table.dead_letter_exchange(&self.queue) else {
            tracing::warn!(queue = self.queue, "a refused message has no dead-letter exchange");
            return Ok(());
        };
        let key = table.dead_letter_key(&self.queue).unwrap_or(&self.queue);
        let to = Destination { exchange: exchange.to_owned(), routing_key: key.to_owned() };
        let queues = table.route(&to).unwrap_or_default();
        if queues.is_empty() {
            let aside = root.quarantine().join(uuid::Uuid::now_v7().to_string());
            disk::replace(&aside, &group::encode(std::iter::once(&message)), root.access())?;
            tracing::error!(
                queue = self.queue,
                exchange,
                file = %aside.display(),
                "a refused message's dead-letter exchange leads nowhere: it is set aside"
            );
        }
        for queue in queues {
            self.writer.put(queue, std::iter::once(&message))?;
            self.writer.sync(queue)?;
        }
        Ok(())
    }

    /// Settles messages: whole groups are removed, others renamed.
    fn settle(&mut self, settled: impl Iterator<Item = (u64, usize)>) -> io::Result<()> {
        let mut touched = BTreeSet::new();
        for (number, place) in settled {
            let Some(group) = self.groups.get_mut(&number) else { continue };
            group.open.remove(&place);
            touched.insert(number);
        }
        for number in touched {
            self.write_down(number)?;
        }
        Ok(())
    }

    /// Has a group's name say how much of it is settled.
    fn write_down(&mut self, number: u64) -> io::Result<()> {
        let Some(group) = self.groups.get_mut(&number) else { return Ok(()) };
        let path = group.claim.path(&self.claims);
        match group.open.first() {
            None => {
                match &group.damage {
                    None => self.fine_if_taken(fs::remove_file(path))?,
                    Some(reason) => {
                        let (claim, reason) = (group.claim.clone(), reason.clone());
                        self.quarantine(&claim, &reason)?;
                    }
                }
                self.groups.remove(&number);
            }
            Some(&first) if first > group.claim.entry.from => {
                let mut claim = group.claim.clone();
                claim.entry.from = first;
                match fs::rename(path, claim.path(&self.claims)) {
                    // How much of it is settled is told later, or comes again.
                    Err(error) if disk::is_short_of_room(&error) => {}
                    renamed => {
                        self.fine_if_taken(renamed)?;
                        if let Some(group) = self.groups.get_mut(&number) {
                            group.claim = claim;
                        }
                    }
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Tells the waiting callers that the acknowledgements are on disk, if they are.
    fn secure(&mut self) -> io::Result<()> {
        if self.securing.is_empty() {
            return Ok(());
        }
        let is_late = |group: &Group| group.open.first() > Some(&group.claim.entry.from);
        let late = self.groups.iter().filter(|(_, group)| is_late(group));
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.write_down(number)?;
        }
        if self.groups.values().any(is_late) {
            return Ok(());
        }
        disk::sync_folder(&self.claims)?;
        for done in self.securing.drain(..) {
            // It fails if the caller has given up waiting.
            done.send(()).ok();
        }
        Ok(())
    }

    /// Gives back what is not settled, and the folder for claims.
    fn give_back(&mut self) -> io::Result<()> {
        if let Some(limit) = self.delivery_limit() {
            let delivered = self.groups.iter().filter(|(_, group)| group.delivered);
            let exceeded = delivered.filter(|(_, group)| group.claim.entry.deliveries > limit);
            for number in exceeded.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.refuse_all(number);
            }
            if let Err(error) = self.dead_letter() {
                tracing::debug!(%error, "what was delivered too often stays in the queue for now");
            }
        }
        let mut done = Ok(());
        for group in std::mem::take(&mut self.groups).into_values() {
            let claim = group.claim.path(&self.claims);
            let deliveries = group.claim.entry.deliveries - u64::from(!group.delivered);
            let entry = FileName { deliveries, ..group.claim.entry };
            let (root, producer) = (&self.session.root, &group.claim.producer);
            done = done.and(recovery::give_back(root, &self.queue, &claim, producer, entry));
        }
        done?;
        fs::remove_dir(&self.claims)
    }

    fn fault(&self, error: &io::Error) -> Fault {
        let root = &self.session.root;
        let queue = root.queue(&self.queue);
        if root.is_there().is_ok() && !queue.is_dir() {
            return Fault::Missing(format!("the queue '{}' was deleted", self.queue));
        }
        root.fault("consuming from", &queue, error)
    }
}
