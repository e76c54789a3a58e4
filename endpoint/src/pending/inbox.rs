//! The inbox: tasks accepted and not finished, in order, bounded. Pure; the disk holds the
//! same tasks.
//!
//! The bound counts the tasks that wait and those that run, by number and by bytes. When it
//! is reached the subscriber stops reading, so it stops acknowledging, and the broker stops
//! delivering.
//!
//! A task is *unsecured* while another instance may be given it as well. It has its room,
//! but does not wait for a slot until it is secured. Neither does an attempt of a topic until
//! it is claimed (`unclaimed`).
//!
//! Tasks leave by priority, and those of one priority in the order they came, but no task is
//! overtaken for ever (`clutch_common::task::turns`). Those that have to wait for another under
//! suspicion (see `poison`), and calls of a function with no worker free, are overtaken by all.
//!
//! A task leaves when as many slots are free as it takes. Until then none leaves that would
//! come after it: no stream of narrow tasks keeps a wide one waiting. One that takes more slots
//! than there are leaves in its turn, to be rejected.

mod levels;
pub(crate) mod listing;
pub(crate) mod unclaimed;

use crate::pending::poison::Standing;
use crate::pending::stop::StopSignal;
use crate::storage::journal::{Deaths, Seq};
use clutch_common::id::Attempt;
use clutch_common::task::turns::{Front, Turn, Turns};
use clutch_common::task::{Task, Work};
use levels::{Levels, level};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use unclaimed::Unclaimed;

/// How much the inbox takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Tasks waiting and running.
    pub(crate) max_tasks: usize,
    /// Their size in memory, in bytes; one task larger than this is taken when
    /// the inbox is empty.
    pub(crate) max_bytes: usize,
}

/// A task that waits for a slot, or has one.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its sequence number.
    pub(crate) seq: Seq,
    /// The task.
    pub(crate) task: Arc<Task>,
    /// Whether an earlier life of the daemon has started it.
    pub(crate) started: bool,
    /// When it was accepted, in milliseconds since the Unix epoch; `None` for one that an
    /// earlier life of the daemon accepted.
    pub(crate) accepted_at_ms: Option<u64>,
    /// How often the daemon died while it ran.
    pub(crate) deaths: Deaths,
    /// The standing that follows from the deaths.
    pub(crate) standing: Standing,
    /// How it is stopped while it runs.
    pub(crate) stop: StopSignal,
}

/// A task that another instance may be given as well.
#[derive(Clone, Debug)]
pub(crate) struct UnsecuredTask {
    /// The task.
    pub(crate) held: Held,
    /// The highest attempt at it that was known before.
    pub(crate) before: Option<u32>,
}

/// The tasks accepted and not finished.
#[derive(Debug)]
pub(crate) struct Inbox {
    bounds: Bounds,
    /// Whether no task may be taken yet.
    shut: bool,
    /// Those that wait for a slot alone.
    waiting: Levels,
    /// The waiting tasks with which the daemon died.
    suspected: Levels,
    /// In the order in which they are secured; nothing in the place of one that was
    /// cancelled.
    unsecured: VecDeque<Option<UnsecuredTask>>,
    /// The attempts of topics that are secured and not claimed.
    unclaimed: Unclaimed,
    /// How many run as suspects, and how many take their last chance.
    running: [usize; 2],
    /// The functions, and how many calls of each may run.
    limited: BTreeMap<String, Limited>,
    /// The turns of the queues above, each with the task that is next in it.
    turns: Turns,
    tasks: usize,
    bytes: usize,
}

/// The calls of a function.
#[derive(Debug)]
struct Limited {
    max: usize,
    running: usize,
    /// Those that wait.
    waiting: Levels,
}

/// The slots of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreeSlots {
    /// How many are free.
    pub(crate) free: usize,
    /// How many there are.
    pub(crate) all: usize,
}

impl FreeSlots {
    /// Slots enough for every task.
    #[cfg(test)]
    pub(crate) const ENOUGH: Self = Self { free: usize::MAX, all: usize::MAX };

    /// Whether a task fits, or never would.
    fn let_leave(self, task: &Task) -> bool {
        let cores = cores(task);
        cores <= self.free || (cores > self.all && self.free > 0)
    }
}

/// A queue of the inbox with a task that may start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum QueuePlace {
    Waiting,
    Suspected,
    /// By the place of the function.
    Limited(usize),
}

impl Inbox {
    /// An empty inbox.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            shut: false,
            waiting: Levels::default(),
            suspected: Levels::default(),
            unsecured: VecDeque::new(),
            unclaimed: Unclaimed::default(),
            running: [0; 2],
            limited: BTreeMap::new(),
            turns: Turns::default(),
            tasks: 0,
            bytes: 0,
        }
    }

    /// Has no more calls of these functions run than they allow. To be told before the first
    /// task is taken.
    pub(crate) fn limit(&mut self, functions: BTreeMap<String, usize>) {
        let limited = functions
            .into_iter()
            .map(|(name, max)| (name, Limited { max, running: 0, waiting: Levels::default() }));
        self.limited = limited.collect();
        let mut all: Vec<Held> = self.waiting.drain().collect();
        all.sort_by_key(|held| held.seq);
        all.into_iter().for_each(|held| self.queue(held));
    }

    /// Changes how much it takes. What is in it stays.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Adds a task; also over the bound, as a message is taken whole.
    pub(crate) fn put(&mut self, held: Held) {
        self.admit(&held.task);
        self.enter(held);
    }

    /// Adds a task that may not start before it is secured. It counts until
    /// [`Inbox::free`].
    pub(crate) fn put_unsecured(&mut self, unsecured: UnsecuredTask) {
        self.admit(&unsecured.held.task);
        self.unsecured.push_back(Some(unsecured));
    }

    /// Takes the place of a task that is not put in, among those that are to be secured.
    pub(crate) fn skip_unsecured(&mut self) {
        self.unsecured.push_back(None);
    }

    /// Lets the `count` tasks start that have been unsecured for longest.
    pub(crate) fn secure(&mut self, count: usize) -> Vec<Seq> {
        let count = count.min(self.unsecured.len());
        let secured: Vec<UnsecuredTask> = self.unsecured.drain(..count).flatten().collect();
        let seqs = secured.iter().map(|unsecured| unsecured.held.seq).collect();
        secured.into_iter().for_each(|unsecured| self.enter(unsecured.held));
        seqs
    }

    /// Whether any task is unsecured; forgets the places of tasks that were, if none is.
    pub(crate) fn has_unsecured(&mut self) -> bool {
        let any = self.unsecured.iter().any(Option::is_some);
        if !any {
            self.unsecured.clear();
        }
        any
    }

    /// Counts all that waits for a slot, or for its claim, as unsecured.
    pub(crate) fn unsecure_waiting(&mut self) {
        let mut all: Vec<Held> = self.queues().flat_map(Levels::drain).collect();
        all.extend(self.unclaimed.take_all());
        all.sort_by_key(|held| held.seq);
        self.unsecured.extend(all.into_iter().map(|held| {
            let attempt = held.task.attempt;
            Some(UnsecuredTask { held, before: (attempt > 1).then(|| attempt - 1) })
        }));
    }

    /// Removes all unsecured tasks, and frees their room.
    pub(crate) fn take_unsecured(&mut self) -> Vec<UnsecuredTask> {
        let all: Vec<UnsecuredTask> = self.unsecured.drain(..).flatten().collect();
        all.iter().for_each(|unsecured| self.dismiss(&unsecured.held.task));
        all
    }

    /// Lets nothing be taken until [`Inbox::open`].
    pub(crate) fn shut(&mut self) {
        self.shut = true;
    }

    /// Lets tasks be taken. False if they could be before.
    pub(crate) fn open(&mut self) -> bool {
        std::mem::replace(&mut self.shut, false)
    }

    /// Whether nothing may be taken, and a task waits for that.
    pub(crate) fn holds_back(&self) -> bool {
        let calls = || self.limited.values().all(|function| function.waiting.is_empty());
        let queued = !(self.waiting.is_empty() && self.suspected.is_empty() && calls());
        self.shut && (queued || !self.unclaimed.is_empty())
    }

    /// Takes the waiting task that is next, if it fits. It counts until [`Inbox::free`].
    pub(crate) fn take_fitting(&mut self, slots: FreeSlots) -> Option<Held> {
        if self.shut { None } else { self.take_next(slots) }
    }

    /// Takes the waiting task that is next.
    #[cfg(test)]
    pub(crate) fn take(&mut self) -> Option<Held> {
        self.take_fitting(FreeSlots::ENOUGH)
    }

    /// Removes all tasks that a cancel covers and that have no slot, and frees their room.
    pub(crate) fn cancel(&mut self, covers: impl Fn(Attempt) -> bool) -> Vec<Held> {
        let is_covered = |held: &Held| covers(held.task.attempt());
        let mut cancelled: Vec<Held> =
            self.queues().flat_map(|queue| queue.remove(is_covered)).collect();
        for place in &mut self.unsecured {
            let gone = place.take_if(|unsecured| is_covered(&unsecured.held));
            cancelled.extend(gone.map(|unsecured| unsecured.held));
        }
        cancelled.extend(self.unclaimed.remove(is_covered));
        cancelled.iter().for_each(|held| self.dismiss(&held.task));
        cancelled.sort_by_key(|held| held.seq);
        cancelled
    }

    /// Takes a task back that was taken and has not ended: it waits again, in its place. True
    /// if another task may start now that could not before.
    pub(crate) fn put_back(&mut self, held: Held) -> bool {
        let more = self.free(&held);
        self.admit(&held.task);
        self.queue_of(&held).put_back(held);
        more
    }

    /// Frees the room of a task that was taken and is finished. True if another task may
    /// start now that could not before.
    pub(crate) fn free(&mut self, held: &Held) -> bool {
        self.dismiss(&held.task);
        if let Some(count) = self.count(held.standing) {
            *count = count.saturating_sub(1);
        }
        self.limited(&held.task).is_some_and(|function| {
            function.running = function.running.saturating_sub(1);
            !function.waiting.is_empty()
        })
    }

    /// For how many small tasks there is room.
    pub(crate) fn room(&self) -> usize {
        if self.bytes >= self.bounds.max_bytes {
            return 0;
        }
        self.bounds.max_tasks.saturating_sub(self.tasks)
    }

    /// For how many small urgent tasks that come ahead of their queue there is room: as many may
    /// wait as the inbox takes otherwise.
    pub(crate) fn room_for_copies(&self) -> usize {
        if self.bytes >= self.bounds.max_bytes.saturating_mul(2) {
            return 0;
        }
        let calls = self.limited.values().map(|function| &function.waiting);
        let queues = [&self.waiting, &self.suspected].into_iter().chain(calls);
        self.bounds.max_tasks.saturating_sub(queues.map(Levels::urgent).sum())
    }

    /// How many tasks are accepted and not finished.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    /// How many tasks wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let calls: usize = self.limited.values().map(|function| function.waiting.len()).sum();
        self.waiting.len() + self.suspected.len() + calls
    }

    fn admit(&mut self, task: &Task) {
        self.tasks += 1;
        self.bytes += weight(task);
    }

    fn dismiss(&mut self, task: &Task) {
        self.tasks = self.tasks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(weight(task));
    }

    fn queue(&mut self, held: Held) {
        self.queue_of(&held).push(held);
    }

    /// The queue that a task waits in.
    fn queue_of(&mut self, held: &Held) -> &mut Levels {
        match held.standing {
            Standing::Clear | Standing::Poisoned => {
                match self.limited.get_mut(function(&held.task)) {
                    Some(function) => &mut function.waiting,
                    None => &mut self.waiting,
                }
            }
            Standing::Suspect | Standing::LastChance => &mut self.suspected,
        }
    }

    /// All queues that tasks wait in.
    fn queues(&mut self) -> impl Iterator<Item = &mut Levels> {
        let calls = self.limited.values_mut().map(|function| &mut function.waiting);
        [&mut self.waiting, &mut self.suspected].into_iter().chain(calls)
    }

    fn take_next(&mut self, slots: FreeSlots) -> Option<Held> {
        let turn = self.turn()?;
        let (_, place) = turn.front.age;
        let queue = match place {
            QueuePlace::Waiting => &mut self.waiting,
            QueuePlace::Suspected => &mut self.suspected,
            QueuePlace::Limited(function) => &mut self.limited.values_mut().nth(function)?.waiting,
        };
        if !slots.let_leave(&queue.next()?.task) {
            return None;
        }
        let held = queue.take()?;
        self.turns.took(&turn);
        self.unclaimed.starts(&held.task);
        if let Some(count) = self.count(held.standing) {
            *count += 1;
        }
        if let Some(function) = self.limited(&held.task) {
            function.running += 1;
        }
        Some(held)
    }

    /// The task that is next, of those that may start, with its queue.
    fn turn(&self) -> Option<Turn<(Seq, QueuePlace)>> {
        let [suspects, last_chances] = self.running;
        let may_start =
            |held: &&Held| held.standing.may_start(suspects, last_chances) && !self.is_busy(held);
        let front = |held: &Held, place| Front { level: level(held), age: (held.seq, place) };
        let waiting = self.waiting.next().map(|held| front(held, QueuePlace::Waiting));
        let suspected = self.suspected.next().filter(may_start);
        let suspected = suspected.map(|held| front(held, QueuePlace::Suspected));
        let calls = self.limited.values().enumerate().filter_map(|(index, function)| {
            let held = if function.is_busy() { None } else { function.waiting.next() };
            held.map(|held| front(held, QueuePlace::Limited(index)))
        });
        self.turns.next(calls.chain(waiting).chain(suspected))
    }

    fn is_busy(&self, held: &Held) -> bool {
        self.limited.get(function(&held.task)).is_some_and(Limited::is_busy)
    }

    fn limited(&mut self, task: &Task) -> Option<&mut Limited> {
        self.limited.get_mut(function(task))
    }

    /// The count of what runs with this standing, where it is counted.
    fn count(&mut self, standing: Standing) -> Option<&mut usize> {
        let [suspects, last_chances] = &mut self.running;
        match standing {
            Standing::Clear | Standing::Poisoned => None,
            Standing::Suspect => Some(suspects),
            Standing::LastChance => Some(last_chances),
        }
    }
}

impl Limited {
    fn is_busy(&self) -> bool {
        self.running >= self.max
    }
}

/// The function that a task calls; of a process, the name that no function has.
fn function(task: &Task) -> &str {
    match &task.work {
        Work::Call(call) => &call.function,
        Work::Process(_) => "",
    }
}

/// How many slots a task takes.
pub(crate) fn cores(task: &Task) -> usize {
    usize::try_from(task.cores).unwrap_or(usize::MAX).max(1)
}

/// The size of a task in memory, roughly: its work and a fixed part.
fn weight(task: &Task) -> usize {
    512 + task.work.size()
}

mod waiting;

#[cfg(test)]
mod tests;
