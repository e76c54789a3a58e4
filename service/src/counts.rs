//! Counts what endpoints sent and what is not an outcome of a task of this service's, so
//! that it is told: in the log, once a minute at most, and by `/v1/health`.
//!
//! Nothing here is lost by being counted: results of unknown tasks are kept as tasks of
//! their own, what contradicts the records leaves its trace in the log, and what cannot
//! be read is among the dead letters.

use crate::store::Tally;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long it is not told again.
const PAUSE: Duration = Duration::from_secs(60);

/// What came since the service started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Oddities {
    /// Results of tasks that were not in the records, and are kept as tasks of their own.
    pub(crate) unknown: u64,
    /// Of these, those from endpoints that this service did not provision.
    pub(crate) foreign: u64,
    /// Results that contradict the records, and are not recorded.
    pub(crate) refused: u64,
    /// Messages that could not be read, or are not their sender's: dead letters.
    pub(crate) dead_lettered: u64,
}

/// The counts, of one run of the service.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counted: Oddities,
    told: Option<Instant>,
    /// How many unknown and foreign ones there were when it was told.
    before: (u64, u64),
}

impl Counts {
    /// What was counted.
    pub(crate) fn read(&self) -> Oddities {
        self.lock().counted
    }

    /// Counts what was recorded, and tells of what came from nowhere.
    pub(crate) fn recorded(&self, tally: &Tally, now: Instant) {
        if tally.strangers + tally.refused == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.counted.unknown += tally.strangers;
        inner.counted.foreign += tally.foreign;
        inner.counted.refused += tally.refused;
        let Inner { counted, told, before } = &mut *inner;
        if tally.strangers == 0 || told.is_some_and(|told| now < told + PAUSE) {
            return;
        }
        let (unknown, foreign) = (counted.unknown - before.0, counted.foreign - before.1);
        (*told, *before) = (Some(now), (counted.unknown, counted.foreign));
        if foreign > 0 {
            tracing::error!(
                results = foreign,
                "results came from endpoints that were not provisioned with this state folder, of \
                 tasks that are not in it: are --state and --broker right? Another service's tasks \
                 may wait for them. They are kept: `clutch-service tasks` lists them"
            );
        }
        if unknown > foreign {
            tracing::warn!(
                results = unknown - foreign,
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
    fn what_came_from_nowhere_is_counted_and_told_once_a_minute() {
        let (counts, now) = (Counts::default(), Instant::now());
        let tally = Tally { strangers: 3, foreign: 1, refused: 2, ..Tally::default() };
        for second in 0..3 {
            counts.recorded(&tally, now + Duration::from_secs(second));
        }
        counts.dead_lettered(4);
        let expected = Oddities { unknown: 9, foreign: 3, refused: 6, dead_lettered: 4 };
        assert_eq!(counts.read(), expected);
        assert_eq!(counts.lock().before, (3, 1), "it was told of the first only");
        counts.recorded(&tally, now + PAUSE);
        assert_eq!(counts.lock().before, (12, 4));
    }
}
