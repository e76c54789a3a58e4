//! The tasks and results that must be on a disk after all commits that are durable. Tells
//! the oracle of each change, and compares a queue with them. Pure.

use super::oracle::{self, name};
use super::world::World;
use crate::storage::disk_queue::{Change, DiskQueue};
use crate::storage::journal::{Accepted, DiskError, Finished, OutSeq, OutboxRecord, Seq};
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::Task;
use clutch_common::task::result::Loss;
use clutch_common::wire;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A task in the inbox.
struct Kept {
    task: Arc<Task>,
    started: bool,
    secured: bool,
}

/// Something that a commit adds to a disk.
#[derive(Clone)]
pub(super) enum Written {
    /// A change of the journal's.
    Change(Change),
    /// The daemon died while this ran.
    Death(Attempt),
}

/// The content of a queue.
pub(super) struct QueueContent {
    results: Vec<OutboxRecord>,
    waiting: u64,
    seen: Vec<(TaskId, Option<u32>)>,
    deaths: BTreeMap<Attempt, u64>,
}

impl QueueContent {
    /// Reads a queue, and which attempts at these tasks it has seen.
    pub(super) fn read(queue: &mut DiskQueue, tasks: &[TaskId]) -> Result<Self, DiskError> {
        let waiting = queue.waiting();
        let results = queue.outbox(OutSeq(0), usize::MAX, usize::MAX)?;
        let view = queue.seen();
        let seen = tasks.iter().map(|task| Ok((*task, view.highest(*task)?)));
        let seen = seen.collect::<Result<_, DiskError>>()?;
        let deaths = queue.deaths().iter();
        let deaths = deaths.map(|(attempt, deaths)| (*attempt, deaths.count)).collect();
        Ok(Self { results, waiting, seen, deaths })
    }
}

/// The content that the disk of an instance must have.
pub(super) struct Contents {
    instance: usize,
    inbox: BTreeMap<Seq, Kept>,
    outbox: BTreeMap<OutSeq, Arc<Finished>>,
    /// The highest attempt at each task that has a result.
    finished: BTreeMap<TaskId, u32>,
    deaths: BTreeMap<Attempt, u64>,
}

impl Contents {
    /// Nothing.
    pub(super) fn new(instance: usize) -> Self {
        let (inbox, outbox) = (BTreeMap::new(), BTreeMap::new());
        Self { instance, inbox, outbox, finished: BTreeMap::new(), deaths: BTreeMap::new() }
    }

    /// Whether nothing is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// How many tasks are in the inbox.
    pub(super) fn tasks(&self) -> usize {
        self.inbox.len()
    }

    /// Something is durable.
    pub(super) fn add(&mut self, world: &World, written: Written) {
        match written {
            Written::Change(change) => {
                world.note(format_args!("disk {}: {}", self.instance, words(&change)));
                self.apply(world, change);
            }
            Written::Death(attempt) => {
                let deaths = self.deaths.entry(attempt).or_default();
                *deaths += 1;
                world.note(format_args!("death {deaths} with {}", name(attempt)));
                world.tell(|oracle| oracle.died(self.instance, attempt));
            }
        }
    }

    fn apply(&mut self, world: &World, change: Change) {
        let stored = |attempt, change| {
            world.judge(|oracle| oracle.stored(self.instance, attempt, change));
        };
        let may_start = |seq: Seq, task: &Task| {
            if task.topic.is_some() {
                // When it may, its claim decides.
                return;
            }
            world.tell(|oracle| {
                oracle.may_start(self.instance, seq.0, task.attempt(), task.priority);
            });
        };
        match change {
            Change::Accept { seq, task, secured } => {
                stored(task.attempt(), oracle::TaskChange::Accepted);
                if secured {
                    may_start(seq, &task);
                }
                self.inbox.insert(seq, Kept { task, started: false, secured });
            }
            Change::Secure { seq } => {
                if let Some(kept) = self.inbox.get_mut(&seq) {
                    stored(kept.task.attempt(), oracle::TaskChange::Secured);
                    may_start(seq, &kept.task);
                    kept.secured = true;
                }
            }
            Change::Start { seq } => {
                if let Some(kept) = self.inbox.get_mut(&seq) {
                    stored(kept.task.attempt(), oracle::TaskChange::Marked);
                    kept.started = true;
                }
            }
            Change::Finish { inbox, out, result } => {
                stored(result.attempt, told_by(&result));
                let highest = self.finished.entry(result.attempt.task_id).or_default();
                *highest = result.attempt.attempt.max(*highest);
                self.deaths.remove(&result.attempt);
                self.outbox.insert(out, result);
                inbox.map(|seq| self.inbox.remove(&seq));
            }
            Change::HandBack { inbox, out, result, .. } => {
                stored(result.attempt, told_by(&result));
                self.outbox.insert(out, result);
                self.inbox.remove(&inbox);
            }
            Change::Release { out } => {
                if let Some(result) = self.outbox.remove(&out) {
                    stored(result.attempt, oracle::TaskChange::Released(lost(&result)));
                }
            }
        }
    }

    /// The tasks that have a result.
    pub(super) fn finished(&self) -> Vec<TaskId> {
        self.finished.keys().copied().collect()
    }

    /// Compares what was found in a queue. An error says what differs.
    pub(super) fn compare(&self, found: &QueueContent, tasks: &[Accepted]) -> Result<(), String> {
        let kept = self.inbox.iter();
        let kept = kept.map(|(seq, kept)| (*seq, &*kept.task, kept.started, kept.secured));
        let there = tasks.iter();
        let there = there.map(|one| (one.seq, &one.task, one.started, one.unsecured.is_none()));
        let (kept, there) = (kept.collect::<Vec<_>>(), there.collect::<Vec<_>>());
        if kept != there {
            return Err(format!("its inbox has {there:?}, which should be {kept:?}"));
        }
        self.compare_page(OutSeq(0), &found.results)?;
        let (results, expected) = (found.results.len(), self.outbox.len());
        if results != expected || found.waiting != expected as u64 {
            let waiting = found.waiting;
            return Err(format!("{results} of {expected} results are found, {waiting} counted"));
        }
        for (task, seen) in &found.seen {
            let pending = self.inbox.values().filter(|kept| kept.task.id == *task);
            let pending = pending.map(|kept| kept.task.attempt).max();
            let expected = pending.max(self.finished.get(task).copied());
            if *seen != expected {
                return Err(format!("of {task} attempt {expected:?} was seen, it says {seen:?}"));
            }
        }
        if self.deaths != found.deaths {
            let (counted, deaths) = (&found.deaths, &self.deaths);
            return Err(format!("it counts the deaths {counted:?}, which were {deaths:?}"));
        }
        Ok(())
    }

    /// Compares results that were read from `from` on.
    pub(super) fn compare_page(&self, from: OutSeq, page: &[OutboxRecord]) -> Result<(), String> {
        let expected = self.outbox.range(from..).map(|(seq, result)| (seq, &**result));
        for (found, (seq, result)) in page.iter().zip(expected) {
            if (found.seq, found.attempt, &found.bytes) != (*seq, result.attempt, &result.bytes) {
                let (found, result) = (name(found.attempt), name(result.attempt));
                return Err(format!("a result of {found} is in the place of {result}'s"));
            }
        }
        Ok(())
    }

    /// The attempts, of these, that are in the inbox or in the outbox.
    pub(super) fn held(&self, attempts: &HashSet<Attempt>) -> HashSet<Attempt> {
        let inbox = self.inbox.values().map(|kept| kept.task.attempt());
        let outbox = self.outbox.values().map(|result| result.attempt);
        inbox.chain(outbox).filter(|attempt| attempts.contains(attempt)).collect()
    }
}

/// The change that a result in the outbox stands for.
fn told_by(result: &Finished) -> oracle::TaskChange {
    match lost(result) {
        Some(Loss::Unknown) => oracle::TaskChange::Disowned,
        Some(Loss::HandedBack) => oracle::TaskChange::HandedBack,
        Some(Loss::Delivered) => oracle::TaskChange::SaidDelivered,
        Some(Loss::NotStarted | Loss::NotOffered) => oracle::TaskChange::NotStarted,
        None => oracle::TaskChange::Finished,
    }
}

/// Why a result may not be the end of its task.
fn lost(result: &Finished) -> Option<Loss> {
    wire::decode_result(&result.bytes).unwrap().lost
}

fn words(change: &Change) -> String {
    match change {
        Change::Accept { seq, task, .. } => {
            format!("accept {} as {}", name(task.attempt()), seq.0)
        }
        Change::Secure { seq } => format!("secure {}", seq.0),
        Change::Start { seq } => format!("start {}", seq.0),
        Change::Finish { out, result, .. } => {
            format!("finish {} as {}", name(result.attempt), out.0)
        }
        Change::HandBack { out, result, .. } => {
            format!("hand back {} as {}", name(result.attempt), out.0)
        }
        Change::Release { out } => format!("release {}", out.0),
    }
}
