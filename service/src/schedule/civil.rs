//! Sets of wall times: which dates and times of day a cron expression or a calendar expression
//! names, and the first of them from a given one on. A wall time has no zone; `instants` maps it
//! to moments. Pure.

use jiff::civil::{Date, DateTime, Time};

/// The last year in which there are wall times.
pub(super) const LAST_YEAR: i16 = 2199;

/// A set of small numbers, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// The numbers of a range, `step` apart.
    pub(super) fn range(first: u8, last: u8, step: u8) -> Self {
        let numbers = (first..=last.min(63)).step_by(usize::from(step.max(1)));
        Self(numbers.fold(0, |bits, number| bits | 1 << number))
    }

    /// All numbers of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, number: u8) -> Self {
        Self(self.0 & !(1 << number))
    }

    pub(super) fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| number < 64 && self.0 >> number & 1 == 1)
    }

    /// The smallest of them from `number` on.
    fn from(self, number: i8) -> Option<i8> {
        let number = u32::try_from(number).ok().filter(|number| *number < 64)?;
        let rest = self.0 >> number << number;
        (rest != 0).then(|| i8::try_from(rest.trailing_zeros()).ok()).flatten()
    }

    #[cfg(test)]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Years, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Years {
    pub(super) first: i16,
    pub(super) last: i16,
    pub(super) step: i16,
}

/// How the day of the month and the day of the week decide together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Days {
    /// A day is named when both name it.
    Both,
    /// A day is named when one of them does.
    Either,
}

/// A set of wall times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WallTimes {
    /// The years; none stands for each.
    pub(super) years: Vec<Years>,
    pub(super) months: Numbers,
    /// Days of the month, from its first.
    pub(super) days: Numbers,
    /// Days of the month, from its last, which is 1.
    pub(super) days_from_end: Numbers,
    /// Days of the week; Sunday is 0.
    pub(super) weekdays: Numbers,
    pub(super) together: Days,
    pub(super) hours: Numbers,
    pub(super) minutes: Numbers,
    pub(super) seconds: Numbers,
    /// Whether the hours are a rhythm (every hour, every second hour) rather than hours of the day.
    pub(super) hours_are_rhythm: bool,
}

impl WallTimes {
    /// The first wall time at or after `from`.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let from = match from.subsec_nanosecond() {
            0 => from,
            _ => from.with().subsec_nanosecond(0).build().ok()?.checked_add(second()).ok()?,
        };
        if self.names_day(from.date())
            && let Some(time) = self.time_from(from.time())
        {
            return Some(from.date().to_datetime(time));
        }
        let day = self.day_from(from.date().tomorrow().ok()?)?;
        Some(day.to_datetime(self.time_from(Time::midnight())?))
    }

    /// Whether a wall time, without a part of a second, is in the set.
    pub(super) fn names(&self, at: DateTime) -> bool {
        self.names_day(at.date())
            && self.hours.has(at.hour())
            && self.minutes.has(at.minute())
            && self.seconds.has(at.second())
    }

    fn day_from(&self, mut date: Date) -> Option<Date> {
        while date.year() <= LAST_YEAR {
            if !self.names_year(date.year()) {
                date = Date::new(date.year() + 1, 1, 1).ok()?;
            } else if !self.months.has(date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.names_day(date) {
                return Some(date);
            } else {
                date = date.tomorrow().ok()?;
            }
        }
        None
    }

    fn names_year(&self, year: i16) -> bool {
        let named = |years: &Years| {
            (years.first..=years.last).contains(&year) && (year - years.first) % years.step == 0
        };
        year <= LAST_YEAR && (self.years.is_empty() || self.years.iter().any(named))
    }

    fn names_day(&self, date: Date) -> bool {
        let from_end = date.days_in_month() - date.day() + 1;
        let of_month = self.days.has(date.day()) || self.days_from_end.has(from_end);
        let of_week = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let named = match self.together {
            Days::Both => of_month && of_week,
            Days::Either => of_month || of_week,
        };
        named && self.months.has(date.month()) && self.names_year(date.year())
    }

    fn time_from(&self, from: Time) -> Option<Time> {
        let (hour, minute) = (from.hour(), from.minute());
        let of_minute = || {
            let second = self.seconds.from(from.second())?;
            self.minutes.has(minute).then_some((hour, minute, second))
        };
        let of_hour = || Some((hour, self.minutes.from(minute + 1)?, self.seconds.from(0)?));
        let here = || of_minute().or_else(of_hour);
        let later =
            || Some((self.hours.from(hour + 1)?, self.minutes.from(0)?, self.seconds.from(0)?));
        let found = if self.hours.has(hour) { here().or_else(later) } else { later() };
        let (hour, minute, second) = found?;
        Time::new(hour, minute, second, 0).ok()
    }
}

/// One second.
pub(super) fn second() -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(1)
}
