//! The cancels in force: an attempt that one of them names does not start, whenever it comes.
//! Pure.
//!
//! A cancel covers an attempt and each earlier one at the same task. It is in force until a
//! mark with its number or a higher one, or until a session begins to read the control
//! queue anew. Bounded by what the reader of that queue holds.

use clutch_common::id::{Attempt, TaskId};
use std::collections::HashMap;

/// A cancel of one task.
#[derive(Clone, Copy, Debug)]
struct CancelInForce {
    /// The highest attempt that it covers.
    attempt: u32,
    /// The number of the message.
    number: u64,
}

/// The cancels in force.
#[derive(Debug, Default)]
pub(crate) struct Cancels(HashMap<TaskId, CancelInForce>);

impl Cancels {
    /// Adds what a message names.
    pub(crate) fn add(&mut self, number: u64, attempts: &[Attempt]) {
        for Attempt { task_id, attempt } in attempts {
            let cancelled =
                self.0.entry(*task_id).or_insert(CancelInForce { attempt: *attempt, number });
            cancelled.attempt = cancelled.attempt.max(*attempt);
            cancelled.number = cancelled.number.max(number);
        }
    }

    /// Whether an attempt is cancelled.
    pub(crate) fn cover(&self, attempt: Attempt) -> bool {
        !self.0.is_empty()
            && self.0.get(&attempt.task_id).is_some_and(|one| one.attempt >= attempt.attempt)
    }

    /// Ends those up to a number.
    pub(crate) fn release(&mut self, up_to: u64) {
        self.0.retain(|_, cancelled| cancelled.number > up_to);
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }

    /// Ends all.
    pub(crate) fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_covers_earlier_attempts_until_a_mark_with_its_number() {
        let task_id = TaskId::new();
        let attempt = |attempt| Attempt { task_id, attempt };
        let mut cancels = Cancels::default();
        assert!(!cancels.cover(attempt(1)));
        cancels.add(4, &[attempt(2)]);
        assert_eq!([1, 2, 3].map(|one| cancels.cover(attempt(one))), [true, true, false]);
        cancels.add(6, &[attempt(1)]);
        assert!(cancels.cover(attempt(2)), "an earlier message covers more");
        cancels.release(5);
        assert!(cancels.cover(attempt(2)), "a later message names the task, too");
        cancels.release(6);
        assert!(!cancels.cover(attempt(1)));
    }
}
