//! Calendar expressions, as systemd.time(7) has them for `OnCalendar=`, read into wall times. Pure.
//!
//! `WEEKDAYS YEAR-MONTH-DAY HOUR:MINUTE:SECOND`; each of the three parts may be left out, and so
//! may year and second. A part of a date or time is `*`, or a list of numbers, ranges (`1..5`)
//! and steps (`0/15`, `8..18/2`); `~` in the place of the last `-` counts days from the end of
//! the month. Parts of a second and a zone in the expression are refused.

use super::civil::{Days, LAST_YEAR, Numbers, WallTimes, Years};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A calendar expression.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Calendar {
    text: String,
    times: WallTimes,
}

impl PartialSchema for Calendar {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for Calendar {}

/// Names for whole expressions.
const NAMED: [(&str, &str); 11] = [
    ("minutely", "*-*-* *:*:00"),
    ("hourly", "*-*-* *:00:00"),
    ("daily", "*-*-* 00:00:00"),
    ("weekly", "Mon *-*-* 00:00:00"),
    ("monthly", "*-*-01 00:00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00:00"),
    ("semiannually", "*-01,07-01 00:00:00"),
    ("semi-annually", "*-01,07-01 00:00:00"),
    ("biannually", "*-01,07-01 00:00:00"),
    ("yearly", "*-01-01 00:00:00"),
    ("annually", "*-01-01 00:00:00"),
];

/// The days of the week in the order of the expressions, with their numbers in [`Numbers`].
const WEEKDAYS: [(&str, u8); 7] = [
    ("monday", 1),
    ("tuesday", 2),
    ("wednesday", 3),
    ("thursday", 4),
    ("friday", 5),
    ("saturday", 6),
    ("sunday", 0),
];

/// Examples, for an error.
const SUCH_AS: &str = "such as \"Mon..Fri *-*-* 08:30\", \"*-*~01 23:00\" or \"*:0/15\"";

impl Calendar {
    pub(super) fn times(&self) -> &WallTimes {
        &self.times
    }
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Calendar {}

impl FromStr for Calendar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        let times = times(named.map_or(text.as_str(), |(_, meaning)| meaning))?;
        if times.next(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0)).is_none() {
            return Err(format!("'{text}' names a day that no year up to {LAST_YEAR} has"));
        }
        Ok(Self { text, times })
    }
}

/// The wall times of an expression.
fn times(text: &str) -> Result<WallTimes, String> {
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(format!("a calendar expression is missing: write one {SUCH_AS}"));
    }
    let lettered = |word: &&str| word.starts_with(|c: char| c.is_ascii_alphabetic());
    let weekdays = match words.next_if(lettered) {
        Some(word) => weekdays(word)?,
        None => Numbers::range(0, 6, 1),
    };
    let date = words.next_if(|word| !word.contains(':') && word.contains(['-', '~']));
    let date = date.map_or_else(|| Ok(Date::every()), Date::read)?;
    let time = words.next_if(|word| word.contains(':'));
    let time = time.map_or_else(|| Ok(TimeOfDay::midnight()), TimeOfDay::read)?;
    if let Some(word) = words.next() {
        let zone = word.starts_with(|c: char| c.is_ascii_alphabetic());
        let hint = if zone { "; a zone is given apart from it (--tz)" } else { "" };
        return Err(format!(
            "'{word}' is not understood: write WEEKDAYS YEAR-MONTH-DAY HOUR:MINUTE:SECOND, {SUCH_AS}\
             {hint}"
        ));
    }
    let Date { years, months, days, days_from_end } = date;
    let TimeOfDay { hours, minutes, seconds, hours_are_rhythm } = time;
    let together = Days::Both;
    Ok(WallTimes {
        years,
        months,
        days,
        days_from_end,
        weekdays,
        together,
        hours,
        minutes,
        seconds,
        hours_are_rhythm,
    })
}

/// Days of the week: a list of days and ranges.
fn weekdays(word: &str) -> Result<Numbers, String> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        let found = WEEKDAYS.iter().position(|(day, _)| *day == name || day[..3] == name);
        found.ok_or_else(|| {
            let names = NAMED.map(|(name, _)| name).join(", ");
            format!("'{word}' is neither days of the week (Mon..Fri, Sat) nor one of {names}")
        })
    };
    let mut numbers = Numbers::default();
    for part in word.split(',') {
        let (first, last) =
            part.split_once("..").or_else(|| part.split_once('-')).unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let named = WEEKDAYS.get(first..=last).filter(|named| !named.is_empty()).ok_or_else(|| {
            format!("'{part}' ends before it begins: the week begins with Monday, so write it as two")
        })?;
        for (_, number) in named {
            numbers = numbers.and(Numbers::range(*number, *number, 1));
        }
    }
    Ok(numbers)
}

/// The dates of an expression.
struct Date {
    years: Vec<Years>,
    months: Numbers,
    days: Numbers,
    days_from_end: Numbers,
}

impl Date {
    fn every() -> Self {
        Self {
            years: Vec::new(),
            months: Numbers::range(1, 12, 1),
            days: Numbers::range(1, 31, 1),
            days_from_end: Numbers::default(),
        }
    }

    fn read(word: &str) -> Result<Self, String> {
        let (rest, day, from_end) = match (word.rsplit_once('~'), word.rsplit_once('-')) {
            (Some((rest, day)), _) => (rest, day, true),
            (None, Some((rest, day))) => (rest, day, false),
            (None, None) => return Err(format!("'{word}' is no date: write YEAR-MONTH-DAY")),
        };
        let (year, month) = match rest.split_once('-') {
            Some((year, month)) => (year, month),
            None => ("*", rest),
        };
        let days = list(day, "day of the month", 1, 31, from_end)?;
        let (days, days_from_end) = match from_end && day != "*" {
            true => (Numbers::default(), days),
            false => (days, Numbers::default()),
        };
        Ok(Self {
            years: years(year)?,
            months: list(month, "month", 1, 12, false)?,
            days,
            days_from_end,
        })
    }
}

/// Years of an expression; none stands for each.
fn years(text: &str) -> Result<Vec<Years>, String> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let full = |year: u16| match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => year,
    };
    let last = u16::try_from(LAST_YEAR).unwrap_or(u16::MAX);
    let read = |part: &str| {
        let Element { first, last, step } = Element::read(part, "year", 0, last)?;
        let (first, last) = (full(first), full(last));
        let number = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
        Ok(Years { first: number(first), last: number(last), step: number(step) })
    };
    text.split(',').map(read).collect()
}

/// The times of day of an expression.
struct TimeOfDay {
    hours: Numbers,
    minutes: Numbers,
    seconds: Numbers,
    hours_are_rhythm: bool,
}

impl TimeOfDay {
    fn midnight() -> Self {
        let zero = Numbers::range(0, 0, 1);
        Self { hours: zero, minutes: zero, seconds: zero, hours_are_rhythm: false }
    }

    fn read(word: &str) -> Result<Self, String> {
        let parts: Vec<&str> = word.split(':').collect();
        let (hour, minute, second) = match parts[..] {
            [hour, minute] => (hour, minute, "0"),
            [hour, minute, second] => (hour, minute, second),
            _ => return Err(format!("'{word}' is no time of day: write HOUR:MINUTE:SECOND")),
        };
        let endless = |hour: &str| hour.contains('/') && !hour.contains(['.', ',']);
        Ok(Self {
            hours: list(hour, "hour", 0, 23, false)?,
            minutes: list(minute, "minute", 0, 59, false)?,
            seconds: list(second, "second", 0, 59, false)?,
            hours_are_rhythm: hour == "*" || endless(hour),
        })
    }
}

/// Numbers of a list; where they count from the end of the month, endless steps go towards 1.
fn list(text: &str, name: &str, first: u8, last: u8, from_end: bool) -> Result<Numbers, String> {
    if text == "*" {
        return Ok(Numbers::range(first, last, 1));
    }
    let small = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
    let mut numbers = Numbers::default();
    for part in text.split(',') {
        let endless = part.contains('/') && !part.contains("..");
        let read = Element::read(part, name, u16::from(first), u16::from(last))?;
        let (mut low, mut high, step) = (small(read.first), small(read.last), small(read.step));
        if endless && from_end {
            // From that day on towards the end of the month, which is 1.
            (low, high) = ((low - first) % step + first, low);
        }
        if endless && high - low < step {
            return Err(format!("{name}: the step of '{part}' leads past the end"));
        }
        numbers = numbers.and(Numbers::range(low, high, step));
    }
    Ok(numbers)
}

/// One of a list: a number, or a range, with a step or without.
struct Element {
    first: u16,
    last: u16,
    step: u16,
}

impl Element {
    fn read(part: &str, name: &str, first: u16, last: u16) -> Result<Self, String> {
        let number = |text: &str, low: u16| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.filter(|number| (low..=last).contains(number)).ok_or_else(|| {
                let hint = match text {
                    _ if text.contains('.') => "; parts of a second are not understood",
                    _ if text.starts_with('*') => "; * stands alone, steps begin at a number (0/2)",
                    _ => "",
                };
                format!("{name}: '{text}' is not in {low} to {last}{hint}")
            })
        };
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step, 1)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once("..") {
            Some((from, to)) => (number(from, first)?, number(to, first)?),
            None => {
                let from = number(range, first)?;
                (from, if step.is_some() { last } else { from })
            }
        };
        if from > to {
            return Err(format!("{name}: '{part}' ends before it begins: write it as two"));
        }
        Ok(Self { first: from, last: to, step: step.unwrap_or(1) })
    }
}

impl TryFrom<String> for Calendar {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Calendar> for String {
    fn from(calendar: Calendar) -> Self {
        calendar.text
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> WallTimes {
        text.parse::<Calendar>().unwrap_or_else(|error| panic!("{text}: {error}")).times
    }

    #[test]
    fn parts_that_are_left_out_mean_every_day_and_the_first_second() {
        for (short, long) in [
            ("10:00", "*-*-* 10:00:00"),
            ("05-03", "*-05-03 00:00:00"),
            ("Mon", "Mon *-*-* 00:00:00"),
            ("Sat,Mon..Wed 1:2", "mon,Tuesday,wed,sat *-*-* 01:02:00"),
            ("daily", "*-*-* 00:00"),
            ("Quarterly", "*-1/3-1 0:0"),
            ("*-*~*", "*-*-* 0:0"),
            ("27-1-1", "2027-01-01"),
        ] {
            assert_eq!(read(short), read(long), "{short}");
        }
    }

    #[test]
    fn days_are_counted_from_the_end_of_the_month_behind_a_tilde() {
        let days = |text: &str| read(text).days_from_end;
        assert_eq!(days("*-*~1..3"), Numbers::range(1, 3, 1));
        assert_eq!(days("*-*~5/3"), Numbers::range(2, 5, 3));
        assert_eq!(days("*-*~1..9/3"), Numbers::range(1, 7, 3));
        assert!(read("*-*~1").days.is_empty());
    }

    #[test]
    fn hours_are_a_rhythm_where_they_are_not_named() {
        for (text, rhythm) in [
            ("*:30", true),
            ("0/2:00", true),
            ("1..3:00", false),
            ("1,0/6:00", false),
            ("3:00", false),
        ] {
            assert_eq!(read(text).hours_are_rhythm, rhythm, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_part_and_what_is_allowed() {
        for (text, told) in [
            ("", "missing"),
            ("10", "'10' is not understood"),
            ("someday", "'someday' is neither days of the week"),
            ("Fri..Mon 10:00", "the week begins with Monday"),
            ("Mon Tue", "'Tue' is not understood"),
            ("10:00 Europe/Berlin", "--tz"),
            ("*-13-01", "month: '13' is not in 1 to 12"),
            ("*-*-32", "day of the month: '32' is not in 1 to 31"),
            ("24:00", "hour: '24' is not in 0 to 23"),
            ("10:60", "minute: '60'"),
            ("10:00:00.5", "parts of a second"),
            ("*/2:00", "steps begin at a number (0/2)"),
            ("0/0:00", "hour: '0' is not in 1 to 23"),
            ("20..10:00", "ends before it begins"),
            ("*-*-20/20", "leads past the end"),
            ("1:2:3:4", "no time of day"),
            ("*-02-30", "no year"),
            ("2019..2018-1-1", "ends before"),
            ("1-2-3-4", "month"),
        ] {
            let error = text.parse::<Calendar>().unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
