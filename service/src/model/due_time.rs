//! When tasks of a submission are due. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest time, in milliseconds, for which a submission is scheduled ahead: 100 years.
pub(crate) const MAX_AHEAD_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// When tasks are due, as a request says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DueTime {
    /// At this moment, in milliseconds since the Unix epoch.
    AtMs(u64),
    /// This many milliseconds after the submission is first recorded.
    InMs(u64),
}

impl DueTime {
    /// The moment, of a submission that is recorded at `now_ms`.
    #[must_use]
    pub(crate) fn moment(self, now_ms: u64) -> u64 {
        match self {
            Self::AtMs(at) => at,
            Self::InMs(after) => now_ms.saturating_add(after),
        }
    }

    /// Checks that it is no further ahead than is sensible.
    pub(crate) fn check(self, now_ms: u64) -> Result<(), String> {
        if self.moment(now_ms) > now_ms.saturating_add(MAX_AHEAD_MS) {
            return Err("it is more than 100 years ahead".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_counts_from_the_recording_and_nothing_is_due_in_a_hundred_years() {
        assert_eq!(DueTime::AtMs(5).moment(1000), 5);
        assert_eq!(DueTime::InMs(5).moment(1000), 1005);
        assert_eq!(DueTime::AtMs(5).check(1000), Ok(()));
        assert_eq!(DueTime::InMs(MAX_AHEAD_MS).check(1000), Ok(()));
        for far in [DueTime::InMs(MAX_AHEAD_MS + 1), DueTime::AtMs(u64::MAX)] {
            assert!(far.check(1000).unwrap_err().contains("100 years"));
        }
    }
}
