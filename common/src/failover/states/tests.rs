//! Which instance is active, which state is given up and which can be asked, as tables.

use super::*;
use crate::id::EndpointId;
use crate::wire;

/// The n-th state, with its n-th instance.
pub(in crate::failover) fn id(n: u128) -> StateId {
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
        details: None,
    }
}

/// The states after these presences, and the effect of the last one.
pub(in crate::failover) fn after(told: &str) -> (Vec<KnownState>, PresenceEffect) {
    let mut states = Vec::new();
    let mut news = PresenceEffect::default();
    for (now, one) in told.split_whitespace().enumerate() {
        news = apply_presence(&mut states, &presence(one), now as u64);
    }
    (states, news)
}

pub(in crate::failover) fn numbers(ids: impl IntoIterator<Item = StateId>) -> Vec<u128> {
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
        // One that waits takes over and replaces no instance.
        ("A1 w2", Some(1), false, &[], Some(1)),
        ("A1 w2 a2", Some(2), true, &[], None),
        ("a1 a2", Some(2), true, &[], None),
        // The other comes back: what it has is its own until it has nothing.
        ("A1 a2 h1", Some(2), false, &[], None),
        ("A1 a2 h1 w1", Some(2), false, &[], Some(2)),
        // One that was active before takes over again, and replaces no instance.
        ("A1 a2 h1 A1", Some(1), true, &[], None),
        ("A1 a2 w1 A1 w2", Some(1), false, &[], Some(1)),
        // An instance that has lost the lease is not active.
        ("A1 w1", None, false, &[], None),
        ("A1 w1 A1", Some(1), true, &[], Some(1)),
        // A state that was replaced and is heard again may hold tasks.
        ("A1 A2 h1", Some(2), false, &[], None),
        ("A1 A2 A1", Some(1), true, &[], None),
        // A state that never held anything delays nothing.
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
        apply_presence(&mut states, &told, 9);
        assert_eq!(to_ask(&states).map(|state| state.id.0.as_u128()), asked, "{told:?}");
    }
}

#[test]
fn another_instance_on_the_same_disk_takes_over_and_loses_nothing() {
    let (mut states, _) = after("A1");
    let again = Presence { instance: Uuid::nil(), ..presence("A1") };
    let news = apply_presence(&mut states, &again, 7);
    assert_eq!(news, PresenceEffect { took_over: true, given_up: Vec::new() });
    assert_eq!((states.len(), states[0].instance), (1, Uuid::nil()));
}

#[test]
fn one_that_was_active_before_replaces_what_was_by_a_persons_word() {
    let (mut states, _) = after("A1 a2");
    let again = Presence { instance: Uuid::nil(), replaces: true, ..presence("A1") };
    assert_eq!(apply_presence(&mut states, &again, 7).given_up, [id(2)]);
}

#[test]
fn an_instance_that_waits_is_not_the_one_whose_connection_may_hold_the_lease() {
    let (mut states, _) = after("A1");
    let again = Presence { instance: Uuid::nil(), ..presence("w1") };
    apply_presence(&mut states, &again, 7);
    assert_eq!(holder(&states).map(|state| state.instance), Some(instance(1)));
    let news = apply_presence(&mut states, &Presence { role: Role::Active, ..again }, 8);
    assert_eq!(news, PresenceEffect { took_over: true, given_up: Vec::new() });
    assert_eq!(holder(&states).map(|state| state.instance), Some(Uuid::nil()));
}

#[test]
fn a_state_that_a_person_declares_lost_is_given_up_until_it_speaks_again() {
    let (mut states, _) = after("A1");
    assert_eq!(declare_lost(&mut states, Some(id(2)), 7), []);
    assert_eq!(declare_lost(&mut states, None, 7), [id(1)]);
    assert_eq!(declare_lost(&mut states, None, 8), [], "it is given up already");
    assert!(active(&states).is_none() && holder(&states).is_none() && to_ask(&states).is_none());

    // Another instance is asked at once, also one that shares the endpoint.
    let mut other = states.clone();
    let news = apply_presence(&mut other, &presence("a2"), 9);
    assert!(news.took_over);
    assert_eq!(to_ask(&other).map(|state| state.id), Some(id(2)));

    // The same one is the one to ask when it comes back.
    let news = apply_presence(&mut states, &presence("A1"), 9);
    assert!(news.took_over && news.given_up.is_empty());
    assert_eq!(to_ask(&states).map(|state| state.id), Some(id(1)));
}

#[test]
fn only_the_state_that_is_named_is_declared_lost() {
    let (mut states, _) = after("a1 a2");
    assert!(to_ask(&states).is_none(), "the first may hold tasks");
    assert_eq!(declare_lost(&mut states, Some(id(1)), 7), [id(1)]);
    assert_eq!(to_ask(&states).map(|state| state.id), Some(id(2)));
    let (mut states, _) = after("a1 w2");
    assert_eq!(declare_lost(&mut states, None, 7), [id(1)], "one that has nothing is not lost");
}
