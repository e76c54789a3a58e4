//! The inbox in memory: tasks accepted and not finished, in order, bounded.
//! Pure state behind a lock; the disk holds the same tasks (see `journal`).
//!
//! The bound counts what waits and what runs, by number and by bytes. When it
//! is reached the subscriber stops reading, so it stops acknowledging, and the
//! broker stops delivering.
//!
//! Tasks leave in the order they came, but for those that have to wait for
//! another under suspicion (see `poison`), and for calls of a function whose
//! workers are all busy: these are overtaken.

use crate::pending::poison::Standing;
use crate::storage::journal::{Deaths, Seq};
use clutch_common::task::{Task, Work};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How much the inbox takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Tasks waiting and running.
    pub(crate) max_tasks: usize,
    /// Their size in memory, in bytes; one task larger than this is taken when
    /// the inbox is empty.
    pub(crate) max_bytes: usize,
}

/// A task that waits for a slot.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its place on disk.
    pub(crate) seq: Seq,
    /// The task.
    pub(crate) task: Arc<Task>,
    /// Whether an earlier life of the daemon has started it.
    pub(crate) started: bool,
    /// How often the daemon died while it ran.
    pub(crate) deaths: Deaths,
    /// What that means for it.
    pub(crate) standing: Standing,
}

#[derive(Default)]
struct State {
    /// Whether nothing may be taken yet.
    shut: bool,
    waiting: VecDeque<Held>,
    /// Those of them that the daemon died with.
    suspected: VecDeque<Held>,
    /// How many run as suspects, and how many take their last chance.
    running: [usize; 2],
    /// The functions of which fewer calls may run than tasks.
    limited: BTreeMap<String, Limited>,
    tasks: usize,
    bytes: usize,
}

/// The calls of a function.
struct Limited {
    max: usize,
    running: usize,
    /// Those that waited at the front when no more might run.
    parked: VecDeque<Held>,
}

impl State {
    fn admit(&mut self, task: &Task) {
        self.tasks += 1;
        self.bytes += weight(task);
    }

    fn queue(&mut self, held: Held) {
        match held.standing {
            Standing::Clear | Standing::Poisoned => self.waiting.push_back(held),
            Standing::Suspect | Standing::LastChance => self.suspected.push_back(held),
        }
    }
}

/// The inbox; shared by subscriber (puts), and engine (takes, frees).
pub(crate) struct Inbox {
    bounds: Bounds,
    state: Mutex<State>,
    filled: Notify,
    freed: Notify,
}

impl Inbox {
    /// An empty inbox.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), filled: Notify::new(), freed: Notify::new() }
    }

    /// Has no more calls of these functions run than they allow, where `slots`
    /// tasks run at once. To be told before the first task is taken.
    pub(crate) fn limit(&self, functions: BTreeMap<String, usize>, slots: usize) {
        let limited = functions
            .into_iter()
            .filter(|(_, max)| *max < slots)
            .map(|(name, max)| (name, Limited { max, running: 0, parked: VecDeque::new() }));
        self.lock().limited = limited.collect();
    }

    /// Adds tasks; also over the bound: a message is taken whole.
    pub(crate) fn put(&self, held: impl IntoIterator<Item = Held>) {
        let mut state = self.lock();
        for held in held {
            state.admit(&held.task);
            state.queue(held);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Keeps room for a task that may not start yet. It counts until
    /// [`Inbox::free`], also once it was [put](Inbox::put_reserved).
    pub(crate) fn reserve(&self, task: &Task) {
        self.lock().admit(task);
    }

    /// Adds tasks that have room kept for them.
    pub(crate) fn put_reserved(&self, held: impl IntoIterator<Item = Held>) {
        let mut state = self.lock();
        held.into_iter().for_each(|held| state.queue(held));
        drop(state);
        self.filled.notify_one();
    }

    /// Lets nothing be taken until [`Inbox::open`].
    pub(crate) fn shut(&self) {
        self.lock().shut = true;
    }

    /// Lets tasks be taken.
    pub(crate) fn open(&self) {
        if std::mem::replace(&mut self.lock().shut, false) {
            self.filled.notify_one();
        }
    }

    /// Whether nothing may be taken, and something waits for that.
    pub(crate) fn holds_back(&self) -> bool {
        let state = self.lock();
        state.shut && !(state.waiting.is_empty() && state.suspected.is_empty())
    }

    /// Takes out all that waits, whether or not it may start. It counts until
    /// [`Inbox::free`].
    pub(crate) fn empty(&self) -> Vec<Held> {
        let mut state = self.lock();
        let State { waiting, suspected, limited, .. } = &mut *state;
        let parked = limited.values_mut().flat_map(|function| function.parked.drain(..));
        let mut all: Vec<Held> =
            waiting.drain(..).chain(suspected.drain(..)).chain(parked).collect();
        all.sort_by_key(|held| held.seq);
        // They are not counted among those that run.
        for held in &mut all {
            held.standing = Standing::Clear;
        }
        all
    }

    /// Takes the oldest waiting task that may start. It counts until
    /// [`Inbox::free`].
    pub(crate) fn take(&self) -> Option<Held> {
        let mut state = self.lock();
        if state.shut { None } else { state.take() }
    }

    /// Frees the room of a task that was taken and is finished.
    pub(crate) fn free(&self, held: &Held) {
        let mut state = self.lock();
        state.tasks = state.tasks.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(weight(&held.task));
        if let Some(count) = state.count(held.standing) {
            *count = count.saturating_sub(1);
        }
        let parked = state.limited(&held.task).is_some_and(|function| {
            function.running = function.running.saturating_sub(1);
            !function.parked.is_empty()
        });
        drop(state);
        self.freed.notify_one();
        if parked {
            self.filled.notify_one();
        }
    }

    /// Waits until a task may have been put since the last look.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until there is room, and tells for how many small tasks.
    pub(crate) async fn room(&self) -> usize {
        loop {
            let room = self.room_now();
            if room > 0 {
                return room;
            }
            self.freed.notified().await;
        }
    }

    /// For how many small tasks there is room.
    fn room_now(&self) -> usize {
        let state = self.lock();
        if state.bytes >= self.bounds.max_bytes {
            return 0;
        }
        self.bounds.max_tasks.saturating_sub(state.tasks)
    }

    /// How many tasks are accepted and not finished.
    pub(crate) fn tasks(&self) -> usize {
        self.lock().tasks
    }

    /// How many tasks wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        let parked: usize = state.limited.values().map(|function| function.parked.len()).sum();
        state.waiting.len() + state.suspected.len() + parked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Held> {
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

    /// Has the calls at the front step aside whose functions are busy.
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

/// What a task takes in memory, roughly: its work and a fixed part.
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

    fn taken(inbox: &Inbox) -> Vec<u64> {
        std::iter::from_fn(|| inbox.take()).map(|held| held.seq.0).collect()
    }

    fn inbox(max_tasks: usize, max_bytes: usize) -> Inbox {
        Inbox::new(Bounds { max_tasks, max_bytes })
    }

    #[test]
    fn tasks_leave_in_the_order_they_came() {
        let inbox = inbox(10, 1 << 20);
        inbox.put((1..4).map(|seq| held(seq, 0)));
        assert_eq!(taken(&inbox), [1, 2, 3]);
    }

    #[test]
    fn whoever_must_wait_for_another_suspect_is_overtaken_and_holds_up_nobody() {
        let inbox = inbox(10, 1 << 20);
        let with = |seq, standing| Held { standing, ..held(seq, 0) };
        inbox.put([
            with(1, Standing::Suspect),
            with(2, Standing::Clear),
            with(3, Standing::Suspect),
            with(4, Standing::LastChance),
            with(5, Standing::Suspect),
            with(6, Standing::Poisoned),
            with(7, Standing::Clear),
        ]);
        assert_eq!(taken(&inbox), [1, 2, 3, 6, 7]);
        assert_eq!(inbox.waiting(), 2);
        inbox.free(&with(1, Standing::Suspect));
        assert!(taken(&inbox).is_empty());
        inbox.free(&with(3, Standing::Suspect));
        assert_eq!(taken(&inbox), [4], "apart from all others under suspicion");
        inbox.put([with(8, Standing::Clear)]);
        assert_eq!(taken(&inbox), [8]);
        inbox.free(&with(4, Standing::LastChance));
        assert_eq!(taken(&inbox), [5]);
    }

    #[test]
    fn calls_of_a_busy_function_are_overtaken_and_keep_their_order() {
        let inbox = inbox(20, 1 << 20);
        inbox.limit([("one".into(), 1), ("two".into(), 2), ("many".into(), 4)].into(), 4);
        let call = |seq, function: &str| {
            let call = Call::new(function, "[]".parse().unwrap());
            let task = Arc::new(Task::of(TaskId::new(), Work::Call(call)));
            Held { task, ..held(seq, 0) }
        };
        let one: Vec<Held> = [1, 2, 3, 10].map(|seq| call(seq, "one")).into();
        inbox.put(one.clone());
        inbox.put([held(4, 0), call(5, "two"), call(6, "many"), call(7, "two"), call(8, "two")]);
        inbox.put([held(9, 0)]);
        assert_eq!(taken(&inbox), [1, 4, 5, 6, 7, 9]);
        assert_eq!(inbox.waiting(), 4);
        inbox.free(&one[0]);
        inbox.put([held(11, 0)]);
        assert_eq!(taken(&inbox), [2, 11]);
        inbox.free(&call(5, "two"));
        inbox.free(&one[1]);
        assert_eq!(taken(&inbox), [3, 8]);
        let suspect = Held { standing: Standing::Suspect, ..call(12, "one") };
        inbox.put([suspect, call(13, "one")]);
        assert!(taken(&inbox).is_empty());
        inbox.free(&one[2]);
        assert_eq!(taken(&inbox), [10]);
        inbox.free(&one[3]);
        assert_eq!(taken(&inbox), [12]);
        assert_eq!(inbox.waiting(), 1);
    }

    #[test]
    fn a_running_task_counts_until_it_is_freed() {
        let inbox = inbox(1, 1 << 20);
        inbox.put([held(1, 0)]);
        let running = inbox.take().unwrap();
        assert_eq!(inbox.room_now(), 0);
        inbox.free(&running);
        assert!(inbox.room_now() > 0);
    }

    #[test]
    fn nothing_leaves_while_it_is_shut() {
        let inbox = inbox(10, 1 << 20);
        inbox.shut();
        inbox.put([held(1, 0)]);
        assert!(taken(&inbox).is_empty());
        assert_eq!((inbox.waiting(), inbox.tasks()), (1, 1));
        inbox.open();
        assert_eq!(taken(&inbox), [1]);
    }

    #[test]
    fn all_that_waits_can_be_taken_out_and_counts_until_it_is_freed() {
        let inbox = inbox(10, 1 << 20);
        inbox.shut();
        assert!(!inbox.holds_back());
        inbox.put([Held { standing: Standing::Suspect, ..held(1, 0) }, held(2, 0)]);
        assert!(inbox.holds_back());
        let all = inbox.empty();
        assert_eq!(all.iter().map(|held| held.seq.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((inbox.waiting(), inbox.tasks()), (0, 2));
        all.iter().for_each(|held| inbox.free(held));
        assert_eq!(inbox.tasks(), 0);
        inbox.put([Held { standing: Standing::LastChance, ..held(3, 0) }]);
        inbox.open();
        assert_eq!(taken(&inbox), [3], "no suspect runs");
    }

    #[test]
    fn a_task_that_may_not_start_yet_has_its_room() {
        let inbox = inbox(2, 1 << 20);
        let held = held(1, 0);
        inbox.reserve(&held.task);
        assert_eq!((inbox.room_now(), inbox.tasks(), inbox.waiting()), (1, 1, 0));
        inbox.put_reserved([held]);
        assert_eq!((inbox.room_now(), inbox.tasks(), inbox.waiting()), (1, 1, 1));
        let held = inbox.take().unwrap();
        inbox.free(&held);
        assert_eq!((inbox.room_now(), inbox.tasks()), (2, 0));
    }

    #[test]
    fn bytes_bound_it_as_well_and_one_large_task_still_fits_an_empty_inbox() {
        let inbox = inbox(10, 10_000);
        assert!(inbox.room_now() > 0);
        inbox.put([held(1, 100_000)]);
        assert_eq!(inbox.room_now(), 0);
        let running = inbox.take().unwrap();
        inbox.free(&running);
        assert!(inbox.room_now() > 0);
    }
}
