//! Typed ids. Pure, except that `new` reads the clock and the system's
//! randomness (UUIDv7: ids sort by the time they were made).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id (UUIDv7), later than every one made before on this host.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "two defaults would differ")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// Names one task for its whole life, over every attempt.
    TaskId
}
id! {
    /// Names one endpoint: the `<ID>` of `<ID>.tasks` and `<ID>.results`.
    EndpointId
}
id! {
    /// Names one state folder of an endpoint. A new one under the same
    /// [`EndpointId`] means that the old disk is gone.
    StateId
}
id! {
    /// Names one service, by its records: a copy of its database is the same service.
    ServiceId
}

/// One attempt at one task: what results are idempotent by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The task.
    pub task_id: TaskId,
    /// Counts from 1; a later attempt supersedes an earlier one.
    pub attempt: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task_id, self.attempt)
    }
}

/// The longest name of an endpoint, in bytes.
pub const MAX_ENDPOINT_NAME: usize = 64;

/// A name that no endpoint can have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{}' cannot be the name of an endpoint: 1 to {MAX_ENDPOINT_NAME} of A-Z a-z 0-9 . _ -, the \
     first a letter or a digit, and no UUID",
    crate::text::printable::line(.0)
)]
pub struct BadEndpointName(String);

/// Checks that an endpoint can have this name: one that shells, paths and logs carry,
/// that is no option, and that is told from an id.
pub fn check_endpoint_name(name: &str) -> Result<(), BadEndpointName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = name.len() <= MAX_ENDPOINT_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed)
        && Uuid::parse_str(name).is_err();
    if good { Ok(()) } else { Err(BadEndpointName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_shells_paths_and_logs_carry() {
        for good in ["a", "Lab-1_x.y", "7", &"x".repeat(64)] {
            assert_eq!(check_endpoint_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        let id = EndpointId::new().to_string();
        for bad in
            ["", ".", "..", "-x", "_x", ".lab", "a b", "a/b", "grün", "a\n", "a\0", &long, &id]
        {
            assert!(check_endpoint_name(bad).is_err(), "{bad}");
        }
    }
}
