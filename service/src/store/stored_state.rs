//! The states of a task as the database keeps them: those that people see, with four forms of
//! `waiting`, and without those that only an endpoint's events tell. Pure.

use crate::model::TaskState;
use clutch_common::task::result::Outcome;
use std::str::FromStr;

/// The state of a task in the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum StoredState {
    /// It is due later, with its submission.
    Scheduled,
    /// It is of a topic, and its current attempt is not placed: no endpoint was given it.
    InTopic,
    /// The current attempt was never handed to the link, or the broker certainly does not have
    /// it: the task can be ended here.
    Waiting,
    /// Its next attempt waits for the end of a pause, as it did not succeed.
    Paused,
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
            Self::Scheduled => TaskState::Scheduled,
            Self::InTopic | Self::Waiting | Self::Paused | Self::Submitting => TaskState::Waiting,
            Self::Submitted => TaskState::Submitted,
            Self::Done(outcome) => TaskState::Done(outcome),
        }
    }

    /// The states in the database of the tasks that people see in a state, or that may be in it:
    /// only events tell which of those that are submitted are accepted or run.
    pub(super) fn shown_as(state: TaskState) -> impl Iterator<Item = Self> {
        let states = match state {
            TaskState::Scheduled => vec![Self::Scheduled],
            TaskState::Waiting => {
                vec![Self::InTopic, Self::Waiting, Self::Paused, Self::Submitting]
            }
            TaskState::Submitted | TaskState::Accepted | TaskState::Running => {
                vec![Self::Submitted]
            }
            TaskState::Done(outcome) => vec![Self::Done(outcome)],
        };
        states.into_iter()
    }

    /// The name it has in the database.
    #[must_use]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::InTopic => "unplaced",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
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
            "scheduled" => Ok(Self::Scheduled),
            "unplaced" => Ok(Self::InTopic),
            "waiting" => Ok(Self::Waiting),
            "paused" => Ok(Self::Paused),
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
    fn what_is_kept_is_read_again_and_shown_without_its_four_forms_of_waiting() {
        let waiting = [
            StoredState::InTopic,
            StoredState::Waiting,
            StoredState::Paused,
            StoredState::Submitting,
        ];
        let open = waiting.into_iter().chain([StoredState::Scheduled, StoredState::Submitted]);
        for state in open.chain(Outcome::ALL.map(StoredState::Done)) {
            assert_eq!(state.as_str().parse(), Ok(state));
            let shown = state.shown().as_str();
            let expected = if waiting.contains(&state) { "waiting" } else { state.as_str() };
            assert_eq!(shown, expected);
        }
        assert!("running".parse::<StoredState>().is_err(), "only events tell that");
    }
}
