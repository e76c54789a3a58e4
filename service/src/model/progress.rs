//! How far a set of tasks is. Pure.

use super::TaskState;
use clutch_common::task::result::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How far a set of tasks is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Progress {
    /// How many tasks there are to be.
    pub(crate) total: u64,
    /// How many have a recorded outcome.
    pub(crate) done: u64,
    /// How many of those succeeded.
    pub(crate) succeeded: u64,
    /// How many are in each state.
    pub(crate) states: BTreeMap<String, u64>,
}

impl Progress {
    /// The progress of `total` tasks, of which so many are in each state.
    pub(crate) fn of(total: u64, states: impl IntoIterator<Item = (TaskState, u64)>) -> Self {
        let mut progress = Self { total, ..Self::default() };
        for (state, count) in states {
            if let TaskState::Done(outcome) = state {
                progress.done += count;
                progress.succeeded += if outcome == Outcome::Succeeded { count } else { 0 };
            }
            *progress.states.entry(state.as_str().to_owned()).or_default() += count;
        }
        progress
    }

    /// Counts submitted tasks in another state; no more than there are.
    pub(crate) fn move_submitted(&mut self, to: TaskState, tasks: u64) {
        let Some(submitted) = self.states.get_mut(TaskState::Submitted.as_str()) else { return };
        let moved = tasks.min(*submitted);
        *submitted -= moved;
        self.states.retain(|_, count| *count > 0);
        if moved > 0 {
            *self.states.entry(to.as_str().to_owned()).or_default() += moved;
        }
    }

    /// Whether every task has its outcome.
    #[must_use]
    pub(crate) fn complete(&self) -> bool {
        self.done >= self.total
    }

    /// How many tasks are not recorded: the submission was cut off, or is still sent.
    #[must_use]
    pub(crate) fn unrecorded(&self) -> u64 {
        self.total.saturating_sub(self.states.values().sum())
    }

    /// Whether every task that is recorded has its outcome.
    #[must_use]
    pub(crate) fn settled(&self) -> bool {
        self.done + self.unrecorded() >= self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_outcomes_and_is_complete_with_the_last() {
        let mut states = vec![
            (TaskState::Submitted, 1),
            (TaskState::Done(Outcome::Succeeded), 2),
            (TaskState::Done(Outcome::Failed), 3),
        ];
        let progress = Progress::of(6, states.clone());
        assert_eq!((progress.done, progress.succeeded, progress.complete()), (5, 2, false));
        states[0].0 = TaskState::Done(Outcome::Expired);
        assert!(Progress::of(6, states).complete());
    }

    #[test]
    fn no_more_tasks_are_elsewhere_than_were_submitted() {
        let mut progress = Progress::of(6, [(TaskState::Submitted, 4)]);
        progress.move_submitted(TaskState::Running, 1);
        assert_eq!(
            progress.states,
            [("running".to_owned(), 1), ("submitted".to_owned(), 3)].into()
        );
        progress.move_submitted(TaskState::Accepted, 9);
        assert_eq!(progress.states, [("accepted".to_owned(), 3), ("running".to_owned(), 1)].into());
        progress.move_submitted(TaskState::Running, 1);
        assert_eq!(progress.states.values().sum::<u64>(), 4);
    }

    #[test]
    fn a_submission_that_was_cut_off_is_settled_with_the_last_that_is_recorded() {
        for open in TaskState::OPEN {
            let mut states = vec![(open, 1), (TaskState::Done(Outcome::Failed), 2)];
            let progress = Progress::of(10, states.clone());
            assert_eq!((progress.unrecorded(), progress.settled()), (7, false));
            states[0].0 = TaskState::Done(Outcome::Succeeded);
            let progress = Progress::of(10, states);
            assert_eq!((progress.unrecorded(), progress.settled()), (7, true));
            assert!(!progress.complete());
        }
    }
}
