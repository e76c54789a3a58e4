//! Counts what endpoints sent and what is not an outcome of a task of this service's, so
//! that it is told: in the log, once a minute at most, and by `/v1/health`.
//!
//! Nothing here is lost by being counted: results of unknown tasks are kept as tasks of
//! their own, what contradicts the records leaves its trace in the log, and what cannot
//! be read is among the dead letters.

use crate::model::Anomalies;
use crate::store::Tally;
use clutch_common::log::throttle::Throttle;
use clutch_common::wire::UnknownControl;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The counts, of one run of the service.
#[derive(Debug, Default)]
pub(crate) struct AnomalyCounters(Mutex<Counters>);

#[derive(Debug, Default)]
struct Counters {
    counted: Anomalies,
    /// Results from endpoints that were not provisioned here.
    foreign: Throttle,
    /// Other results of tasks that are not in the records.
    unknown: Throttle,
    passed_by: Throttle,
}

impl AnomalyCounters {
    /// The counts so far.
    pub(crate) fn read(&self) -> Anomalies {
        self.lock().counted
    }

    /// Counts what was recorded, and tells of what came from nowhere.
    pub(crate) fn recorded(&self, tally: &Tally, now: Instant) {
        if tally.external + tally.refused + tally.forgotten + tally.stale == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.counted.unknown += tally.external;
        inner.counted.foreign += tally.unprovisioned;
        inner.counted.forgotten += tally.forgotten;
        inner.counted.refused += tally.refused;
        inner.counted.stale += tally.stale;
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
                "results of tasks that are not in the records: the tasks were submitted without this \
                 service, or after the backup that its records are from. They are kept: \
                 `clutch-service tasks` lists them"
            );
        }
    }

    /// Counts messages that are put among the dead letters.
    pub(crate) fn dead_lettered(&self, messages: usize) {
        self.lock().counted.dead_lettered += messages as u64;
    }

    /// Counts a control message that was not acted on, and tells of it.
    pub(crate) fn passed_by(&self, message: &UnknownControl, now: Instant) {
        let mut inner = self.lock();
        inner.counted.passed_by += 1;
        if let Some(messages) = inner.passed_by.add(1, now) {
            tracing::warn!(
                messages,
                kind = %message.kind,
                reason = %message.reason,
                "control messages that this service does not understand were passed by; no task \
                 or result is lost with them. If an endpoint is newer, upgrade the service"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_endpoints_sent_is_counted_by_kind() {
        let (counts, now) = (AnomalyCounters::default(), Instant::now());
        let tally = |external, unprovisioned| Tally {
            external,
            unprovisioned,
            forgotten: 1,
            refused: 2,
            stale: 3,
            ..Tally::default()
        };
        counts.recorded(&tally(3, 0), now);
        counts.recorded(&tally(3, 3), now);
        counts.recorded(&tally(3, 1), now);
        counts.dead_lettered(4);
        counts.passed_by(&UnknownControl { kind: "clutch.x".into(), reason: "new".into() }, now);
        let expected = Anomalies {
            unknown: 9,
            foreign: 4,
            forgotten: 3,
            refused: 6,
            stale: 9,
            dead_lettered: 4,
            passed_by: 1,
        };
        assert_eq!(counts.read(), expected);
    }
}
