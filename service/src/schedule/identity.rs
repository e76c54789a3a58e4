//! The ids of schedules and of their occurrences, each derived from what it names. Pure.

use clutch_common::id::TaskId;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

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

    /// The id of the task of an occurrence.
    pub(crate) fn occurrence(self, instant_ms: i64) -> TaskId {
        TaskId(Uuid::new_v5(&self.0, instant_ms.to_string().as_bytes()))
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
