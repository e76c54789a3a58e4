//! The inbox in memory: tasks accepted and not finished, in order, bounded.
//! Pure state behind a lock; the disk holds the same tasks (see `journal`).
//!
//! The bound counts what waits and what runs, by number and by bytes. When it
//! is reached the subscriber stops reading, so it stops acknowledging, and the
//! broker stops delivering.

use crate::journal::Seq;
use clutch_common::task::{Task, Work};
use std::collections::VecDeque;
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
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Held>,
    tasks: usize,
    bytes: usize,
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

    /// Adds tasks; also over the bound: a message is taken whole.
    pub(crate) fn put(&self, held: impl IntoIterator<Item = Held>) {
        let mut state = self.lock();
        for held in held {
            state.tasks += 1;
            state.bytes += weight(&held.task);
            state.waiting.push_back(held);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes the oldest waiting task. It counts until [`Inbox::free`].
    pub(crate) fn take(&self) -> Option<Held> {
        self.lock().waiting.pop_front()
    }

    /// Frees the room of a task that was taken and is finished.
    pub(crate) fn free(&self, task: &Task) {
        let mut state = self.lock();
        state.tasks = state.tasks.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(weight(task));
        drop(state);
        self.freed.notify_one();
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

    /// How many tasks wait for a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a task takes in memory, roughly: its strings and a fixed part.
fn weight(task: &Task) -> usize {
    let Work::Process(process) = &task.work;
    let argv: usize = process.argv.iter().map(|argument| argument.len() + 32).sum();
    let env: usize = process.env.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    512 + argv + env + process.stdin.0.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::Process;

    fn held(seq: u64, stdin: usize) -> Held {
        let process = Process {
            argv: vec!["true".into()],
            stdin: vec![0; stdin].into(),
            ..Process::default()
        };
        Held { seq: Seq(seq), task: Arc::new(Task::new(TaskId::new(), process)), started: false }
    }

    fn inbox(max_tasks: usize, max_bytes: usize) -> Inbox {
        Inbox::new(Bounds { max_tasks, max_bytes })
    }

    #[test]
    fn tasks_leave_in_the_order_they_came() {
        let inbox = inbox(10, 1 << 20);
        inbox.put((1..4).map(|seq| held(seq, 0)));
        let order: Vec<u64> = std::iter::from_fn(|| inbox.take()).map(|held| held.seq.0).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn a_running_task_counts_until_it_is_freed() {
        let inbox = inbox(1, 1 << 20);
        inbox.put([held(1, 0)]);
        let running = inbox.take().unwrap();
        assert_eq!(inbox.room_now(), 0);
        inbox.free(&running.task);
        assert!(inbox.room_now() > 0);
    }

    #[test]
    fn bytes_bound_it_as_well_and_one_large_task_still_fits_an_empty_inbox() {
        let inbox = inbox(10, 10_000);
        assert!(inbox.room_now() > 0);
        inbox.put([held(1, 100_000)]);
        assert_eq!(inbox.room_now(), 0);
        let task = inbox.take().unwrap().task;
        inbox.free(&task);
        assert!(inbox.room_now() > 0);
    }
}
