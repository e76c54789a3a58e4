//! Schedules of every kind, by chance, each with its instants found in another way than the code
//! finds them: minute by minute, from what the clocks of the zone show.

use crate::schedule::choices::Choices;
use crate::schedule::{CatchUp, Overlap, Policy, Recurrence, Rule, ScheduleId, Zone};
use jiff::Timestamp;
use jiff::civil::DateTime;

pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

pub(super) const ZONES: [&str; 9] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Asia/Beirut",
    "America/St_Johns",
];

/// A schedule of a run.
pub(super) struct Plan {
    pub(super) id: ScheduleId,
    pub(super) rule: Rule,
    pub(super) policy: Policy,
    /// How long its tasks run at most.
    pub(super) longest_ms: i64,
    kind: Kind,
}

enum Kind {
    Every { interval: i64, from: i64 },
    AfterEnd,
    Wall(Wall),
}

/// Wall times, as plain lists.
struct Wall {
    minutes: Vec<i8>,
    hours: Vec<i8>,
    rhythm: bool,
    /// Days of the month; none stands for each.
    days: Vec<i8>,
    /// Days of the week, Sunday 0; none stands for each.
    weekdays: Vec<i8>,
    /// Whether one of both days is enough.
    either: bool,
}

impl Wall {
    fn names(&self, wall: DateTime) -> bool {
        if !self.minutes.contains(&wall.minute()) || !self.hours.contains(&wall.hour()) {
            return false;
        }
        let day = self.days.contains(&wall.day());
        let weekday = self.weekdays.contains(&wall.weekday().to_sunday_zero_offset());
        match (self.days.is_empty(), self.weekdays.is_empty()) {
            (true, true) => true,
            (false, true) => day,
            (true, false) => weekday,
            (false, false) if self.either => day || weekday,
            (false, false) => day && weekday,
        }
    }

    /// The instants after a moment and up to another.
    fn instants(&self, zone: &Zone, after: i64, until: i64) -> Vec<i64> {
        let minute = jiff::SignedDuration::from_mins(1);
        let mut found = Vec::new();
        // Two days earlier, so that what the clocks have shown before is known.
        let mut at = (after - 2 * DAY).div_euclid(MINUTE) * MINUTE;
        let mut shown = zone.rules().to_datetime(Timestamp::from_millisecond(at).unwrap());
        while at + MINUTE <= until {
            at += MINUTE;
            let wall = zone.rules().to_datetime(Timestamp::from_millisecond(at).unwrap());
            let instant = if self.rhythm {
                self.names(wall)
            } else {
                // Every wall time that the clocks show, or have passed over, for the first time.
                let mut named = false;
                while shown < wall {
                    shown = shown.checked_add(minute).unwrap();
                    named |= self.names(shown);
                }
                named
            };
            if instant && at > after {
                found.push(at);
            }
        }
        found
    }
}

impl Plan {
    /// A schedule by chance, added at a moment.
    pub(super) fn any(choices: &mut Choices, number: usize, added: i64) -> Self {
        let zone: Zone = choices.of(&ZONES).parse().unwrap();
        let from = choices.once_in(3).then(|| added + choices.ms(3 * DAY) - DAY);
        let (recurrence, kind) = match choices.below(6) {
            0 | 1 => {
                let longest = if choices.once_in(6) { 10 * MINUTE } else { DAY };
                let interval = 5 * MINUTE + choices.ms(longest);
                let kind = Kind::Every { interval, from: from.unwrap_or(0) };
                (Recurrence::EveryMs(interval), kind)
            }
            2 => (Recurrence::AfterEndMs(5 * MINUTE + choices.ms(DAY)), Kind::AfterEnd),
            _ => wall(choices),
        };
        let rule = Rule {
            from_ms: from,
            until_ms: choices.once_in(5).then(|| added + 5 * DAY + choices.ms(20 * DAY)),
            max_runs: choices.once_in(5).then(|| 1 + choices.below(60) as u64),
            jitter_ms: if choices.once_in(3) { choices.ms(HOUR) } else { 0 },
            ..Rule::new(recurrence, zone)
        };
        let policy = Policy {
            catch_up: choices.of(&[CatchUp::Last, CatchUp::All, CatchUp::None]),
            window_ms: 1000 + choices.ms(2 * DAY),
            overlap: choices.of(&[
                Overlap::Skip,
                Overlap::QueueOne,
                Overlap::Allow,
                Overlap::CancelPrevious,
            ]),
            pause_after: choices.once_in(4).then(|| 1 + u32::try_from(choices.below(3)).unwrap()),
        };
        let id = ScheduleId::of(&format!("schedule {number}"));
        let longest_ms = choices.of(&[1, MINUTE, HOUR, 2 * DAY]);
        Self { id, rule, policy, longest_ms, kind }
    }

    /// The instants after a moment and up to another; none for a fixed delay: there they
    /// depend on the tasks.
    pub(super) fn instants(&self, after: i64, until: i64) -> Option<Vec<i64>> {
        let first = self.rule.from_ms.unwrap_or(0).max(after + 1);
        let until = until.min(self.rule.until_ms.unwrap_or(i64::MAX));
        match &self.kind {
            Kind::AfterEnd => None,
            Kind::Every { interval, from } => {
                let next = from + (first - from + interval - 1).div_euclid(*interval) * interval;
                let step = usize::try_from(*interval).unwrap();
                Some((next..=until).step_by(step).collect())
            }
            Kind::Wall(wall) => Some(wall.instants(&self.rule.zone, first - 1, until)),
        }
    }
}

/// A cron expression or a calendar expression, and the wall times that it means.
fn wall(choices: &mut Choices) -> (Recurrence, Kind) {
    let small = |number: usize| i8::try_from(number).unwrap();
    let list = |numbers: &[i8]| {
        let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        if words.is_empty() { "*".to_owned() } else { words.join(",") }
    };
    let minutes = (0..choices.between(1, 3))
        .map(|_| if choices.once_in(3) { 0 } else { small(choices.below(60)) });
    let minutes: Vec<i8> = minutes.collect();
    let (mut hours, mut rhythm): (Vec<i8>, _) = ((0..24).collect(), true);
    let step = choices.of(&[1, 2, 5, 0]);
    match step {
        0 => {
            let most = choices.of(&[4, 23]);
            hours = (0..choices.between(1, 3)).map(|_| small(choices.between(0, most))).collect();
            rhythm = false;
        }
        step => hours.retain(|hour| hour % step == 0),
    }
    let some_days = choices.once_in(3);
    let days: Vec<i8> = if some_days { vec![small(choices.between(1, 28)), 31] } else { vec![] };
    let some_weekdays = choices.once_in(3);
    let weekdays: Vec<i8> =
        if some_weekdays { vec![0, small(choices.between(1, 6))] } else { vec![] };
    let calendar = choices.once_in(2);
    let recurrence = if calendar {
        const NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        let named: Vec<&str> =
            weekdays.iter().map(|day| NAMES[usize::try_from(*day).unwrap()]).collect();
        let hour = match step {
            0 => list(&hours),
            1 => "*".to_owned(),
            step => format!("0/{step}"),
        };
        let text = format!("{} *-*-{} {hour}:{}", named.join(","), list(&days), list(&minutes));
        Recurrence::Calendar(text.parse().unwrap())
    } else {
        let hour = match step {
            0 => list(&hours),
            step => format!("*/{step}"),
        };
        let text = format!("{} {hour} {} * {}", list(&minutes), list(&days), list(&weekdays));
        Recurrence::Cron(text.parse().unwrap())
    };
    let either = !calendar;
    (recurrence, Kind::Wall(Wall { minutes, hours, rhythm, days, weekdays, either }))
}
