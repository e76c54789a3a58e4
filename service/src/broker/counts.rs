//! Counts what endpoints sent and what is not an outcome of a task of this service's, so
//! that it is told: in the log, once a minute at most, and by `/v1/health`.
//!
//! Nothing here is lost by being counted: results of unknown tasks are kept as tasks of
//! their own, what contradicts the records leaves its trace in the log, and what cannot
//! be read is among the dead letters.

use crate::model::Oddities;
use crate::store::Tally;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long it is not told again.
const PAUSE: Duration = Duration::from_secs(60);

/// The counts, of one run of the service.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counted: Oddities,
    /// Results from endpoints that were not provisioned here.
    foreign: Untold,
    /// Other results of tasks that are not in the records.
    unknown: Untold,
}

/// How many were not told of yet, and when some were.
#[derive(Debug, Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Untold {
    /// Adds some; how many are to be told of, if it is time to.
    fn add(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.count += count;
        if self.count == 0 || self.told.is_some_and(|told| now < told + PAUSE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl Counts {
    /// What was counted.
    pub(crate) fn read(&self) -> Oddities {
        self.lock().counted
    }

    /// Counts what was recorded, and tells of what came from nowhere.
    pub(crate) fn recorded(&self, tally: &Tally, now: Instant) {
        if tally.external + tally.refused == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.counted.unknown += tally.external;
        inner.counted.foreign += tally.unprovisioned;
        inner.counted.refused += tally.refused;
        if let Some(results) = inner.foreign.add(tally.unprovisioned, now) {
            tracing::error!(
                results,
                "results came from endpoints that were not provisioned with this state folder, of \
                 tasks that are not in it: are --state and --broker right? Another service's tasks \
                 may wait for them. They are kept: `clutch-service tasks` lists them"
            );
        }
        if let Some(results) = inner.unknown.add(tally.external - tally.unprovisioned, now) {
            tracing::warn!(
                results,
                "results came of tasks that are not in the records: they were submitted by others, \
                 or since the backup that the records are from. They are kept: `clutch-service \
                 tasks` lists them"
            );
        }
    }

    /// Counts messages that are put among the dead letters.
    pub(crate) fn dead_lettered(&self, messages: usize) {
        self.lock().counted.dead_lettered += messages as u64;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_nowhere_is_counted_and_each_kind_told_once_a_minute() {
        let (counts, now) = (Counts::default(), Instant::now());
        let tally = |external, unprovisioned| Tally {
            external,
            unprovisioned,
            refused: 2,
            ..Tally::default()
        };
        counts.recorded(&tally(3, 0), now);
        counts.recorded(&tally(3, 3), now);
        counts.recorded(&tally(3, 1), now + Duration::from_secs(1));
        counts.dead_lettered(4);
        let expected = Oddities { unknown: 9, foreign: 4, refused: 6, dead_lettered: 4 };
        assert_eq!(counts.read(), expected);
        let untold = || {
            let inner = counts.lock();
            (inner.unknown.count, inner.foreign.count)
        };
        assert_eq!(untold(), (2, 1), "the first of each were told of, and no others");
        counts.recorded(&tally(1, 0), now + PAUSE);
        assert_eq!(untold(), (0, 0));
    }
}
