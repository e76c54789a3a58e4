//! The inbox: tasks accepted and not finished, in order, bounded. Pure; the disk holds the
//! same tasks.
//!
//! The bound counts the tasks that wait and those that run, by number and by bytes. When it
//! is reached the subscriber stops reading, so it stops acknowledging, and the broker stops
//! delivering.
//!
//! A task is *unsecured* while another instance may be given it as well. It has its room,
//! but does not wait for a slot until it is secured.
//!
//! Tasks leave in the order they came, but for those that have to wait for
//! another under suspicion (see `poison`), and for calls of a function with no
//! worker free: these are overtaken.

pub(crate) mod listing;

use crate::pending::poison::Standing;
use crate::pending::stop::StopSignal;
use crate::storage::journal::{Deaths, Seq};
use clutch_common::id::Attempt;
use clutch_common::task::{Task, Work};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
    waiting: VecDeque<Held>,
    /// The waiting tasks with which the daemon died.
    suspected: VecDeque<Held>,
    /// In the order in which they are secured; nothing in the place of one that was
    /// cancelled.
    unsecured: VecDeque<Option<UnsecuredTask>>,
    /// How many run as suspects, and how many take their last chance.
    running: [usize; 2],
    /// The functions, and how many calls of each may run.
    limited: BTreeMap<String, Limited>,
    tasks: usize,
    bytes: usize,
}

/// The calls of a function.
#[derive(Debug)]
struct Limited {
    max: usize,
    running: usize,
    /// Those that waited at the front when no more might run.
    parked: VecDeque<Held>,
}

impl Inbox {
    /// An empty inbox.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            shut: false,
            waiting: VecDeque::new(),
            suspected: VecDeque::new(),
            unsecured: VecDeque::new(),
            running: [0; 2],
            limited: BTreeMap::new(),
            tasks: 0,
            bytes: 0,
        }
    }

    /// Has no more calls of these functions run than they allow. To be told before the first
    /// task is taken.
    pub(crate) fn limit(&mut self, functions: BTreeMap<String, usize>) {
        let limited = functions
            .into_iter()
            .map(|(name, max)| (name, Limited { max, running: 0, parked: VecDeque::new() }));
        self.limited = limited.collect();
    }

    /// Changes how much it takes. What is in it stays.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Adds a task; also over the bound, as a message is taken whole.
    pub(crate) fn put(&mut self, held: Held) {
        self.admit(&held.task);
        self.queue(held);
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
        secured.into_iter().for_each(|unsecured| self.queue(unsecured.held));
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

    /// Counts all that waits for a slot as unsecured.
    pub(crate) fn unsecure_waiting(&mut self) {
        let Self { waiting, suspected, limited, .. } = self;
        let parked = limited.values_mut().flat_map(|function| function.parked.drain(..));
        let mut all: Vec<Held> =
            waiting.drain(..).chain(suspected.drain(..)).chain(parked).collect();
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
        self.shut && !(self.waiting.is_empty() && self.suspected.is_empty())
    }

    /// Takes the oldest waiting task that may start. It counts until
    /// [`Inbox::free`].
    pub(crate) fn take(&mut self) -> Option<Held> {
        if self.shut { None } else { self.take_next() }
    }

    /// Removes all tasks that a cancel covers and that have no slot, and frees their room.
    pub(crate) fn cancel(&mut self, covers: impl Fn(Attempt) -> bool) -> Vec<Held> {
        let is_covered = |held: &Held| covers(held.task.attempt());
        let mut cancelled = Vec::new();
        let parked = self.limited.values_mut().map(|function| &mut function.parked);
        for queue in [&mut self.waiting, &mut self.suspected].into_iter().chain(parked) {
            if queue.iter().any(is_covered) {
                let (gone, kept): (Vec<Held>, Vec<Held>) =
                    std::mem::take(queue).into_iter().partition(is_covered);
                *queue = kept.into();
                cancelled.extend(gone);
            }
        }
        for place in &mut self.unsecured {
            let gone = place.take_if(|unsecured| is_covered(&unsecured.held));
            cancelled.extend(gone.map(|unsecured| unsecured.held));
        }
        cancelled.iter().for_each(|held| self.dismiss(&held.task));
        cancelled.sort_by_key(|held| held.seq);
        cancelled
    }

    /// Takes a task back that was taken and has not ended: it waits again, in its place. True
    /// if another task may start now that could not before.
    pub(crate) fn put_back(&mut self, held: Held) -> bool {
        let more = self.free(&held);
        self.admit(&held.task);
        let queue = match held.standing {
            Standing::Clear | Standing::Poisoned => &mut self.waiting,
            Standing::Suspect | Standing::LastChance => &mut self.suspected,
        };
        let place = queue.partition_point(|other| other.seq < held.seq);
        queue.insert(place, held);
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
            !function.parked.is_empty()
        })
    }

    /// For how many small tasks there is room.
    pub(crate) fn room(&self) -> usize {
        if self.bytes >= self.bounds.max_bytes {
            return 0;
        }
        self.bounds.max_tasks.saturating_sub(self.tasks)
    }

    /// How many tasks are accepted and not finished.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    /// How many tasks wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let parked: usize = self.limited.values().map(|function| function.parked.len()).sum();
        self.waiting.len() + self.suspected.len() + parked
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
        match held.standing {
            Standing::Clear | Standing::Poisoned => self.waiting.push_back(held),
            Standing::Suspect | Standing::LastChance => self.suspected.push_back(held),
        }
    }

    fn take_next(&mut self) -> Option<Held> {
        self.park();
        let [suspects, last_chances] = self.running;
        let may_start =
            |held: &&Held| held.standing.may_start(suspects, last_chances) && !self.is_busy(held);
        let seq = |held: &Held| held.seq;
        let suspected = self.suspected.front().filter(may_start).map(seq);
        let waiting = self.waiting.front().map(seq);
        let parked = |function: &Limited| {
            if function.is_busy() { None } else { function.parked.front().map(seq) }
        };
        let first = self.limited.values().filter_map(parked).chain(waiting).chain(suspected).min();
        let queue = if first == waiting {
            &mut self.waiting
        } else if first == suspected {
            &mut self.suspected
        } else {
            let mut functions = self.limited.values_mut();
            &mut functions.find(|function| parked(function) == first)?.parked
        };
        let held = queue.pop_front()?;
        if let Some(count) = self.count(held.standing) {
            *count += 1;
        }
        if let Some(function) = self.limited(&held.task) {
            function.running += 1;
        }
        Some(held)
    }

    /// Parks the calls at the front that have to wait for a busy function.
    fn park(&mut self) {
        while let Some(held) = self.waiting.pop_front_if(|held| {
            self.limited.get(function(&held.task)).is_some_and(Limited::is_busy)
        }) {
            if let Some(function) = self.limited(&held.task) {
                function.parked.push_back(held);
            }
        }
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

/// The size of a task in memory, roughly: its work and a fixed part.
fn weight(task: &Task) -> usize {
    512 + task.work.size()
}

mod waiting;

#[cfg(test)]
mod tests;
