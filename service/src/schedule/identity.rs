//! The ids of schedules and of their occurrences, each derived from what it names. Pure.

use clutch_common::id::TaskId;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::{Builder, Uuid};

/// Where the ids of schedules are made from their names.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0e_4b5c_7f0d_4a35_9c55_2d0c_3b7d_61e8);

/// Names one schedule. It is made from the schedule's name alone, so a schedule that is removed
/// and added again names the same occurrences.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ScheduleId(pub(crate) Uuid);

impl ScheduleId {
    /// The id of the schedule with this name.
    pub(crate) fn of(name: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    /// The id of the task of an occurrence: a UUIDv7 that has the instant as its time, and a hash
    /// of schedule and instant where others have chance.
    pub(crate) fn occurrence(self, instant_ms: i64) -> TaskId {
        let hash = Uuid::new_v5(&self.0, instant_ms.to_string().as_bytes());
        let [_, _, _, _, _, _, rest @ ..] = *hash.as_bytes();
        let ms = u64::try_from(instant_ms).unwrap_or(0);
        TaskId(Builder::from_unix_timestamp_millis(ms, &rest).into_uuid())
    }

    /// A number below `bound` that stays the same for an instant.
    pub(super) fn chance(self, instant_ms: i64, bound: i64) -> i64 {
        let hash = Uuid::new_v5(&self.0, format!("jitter {instant_ms}").as_bytes());
        let [.., a, b, c, d, e, f] = *hash.as_bytes();
        let number = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        number.checked_rem(bound).unwrap_or(0)
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Variant;

    /// The first of June 2026.
    const JUNE: i64 = 1_780_272_000_000;

    #[test]
    fn the_id_of_a_task_is_derived_and_has_the_instant_as_its_time() {
        let schedule = ScheduleId::of("nightly");
        let id = schedule.occurrence(JUNE).0;
        assert_eq!(id, ScheduleId::of("nightly").occurrence(JUNE).0, "the same again");
        assert_eq!((id.get_version_num(), id.get_variant()), (7, Variant::RFC4122));
        let (seconds, nanoseconds) = id.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds * 1000, nanoseconds), (JUNE.unsigned_abs(), 0));
        assert_eq!(id.to_string(), "019e807a-ec00-7be7-8b64-3b4ae972d582");
    }

    #[test]
    fn ids_sort_by_their_instants_and_differ_between_schedules() {
        let instants: Vec<i64> = (0..1000).map(|number| JUNE + number).collect();
        let ids = |name: &str| -> Vec<TaskId> {
            instants.iter().map(|at| ScheduleId::of(name).occurrence(*at)).collect()
        };
        let (one, other) = (ids("one"), ids("other"));
        assert!(one.is_sorted() && other.is_sorted());
        assert_eq!(one.iter().chain(&other).collect::<BTreeSet<_>>().len(), 2000);
        // The first instant of all, and one before it, are instants too.
        assert_ne!(ScheduleId::of("one").occurrence(0), ScheduleId::of("one").occurrence(-1));
    }
}
