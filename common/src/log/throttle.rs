//! Tells of something that may happen often in one log line a minute. Pure.

use std::time::{Duration, Instant};

/// The least time between two lines.
pub const PAUSE: Duration = Duration::from_secs(60);

/// How many events no line has told of yet, and when the last line was.
#[derive(Debug, Default)]
pub struct Throttle {
    untold: u64,
    last: Option<Instant>,
}

impl Throttle {
    /// Adds events. Returns how many a line is to tell of, if one is due.
    pub fn add(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.untold += count;
        if self.untold == 0 || self.last.is_some_and(|last| now < last + PAUSE) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_tells_of_all_events_since_the_last_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.add(0, now), None);
        assert_eq!(throttle.add(3, now), Some(3));
        assert_eq!(throttle.add(2, now + PAUSE / 2), None);
        assert_eq!(throttle.add(0, now + PAUSE), Some(2));
        assert_eq!(throttle.add(0, now + 3 * PAUSE), None);
    }
}
