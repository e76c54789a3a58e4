//! Where a task is on its way from submission to its recorded outcome. Pure.

use clutch_common::task::result::Outcome;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// Where a task is on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TaskState {
    /// Recorded; the broker has not confirmed it.
    Submitting,
    /// The broker has no queue for it, and does not have it.
    Returned,
    /// The broker's queue is full, and it does not have it.
    Refused,
    /// The broker has it.
    Submitted,
    /// The attempt that was submitted is lost; the broker has not confirmed the
    /// next one.
    Resubmitting,
    /// Its outcome is recorded.
    Done(Outcome),
}

impl TaskState {
    /// The states of a task that the broker is not known to have.
    pub(crate) const UNSUBMITTED: [Self; 3] = [Self::Submitting, Self::Returned, Self::Refused];

    /// An explanation for people, where the name alone is not enough.
    #[must_use]
    pub(crate) fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Submitting => Some("recorded; the broker has not confirmed it"),
            Self::Returned => Some(
                "the broker has no queue for the endpoint: `clutch-service provision` declares \
                 it; then submit again with the same --key",
            ),
            Self::Refused => Some(
                "the queue of the endpoint is full, or the task larger than the broker takes: \
                 submit again with the same --key when there is room, or pass large data by file",
            ),
            Self::Resubmitting => Some(
                "the endpoint has lost the attempt that was submitted; the next one is being \
                 submitted",
            ),
            Self::Submitted | Self::Done(_) => None,
        }
    }

    /// The name it has in the API and in the database.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::Returned => "returned",
            Self::Refused => "refused",
            Self::Submitted => "submitted",
            Self::Resubmitting => "resubmitting",
            Self::Done(outcome) => outcome.as_str(),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "submitting" => Ok(Self::Submitting),
            "returned" => Ok(Self::Returned),
            "refused" => Ok(Self::Refused),
            "submitted" => Ok(Self::Submitted),
            "resubmitting" => Ok(Self::Resubmitting),
            other => other.parse().map(Self::Done).map_err(|_| {
                let outcomes: Vec<&str> = Outcome::ALL.iter().map(|one| one.as_str()).collect();
                format!(
                    "'{other}' is not a state; expected submitting, returned, refused, submitted, \
                     resubmitting, {}",
                    outcomes.join(", ")
                )
            }),
        }
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_spelling() {
        let all = TaskState::UNSUBMITTED
            .into_iter()
            .chain([TaskState::Submitted, TaskState::Resubmitting])
            .chain(Outcome::ALL.map(TaskState::Done));
        for state in all {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("lost".parse::<TaskState>().unwrap_err().contains("timed_out"));
    }
}
