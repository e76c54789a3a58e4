//! The rule of a schedule: how often, in which zone, from when, until when, how many times. Pure.

use super::instants::{self, Shift};
use super::recurrence::span;
use super::{Recurrence, ScheduleId, Zone};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The end of the year 2199. There are no instants after it.
const LAST_MS: i64 = 7_258_118_399_999;
/// The longest jitter, in milliseconds: a day.
const MAX_JITTER_MS: i64 = 24 * 60 * 60 * 1000;

/// Which instants a schedule has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// How often.
    pub(crate) recurrence: Recurrence,
    /// The zone of the wall times that cron and calendar expressions name.
    #[serde(default)]
    #[schema(value_type = String)]
    pub(crate) zone: Zone,
    /// No instant is before this one. A fixed rate is counted from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from_ms: Option<i64>,
    /// No instant is after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<i64>,
    /// No more tasks than this are made by the rule. Instants that are skipped do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_runs: Option<u64>,
    /// A task comes up to this much later than its instant, and before the next.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 86_400_000)]
    pub(crate) jitter_ms: i64,
}

impl Rule {
    /// A rule without bounds.
    pub(crate) fn new(recurrence: Recurrence, zone: Zone) -> Self {
        Self { recurrence, zone, from_ms: None, until_ms: None, max_runs: None, jitter_ms: 0 }
    }

    /// Checks the bounds of its values.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.recurrence.check()?;
        if !(0..=MAX_JITTER_MS).contains(&self.jitter_ms) {
            return Err("the jitter must be from 0s to 1day".to_owned());
        }
        if self.max_runs == Some(0) {
            return Err("at least 1 run must be allowed".to_owned());
        }
        let moments = self.from_ms.into_iter().chain(self.until_ms);
        if moments.into_iter().any(|ms| !(0..=LAST_MS).contains(&ms)) {
            return Err("moments must be in the years from 1970 to 2199".to_owned());
        }
        if self.from_ms > self.until_ms && self.until_ms.is_some() {
            return Err("the rule would end before it begins".to_owned());
        }
        if self.next_after(self.from_ms.map_or(i64::MIN, |from| from - 1)).is_none() {
            return Err("the rule has no instant between its beginning and its end".to_owned());
        }
        Ok(())
    }

    /// The first instant after `after_ms`. With a fixed delay, `after_ms` is the end of the last
    /// occurrence, or when the schedule was added.
    pub(crate) fn next_after(&self, after_ms: i64) -> Option<i64> {
        let earliest = self.from_ms.unwrap_or(0);
        let end_ms = after_ms;
        let after_ms = after_ms.max(earliest.saturating_sub(1));
        let instant = match &self.recurrence {
            Recurrence::EveryMs(interval) => {
                let passed = (after_ms - earliest).checked_div_euclid(*interval)?;
                passed.checked_add(1)?.checked_mul(*interval)?.checked_add(earliest)
            }
            Recurrence::AfterEndMs(delay) => Some(end_ms.max(0).checked_add(*delay)?.max(earliest)),
            Recurrence::Cron(cron) => instants::next(cron.times(), &self.zone, after_ms),
            Recurrence::Calendar(calendar) => {
                instants::next(calendar.times(), &self.zone, after_ms)
            }
        };
        instant.filter(|instant| *instant <= self.until_ms.unwrap_or(LAST_MS).min(LAST_MS))
    }

    /// When the task of an instant is due: the instant, and its jitter. The jitter of an instant
    /// is always the same, and ends before the next instant.
    pub(crate) fn due_at(&self, schedule: ScheduleId, instant_ms: i64) -> i64 {
        if self.jitter_ms == 0 {
            return instant_ms;
        }
        let next = self.next_after(instant_ms).unwrap_or(i64::MAX);
        let room = self.jitter_ms.min(next.saturating_sub(instant_ms));
        instant_ms.saturating_add(schedule.chance(instant_ms, room))
    }

    /// The rule in words.
    pub(crate) fn words(&self) -> String {
        let mut words = self.recurrence.to_string();
        if matches!(self.recurrence, Recurrence::Cron(_) | Recurrence::Calendar(_)) {
            words.push_str(&format!(" in {}", self.zone));
        }
        let moment = |ms| self.zone.shown(ms, "%Y-%m-%d %H:%M:%S%.f %:z");
        if let Some(from_ms) = self.from_ms {
            words.push_str(&format!(", from {}", moment(from_ms)));
        }
        if let Some(until_ms) = self.until_ms {
            words.push_str(&format!(", until {}", moment(until_ms)));
        }
        match self.max_runs {
            None => {}
            Some(1) => words.push_str(", at most 1 task"),
            Some(most) => words.push_str(&format!(", at most {most} tasks")),
        }
        if self.jitter_ms > 0 {
            words.push_str(&format!(", up to {} later", span(self.jitter_ms)));
        }
        words
    }

    /// How the clocks of the zone changed at an instant of the rule.
    pub(crate) fn shift(&self, instant_ms: i64) -> Shift {
        match &self.recurrence {
            Recurrence::EveryMs(_) | Recurrence::AfterEndMs(_) => Shift::No,
            Recurrence::Cron(cron) => instants::shift(cron.times(), &self.zone, instant_ms),
            Recurrence::Calendar(calendar) => {
                instants::shift(calendar.times(), &self.zone, instant_ms)
            }
        }
    }
}
