//! The rules as tables.

use super::*;
use clutch_common::id::EndpointId;
use clutch_common::wire;

/// The n-th state, with its n-th instance.
fn id(n: u128) -> StateId {
    StateId(Uuid::from_u128(n))
}

fn instance(n: u128) -> Uuid {
    Uuid::from_u128(100 + n)
}

/// `A1` is an active plain instance on state 1, `a1` an active one that shares,
/// `w1` one that waits with nothing left, `h1` one that waits and has something.
fn presence(told: &str) -> Presence {
    let (kind, n) = told.split_at(1);
    let n: u128 = n.parse().unwrap();
    Presence {
        endpoint_id: EndpointId(Uuid::nil()),
        state_id: id(n),
        instance: instance(n),
        role: if kind.eq_ignore_ascii_case("a") { Role::Active } else { Role::Standby },
        standby: kind != "A",
        replaces: false,
        answered: false,
        asks: false,
        pending: u64::from(kind == "h"),
        lost: false,
        delivered: None,
    }
}

/// What is known after this was heard, and the news of the last of it.
fn after(told: &str) -> (Vec<State>, News) {
    let mut states = Vec::new();
    let mut news = News::default();
    for (now, one) in told.split_whitespace().enumerate() {
        news = hear(&mut states, &presence(one), now as u64);
    }
    (states, news)
}

fn numbers(ids: impl IntoIterator<Item = StateId>) -> Vec<u128> {
    ids.into_iter().map(|id| id.0.as_u128()).collect()
}

#[test]
fn who_is_active_who_is_given_up_at_once_and_who_can_be_asked() {
    for (told, active_one, took_over, given_up, asked) in [
        ("", None, false, &[][..], None),
        ("A1", Some(1), true, &[], Some(1)),
        ("A1 A1", Some(1), false, &[], Some(1)),
        ("w1", None, false, &[], None),
        // A plain one on a new disk replaces what was.
        ("A1 A2", Some(2), true, &[1], Some(2)),
        ("a1 A2", Some(2), true, &[1], Some(2)),
        ("a1 h3 A2", Some(2), true, &[1, 3], Some(2)),
        // One that waits takes over and replaces nobody.
        ("A1 w2", Some(1), false, &[], Some(1)),
        ("A1 w2 a2", Some(2), true, &[], None),
        ("a1 a2", Some(2), true, &[], None),
        // The other comes back: what it has is its own until it has nothing.
        ("A1 a2 h1", Some(2), false, &[], None),
        ("A1 a2 h1 w1", Some(2), false, &[], Some(2)),
        // One that was active before takes over again, and replaces nobody.
        ("A1 a2 h1 A1", Some(1), true, &[], None),
        ("A1 a2 w1 A1 w2", Some(1), false, &[], Some(1)),
        // One that has lost the lease is not active, whoever is.
        ("A1 w1", None, false, &[], None),
        ("A1 w1 A1", Some(1), true, &[], Some(1)),
        // Who was replaced and is there all the same counts again.
        ("A1 A2 h1", Some(2), false, &[], None),
        ("A1 A2 A1", Some(1), true, &[], None),
        // Whoever never had anything holds up nothing.
        ("w3 A1", Some(1), true, &[], Some(1)),
        ("h3 a1", Some(1), true, &[], None),
    ] {
        let (states, news) = after(told);
        let number = |id: StateId| id.0.as_u128();
        assert_eq!(active(&states).map(|state| number(state.id)), active_one, "{told}");
        assert_eq!(news.took_over, took_over, "{told}");
        assert_eq!(numbers(news.given_up), given_up, "{told}");
        assert_eq!(to_ask(&states).map(|state| number(state.id)), asked, "{told}");
        assert!(states.iter().filter(|state| state.is_active()).count() <= 1, "{told}");
    }
}

#[test]
fn what_was_said_before_a_session_that_was_active_is_not_taken_for_news() {
    let at = |kind: &str, session| {
        let instance = wire::session_name(7, 100, session);
        Presence { instance, ..presence(kind) }
    };
    let (mut states, _) = after("a2");
    for (told, asked) in [
        (at("w1", 1), Some(2)),
        (at("a1", 2), None),
        (at("a2", 1), None),
        (at("w1", 1), None),
        (at("w1", 3), Some(2)),
    ] {
        hear(&mut states, &told, 9);
        assert_eq!(to_ask(&states).map(|state| state.id.0.as_u128()), asked, "{told:?}");
    }
}

#[test]
fn another_instance_on_the_same_disk_takes_over_and_loses_nothing() {
    let (mut states, _) = after("A1");
    let again = Presence { instance: Uuid::nil(), ..presence("A1") };
    let news = hear(&mut states, &again, 7);
    assert_eq!(news, News { took_over: true, given_up: Vec::new() });
    assert_eq!((states.len(), states[0].instance), (1, Uuid::nil()));
}

#[test]
fn one_that_was_active_before_replaces_what_was_by_a_persons_word() {
    let (mut states, _) = after("A1 a2");
    let again = Presence { instance: Uuid::nil(), replaces: true, ..presence("A1") };
    assert_eq!(hear(&mut states, &again, 7).given_up, [id(2)]);
}

#[test]
fn an_instance_that_waits_is_not_the_one_whose_connection_may_hold_the_lease() {
    let (mut states, _) = after("A1");
    let again = Presence { instance: Uuid::nil(), ..presence("w1") };
    hear(&mut states, &again, 7);
    assert_eq!(holder(&states).map(|state| state.instance), Some(instance(1)));
    let news = hear(&mut states, &Presence { role: Role::Active, ..again }, 8);
    assert_eq!(news, News { took_over: true, given_up: Vec::new() });
    assert_eq!(holder(&states).map(|state| state.instance), Some(Uuid::nil()));
}

/// A moment, in tenths of a second from the session's begin.
type Tenths = u64;

/// One row: what was told, who was heard when, the calls made, up to when all
/// was read, and now.
struct Row {
    told: &'static str,
    heard: &'static [(u128, Tenths)],
    /// The first call that was not answered, the last call, the last closing.
    calls: (Option<Tenths>, Option<Tenths>, Option<Tenths>),
    read: Tenths,
    now: Tenths,
}

const LOST_AFTER: Duration = Duration::from_secs(60);

/// Call, close, give up, read up, look again.
type Expected = (bool, Option<u128>, Vec<u128>, bool, Option<Tenths>);

fn planned(row: &Row) -> Expected {
    let since = Instant::now();
    let at = |tenths: Tenths| since + Duration::from_millis(tenths * 100);
    let (unanswered, called, closed) = row.calls;
    let times = Times {
        since,
        read_up_to: at(row.read),
        called: called.map(at),
        unanswered: unanswered.map(at),
        closed: closed.map(at),
    };
    let heard = row.heard.iter().map(|&(n, tenths)| (id(n), at(tenths))).collect();
    let plan = plan(&after(row.told).0, LOST_AFTER, &times, &heard, at(row.now));
    (
        plan.call,
        plan.close.map(|instance| instance.as_u128() - 100),
        numbers(plan.give_up),
        plan.read_up,
        plan.next.map(|next| (next - since).as_millis() as u64 / 100),
    )
}

#[test]
fn an_endpoint_that_nobody_waits_for_is_left_alone() {
    let quiet = (false, None, vec![], false, None);
    for (told, heard) in [("", &[][..]), ("A1", &[]), ("A1", &[(1, 5)]), ("A1 w2", &[(2, 100)])] {
        let row = Row { told, heard, calls: (None, None, None), read: 0, now: 400 };
        assert_eq!(planned(&row), quiet, "{told} {heard:?}");
    }
}

#[test]
fn whoever_holds_the_lease_is_called_while_a_standby_waits_and_closed_when_it_is_silent() {
    let close = |n| (false, Some(n), vec![], false, Some(110));
    let idle = |next| (false, None, vec![], false, Some(next));
    let read_up = (false, None, vec![], true, Some(110));
    let pair: &[(u128, Tenths)] = &[(1, 70), (2, 95)];
    for (what, heard, calls, read, now, expected) in [
        (
            "the first call",
            &[(2, 95)][..],
            (None, None, None),
            0,
            95,
            (true, None, vec![], false, Some(105)),
        ),
        (
            "the next call",
            pair,
            (None, Some(90), None),
            0,
            100,
            (true, None, vec![], false, Some(110)),
        ),
        ("between calls", pair, (None, Some(95), None), 0, 100, idle(105)),
        ("a call without an answer yet", pair, (Some(80), Some(95), None), 0, 99, idle(100)),
        ("3 s of silence, not all read", pair, (Some(80), Some(100), None), 99, 100, read_up),
        ("3 s of silence, all read", pair, (Some(80), Some(100), None), 100, 100, close(1)),
        ("the call is too young", pair, (Some(85), Some(100), None), 100, 100, idle(105)),
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
        ("no call reached anybody", pair, (None, Some(100), None), 100, 100, idle(110)),
        ("closed a moment ago", pair, (Some(75), Some(100), Some(60)), 100, 100, idle(110)),
        ("closed a while ago", pair, (Some(75), Some(100), Some(50)), 100, 100, close(1)),
    ] {
        let row = Row { told: "a1 w2", heard, calls, read, now };
        assert_eq!(planned(&row), expected, "{what}");
    }
    // The standby took over meanwhile: nobody is to be closed for the other.
    let heard = &[(1, 70), (2, 95)];
    let row =
        Row { told: "a1 w2 a2 w1", heard, calls: (Some(80), Some(100), None), read: 100, now: 100 };
    assert_eq!(planned(&row), idle(110));
    // Whoever had the lease has lost its link, and waits for itself.
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
        ("nobody took over", "a1 w1", &[(1, 0)], 690, 690, (false, None, vec![], false, None)),
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
        let row = Row { told, heard, calls: (None, Some(now), None), read, now };
        assert_eq!(planned(&row), expected, "{what}");
    }
}

#[test]
fn a_call_counts_from_the_first_that_was_not_answered() {
    let since = Instant::now();
    let at = |seconds| since + Duration::from_secs(seconds);
    let (states, _) = after("a1 w2");
    let one = holder(&states);
    let mut times = Times::new(since);
    let silent = Heard::from([(id(1), at(2))]);
    for (call, held, heard, expected) in [
        (1, true, &Heard::new(), Some(1)),
        (2, true, &Heard::new(), Some(1)),
        (3, true, &silent, Some(3)),
        (4, true, &silent, Some(3)),
        (5, false, &silent, None),
        (6, true, &silent, Some(6)),
    ] {
        times.called(at(call), held, one, heard);
        assert_eq!(times.unanswered, expected.map(at), "call {call}");
    }
    times.closed(at(7));
    assert_eq!((times.unanswered, times.closed), (None, Some(at(7))));
}
