//! The window against a model of what the broker and lapin do.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn ack(carried: Option<&str>) -> Answer {
    let carried =
        carried.map(|id| Return { message_id: Some(id.to_owned()), reason: "NO_ROUTE".to_owned() });
    Answer { accepted: true, carried }
}

fn opened(ids: &[&str]) -> (Window, Vec<Ticket>) {
    let mut window = Window::default();
    let publish = |id: &&str| {
        let ticket = window.ticket();
        window.publish(ticket, (*id).to_owned(), Instant::now());
        ticket
    };
    let tickets = ids.iter().map(publish).collect();
    (window, tickets)
}

fn settle(window: &mut Window, answers: Vec<(Ticket, Answer)>) -> Vec<(Ticket, Settlement)> {
    window.settle(answers, Instant::now())
}

fn returned() -> Settlement {
    Settlement::Returned("NO_ROUTE".to_owned())
}

fn since(window: &Window) -> Option<Instant> {
    window.oldest().map(|(_, since)| since)
}

#[test]
fn an_answer_without_a_return_means_what_it_says() {
    let (mut window, tickets) = opened(&["a", "b", "c"]);
    let nack = Answer { accepted: false, carried: None };
    let settled = settle(&mut window, vec![(tickets[0], ack(None)), (tickets[1], nack)]);
    assert_eq!(settled, [(tickets[0], Settlement::Confirmed), (tickets[1], Settlement::Refused)]);
    assert_eq!(window.len(), 1);
}

#[test]
fn a_return_settles_the_message_it_names_and_not_the_one_it_came_with() {
    let (mut window, tickets) = opened(&["routable", "lost"]);
    let settled = settle(&mut window, vec![(tickets[0], ack(Some("lost")))]);
    assert_eq!(settled, [(tickets[0], Settlement::Doubt)]);
    let settled = settle(&mut window, vec![(tickets[1], ack(None))]);
    assert_eq!(settled, [(tickets[1], returned())]);
}

#[test]
fn a_return_of_a_message_settled_before_changes_nothing_but_its_carrier() {
    let (mut window, tickets) = opened(&["a", "b"]);
    let settled =
        settle(&mut window, vec![(tickets[0], ack(Some("gone"))), (tickets[1], ack(None))]);
    assert_eq!(settled, [(tickets[0], Settlement::Doubt), (tickets[1], Settlement::Confirmed)]);
}

#[test]
fn a_message_published_twice_takes_its_returns_in_order() {
    let (mut window, tickets) = opened(&["same", "same"]);
    let settled =
        settle(&mut window, vec![(tickets[1], ack(Some("same"))), (tickets[0], ack(Some("same")))]);
    assert_eq!(settled, [(tickets[1], returned()), (tickets[0], returned())]);
}

#[test]
fn the_oldest_message_waits_from_when_it_became_the_oldest() {
    let start = Instant::now();
    let at = |seconds| start + std::time::Duration::from_secs(seconds);
    let mut window = Window::default();
    let mut publish = |now| {
        let ticket = window.ticket();
        window.publish(ticket, ticket.0.to_string(), now);
        ticket
    };
    let (a, b, c) = (publish(at(0)), publish(at(1)), publish(at(9)));
    let late = publish(at(30));
    assert_eq!(since(&window), Some(at(0)));
    window.settle(vec![(b, ack(None))], at(3));
    assert_eq!(since(&window), Some(at(0)), "one behind it changes nothing");
    window.settle(vec![(a, ack(None))], at(20));
    assert_eq!(since(&window), Some(at(20)));
    window.settle(vec![(c, ack(None))], at(25));
    assert_eq!(since(&window), Some(at(30)), "but not from before it was published");
    window.settle(vec![(late, ack(None))], at(31));
    assert_eq!(since(&window), None);
}

proptest! {
    /// A model of lapin: returns queue up, each acknowledgement covers a run of
    /// messages and resolves their confirms in any order, each confirm takes the
    /// front of the queue. Batches end anywhere, in the middle of a run too.
    #[test]
    fn no_unroutable_message_is_ever_confirmed_and_every_one_is_returned_in_the_end(
        routable in prop::collection::vec(prop::bool::weighted(0.6), 1..60),
        shuffle in prop::collection::vec(any::<u32>(), 60),
        runs in prop::collection::vec(1usize..8, 60),
        batches in prop::collection::vec(1usize..12, 60),
    ) {
        let mut pending: Vec<usize> = (0..routable.len()).collect();
        let mut window = Window::default();
        let mut returns = VecDeque::new();
        for round in 0.. {
            let mut tickets = BTreeMap::new();
            for &message in &pending {
                let ticket = window.ticket();
                window.publish(ticket, message.to_string(), Instant::now());
                tickets.insert(message, ticket);
            }
            let mut resolved = Vec::new();
            let mut rest = pending.as_slice();
            for run in runs.iter().cycle() {
                let (covered, later) = rest.split_at((*run).min(rest.len()));
                rest = later;
                let mut covered = covered.to_vec();
                for &message in &covered {
                    if !routable[message] {
                        returns.push_back(message.to_string());
                    }
                }
                if round < 50 {
                    covered.sort_by_key(|&message| shuffle[message].rotate_left(round));
                }
                for message in covered {
                    resolved.push((message, ack(returns.pop_front().as_deref())));
                }
                if rest.is_empty() {
                    break;
                }
            }
            let mut again = Vec::new();
            let mut resolved = resolved.as_slice();
            for batch in batches.iter().cycle() {
                let (complete, later) = resolved.split_at((*batch).min(resolved.len()));
                resolved = later;
                let answers = complete.iter().map(|(message, answer)| (tickets[message], answer.clone()));
                let settled = settle(&mut window, answers.collect());
                prop_assert_eq!(settled.len(), complete.len());
                for ((message, _), (_, settlement)) in complete.iter().zip(settled) {
                    match settlement {
                        Settlement::Confirmed => prop_assert!(routable[*message]),
                        Settlement::Returned(_) => prop_assert!(!routable[*message] || round > 0),
                        Settlement::Doubt => again.push(*message),
                        Settlement::Refused | Settlement::TooLarge(_) => prop_assert!(false, "nothing was refused"),
                    }
                }
                if resolved.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(window.len(), 0);
            again.sort_unstable();
            pending = again;
            if pending.is_empty() {
                break;
            }
            prop_assert!(round < 60, "messages stay in doubt for ever");
        }
    }
}
