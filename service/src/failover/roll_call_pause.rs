//! Decides when an endpoint may get the next series of roll calls. Pure.
//!
//! An endpoint answers a roll call by sending results again. A result that arrives damaged makes
//! all unanswered attempts doubtful again: the pauses between series grow, so that answers do not
//! cause ever more roll calls.

use std::time::Duration;
use tokio::time::Instant;

/// The pause after a series of roll calls, and the longest it grows to.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);

/// The pause between series of roll calls to one endpoint. A series is the roll calls that follow
/// each other until no attempt is left to ask for.
#[derive(Debug, Default)]
pub(super) struct RollCallPause {
    /// The end of the last series, and the pause after it.
    ended: Option<(Instant, Duration)>,
    asking: bool,
}

impl RollCallPause {
    /// Begins a series or continues it; if it is too early, returns the time to wait for instead.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        let early = self.ended.map(|(ended, pause)| ended + pause).filter(|then| now < *then);
        if self.asking || early.is_none() {
            self.asking = true;
            return None;
        }
        early
    }

    /// Ends the series. The next pause is twice as long if this series came soon after the one
    /// before.
    pub(super) fn end_series(&mut self, now: Instant) {
        if std::mem::take(&mut self.asking) {
            let soon = self.ended.filter(|(ended, pause)| now < *ended + 4 * *pause);
            let pause = soon.map_or(SHORTEST, |(_, pause)| (2 * pause).min(LONGEST));
            self.ended = Some((now, pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_series_is_not_held_up_and_the_next_one_waits() {
        let (mut pause, now) = (RollCallPause::default(), Instant::now());
        pause.end_series(now);
        assert_eq!((pause.begin(now), pause.begin(now)), (None, None));
        pause.end_series(now);
        assert_eq!(pause.begin(now + SECOND), Some(now + SHORTEST));
        assert_eq!(pause.begin(now + SHORTEST), None);
    }

    #[test]
    fn pauses_grow_while_series_follow_each_other_and_start_anew_after_a_quiet_time() {
        let (mut pause, mut now) = (RollCallPause::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(pause.begin(now), None);
            pause.end_series(now);
            let then = pause.begin(now).unwrap();
            pauses.push((then - now).as_secs());
            now = then;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30, 30]);
        now += 5 * LONGEST;
        assert_eq!(pause.begin(now), None);
        pause.end_series(now);
        assert_eq!(pause.begin(now), Some(now + SHORTEST));
    }
}
