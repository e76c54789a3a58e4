//! How fast tasks end, by the moments at which their results were recorded. Pure.

use super::Progress;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The moments that count: of the last minute.
const WINDOW_MS: u64 = 60_000;
/// The shortest span that a rate is taken over: results are recorded many at a time.
const SHORTEST_MS: u64 = 250;

/// How far tasks are, and how fast they go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProgressRate {
    /// How far they are.
    #[serde(flatten)]
    pub(crate) progress: Progress,
    /// How many results are recorded per second; nothing where that cannot be told.
    pub(crate) per_second: Option<f64>,
    /// How long the rest takes at that rate, in milliseconds.
    pub(crate) left_ms: Option<u64>,
}

impl ProgressRate {
    /// The progress and the rate of tasks at this moment. `recorded_ms` are the moments at which the last of their
    /// results were recorded, in any order; `since_ms` is when the first task was.
    pub(crate) fn of(
        progress: Progress,
        recorded_ms: &[u64],
        since_ms: Option<u64>,
        now_ms: u64,
    ) -> Self {
        let average = || {
            let span = now_ms.saturating_sub(since_ms?).max(1);
            Some(progress.done as f64 * 1000.0 / span as f64)
        };
        let per_second =
            if progress.complete() { None } else { recent(recorded_ms, now_ms).or_else(average) };
        let left = progress.total.saturating_sub(progress.done);
        let left_ms =
            per_second.filter(|rate| *rate > 0.0).map(|rate| (left as f64 * 1000.0 / rate) as u64);
        Self { progress, per_second, left_ms }
    }
}

/// The rate of the last minute; nothing if these moments are too few or too close.
fn recent(recorded_ms: &[u64], now_ms: u64) -> Option<f64> {
    let begin = now_ms.saturating_sub(WINDOW_MS);
    if recorded_ms.is_empty() {
        return None;
    }
    let last: Vec<u64> = recorded_ms.iter().copied().filter(|ms| *ms >= begin).collect();
    let Some(first) = last.iter().min() else { return Some(0.0) };
    // Where moments before the window are known, all within it are.
    let whole = last.len() < recorded_ms.len();
    let span = if whole { WINDOW_MS } else { now_ms.saturating_sub(*first) };
    (span >= SHORTEST_MS).then(|| last.len() as f64 * 1000.0 / span as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskState;
    use clutch_common::task::result::Outcome;

    fn rate_of(done: u64, recorded_ms: &[u64], now_ms: u64) -> ProgressRate {
        let states = [(TaskState::Done(Outcome::Succeeded), done)];
        ProgressRate::of(Progress::of(1000, states), recorded_ms, Some(0), now_ms)
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute_however_late_one_looks() {
        let now = 10_000_000;
        // Ten a second for 30 s, after hours without any.
        let steady: Vec<u64> = (0..300).map(|at| now - 30_000 + at * 100).collect();
        let found = rate_of(300, &steady, now);
        assert_eq!(found.per_second, Some(10.0));
        assert_eq!(found.left_ms, Some(70_000));
        let older: Vec<u64> = steady.iter().copied().chain([now - 600_000]).collect();
        assert_eq!(rate_of(301, &older, now).per_second, Some(5.0), "over the whole minute");
        let long_ago: Vec<u64> = steady.iter().map(|ms| ms - 3_600_000).collect();
        let stands = rate_of(300, &long_ago, now);
        assert_eq!((stands.per_second, stands.left_ms), (Some(0.0), None));
    }

    #[test]
    fn results_of_one_moment_tell_no_rate_and_the_average_stands_in() {
        assert_eq!(rate_of(500, &[9_990; 500], 10_000).per_second, Some(50.0));
        assert_eq!(rate_of(0, &[], 10_000).left_ms, None);
        assert_eq!(rate_of(1000, &[9_990; 500], 10_000).per_second, None, "all are done");
    }
}
