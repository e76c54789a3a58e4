//! The way of a request, step by step, and that each ends in time.

use super::*;
use proptest::prelude::*;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn known(now: u64, target: Target) -> Known {
    Known { now: at(now), target, link: true, mailbox: None }
}

fn elsewhere(now: u64) -> Known {
    known(now, Target::Elsewhere)
}

fn remote() -> Outgoing {
    let mut outgoing = Outgoing::new(at(90), 1, 5);
    assert_eq!(outgoing.step(&elsewhere(0)), NextStep::Publish(1));
    outgoing
}

#[test]
fn a_target_that_is_here_is_reached_without_a_link_and_another_one_is_not() {
    let no_link = |target| Known { link: false, ..known(0, target) };
    let first = |known: &Known| Outgoing::new(at(90), 1, 5).step(known);
    assert_eq!(first(&no_link(Target::Here(2))), NextStep::Offer(2));
    assert_eq!(first(&no_link(Target::Elsewhere)), NextStep::End(SendEnd::Unreachable));
    let ended = Target::EndedHere(Outcome::Failed);
    assert_eq!(
        first(&no_link(ended)),
        NextStep::End(SendEnd::Finished { outcome: Outcome::Failed, certain: true })
    );
    assert_eq!(first(&known(0, ended)), NextStep::Publish(1), "another attempt may be elsewhere");
}

#[test]
fn copies_have_growing_pauses_and_none_is_sent_after_the_wait() {
    let mut outgoing = Outgoing::new(at(20), 1, 5);
    let mut sent = Vec::new();
    for now in 0..40 {
        match outgoing.step(&elsewhere(now)) {
            NextStep::Publish(copy) => sent.push((copy, now)),
            NextStep::End(end) => {
                assert_eq!((end, now), (SendEnd::TimedOut, 30));
                assert_eq!(sent, [(1, 0), (2, 1), (3, 3), (4, 7), (5, 12), (6, 17)]);
                return;
            }
            NextStep::Wait(until) => assert!(until > at(now)),
            NextStep::Offer(_) => panic!("it is not here"),
        }
    }
    panic!("no answer");
}

#[test]
fn none_listens_only_if_no_copy_may_be_held() {
    let mut outgoing = remote();
    outgoing.answered(1..=1, Reply::NotStarted);
    assert_eq!(outgoing.step(&elsewhere(90)), NextStep::End(SendEnd::NotListening));
    let mut outgoing = remote();
    assert_eq!(outgoing.step(&elsewhere(1)), NextStep::Publish(2));
    outgoing.answered(1..=1, Reply::NotStarted);
    assert_eq!(outgoing.step(&elsewhere(90)), NextStep::Wait(at(100)));
    outgoing.answered(2..=2, Reply::NotListening);
    assert_eq!(outgoing.step(&elsewhere(91)), NextStep::End(SendEnd::NotListening));
}

#[test]
fn that_none_took_an_earlier_copy_is_no_answer_while_a_later_one_is_under_way() {
    for refusal in [Reply::NotListening, Reply::NoRoom] {
        let mut outgoing = remote();
        assert_eq!(outgoing.step(&elsewhere(1)), NextStep::Publish(2));
        outgoing.answered(1..=1, refusal);
        assert_eq!(outgoing.step(&elsewhere(2)), NextStep::Wait(at(3)));
        outgoing.answered(2..=2, Reply::Delivered(1));
        assert_eq!(outgoing.step(&elsewhere(2)), NextStep::End(SendEnd::Delivered(1)));
    }
}

#[test]
fn after_a_crash_of_the_targets_endpoint_it_is_not_certain_that_none_took_it() {
    let held_by_an_earlier_run = || {
        let mut outgoing = remote();
        outgoing.answered(1..=1, Reply::Held);
        assert_eq!(outgoing.step(&elsewhere(1)), NextStep::Publish(2));
        outgoing
    };
    let mut outgoing = held_by_an_earlier_run();
    outgoing.answered(2..=2, Reply::NotListening);
    assert_eq!(outgoing.step(&elsewhere(100)), NextStep::End(SendEnd::TimedOut));
    let mut outgoing = held_by_an_earlier_run();
    outgoing.answered(1..=2, Reply::NotListening);
    assert_eq!(outgoing.step(&elsewhere(90)), NextStep::End(SendEnd::NotListening));
    for (copies, certain) in [(2..=2, false), (1..=2, true)] {
        let mut outgoing = held_by_an_earlier_run();
        outgoing.answered(copies, Reply::Finished(Outcome::Failed));
        let end = SendEnd::Finished { outcome: Outcome::Failed, certain };
        assert_eq!(outgoing.step(&elsewhere(1)), NextStep::End(end));
    }
}

#[test]
fn the_mailbox_here_answers_at_once_and_within_the_grace() {
    let here = |now, mailbox| Known { mailbox: Some(mailbox), ..known(now, Target::Here(1)) };
    let mut outgoing = Outgoing::new(at(90), 1, 5);
    assert_eq!(outgoing.step(&known(0, Target::Here(1))), NextStep::Offer(1));
    assert_eq!(outgoing.step(&here(0, Judgement::Held)), NextStep::Wait(at(5)));
    assert_eq!(
        outgoing.step(&here(91, Judgement::Held)),
        NextStep::Wait(at(96)),
        "a process has it"
    );
    assert_eq!(
        outgoing.clone().step(&here(100, Judgement::Held)),
        NextStep::End(SendEnd::TimedOut)
    );
    let taken = outgoing.clone().step(&here(99, Judgement::Taken(1)));
    assert_eq!(taken, NextStep::End(SendEnd::Delivered(1)));
    let ended = Judgement::Ended(Outcome::Failed);
    let after = |target| Known { target, ..here(9, ended) };
    assert_eq!(
        outgoing.clone().step(&after(Target::Here(2))),
        NextStep::Offer(2),
        "another attempt"
    );
    assert_eq!(outgoing.step(&after(Target::EndedHere(Outcome::Failed))), NextStep::Publish(1));
}

#[test]
fn the_first_final_answer_stands() {
    let mut outgoing = remote();
    outgoing.answered(1..=1, Reply::Held);
    outgoing.answered(1..=1, Reply::Unknown);
    outgoing.answered(1..=1, Reply::Delivered(1));
    assert_eq!(outgoing.step(&elsewhere(1)), NextStep::End(SendEnd::Unknown));
}

proptest! {
    /// Whatever comes, and whether there is a link, there is an answer in time.
    #[test]
    fn there_is_always_an_answer(
        replies in prop::collection::vec((0..120u64, 1..9u32, 0..6usize), 0..20),
        links in prop::collection::vec(any::<bool>(), 120),
        wait in 0..60u64,
    ) {
        let mut outgoing = Outgoing::new(at(wait), 1, 5);
        let mut last = 0;
        for now in 0..120 {
            for (_, copy, reply) in replies.iter().filter(|(when, ..)| *when == now) {
                let reply = match reply {
                    0 => Reply::Held,
                    1 => Reply::NotStarted,
                    2 => Reply::NotListening,
                    3 => Reply::NoRoom,
                    4 => Reply::Delivered(1),
                    _ => Reply::Finished(Outcome::Failed),
                };
                outgoing.answered(*copy..=*copy, reply);
            }
            loop {
                match outgoing.step(&Known { link: links[now as usize], ..elsewhere(now) }) {
                    NextStep::Publish(copy) => {
                        prop_assert!(copy > last && now < wait && links[now as usize]);
                        last = copy;
                    }
                    NextStep::End(_) => return Ok(()),
                    NextStep::Wait(until) => {
                        prop_assert!(until > at(now));
                        break;
                    }
                    NextStep::Offer(_) => prop_assert!(false, "it is not here"),
                }
            }
        }
        prop_assert!(false, "no answer");
    }
}
