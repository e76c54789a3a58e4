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

use crate::pending::poison::Standing;
use crate::storage::journal::{Deaths, Seq};
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
    /// How often the daemon died while it ran.
    pub(crate) deaths: Deaths,
    /// The standing that follows from the deaths.
    pub(crate) standing: Standing,
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
    unsecured: VecDeque<UnsecuredTask>,
    /// How many run as suspects, and how many take their last chance.
    running: [usize; 2],
    /// The functions of which fewer calls may run than tasks.
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

    /// Has no more calls of these functions run than they allow, where `slots`
    /// tasks run at once. To be told before the first task is taken.
    pub(crate) fn limit(&mut self, functions: BTreeMap<String, usize>, slots: usize) {
        let limited = functions
            .into_iter()
            .filter(|(_, max)| *max < slots)
            .map(|(name, max)| (name, Limited { max, running: 0, parked: VecDeque::new() }));
        self.limited = limited.collect();
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
        self.unsecured.push_back(unsecured);
    }

    /// Lets the `count` tasks start that have been unsecured for longest.
    pub(crate) fn secure(&mut self, count: usize) -> Vec<Seq> {
        let secured: Vec<UnsecuredTask> =
            self.unsecured.drain(..count.min(self.unsecured.len())).collect();
        let seqs = secured.iter().map(|unsecured| unsecured.held.seq).collect();
        secured.into_iter().for_each(|unsecured| self.queue(unsecured.held));
        seqs
    }

    /// Whether any task is unsecured.
    pub(crate) fn has_unsecured(&self) -> bool {
        !self.unsecured.is_empty()
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
            UnsecuredTask { held, before: (attempt > 1).then(|| attempt - 1) }
        }));
    }

    /// Removes all unsecured tasks, and frees their room.
    pub(crate) fn take_unsecured(&mut self) -> Vec<UnsecuredTask> {
        let all: Vec<UnsecuredTask> = self.unsecured.drain(..).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::{Call, Process};

    fn held(seq: u64, stdin: usize) -> Held {
        let process = Process {
            argv: vec!["true".into()],
            stdin: vec![0; stdin].into(),
            ..Process::default()
        };
        Held {
            seq: Seq(seq),
            task: Arc::new(Task::new(TaskId::new(), process)),
            started: false,
            deaths: Deaths::default(),
            standing: Standing::Clear,
        }
    }

    fn taken(inbox: &mut Inbox) -> Vec<u64> {
        std::iter::from_fn(|| inbox.take()).map(|held| held.seq.0).collect()
    }

    fn put(inbox: &mut Inbox, tasks: impl IntoIterator<Item = Held>) {
        tasks.into_iter().for_each(|held| inbox.put(held));
    }

    fn inbox(max_tasks: usize, max_bytes: usize) -> Inbox {
        Inbox::new(Bounds { max_tasks, max_bytes })
    }

    #[test]
    fn tasks_leave_in_the_order_they_came() {
        let mut inbox = inbox(10, 1 << 20);
        put(&mut inbox, (1..4).map(|seq| held(seq, 0)));
        assert_eq!(taken(&mut inbox), [1, 2, 3]);
    }

    #[test]
    fn a_task_that_must_wait_for_another_suspect_is_overtaken_and_holds_up_none() {
        let mut inbox = inbox(10, 1 << 20);
        let with = |seq, standing| Held { standing, ..held(seq, 0) };
        put(
            &mut inbox,
            [
                with(1, Standing::Suspect),
                with(2, Standing::Clear),
                with(3, Standing::Suspect),
                with(4, Standing::LastChance),
                with(5, Standing::Suspect),
                with(6, Standing::Poisoned),
                with(7, Standing::Clear),
            ],
        );
        assert_eq!(taken(&mut inbox), [1, 2, 3, 6, 7]);
        assert_eq!(inbox.waiting(), 2);
        inbox.free(&with(1, Standing::Suspect));
        assert!(taken(&mut inbox).is_empty());
        inbox.free(&with(3, Standing::Suspect));
        assert_eq!(taken(&mut inbox), [4], "apart from all others under suspicion");
        put(&mut inbox, [with(8, Standing::Clear)]);
        assert_eq!(taken(&mut inbox), [8]);
        inbox.free(&with(4, Standing::LastChance));
        assert_eq!(taken(&mut inbox), [5]);
    }

    #[test]
    fn calls_of_a_busy_function_are_overtaken_and_keep_their_order() {
        let mut inbox = inbox(20, 1 << 20);
        inbox.limit([("one".into(), 1), ("two".into(), 2), ("many".into(), 4)].into(), 4);
        let call = |seq, function: &str| {
            let call = Call::new(function, "[]".parse().unwrap());
            let task = Arc::new(Task::of(TaskId::new(), Work::Call(call)));
            Held { task, ..held(seq, 0) }
        };
        let one: Vec<Held> = [1, 2, 3, 10].map(|seq| call(seq, "one")).into();
        put(&mut inbox, one.clone());
        put(
            &mut inbox,
            [held(4, 0), call(5, "two"), call(6, "many"), call(7, "two"), call(8, "two")],
        );
        put(&mut inbox, [held(9, 0)]);
        assert_eq!(taken(&mut inbox), [1, 4, 5, 6, 7, 9]);
        assert_eq!(inbox.waiting(), 4);
        inbox.free(&one[0]);
        put(&mut inbox, [held(11, 0)]);
        assert_eq!(taken(&mut inbox), [2, 11]);
        inbox.free(&call(5, "two"));
        inbox.free(&one[1]);
        assert_eq!(taken(&mut inbox), [3, 8]);
        let suspect = Held { standing: Standing::Suspect, ..call(12, "one") };
        put(&mut inbox, [suspect, call(13, "one")]);
        assert!(taken(&mut inbox).is_empty());
        inbox.free(&one[2]);
        assert_eq!(taken(&mut inbox), [10]);
        inbox.free(&one[3]);
        assert_eq!(taken(&mut inbox), [12]);
        assert_eq!(inbox.waiting(), 1);
    }

    #[test]
    fn a_running_task_counts_until_it_is_freed() {
        let mut inbox = inbox(1, 1 << 20);
        put(&mut inbox, [held(1, 0)]);
        let running = inbox.take().unwrap();
        assert_eq!(inbox.room(), 0);
        inbox.free(&running);
        assert!(inbox.room() > 0);
    }

    #[test]
    fn nothing_leaves_while_it_is_shut() {
        let mut inbox = inbox(10, 1 << 20);
        inbox.shut();
        put(&mut inbox, [held(1, 0)]);
        assert!(taken(&mut inbox).is_empty());
        assert_eq!((inbox.waiting(), inbox.tasks()), (1, 1));
        inbox.open();
        assert_eq!(taken(&mut inbox), [1]);
    }

    #[test]
    fn all_that_waits_can_be_taken_out_with_its_room() {
        let mut inbox = inbox(10, 1 << 20);
        inbox.shut();
        assert!(!inbox.holds_back());
        put(&mut inbox, [Held { standing: Standing::Suspect, ..held(1, 0) }, held(2, 0)]);
        assert!(inbox.holds_back());
        inbox.unsecure_waiting();
        assert_eq!((inbox.waiting(), inbox.tasks()), (0, 2));
        let all = inbox.take_unsecured();
        assert_eq!(all.iter().map(|one| one.held.seq.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(inbox.tasks(), 0);
        put(&mut inbox, [Held { standing: Standing::LastChance, ..held(3, 0) }]);
        assert!(inbox.open());
        assert_eq!(taken(&mut inbox), [3], "no suspect runs");
    }

    #[test]
    fn what_is_handed_back_has_run_nowhere() {
        let mut inbox = inbox(10, 1 << 20);
        inbox.limit([("one".into(), 1)].into(), 4);
        let call = |seq| {
            let call = Call::new("one", "[]".parse().unwrap());
            Held { task: Arc::new(Task::of(TaskId::new(), Work::Call(call))), ..held(seq, 0) }
        };
        put(&mut inbox, [call(1), call(2)]);
        assert_eq!(taken(&mut inbox), [1]);
        inbox.put_unsecured(UnsecuredTask { held: call(3), before: None });
        inbox.take_unsecured();
        assert!(taken(&mut inbox).is_empty(), "the first still runs");
    }

    #[test]
    fn a_task_that_is_not_secured_has_its_room_and_does_not_start() {
        let mut inbox = inbox(2, 1 << 20);
        inbox.put_unsecured(UnsecuredTask { held: held(1, 0), before: None });
        assert_eq!((inbox.room(), inbox.tasks(), inbox.waiting()), (1, 1, 0));
        assert_eq!(inbox.secure(7), [Seq(1)]);
        assert_eq!((inbox.room(), inbox.tasks(), inbox.waiting()), (1, 1, 1));
        let held = inbox.take().unwrap();
        inbox.free(&held);
        assert_eq!((inbox.room(), inbox.tasks()), (2, 0));
    }

    #[test]
    fn bytes_bound_it_as_well_and_one_large_task_still_fits_an_empty_inbox() {
        let mut inbox = inbox(10, 10_000);
        assert!(inbox.room() > 0);
        put(&mut inbox, [held(1, 100_000)]);
        assert_eq!(inbox.room(), 0);
        let running = inbox.take().unwrap();
        inbox.free(&running);
        assert!(inbox.room() > 0);
    }
}
