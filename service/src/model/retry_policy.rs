//! When the service runs a task again by itself. Pure.

use clutch_common::task::result::Outcome;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most times that a task is run again by itself.
pub(crate) const MAX_RETRIES: u32 = 1000;
/// The longest pause before that, in milliseconds: 30 days.
pub(crate) const MAX_PAUSE_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// When tasks of a submission are run again by the service, as their next attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryPolicy {
    /// How often at most.
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) retries: u32,
    /// The pause before the first time, in milliseconds. It doubles from time to time.
    #[serde(default = "first_pause_ms")]
    #[schema(maximum = 2_592_000_000_u64)]
    pub(crate) first_pause_ms: u64,
    /// The longest pause.
    #[serde(default = "longest_pause_ms")]
    #[schema(maximum = 2_592_000_000_u64)]
    pub(crate) longest_pause_ms: u64,
    /// The outcomes after which a task is run again.
    #[serde(default = "outcomes")]
    #[schema(min_items = 1)]
    pub(crate) on: Vec<Outcome>,
}

fn first_pause_ms() -> u64 {
    1000
}

fn longest_pause_ms() -> u64 {
    60_000
}

fn outcomes() -> Vec<Outcome> {
    vec![Outcome::Failed, Outcome::TimedOut]
}

impl RetryPolicy {
    /// The policy with so many retries, and otherwise as it is unless more is given.
    pub(crate) fn of(retries: u32) -> Self {
        Self {
            retries,
            first_pause_ms: first_pause_ms(),
            longest_pause_ms: longest_pause_ms(),
            on: outcomes(),
        }
    }

    /// Checks the bounds of its values.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { retries, first_pause_ms, longest_pause_ms, on } = self;
        if !(1..=MAX_RETRIES).contains(retries) {
            return Err(format!("retries must be from 1 to {MAX_RETRIES}"));
        }
        if first_pause_ms > longest_pause_ms || *longest_pause_ms > MAX_PAUSE_MS {
            return Err(
                "the first pause must not be longer than the longest, and that no longer than 30 \
                 days"
                    .to_owned(),
            );
        }
        if on.is_empty() || on.contains(&Outcome::Succeeded) || on.contains(&Outcome::Cancelled) {
            return Err(
                "a task is run again after at least one outcome, but not after succeeded or \
                 cancelled"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The pause before a task is run again, in milliseconds, if it is. `results` is how many
    /// of its attempts have a result, this one included.
    pub(crate) fn pause_after(&self, outcome: Outcome, results: usize) -> Option<u64> {
        let done = u32::try_from(results).unwrap_or(u32::MAX).saturating_sub(1);
        if done >= self.retries || !self.on.contains(&outcome) {
            return None;
        }
        let doubled = 1_u64.checked_shl(done).unwrap_or(u64::MAX);
        Some(self.first_pause_ms.saturating_mul(doubled).min(self.longest_pause_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        serde_json::from_str(r#"{"retries": 3}"#).unwrap()
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_the_retries_are_used_up() {
        let policy = RetryPolicy { longest_pause_ms: 3000, ..policy() };
        let pauses = [1, 2, 3, 4, 50].map(|results| policy.pause_after(Outcome::Failed, results));
        assert_eq!(pauses, [Some(1000), Some(2000), Some(3000), None, None]);
        assert_eq!(policy.pause_after(Outcome::TimedOut, 1), Some(1000));
        for outcome in [Outcome::Succeeded, Outcome::Cancelled, Outcome::Poisoned] {
            assert_eq!(policy.pause_after(outcome, 1), None);
        }
        let many = RetryPolicy { retries: MAX_RETRIES, ..policy };
        assert_eq!(many.pause_after(Outcome::Failed, 900), Some(3000));
    }

    #[test]
    fn a_policy_out_of_bounds_is_refused() {
        assert_eq!(policy().check(), Ok(()));
        for bad in [
            RetryPolicy { retries: 0, ..policy() },
            RetryPolicy { retries: MAX_RETRIES + 1, ..policy() },
            RetryPolicy { first_pause_ms: 60_001, ..policy() },
            RetryPolicy { longest_pause_ms: MAX_PAUSE_MS + 1, ..policy() },
            RetryPolicy { on: vec![], ..policy() },
            RetryPolicy { on: vec![Outcome::Cancelled], ..policy() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
