//! Instants under the odd rules of zones, one zone after the other.

use crate::schedule::{MomentText, Recurrence, Rule, Shift, Zone};

/// The moment of a text, in UTC if it has no offset.
fn ms(text: &str) -> i64 {
    text.parse::<MomentText>().unwrap().ms(&Zone::utc()).unwrap()
}

/// The first instants after a moment, as wall times with their offsets, each with its shift.
fn instants(rule: &Rule, after: &str, count: usize) -> Vec<(String, Shift)> {
    let mut at = ms(after);
    let mut found = Vec::new();
    while found.len() < count {
        let Some(next) = rule.next_after(at) else { break };
        assert!(next > at, "{next} is not after {at}");
        at = next;
        let instant = jiff::Timestamp::from_millisecond(at).unwrap();
        let offset = rule.zone.rules().to_offset(instant);
        let wall = offset.to_datetime(instant).strftime("%m-%dT%H:%M");
        found.push((format!("{wall}{offset}"), rule.shift(at)));
    }
    found
}

fn cron(expression: &str, zone: &str) -> Rule {
    Rule::new(Recurrence::Cron(expression.parse().unwrap()), zone.parse().unwrap())
}

fn calendar(expression: &str, zone: &str) -> Rule {
    Rule::new(Recurrence::Calendar(expression.parse().unwrap()), zone.parse().unwrap())
}

#[track_caller]
fn assert_instants(rule: &Rule, after: &str, expected: &[(&str, Shift)]) {
    let found = instants(rule, after, expected.len());
    let found: Vec<(&str, Shift)> =
        found.iter().map(|(wall, shift)| (wall.as_str(), *shift)).collect();
    assert_eq!(found, expected);
}

use Shift::{AfterGap, FirstOfTwo, No, SecondOfTwo};

#[test]
fn new_york_has_a_gap_and_a_fold_of_an_hour() {
    let named = cron("30 2 * * *", "America/New_York");
    assert_instants(
        &named,
        "2026-03-07T00:00",
        &[("03-07T02:30-05", No), ("03-08T03:00-04", AfterGap), ("03-09T02:30-04", No)],
    );
    let both_in_the_gap = cron("0,30,59 2,3 * * *", "America/New_York");
    assert_instants(
        &both_in_the_gap,
        "2026-03-08T06:00",
        &[("03-08T03:00-04", No), ("03-08T03:30-04", No), ("03-08T03:59-04", No)],
    );
    let minutes_starred = cron("*/20 2 * * *", "America/New_York");
    assert_instants(
        &minutes_starred,
        "2026-03-08T06:00",
        &[("03-08T03:00-04", AfterGap), ("03-09T02:00-04", No)],
    );
    let rhythm = cron("30 * * * *", "America/New_York");
    assert_instants(
        &rhythm,
        "2026-03-08T06:00",
        &[("03-08T01:30-05", No), ("03-08T03:30-04", No), ("03-08T04:30-04", No)],
    );
    let named = cron("30 1 * * *", "America/New_York");
    assert_instants(
        &named,
        "2026-11-01T00:00",
        &[("11-01T01:30-04", FirstOfTwo), ("11-02T01:30-05", No)],
    );
    assert_instants(&named, "2026-11-01T06:10", &[("11-02T01:30-05", No)]);
    let rhythm = cron("30 * * * *", "America/New_York");
    assert_instants(
        &rhythm,
        "2026-11-01T05:00",
        &[("11-01T01:30-04", FirstOfTwo), ("11-01T01:30-05", SecondOfTwo), ("11-01T02:30-05", No)],
    );
}

#[test]
fn lord_howe_shifts_by_half_an_hour() {
    let zone = "Australia/Lord_Howe";
    assert_instants(
        &cron("15 2 * * *", zone),
        "2026-10-03T00:00",
        &[("10-04T02:30+11", AfterGap), ("10-05T02:15+11", No)],
    );
    assert_instants(
        &cron("*/15 * * * *", zone),
        "2026-10-03T15:05",
        &[("10-04T01:45+10:30", No), ("10-04T02:30+11", No), ("10-04T02:45+11", No)],
    );
    assert_instants(
        &cron("45 1 * * *", zone),
        "2026-04-04T00:00",
        &[("04-05T01:45+11", FirstOfTwo), ("04-06T01:45+10:30", No)],
    );
    assert_instants(
        &cron("45 * * * *", zone),
        "2026-04-04T14:00",
        &[
            ("04-05T01:45+11", FirstOfTwo),
            ("04-05T01:45+10:30", SecondOfTwo),
            ("04-05T02:45+10:30", No),
        ],
    );
}

#[test]
fn apia_had_no_30th_of_december_in_2011() {
    let zone = "Pacific/Apia";
    let nine = cron("0 9,18 * * *", zone);
    assert_instants(
        &nine,
        "2011-12-30T00:00",
        &[
            ("12-29T18:00-10", No),
            ("12-31T00:00+14", AfterGap),
            ("12-31T09:00+14", No),
            ("12-31T18:00+14", No),
        ],
    );
    assert_instants(
        &cron("0 0 * * *", zone),
        "2011-12-29T00:00",
        &[("12-29T00:00-10", No), ("12-31T00:00+14", No), ("01-01T00:00+14", No)],
    );
    assert_instants(
        &cron("0 */6 * * *", zone),
        "2011-12-30T00:00",
        &[("12-29T18:00-10", No), ("12-31T00:00+14", No), ("12-31T06:00+14", No)],
    );
    assert_instants(
        &calendar("Fri *-*-* 12:00", zone),
        "2011-12-28T00:00",
        &[("12-31T00:00+14", AfterGap), ("01-06T12:00+14", No)],
    );
}

#[test]
fn troll_shifts_by_two_hours() {
    let zone = "Antarctica/Troll";
    assert_instants(
        &cron("30 1,2 * * *", zone),
        "2026-03-29T00:00",
        &[("03-29T03:00+02", AfterGap), ("03-30T01:30+02", No)],
    );
    assert_instants(
        &cron("0 2 * * *", zone),
        "2026-10-24T12:00",
        &[("10-25T02:00+02", FirstOfTwo), ("10-26T02:00+00", No)],
    );
    assert_instants(
        &cron("0 */2 * * *", zone),
        "2026-10-24T21:00",
        &[
            ("10-25T00:00+02", No),
            ("10-25T02:00+02", FirstOfTwo),
            ("10-25T02:00+00", SecondOfTwo),
            ("10-25T04:00+00", No),
        ],
    );
}

#[test]
fn casablanca_sets_its_clocks_back_for_ramadan() {
    let zone = "Africa/Casablanca";
    assert_instants(
        &cron("30 2 * * *", zone),
        "2026-02-14T12:00",
        &[("02-15T02:30+01", FirstOfTwo), ("02-16T02:30+00", No)],
    );
    assert_instants(
        &cron("30 2 * * *", zone),
        "2026-03-21T12:00",
        &[("03-22T03:00+01", AfterGap), ("03-23T02:30+01", No)],
    );
}

#[test]
fn chatham_shifts_at_a_quarter_to_three() {
    let zone = "Pacific/Chatham";
    assert_instants(
        &cron("0,50 3 * * *", zone),
        "2026-09-26T12:00",
        &[("09-27T03:45+13:45", AfterGap), ("09-27T03:50+13:45", No), ("09-28T03:00+13:45", No)],
    );
    assert_instants(
        &cron("0 3 * * *", zone),
        "2026-04-04T12:00",
        &[("04-05T03:00+13:45", FirstOfTwo), ("04-06T03:00+12:45", No)],
    );
}

#[test]
fn a_gap_at_midnight_and_a_change_of_the_zone_itself_are_like_any_other() {
    let beirut = cron("0 0 * * *", "Asia/Beirut");
    assert_instants(
        &beirut,
        "2025-03-29T00:00",
        &[("03-30T01:00+03", AfterGap), ("03-31T00:00+03", No)],
    );
    let jakarta = cron("0 12 * * *", "Asia/Jakarta");
    assert_instants(&jakarta, "2026-05-01T00:00", &[("05-01T12:00+07", No)]);
}

#[test]
fn the_instants_after_any_moment_are_those_after_the_moment_before() {
    for zone in ["America/New_York", "Australia/Lord_Howe", "Antarctica/Troll"] {
        for expression in ["*/7 * * * *", "*/13 1-3 * * *", "0 2 * * *", "15 */2 * * *"] {
            let rule = cron(expression, zone);
            for start in ["2026-03-07T20:00", "2026-03-28T20:00", "2026-04-04T10:00"] {
                let start = ms(start);
                let mut expected = rule.next_after(start).unwrap();
                for minute in (0..2 * 24 * 60).step_by(3) {
                    let after = start + minute * 60_000;
                    if after >= expected {
                        let next = rule.next_after(expected).unwrap();
                        assert!(next > expected);
                        expected = next;
                    }
                    assert_eq!(rule.next_after(after), Some(expected), "{rule:?} after {after}");
                    assert_eq!(rule.next_after(expected - 1), Some(expected), "{rule:?}");
                }
            }
        }
    }
}
