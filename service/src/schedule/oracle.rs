//! Instants beside those of others' programs: cron expressions in many zones beside cronsim and
//! zoneinfo (Python), calendar expressions beside systemd-analyze.

use super::choices::Choices;
use super::{Recurrence, Rule, Zone};
use clutch_tests::{schedule_oracle, skip};
use jiff::Timestamp;
use serde_json::json;

/// How many cron expressions are compared, each in a zone.
const CASES: usize = 2000;
/// How many instants of each.
const INSTANTS: usize = 120;
/// How far the instants of an expression are looked for, in seconds: three years.
const SPAN: i64 = 3 * 365 * 24 * 60 * 60;
/// How many calendar expressions are compared.
const CALENDARS: usize = 300;

const ZONES: [&str; 16] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "Asia/Beirut",
    "Asia/Tehran",
    "America/St_Johns",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Europe/Dublin",
    "Asia/Pyongyang",
];

impl Choices {
    /// A part of a field of a cron expression, in all forms.
    fn part(&mut self, first: usize, last: usize) -> String {
        let low = self.between(first, last);
        let high = self.between(low, last);
        let step = self.between(1, last);
        match self.below(6) {
            0 => format!("*/{step}"),
            1 => format!("{low}-{high}"),
            2 if low < high => format!("{low}-{high}/{step}"),
            _ => low.to_string(),
        }
    }

    fn field(&mut self, first: usize, last: usize, stars: usize) -> String {
        if self.below(10) < stars {
            return "*".to_owned();
        }
        let parts: Vec<String> = (0..self.between(1, 3)).map(|_| self.part(first, last)).collect();
        parts.join(",")
    }

    fn cron(&mut self) -> String {
        let minute = self.field(0, 59, 1);
        // Small hours: there the clocks change.
        let hours = if self.below(2) == 0 { 4 } else { 23 };
        let hour = self.field(0, hours, 3);
        let day = self.field(1, 31, 6);
        let month = match self.below(8) {
            0 => self.of(&["JAN", "MAR-NOV", "oct", "Feb,Dec"]).to_owned(),
            _ => self.field(1, 12, 7),
        };
        let weekday = match self.below(8) {
            0 => self.of(&["MON-FRI", "SUN", "sat,Sun", "5-7", "*/2", "7"]).to_owned(),
            _ => self.field(0, 6, 6),
        };
        format!("{minute} {hour} {day} {month} {weekday}")
    }

    /// A moment of the years 2009 to 2035, in seconds; of two, one shortly before the clocks of
    /// the zone change.
    fn start(&mut self, zone: &Zone) -> i64 {
        let at = 1_230_768_000 + i64::try_from(self.below(26 * 366 * 86_400)).unwrap();
        let from = Timestamp::from_second(at).unwrap();
        let next = zone.rules().following(from).next().filter(|_| self.below(2) == 0);
        next.map_or(at, |change| {
            change.timestamp().as_second() - i64::try_from(self.below(30 * 3600)).unwrap()
        })
    }
}

/// The instants of a rule after a moment, in seconds: so many, within the span.
fn instants(rule: &Rule, after: i64, most: usize) -> Vec<i64> {
    let following = std::iter::successors(rule.next_after(after * 1000), |at| rule.next_after(*at));
    following.map(|at| at / 1000).take_while(|at| *at <= after + SPAN).take(most).collect()
}

#[test]
fn cron_expressions_have_the_instants_that_cronsim_and_zoneinfo_find() {
    let mut choices = Choices::of_seed(19);
    let (mut cases, mut all_found) = (Vec::new(), Vec::new());
    while cases.len() < CASES {
        let zone: Zone = choices.of(&ZONES).parse().unwrap();
        let expression = choices.cron();
        let Ok(cron) = expression.parse() else { continue };
        let after = choices.start(&zone);
        let rule = Rule::new(Recurrence::Cron(cron), zone);
        let found = instants(&rule, after, INSTANTS);
        let last = found.last().filter(|_| found.len() == INSTANTS);
        let until = last.copied().unwrap_or(after + SPAN);
        let case = json!({
            "expression": expression,
            "zone": rule.zone,
            "after": after,
            "until": until,
        });
        cases.push(case.to_string());
        all_found.push(found);
    }
    let answers = match schedule_oracle::cron(&cases) {
        Ok(answers) => answers,
        Err(error) => {
            let test = "cron_expressions_have_the_instants_that_cronsim_and_zoneinfo_find";
            return skip::because(test, &format!("{error:#}"));
        }
    };
    assert_eq!(answers.len(), CASES);
    for ((case, found), answer) in cases.iter().zip(all_found).zip(answers) {
        let expected: Vec<i64> = serde_json::from_str(&answer).unwrap();
        assert_eq!(found, expected, "{case}");
    }
}

impl Choices {
    /// A part of a date or time of a calendar expression.
    fn component(&mut self, first: usize, last: usize, stars: usize) -> String {
        if self.below(10) < stars {
            return "*".to_owned();
        }
        let mut part = || {
            let low = self.between(first, last);
            let high = self.between(low, last);
            let step = self.between(1, last);
            match self.below(6) {
                0 => format!("{low}/{step}"),
                1 if low < high => format!("{low:02}..{high}"),
                2 if low < high => format!("{low}..{high}/{step}"),
                _ => low.to_string(),
            }
        };
        let parts = [part(), part()];
        let count = self.between(1, 2);
        parts[..count].join(",")
    }

    fn calendar(&mut self) -> String {
        let weekdays = match self.below(3) {
            0 => self.of(&["Mon ", "Sat,Sun ", "Mon..Fri ", "wednesday,Fri..Sun ", "Tue-Thu "]),
            _ => "",
        };
        let end = self.of(&["-", "-", "~"]);
        let date = match self.below(4) {
            0 => String::new(),
            1 => format!("{}{end}{} ", self.component(1, 12, 3), self.component(1, 28, 2)),
            _ => {
                let year = self.of(&["*", "*", "*", "2026..2040", "2024/3", "27,2031"]);
                let month = self.component(1, 12, 6);
                format!("{year}-{month}{end}{} ", self.component(1, 31, 5))
            }
        };
        let (hour, minute) = (self.component(0, 23, 3), self.component(0, 59, 2));
        match self.below(2) {
            0 => format!("{weekdays}{date}{hour}:{minute}"),
            _ => format!("{weekdays}{date}{hour}:{minute}:{}", self.component(0, 59, 2)),
        }
    }
}

#[test]
fn calendar_expressions_have_the_instants_that_systemd_finds() {
    if let Err(error) = schedule_oracle::find_systemd() {
        let test = "calendar_expressions_have_the_instants_that_systemd_finds";
        return skip::because(test, &format!("{error:#}"));
    }
    let seconds = |time: String| {
        let wall: jiff::civil::DateTime = time.parse().unwrap();
        jiff::tz::Offset::UTC.to_timestamp(wall).unwrap().as_second()
    };
    let mut choices = Choices::of_seed(20);
    let mut compared = 0;
    for _ in 0..CALENDARS {
        let expression = choices.calendar();
        let after = 1_700_000_000 + i64::try_from(choices.below(10 * 366 * 86_400)).unwrap();
        let expected = schedule_oracle::calendar(&expression, after, 10).unwrap();
        let Ok(calendar) = expression.parse() else {
            // A day that no year has is no mistake to systemd.
            assert!(expected.is_none_or(|times| times.is_empty()), "{expression}");
            continue;
        };
        let Some(expected) = expected else {
            // systemd refuses some ranges with steps as long as they are.
            assert!(expression.contains('/') && expression.contains(".."), "{expression}");
            continue;
        };
        let rule = Rule::new(Recurrence::Calendar(calendar), Zone::utc());
        let following =
            std::iter::successors(rule.next_after(after * 1000), |at| rule.next_after(*at));
        let found: Vec<i64> = following.map(|at| at / 1000).take(10).collect();
        let expected: Vec<i64> = expected.into_iter().map(seconds).collect();
        assert_eq!(found, expected, "{expression} after {after}");
        compared += 1;
    }
    assert!(compared > CALENDARS / 2, "only {compared} expressions were fit");
}
