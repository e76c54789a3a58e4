//! Numbers drawn from a seed.

use std::time::Duration;

/// Draws numbers from a seed (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below a bound.
    pub(super) fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// A time between so many seconds and so many.
    pub(super) fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.throw((to - from) * 1000))
    }
}
