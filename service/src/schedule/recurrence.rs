//! How often a schedule has an instant. Pure.

use super::{Calendar, Cron};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use utoipa::ToSchema;

/// The shortest and the longest interval, in milliseconds: 100 ms, and ten years.
const INTERVALS: RangeInclusive<i64> = 100..=3650 * 24 * 60 * 60 * 1000;

/// How often there is an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Recurrence {
    /// At a fixed rate: at the multiples of so many milliseconds since the rule's `from_ms`, or
    /// since the Unix epoch.
    EveryMs(i64),
    /// With a fixed delay: so many milliseconds after the end of the last occurrence.
    AfterEndMs(i64),
    /// By a cron expression.
    Cron(Cron),
    /// By a calendar expression.
    Calendar(Calendar),
}

impl Recurrence {
    /// A fixed rate.
    pub(crate) fn every(interval: Duration) -> Self {
        Self::EveryMs(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX))
    }

    /// A fixed delay.
    pub(crate) fn after_end(delay: Duration) -> Self {
        Self::AfterEndMs(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    }

    /// Checks the bounds of its values.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::EveryMs(ms) | Self::AfterEndMs(ms) if !INTERVALS.contains(ms) => {
                Err("the interval must be from 100ms to 3650days".to_owned())
            }
            Self::EveryMs(_) | Self::AfterEndMs(_) | Self::Cron(_) | Self::Calendar(_) => Ok(()),
        }
    }
}

/// A span as people read it.
pub(super) fn span(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryMs(ms) => write!(f, "every {}", span(*ms)),
            Self::AfterEndMs(ms) => write!(f, "{} after the end of each task", span(*ms)),
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::Calendar(calendar) => write!(f, "calendar {calendar}"),
        }
    }
}
