//! Cron expressions: five fields as crontab(5) has them, read into wall times. Pure.
//!
//! Minute, hour, day of the month, month, day of the week; in each a `*`, numbers, names of
//! months and days, ranges, lists and steps. Where neither the day of the month nor the day of
//! the week begins with `*`, one of them is enough, as cron has it.

use super::civil::{Days, Numbers, WallTimes};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A cron expression.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cron {
    text: String,
    times: WallTimes,
}

impl PartialSchema for Cron {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for Cron {}

/// The bounds of a field.
struct Field {
    name: &'static str,
    first: u8,
    last: u8,
    /// Names for its numbers, from `first` on.
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of the month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "day of the week", first: 0, last: 7, names: &WEEKDAYS },
];

/// Names for whole expressions.
const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Cron {
    pub(super) fn times(&self) -> &WallTimes {
        &self.times
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = match NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text)) {
            Some((_, fields)) => (*fields).to_owned(),
            None if text.starts_with('@') => {
                let names = NAMED.map(|(name, _)| name).join(", ");
                return Err(format!("'{text}' is not known: write five fields, or {names}"));
            }
            None => text.to_ascii_uppercase(),
        };
        let words: Vec<&str> = fields.split(' ').collect();
        let Ok(words) = <[&str; 5]>::try_from(words) else {
            return Err(format!(
                "'{text}' does not have five fields: write minute, hour, day of the month, month \
                 and day of the week, such as \"30 3 * * MON-FRI\""
            ));
        };
        let times = times(words)?;
        if times.next(jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
            return Err(format!("'{text}' names a day that no year has"));
        }
        Ok(Self { text, times })
    }
}

/// The wall times of five fields.
fn times(words: [&str; 5]) -> Result<WallTimes, String> {
    let mut sets = [Numbers::default(); 5];
    for ((set, word), field) in sets.iter_mut().zip(words).zip(&FIELDS) {
        *set = field.read(word).map_err(|wrong| format!("{}: {wrong}", field.name))?;
    }
    let [minutes, hours, days, months, mut weekdays] = sets;
    if weekdays.has(7) {
        weekdays = weekdays.without(7).and(Numbers::range(0, 0, 1));
    }
    let starred = |at: usize| words[at].starts_with('*');
    Ok(WallTimes {
        years: Vec::new(),
        months,
        days,
        days_from_end: Numbers::default(),
        weekdays,
        together: if starred(2) || starred(4) { Days::Both } else { Days::Either },
        hours,
        minutes,
        seconds: Numbers::range(0, 0, 1),
        hours_are_rhythm: starred(1),
    })
}

impl Field {
    /// The numbers of a field as it is written.
    fn read(&self, word: &str) -> Result<Numbers, String> {
        let mut numbers = Numbers::default();
        for part in word.split(',') {
            numbers = numbers.and(self.part(part)?);
        }
        Ok(numbers)
    }

    /// One of a list: `*`, a number or a range, with a step or without.
    fn part(&self, part: &str) -> Result<Numbers, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step, part)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last_of_star()),
            Some((first, last)) => (self.number(first, part)?, self.number(last, part)?),
            None => {
                let number = self.number(range, part)?;
                if step.is_some() {
                    return Err(format!(
                        "'{part}' has a step without a range: write {number}-{}/… or */…",
                        self.last
                    ));
                }
                (number, number)
            }
        };
        if first > last {
            return Err(format!("'{part}' ends before it begins: write it as two ranges"));
        }
        Ok(Numbers::range(first, last, step.unwrap_or(1)))
    }

    /// Sunday, which is 0 and 7, is named by a star once.
    fn last_of_star(&self) -> u8 {
        if self.last == 7 { 6 } else { self.last }
    }

    fn step(&self, step: &str, part: &str) -> Result<u8, String> {
        digits(step)
            .filter(|step| (1..=self.last).contains(step))
            .ok_or_else(|| format!("the step of '{part}' must be from 1 to {}", self.last))
    }

    fn number(&self, word: &str, part: &str) -> Result<u8, String> {
        let named = self.names.iter().position(|name| *name == word);
        let named = named.and_then(|at| u8::try_from(at).ok()).map(|at| self.first + at);
        let number = named.or_else(|| digits(word));
        number.filter(|number| (self.first..=self.last).contains(number)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            let special = if part.contains(['L', 'W', '#', '?']) && named.is_none() {
                "; L, W, # and ? are not understood: --calendar can name last days (*-*~01) and \
                 the second Monday of a month (Mon *-*-08..14)"
            } else {
                ""
            };
            format!("'{part}' is not in {} to {}{names}{special}", self.first, self.last)
        })
    }
}

fn digits(word: &str) -> Option<u8> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

impl TryFrom<String> for Cron {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_read_whatever_its_spaces_and_its_letters_are() {
        let cron: Cron = "  0\t3 * jan-Mar,DEC mon-FRI ".parse().unwrap();
        assert_eq!(cron.to_string(), "0 3 * jan-Mar,DEC mon-FRI");
        assert_eq!(cron.times, times(["0", "3", "*", "1-3,12", "1-5"]).unwrap());
        let sunday = |text: &str| text.parse::<Cron>().unwrap().times.weekdays;
        assert_eq!(sunday("0 0 * * 7"), sunday("0 0 * * SUN"));
        assert_eq!(sunday("0 0 * * 5-7"), sunday("0 0 * * 0,5,6"));
        assert_eq!(sunday("0 0 * * */3"), sunday("0 0 * * 0,3,6"));
        assert_eq!(
            "@Weekly".parse::<Cron>().unwrap().times,
            times(["0", "0", "*", "*", "0"]).unwrap()
        );
    }

    #[test]
    fn both_days_must_be_named_unless_neither_field_begins_with_a_star() {
        let together = |text: &str| text.parse::<Cron>().unwrap().times.together;
        assert_eq!(together("0 0 13 * FRI"), Days::Either);
        assert_eq!(together("0 0 */2 * FRI"), Days::Both);
        assert_eq!(together("0 0 13 * *"), Days::Both);
    }

    #[test]
    fn an_error_names_the_field_the_part_and_what_is_allowed() {
        for (text, told) in [
            ("", "five fields"),
            ("* * * *", "five fields"),
            ("0 * * * * *", "five fields"),
            ("@reboot", "@daily"),
            ("60 * * * *", "minute: '60' is not in 0 to 59"),
            ("* 1,24 * * *", "hour: '24' is not in 0 to 23"),
            ("* * 0 * *", "day of the month: '0' is not in 1 to 31"),
            ("* * * FOO *", "month: 'FOO' is not in 1 to 12 or JAN to DEC"),
            ("* * * * 8", "day of the week: '8' is not in 0 to 7 or SUN to SAT"),
            ("5-1 * * * *", "minute: '5-1' ends before it begins"),
            ("5/10 * * * *", "write 5-59/… or */…"),
            ("*/0 * * * *", "the step of '*/0' must be from 1 to 59"),
            ("*/60 * * * *", "from 1 to 59"),
            ("1,,2 * * * *", "minute: '' is not"),
            ("-1 * * * *", "minute: '-1' is not"),
            ("+1 * * * *", "minute: '+1' is not"),
            ("0 0 L * *", "--calendar"),
            ("0 0 * * 5#2", "--calendar"),
            ("0 0 30 2 *", "no year has"),
            ("0 0 31 2,4,6,9,11 *", "no year has"),
        ] {
            let error = text.parse::<Cron>().unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
