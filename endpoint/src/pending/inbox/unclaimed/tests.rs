//! The order and the bounds of claims, and which attempts are given up.

use super::*;
use crate::pending::inbox::Bounds;
use crate::pending::poison::Standing;
use crate::pending::stop::StopSignal;
use crate::storage::journal::Deaths;
use clutch_common::id::TaskId;
use clutch_common::task::json::Json;
use clutch_common::task::topic::TopicTerms;
use clutch_common::task::{Call, Process, Work};

const START_BY: u64 = 60_000;

fn held(seq: u64, topic: Option<&str>) -> Held {
    let mut task = Task::new(TaskId::new(), Process::default());
    let terms =
        |name: &str| TopicTerms { name: name.to_owned(), start_by_ms: START_BY, version: None };
    task.topic = topic.map(terms);
    Held {
        seq: Seq(seq),
        task: Arc::new(task),
        started: false,
        accepted_at_ms: None,
        deaths: Deaths::default(),
        standing: Standing::Clear,
        stop: StopSignal::new(),
    }
}

fn with(held: Held, change: impl FnOnce(&mut Task)) -> Held {
    let mut task = Task::clone(&held.task);
    change(&mut task);
    Held { task: Arc::new(task), ..held }
}

fn call(seq: u64, function: &str) -> Held {
    with(held(seq, Some("t")), |task| {
        task.work = Work::Call(Call::new(function, Json::empty_array()));
    })
}

fn inbox() -> Inbox {
    Inbox::new(Bounds { max_tasks: 10_000, max_bytes: 1 << 30 })
}

fn at(ms: u64) -> ClaimMoment {
    ClaimMoment { uptime: Duration::from_millis(ms), ahead: Duration::from_millis(100) }
}

fn slots(free: usize, all: usize) -> FreeSlots {
    FreeSlots { free, all }
}

fn asked(inbox: &mut Inbox, slots: FreeSlots, moment: ClaimMoment) -> Vec<Seq> {
    inbox.ask_claims(slots, moment).into_iter().map(|(seq, _)| seq).collect()
}

fn numbers(seqs: &[Seq]) -> Vec<u64> {
    seqs.iter().map(|seq| seq.0).collect()
}

/// Claims, and has all of it confirmed in time.
fn claim(inbox: &mut Inbox, slots: FreeSlots, moment: ClaimMoment) -> Vec<u64> {
    let seqs = asked(inbox, slots, moment);
    inbox.claims_confirmed(&seqs, 0);
    numbers(&seqs)
}

#[test]
fn an_attempt_of_a_topic_starts_once_its_claim_is_confirmed_and_in_its_place() {
    let mut inbox = inbox();
    inbox.put(held(1, Some("t")));
    inbox.put(held(2, None));
    inbox.put(held(3, Some("t")));
    inbox.put(held(4, None));
    assert_eq!(inbox.tasks(), 4);
    let seqs = asked(&mut inbox, slots(9, 9), at(0));
    assert_eq!(numbers(&seqs), [1, 3]);
    assert_eq!(inbox.waiting(), 2, "they are asked for, and not confirmed");
    assert!(asked(&mut inbox, slots(9, 9), at(0)).is_empty(), "one message is under way");
    assert!(inbox.claims_confirmed(&seqs, START_BY));
    let order: Vec<u64> = std::iter::from_fn(|| inbox.take()).map(|held| held.seq.0).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn a_claim_that_is_confirmed_late_lets_nothing_start() {
    let mut inbox = inbox();
    inbox.put(held(1, Some("t")));
    let seqs = asked(&mut inbox, slots(1, 1), at(0));
    assert!(!inbox.claims_confirmed(&seqs, START_BY + 1));
    assert_eq!(inbox.waiting(), 0);
    let given_up = inbox.give_up(START_BY + 1, false);
    assert_eq!(given_up.into_iter().map(|(_, why)| why).collect::<Vec<_>>(), [GiveUp::Late]);
    assert_eq!((inbox.tasks(), inbox.claims_due_ms()), (0, None));
}

#[test]
fn what_is_not_claimed_is_given_up_after_its_moment_and_not_before() {
    let mut inbox = inbox();
    inbox.put(held(1, Some("t")));
    inbox.put(with(held(2, Some("t")), |task| {
        task.topic.as_mut().unwrap().start_by_ms = START_BY - 1;
    }));
    assert_eq!(inbox.claims_due_ms(), Some(START_BY - 1));
    assert!(inbox.give_up(START_BY - 1, false).is_empty());
    assert_eq!(inbox.give_up(START_BY, false)[0].0.seq, Seq(2));
    assert_eq!(inbox.claims_due_ms(), Some(START_BY));
    let closed = inbox.give_up(0, true);
    assert_eq!((closed[0].0.seq, &closed[0].1), (Seq(1), &GiveUp::Closed));
}

#[test]
fn claims_that_may_not_have_arrived_are_made_again() {
    let mut inbox = inbox();
    inbox.put(held(1, Some("t")));
    let first = asked(&mut inbox, slots(1, 1), at(0));
    inbox.claims_failed();
    assert!(!inbox.claims_confirmed(&first, 0), "the confirm of a message that counts as lost");
    assert_eq!(asked(&mut inbox, slots(1, 1), at(0)), first);
}

#[test]
fn it_claims_as_much_as_has_slots_and_as_much_as_started_within_the_time_ahead() {
    let mut inbox = inbox();
    (1..=100).for_each(|seq| inbox.put(held(seq, Some("t"))));
    assert_eq!(claim(&mut inbox, slots(2, 2), at(0)), [1, 2]);
    assert!(claim(&mut inbox, slots(2, 2), at(1)).is_empty(), "both wait for a slot");
    let end = |inbox: &mut Inbox, count: usize| {
        for _ in 0..count {
            let held = inbox.take().unwrap();
            inbox.free(&held);
        }
    };
    end(&mut inbox, 2);
    assert_eq!(claim(&mut inbox, slots(2, 2), at(10)), [3, 4, 5, 6], "2 free, 2 have started");
    end(&mut inbox, 4);
    assert_eq!(claim(&mut inbox, slots(2, 2), at(20)).len(), 8, "2 free, 6 have started");
    end(&mut inbox, 8);
    assert_eq!(claim(&mut inbox, slots(0, 2), at(105)).len(), 14);
    end(&mut inbox, 14);
    assert_eq!(claim(&mut inbox, slots(2, 2), at(10_000)).len(), 2, "none has started lately");
}

#[test]
fn those_of_higher_priority_are_claimed_first_and_a_wide_one_waits_for_room() {
    let mut inbox = inbox();
    let level = |priority| move |task: &mut Task| task.priority = priority;
    inbox.put(with(held(1, Some("t")), level(Priority::Low)));
    inbox.put(held(2, Some("t")));
    inbox.put(with(held(3, Some("t")), level(Priority::High)));
    inbox.put(with(held(4, Some("t")), |task| task.cores = 3));
    inbox.put(held(5, Some("t")));
    assert_eq!(claim(&mut inbox, slots(2, 4), at(0)), [3, 2]);
    let first = inbox.take().unwrap();
    assert_eq!(first.seq, Seq(3));
    assert!(claim(&mut inbox, slots(3, 4), at(1_000)).is_empty(), "2 waits, and 4 takes three");
    drop(inbox.take());
    assert_eq!(claim(&mut inbox, slots(4, 4), at(2_000)), [4, 5]);
}

#[test]
fn calls_of_a_function_whose_workers_are_busy_keep_no_slot_from_others() {
    let mut inbox = inbox();
    inbox.limit([("one".to_owned(), 1), ("many".to_owned(), 4)].into());
    (1..=3).for_each(|seq| inbox.put(call(seq, "one")));
    (4..=9).for_each(|seq| inbox.put(call(seq, "many")));
    assert_eq!(claim(&mut inbox, slots(4, 4), at(0)), [1, 4, 5, 6]);
    assert_eq!(inbox.take().unwrap().seq, Seq(1), "it keeps its worker");
    assert!(claim(&mut inbox, slots(3, 4), at(1_000)).is_empty());
    [4, 5, 6].into_iter().for_each(|seq| assert_eq!(inbox.take().unwrap().seq, Seq(seq)));
    assert_eq!(claim(&mut inbox, slots(1, 4), at(2_000)), [7]);
}

#[test]
fn nothing_is_claimed_or_given_up_while_nothing_may_start() {
    let mut inbox = inbox();
    inbox.shut();
    inbox.put(held(1, Some("t")));
    assert!(inbox.holds_back());
    assert!(claim(&mut inbox, slots(1, 1), at(0)).is_empty());
    assert!(inbox.give_up(START_BY + 1, true).is_empty());
    assert_eq!(inbox.claims_due_ms(), None);
    inbox.unsecure_waiting();
    assert_eq!(inbox.take_unsecured().len(), 1, "it is handed back");
    assert_eq!(inbox.tasks(), 0);
}

#[test]
fn one_that_ran_when_the_daemon_died_had_been_claimed() {
    let mut inbox = inbox();
    let deaths = Deaths { count: 1, ..Deaths::default() };
    inbox.put(Held { deaths, ..held(1, Some("t")) });
    inbox.put(Held { started: true, ..held(2, Some("t")) });
    inbox.put(held(3, Some("t")));
    assert_eq!(inbox.waiting(), 2);
}

#[test]
fn a_cancel_finds_them_before_and_while_they_are_claimed() {
    let mut inbox = inbox();
    (1..=2).for_each(|seq| inbox.put(held(seq, Some("t"))));
    let seqs = asked(&mut inbox, slots(1, 1), at(0));
    assert_eq!(inbox.cancel(|_| true).len(), 2);
    assert!(!inbox.claims_confirmed(&seqs, 0));
    assert_eq!((inbox.tasks(), inbox.take().is_none()), (0, true));
}

#[test]
fn what_the_endpoint_does_not_offer_is_given_up_at_once_also_after_a_change() {
    let mut inbox = inbox();
    let offer = |topic: &str| {
        Arc::new(Offer { topics: [topic.to_owned()].into(), functions: BTreeMap::new() })
    };
    inbox.set_offer(offer("t"));
    inbox.put(held(1, Some("t")));
    inbox.put(held(2, Some("other")));
    inbox.put(held(3, None));
    let refused = inbox.give_up(0, false);
    assert_eq!(refused.len(), 1);
    assert!(matches!(&refused[0].1, GiveUp::NotOffered(why) if why.contains("'other'")));
    inbox.set_offer(offer("other"));
    assert_eq!(inbox.claims_due_ms(), Some(0));
    assert!(matches!(&inbox.give_up(0, false)[0].1, GiveUp::NotOffered(_)));
    assert_eq!(inbox.take().unwrap().seq, Seq(3));
}
