//! The states of a task as the database keeps them: those that people see, with two forms of
//! `waiting`, and without those that only an endpoint's events tell. Pure.

use crate::model::TaskState;
use clutch_common::task::result::Outcome;
use std::str::FromStr;

/// The state of a task in the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum StoredState {
    /// The current attempt was never handed to the link, or the broker certainly does not have
    /// it: the task can be ended here.
    Waiting,
    /// The current attempt was handed to the link, and the broker has not answered: it may be
    /// at the endpoint.
    Submitting,
    /// The broker has it.
    Submitted,
    /// Its outcome is recorded.
    Done(Outcome),
}

impl StoredState {
    /// The state that people see.
    #[must_use]
    pub(crate) fn shown(self) -> TaskState {
        match self {
            Self::Waiting | Self::Submitting => TaskState::Waiting,
            Self::Submitted => TaskState::Submitted,
            Self::Done(outcome) => TaskState::Done(outcome),
        }
    }

    /// The states in the database of the tasks that people see in a state, or that may be in it:
    /// only events tell which of those that are submitted are accepted or run.
    pub(super) fn shown_as(state: TaskState) -> impl Iterator<Item = Self> {
        let (first, second) = match state {
            TaskState::Waiting => (Self::Waiting, Some(Self::Submitting)),
            TaskState::Submitted | TaskState::Accepted | TaskState::Running => {
                (Self::Submitted, None)
            }
            TaskState::Done(outcome) => (Self::Done(outcome), None),
        };
        std::iter::once(first).chain(second)
    }

    /// The name it has in the database.
    #[must_use]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::Done(outcome) => outcome.as_str(),
        }
    }
}

impl FromStr for StoredState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "waiting" => Ok(Self::Waiting),
            "submitting" => Ok(Self::Submitting),
            "submitted" => Ok(Self::Submitted),
            outcome => outcome.parse().map(Self::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_shown_without_its_two_forms_of_waiting() {
        let open = [StoredState::Waiting, StoredState::Submitting, StoredState::Submitted];
        for state in open.into_iter().chain(Outcome::ALL.map(StoredState::Done)) {
            assert_eq!(state.as_str().parse(), Ok(state));
            let shown = state.shown().as_str();
            let expected =
                if state == StoredState::Submitting { "waiting" } else { state.as_str() };
            assert_eq!(shown, expected);
        }
        assert!("running".parse::<StoredState>().is_err(), "only events tell that");
    }
}
