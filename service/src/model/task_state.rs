//! Where a task is on its way from submission to its recorded outcome. Pure.

use clutch_common::task::result::Outcome;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Where a task is on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TaskState {
    /// It is recorded, and becomes `waiting` at the moment it is scheduled for.
    Scheduled,
    /// It is recorded, and the broker is not known to have its current attempt.
    Waiting,
    /// The broker has it.
    Submitted,
    /// The endpoint has it, and it waits there for a slot: by the endpoint's last event.
    Accepted,
    /// It has a slot of the endpoint: by the endpoint's last event.
    Running,
    /// Its outcome is recorded.
    Done(Outcome),
}

impl TaskState {
    /// The states of a task without an outcome, in the order in which it comes to them.
    pub(crate) const OPEN: [Self; 5] =
        [Self::Scheduled, Self::Waiting, Self::Submitted, Self::Accepted, Self::Running];

    /// An explanation for people, where the name alone is not enough.
    #[must_use]
    pub(crate) fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Scheduled => Some("recorded; it becomes waiting at its moment"),
            Self::Waiting => Some("recorded; the broker is not known to have it"),
            Self::Accepted => Some("the endpoint has it, and it waits there for a slot"),
            Self::Submitted | Self::Running | Self::Done(_) => None,
        }
    }

    /// The name it has in the API and in listings.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Waiting => "waiting",
            Self::Submitted => "submitted",
            Self::Accepted => "accepted",
            Self::Running => "running",
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
        if let Some(open) = Self::OPEN.into_iter().find(|open| open.as_str() == text) {
            return Ok(open);
        }
        text.parse().map(Self::Done).map_err(|_| {
            let open = Self::OPEN.into_iter().map(Self::as_str);
            let names: Vec<&str> = open.chain(Outcome::ALL.map(Outcome::as_str)).collect();
            format!("'{text}' is not a state; expected {}", names.join(", "))
        })
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

impl PartialSchema for TaskState {
    fn schema() -> RefOr<Schema> {
        let open = Self::OPEN.into_iter().map(Self::as_str);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(open.chain(Outcome::ALL.map(Outcome::as_str))))
            .description(Some("Where a task is: on its way, or its outcome."))
            .into()
    }
}

impl ToSchema for TaskState {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("TaskState")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_spelling() {
        for state in TaskState::OPEN.into_iter().chain(Outcome::ALL.map(TaskState::Done)) {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        // `submitting` is a form that only the records know.
        for name in ["lost", "submitting"] {
            let words = name.parse::<TaskState>().unwrap_err();
            assert!(
                words.contains("scheduled, waiting, submitted") && words.contains("timed_out"),
                "{words}"
            );
        }
    }
}
