//! Tasks that wait for the same: a queue for each priority, and their turns. Pure.

use super::Held;
use super::unclaimed::claimed_cores;
use crate::storage::journal::Seq;
use clutch_common::task::priority::Priority;
use clutch_common::task::turns::{Front, Turn, Turns};
use std::collections::VecDeque;

/// Tasks that wait, by priority; of one priority in the order in which they were accepted.
#[derive(Debug, Default)]
pub(super) struct Levels {
    queues: [VecDeque<Held>; 5],
    turns: Turns,
    /// The slots that the tasks of topics among them take.
    claimed: usize,
}

impl Levels {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// How many wait that are urgent.
    pub(super) fn urgent(&self) -> usize {
        let urgent = Priority::ALL.into_iter().zip(&self.queues);
        urgent.filter(|(level, _)| *level > Priority::Normal).map(|(_, queue)| queue.len()).sum()
    }

    /// How many slots the tasks of topics among them take.
    pub(super) fn claimed(&self) -> usize {
        self.claimed
    }

    /// Adds a task, behind the others of its priority.
    pub(super) fn push(&mut self, held: Held) {
        self.claimed += claimed_cores(&held.task);
        self.queues[level(&held).index()].push_back(held);
    }

    /// Adds a task that was here before, in its place.
    pub(super) fn put_back(&mut self, held: Held) {
        self.claimed += claimed_cores(&held.task);
        let queue = &mut self.queues[level(&held).index()];
        let place = queue.partition_point(|other| other.seq < held.seq);
        queue.insert(place, held);
    }

    /// The task that is next.
    pub(super) fn next(&self) -> Option<&Held> {
        let turn = self.turn()?;
        self.queues[turn.front.level.index()].front()
    }

    /// Removes the task that is next.
    pub(super) fn take(&mut self) -> Option<Held> {
        let turn = self.turn()?;
        self.turns.took(&turn);
        let held = self.queues[turn.front.level.index()].pop_front()?;
        self.claimed = self.claimed.saturating_sub(claimed_cores(&held.task));
        Some(held)
    }

    fn turn(&self) -> Option<Turn<Seq>> {
        let fronts = Priority::ALL.into_iter().zip(&self.queues);
        self.turns.next(fronts.filter_map(|(level, queue)| {
            let age = queue.front()?.seq;
            Some(Front { level, age })
        }))
    }

    /// All tasks that wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.queues.iter().flatten()
    }

    /// At most `max` tasks of each priority, from a sequence number on.
    pub(super) fn from(&self, from: Seq, max: usize) -> impl Iterator<Item = &Held> {
        self.queues.iter().flat_map(move |queue| {
            let first = queue.partition_point(|held| held.seq < from);
            queue.range(first..).take(max)
        })
    }

    /// Removes all tasks.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Held> {
        self.claimed = 0;
        self.queues.iter_mut().flat_map(|queue| queue.drain(..))
    }

    /// Removes the tasks of a kind.
    pub(super) fn remove(&mut self, is_gone: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut all = Vec::new();
        for queue in &mut self.queues {
            if queue.iter().any(&is_gone) {
                let (gone, kept): (Vec<Held>, Vec<Held>) =
                    std::mem::take(queue).into_iter().partition(&is_gone);
                *queue = kept.into();
                all.extend(gone);
            }
        }
        let claimed: usize = all.iter().map(|held| claimed_cores(&held.task)).sum();
        self.claimed = self.claimed.saturating_sub(claimed);
        all
    }
}

/// The priority of a task.
pub(super) fn level(held: &Held) -> Priority {
    held.task.priority
}
