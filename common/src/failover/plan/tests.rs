//! When an endpoint's instances are pinged, disconnected and given up, as tables.

use super::super::states::tests::{after, id, numbers};
use super::*;

/// A moment, in tenths of a second from the session's begin.
type Tenths = u64;

/// One row: the presences, when each state was heard, the pings made, up to when all
/// was read, and now.
struct Row {
    told: &'static str,
    heard: &'static [(u128, Tenths)],
    /// The first ping that was not answered, the last ping, the last closing.
    pings: (Option<Tenths>, Option<Tenths>, Option<Tenths>),
    read: Tenths,
    now: Tenths,
}

const LOST_AFTER: Duration = Duration::from_secs(60);

/// Ping, close, give up, read up, look again.
type Expected = (bool, Option<u128>, Vec<u128>, bool, Option<Tenths>);

fn planned(row: &Row) -> Expected {
    let since = Instant::now();
    let at = |tenths: Tenths| since + Duration::from_millis(tenths * 100);
    let (unanswered, pinged, closed) = row.pings;
    let times = PingTimes {
        since,
        read_up_to: at(row.read),
        pinged: pinged.map(at),
        unanswered: unanswered.map(at),
        closed: closed.map(at),
    };
    let heard = row.heard.iter().map(|&(n, tenths)| (id(n), at(tenths))).collect();
    let plan = plan(&after(row.told).0, LOST_AFTER, &times, &heard, at(row.now));
    (
        plan.ping,
        plan.close.map(|instance| instance.as_u128() - 100),
        numbers(plan.give_up),
        plan.read_up,
        plan.next.map(|next| (next - since).as_millis() as u64 / 100),
    )
}

#[test]
fn an_endpoint_that_no_standby_waits_for_is_left_alone() {
    let quiet = (false, None, vec![], false, None);
    for (told, heard) in [("", &[][..]), ("A1", &[]), ("A1", &[(1, 5)]), ("A1 w2", &[(2, 100)])] {
        let row = Row { told, heard, pings: (None, None, None), read: 0, now: 400 };
        assert_eq!(planned(&row), quiet, "{told} {heard:?}");
    }
}

#[test]
fn the_holder_of_the_lease_is_pinged_while_a_standby_waits_and_closed_when_it_is_silent() {
    let close = |n| (false, Some(n), vec![], false, Some(110));
    let idle = |next| (false, None, vec![], false, Some(next));
    let read_up = (false, None, vec![], true, Some(110));
    let pair: &[(u128, Tenths)] = &[(1, 70), (2, 95)];
    for (what, heard, pings, read, now, expected) in [
        (
            "the first ping",
            &[(2, 95)][..],
            (None, None, None),
            0,
            95,
            (true, None, vec![], false, Some(105)),
        ),
        (
            "the next ping",
            pair,
            (None, Some(90), None),
            0,
            100,
            (true, None, vec![], false, Some(110)),
        ),
        ("between pings", pair, (None, Some(95), None), 0, 100, idle(105)),
        ("a ping without an answer yet", pair, (Some(80), Some(95), None), 0, 99, idle(100)),
        ("3 s of silence, not all read", pair, (Some(80), Some(100), None), 99, 100, read_up),
        ("3 s of silence, all read", pair, (Some(80), Some(100), None), 100, 100, close(1)),
        ("the ping is too young", pair, (Some(85), Some(100), None), 100, 100, idle(105)),
        (
            "it was answered",
            &[(1, 81), (2, 95)],
            (Some(80), Some(100), None),
            100,
            120,
            (true, None, vec![], false, Some(130)),
        ),
        (
            "never heard in this session",
            &[(2, 95)],
            (Some(20), Some(100), None),
            100,
            100,
            close(1),
        ),
        ("no ping reached anybody", pair, (None, Some(100), None), 100, 100, idle(110)),
        ("closed a moment ago", pair, (Some(75), Some(100), Some(60)), 100, 100, idle(110)),
        ("closed a while ago", pair, (Some(75), Some(100), Some(50)), 100, 100, close(1)),
    ] {
        let row = Row { told: "a1 w2", heard, pings, read, now };
        assert_eq!(planned(&row), expected, "{what}");
    }
    // The standby took over meanwhile: no instance is to be closed for the other.
    let heard = &[(1, 70), (2, 95)];
    let row =
        Row { told: "a1 w2 a2 w1", heard, pings: (Some(80), Some(100), None), read: 100, now: 100 };
    assert_eq!(planned(&row), idle(110));
    // The instance that had the lease has lost its link, and stands by.
    for told in ["a1 w2 w1", "A1 w1"] {
        let row = Row { told, heard: &[(1, 70)], ..row };
        assert_eq!(planned(&row), close(1), "{told}");
    }
}

#[test]
fn a_state_is_given_up_when_it_was_silent_for_long_and_all_is_read() {
    for (what, told, heard, read, now, expected) in [
        (
            "in time",
            "a1 a2",
            &[(1, 100), (2, 150)][..],
            600,
            690,
            (false, None, vec![], false, Some(700)),
        ),
        (
            "not all read",
            "a1 a2",
            &[(1, 100), (2, 150)],
            699,
            700,
            (false, None, vec![], true, None),
        ),
        ("all read", "a1 a2", &[(1, 100), (2, 150)], 700, 700, (false, None, vec![1], false, None)),
        (
            "not heard in this session",
            "a1 a2",
            &[(2, 590)],
            600,
            600,
            (false, None, vec![1], false, None),
        ),
        (
            "heard before this session",
            "a1 a2",
            &[(2, 590)],
            590,
            590,
            (false, None, vec![], false, Some(600)),
        ),
        (
            "it has nothing",
            "a1 a2 w1",
            &[(1, 0), (2, 590)],
            690,
            690,
            (false, None, vec![], false, None),
        ),
        ("no instance took over", "a1 w1", &[(1, 0)], 690, 690, (false, None, vec![], false, None)),
        ("it is given up", "A1 A2", &[(1, 0)], 690, 690, (false, None, vec![], false, None)),
        (
            "two of three",
            "a1 a2 h3 a4",
            &[(1, 0), (3, 50)],
            640,
            640,
            (false, None, vec![1, 2], false, Some(650)),
        ),
    ] {
        let row = Row { told, heard, pings: (None, Some(now), None), read, now };
        assert_eq!(planned(&row), expected, "{what}");
    }
}

#[test]
fn a_ping_counts_from_the_first_that_was_not_answered() {
    let since = Instant::now();
    let at = |seconds| since + Duration::from_secs(seconds);
    let (states, _) = after("a1 w2");
    let one = holder(&states);
    let mut times = PingTimes::new(since);
    let silent = Heard::from([(id(1), at(2))]);
    for (ping, held, heard, expected) in [
        (1, true, &Heard::new(), Some(1)),
        (2, true, &Heard::new(), Some(1)),
        (3, true, &silent, Some(3)),
        (4, true, &silent, Some(3)),
        (5, false, &silent, None),
        (6, true, &silent, Some(6)),
    ] {
        times.pinged(at(ping), held, one, heard);
        assert_eq!(times.unanswered, expected.map(at), "ping {ping}");
    }
    times.closed(at(7));
    assert_eq!((times.unanswered, times.closed), (None, Some(at(7))));
}
