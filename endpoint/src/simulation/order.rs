//! Judges the order in which tasks start at one instance, by their priorities. Pure.
//!
//! A task is watched from when it is on disk and may start, in an instance's first life: a later
//! one begins with tasks that the oracle did not see come. It sees starts a little late, and not
//! those of tasks that end without running, so that its bounds are a little wider than the rule.

use super::oracle::{Broken, name};
use clutch_common::id::Attempt;
use clutch_common::task::priority::Priority;
use std::collections::{BTreeMap, BTreeSet};

/// A task that waits.
struct Waiter {
    priority: Priority,
    /// Its place in the order of acceptance.
    seq: u64,
    /// How many waited when it came, and came later though they were accepted before it.
    before: u64,
    /// How many have started since.
    starts: u64,
    /// How many of them have a lower priority.
    lower: u64,
}

/// The order at one instance.
#[derive(Default)]
pub(super) struct StartOrder {
    waiting: BTreeMap<Attempt, Waiter>,
    /// Those that started, or came to an end; they do not wait, even if that is on disk later.
    past: BTreeSet<Attempt>,
    /// Whether its first life is over.
    over: bool,
}

impl StartOrder {
    /// A task may start, which was accepted as the `seq`th.
    pub(super) fn comes(&mut self, attempt: Attempt, priority: Priority, seq: u64) {
        if !self.over && !self.past.contains(&attempt) {
            for waiter in self.waiting.values_mut().filter(|waiter| waiter.seq > seq) {
                waiter.before += 1;
            }
            let before = self.waiting.len() as u64;
            self.waiting.insert(attempt, Waiter { priority, seq, before, starts: 0, lower: 0 });
        }
    }

    /// A task leaves without being started.
    pub(super) fn leaves(&mut self, attempt: Attempt) {
        self.past.insert(attempt);
        self.waiting.remove(&attempt);
    }

    /// A task leaves, and may come again.
    pub(super) fn is_handed_back(&mut self, attempt: Attempt) {
        self.past.remove(&attempt);
        self.waiting.remove(&attempt);
    }

    /// The process is gone.
    pub(super) fn ends(&mut self) {
        self.over = true;
        self.waiting.clear();
    }

    /// A task starts, where there are so many slots.
    pub(super) fn starts(
        &mut self,
        attempt: Attempt,
        priority: Priority,
        slots: u64,
    ) -> Result<(), Broken> {
        // One that was put back in its place, where it could not be started before.
        let put_back = u64::from(!self.waiting.contains_key(&attempt));
        self.leaves(attempt);
        for (waits, waiter) in &mut self.waiting {
            waiter.starts += 1;
            waiter.before += put_back;
            waiter.lower += u64::from(priority < waiter.priority);
            let Waiter { before, starts, lower, .. } = *waiter;
            let (what, which) = (name(*waits), waiter.priority);
            if starts > 8 * (before + 1) + slots {
                return Err(format!(
                    "{what} ({which}) waits while {starts} start, and {before} were before it"
                ));
            }
            if lower > 2 * slots + 2 + starts / 4 {
                return Err(format!(
                    "{what} ({which}) waits while {starts} start, {lower} of them of a lower priority"
                ));
            }
        }
        Ok(())
    }
}
