//! The credit of a member: how many tasks of topics it may have. Pure.
//!
//! Long tasks have no more than slots. Short ones have as many more as the member ends within
//! the *lookahead*, so that its slots do not wait for a round trip.

use std::time::Duration;

/// How far ahead a member has work where nothing else is said.
pub(crate) const LOOKAHEAD: Duration = Duration::from_millis(250);
/// The time within which the mean forgets, in milliseconds.
const MEMORY_MS: f64 = 1000.0;

/// How many tasks end in a second: a mean that decays within about a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    per_second: f64,
    at_ms: u64,
}

impl Rate {
    /// Notes that slots' worth of work ended.
    pub(super) fn ended(&mut self, cores: u64, now_ms: u64) {
        let before = self.per_second(now_ms);
        let cores = f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
        *self = Self { per_second: before + cores * 1000.0 / MEMORY_MS, at_ms: now_ms };
    }

    /// The mean at a moment.
    pub(super) fn per_second(self, now_ms: u64) -> f64 {
        let passed = u32::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(u32::MAX);
        self.per_second * (-f64::from(passed) / MEMORY_MS).exp()
    }
}

/// The credit of a member with so many slots.
pub(super) fn credit(slots: u64, rate: Rate, lookahead: Duration, now_ms: u64) -> u64 {
    let ahead = (rate.per_second(now_ms) * lookahead.as_secs_f64()).floor();
    slots.saturating_add(whole(ahead))
}

/// A number without its fraction; `as` has no checked form.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before")]
fn whole(number: f64) -> u64 {
    number.clamp(0.0, 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_long_tasks_has_no_more_than_its_slots() {
        let mut rate = Rate::default();
        for minute in 0..10 {
            assert_eq!(credit(4, rate, LOOKAHEAD, minute * 60_000), 4);
            rate.ended(1, minute * 60_000);
        }
    }

    #[test]
    fn a_member_of_short_calls_has_what_it_ends_within_the_lookahead() {
        let mut rate = Rate::default();
        for ms in 0..5000 {
            rate.ended(1, ms);
        }
        // 1,000 end in a second.
        let credit_then = credit(4, rate, LOOKAHEAD, 5000);
        assert!((250..=256).contains(&credit_then), "{credit_then}");
        assert_eq!(credit(4, rate, Duration::ZERO, 5000), 4);
        assert_eq!(credit(4, rate, LOOKAHEAD, 15_000), 4, "it decays");
        assert!(credit(4, rate, LOOKAHEAD, 4000) >= 250, "a clock that is set back harms nothing");
    }
}
