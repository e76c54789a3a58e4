//! The decisions as tables, and what holds of all of them.

use super::*;
use clutch_common::id::{Attempt, StateId, TaskId};
use clutch_common::task::kinship::Kin;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Ask, MessageBody};
use proptest::prelude::*;
use uuid::Uuid;

const STATES: [StoredState; 7] = [
    StoredState::Scheduled,
    StoredState::InTopic,
    StoredState::Waiting,
    StoredState::Paused,
    StoredState::Submitting,
    StoredState::Submitted,
    StoredState::Done(Outcome::Failed),
];

fn facts(group: u64, state: StoredState, attempt: u32) -> TaskFacts {
    let kin = Kin { task: TaskId::new(), group, parent: None };
    TaskFacts { seq: 1, kin, endpoint: EndpointId::new(), state, attempt }
}

/// A sender and its target, of one submission.
fn pair(state: StoredState, attempt: u32) -> (TaskFacts, TaskFacts) {
    (facts(7, StoredState::Submitted, 1), facts(7, state, attempt))
}

fn message(to: TaskId, pinned: Option<u32>) -> TaskMessage {
    TaskMessage {
        to,
        attempt: pinned,
        addressee: "in".to_owned(),
        body: MessageBody::of(b"x"),
        wait_ms: 1000,
        mailbox: false,
    }
}

fn request(source: &TaskFacts, copy: u32) -> TaskRequest {
    TaskRequest {
        endpoint_id: source.endpoint,
        state_id: StateId::new(),
        request: Uuid::nil(),
        copy,
        source: Attempt { task_id: source.kin.task, attempt: 1 },
        ask: Ask::Outcome { task: source.kin.task, wait_ms: 0 },
    }
}

/// The way of a copy of a message from one task to the other.
fn sent(pair: &(TaskFacts, TaskFacts), copy: u32, pinned: Option<u32>) -> Sending {
    let (source, target) = pair;
    let message = message(target.kin.task, pinned);
    send(&request(source, copy), &message, MessageRule::Family, Some(source), Some(target))
}

fn judged(judgement: Judgement, pinned: Option<u32>, target: Option<&TaskFacts>) -> VerdictEffect {
    let endpoint_id = target.map_or_else(EndpointId::new, |target| target.endpoint);
    let said = TargetVerdict {
        endpoint_id,
        state_id: StateId::new(),
        message: Uuid::nil(),
        copy: 2,
        since: 1,
        source: Attempt { task_id: TaskId::new(), attempt: 1 },
        answer_to: None,
        to: TaskId::new(),
        attempt: pinned,
        verdict: judgement,
    };
    verdict(&said, target)
}

fn is_forbidden(sending: &Sending) -> bool {
    matches!(sending, Sending::Answer(Reply::Forbidden(_)))
}

#[test]
fn a_first_copy_is_answered_by_the_records_where_the_target_cannot_take_it() {
    let failed = StoredState::Done(Outcome::Failed);
    for (state, attempt, pinned, expected) in [
        (StoredState::Scheduled, 1, None, Some(Reply::NotStarted)),
        (StoredState::Waiting, 1, None, Some(Reply::NotStarted)),
        (StoredState::Waiting, 2, None, Some(Reply::NotStarted)),
        (StoredState::Paused, 2, None, Some(Reply::NotStarted)),
        (StoredState::Submitting, 1, None, None),
        (StoredState::Submitted, 1, None, None),
        (StoredState::Submitted, 2, Some(2), None),
        (StoredState::Submitted, 2, Some(1), Some(Reply::Superseded(2))),
        (StoredState::Paused, 2, Some(1), Some(Reply::Superseded(2))),
        (failed, 1, None, Some(Reply::Finished(Outcome::Failed))),
        (failed, 2, Some(2), Some(Reply::Finished(Outcome::Failed))),
        (failed, 2, Some(1), Some(Reply::Superseded(2))),
    ] {
        let pair = pair(state, attempt);
        let sending = sent(&pair, 1, pinned);
        match (expected, sending) {
            (Some(expected), Sending::Answer(reply)) => {
                assert_eq!(reply, expected, "{state:?} {attempt} {pinned:?}");
            }
            (None, Sending::Deliver { to, .. }) => assert_eq!(to, pair.1.endpoint),
            (expected, sending) => panic!("{state:?} {attempt}: {expected:?}, not {sending:?}"),
        }
    }
}

#[test]
fn a_further_copy_goes_to_the_endpoint_wherever_an_earlier_one_may_have_been_taken() {
    for state in STATES {
        for attempt in [1, 2] {
            let pair = pair(state, attempt);
            let unsent = attempt == 1
                && matches!(
                    state,
                    StoredState::Scheduled | StoredState::InTopic | StoredState::Waiting
                );
            let delivered = matches!(sent(&pair, 2, None), Sending::Deliver { .. });
            assert_eq!(delivered, !unsent, "{state:?} {attempt}");
        }
    }
}

#[test]
fn a_task_that_is_not_known_is_told_from_one_that_has_ended() {
    let source = facts(7, StoredState::Submitted, 1);
    let unknown = message(TaskId::new(), None);
    for copy in [1, 2] {
        let sending =
            send(&request(&source, copy), &unknown, MessageRule::Family, Some(&source), None);
        assert_eq!(sending, Sending::Answer(Reply::Unknown));
    }
}

#[test]
fn the_rules_hold_for_every_copy() {
    let (source, stranger) =
        (facts(7, StoredState::Submitted, 1), facts(8, StoredState::Submitted, 1));
    for copy in [1, 2] {
        let to_stranger = |rule| {
            let message = message(stranger.kin.task, None);
            send(&request(&source, copy), &message, rule, Some(&source), Some(&stranger))
        };
        assert!(is_forbidden(&to_stranger(MessageRule::Family)));
        assert!(is_forbidden(&to_stranger(MessageRule::None)));
        assert!(matches!(to_stranger(MessageRule::Any), Sending::Deliver { .. }));
        let (source, target) = pair(StoredState::Submitted, 1);
        let message = message(target.kin.task, None);
        let elsewhere = TaskRequest { endpoint_id: EndpointId::new(), ..request(&source, copy) };
        let own = request(&source, copy);
        for (request, source) in [(elsewhere, Some(&source)), (own, None)] {
            let sending = send(&request, &message, MessageRule::Any, source, Some(&target));
            assert!(is_forbidden(&sending), "{source:?}");
        }
    }
}

#[test]
fn a_verdict_is_told_as_it_is_and_the_records_speak_where_the_target_is_not_there() {
    let running = facts(7, StoredState::Submitted, 2);
    let ended = facts(7, StoredState::Done(Outcome::Cancelled), 2);
    let cancelled = Reply::Finished(Outcome::Cancelled);
    for (judgement, pinned, target, expected) in [
        (Judgement::Held, None, &running, Reply::Held),
        (Judgement::Taken(2), None, &running, Reply::Delivered(2)),
        (Judgement::Taken(1), None, &ended, Reply::Delivered(1)),
        (Judgement::NotListening, None, &running, Reply::NotListening),
        (Judgement::NoRoom, None, &running, Reply::NoRoom),
        (Judgement::Superseded(2), Some(1), &running, Reply::Superseded(2)),
        (Judgement::NotHere, None, &running, Reply::NotStarted),
        (Judgement::NotHere, Some(1), &running, Reply::Superseded(2)),
        (Judgement::NotHere, None, &ended, cancelled.clone()),
        (Judgement::Ended(Outcome::Failed), None, &ended, cancelled),
        (Judgement::Ended(Outcome::Failed), Some(1), &running, Reply::Superseded(2)),
    ] {
        let told = judged(judgement, pinned, Some(target));
        if is_by_endpoint_alone(judgement) {
            assert_eq!(judged(judgement, pinned, None), told, "{judgement:?} without a look");
        }
        assert_eq!(told, VerdictEffect::Answer(expected), "{judgement:?} {pinned:?}");
    }
    let ended = Judgement::Ended(Outcome::Failed);
    assert_eq!(judged(ended, None, Some(&running)), VerdictEffect::AwaitResult, "it may run again");
    assert_eq!(judged(ended, Some(2), Some(&running)), VerdictEffect::AwaitResult);
    assert_eq!(judged(ended, None, None), VerdictEffect::Answer(Reply::Finished(Outcome::Failed)));
    assert_eq!(judged(Judgement::NotHere, None, None), VerdictEffect::Answer(Reply::Unknown));
}

#[test]
fn the_verdict_of_an_endpoint_that_was_not_given_the_target_counts_for_nothing() {
    let target = facts(7, StoredState::Submitted, 1);
    let foreign = TaskFacts { endpoint: EndpointId::new(), ..target };
    let said = TargetVerdict {
        endpoint_id: foreign.endpoint,
        state_id: StateId::new(),
        message: Uuid::nil(),
        copy: 1,
        since: 1,
        source: Attempt { task_id: TaskId::new(), attempt: 1 },
        answer_to: Some(EndpointId::new()),
        to: target.kin.task,
        attempt: None,
        verdict: Judgement::Taken(1),
    };
    assert_eq!(verdict(&said, Some(&target)), VerdictEffect::Nothing);
    assert_eq!(verdict(&said, Some(&foreign)), VerdictEffect::Answer(Reply::Delivered(1)));
}

fn state() -> impl Strategy<Value = StoredState> {
    prop::sample::select(STATES.to_vec())
}

fn judgement() -> impl Strategy<Value = Judgement> {
    prop::sample::select(vec![
        Judgement::Held,
        Judgement::Taken(1),
        Judgement::NotListening,
        Judgement::NotHere,
        Judgement::Ended(Outcome::Succeeded),
        Judgement::Superseded(2),
        Judgement::NoRoom,
    ])
}

proptest! {
    #[test]
    fn only_the_word_that_a_process_took_it_makes_a_message_delivered(
        judgement in judgement(),
        state in state(),
        attempt in 1_u32..4,
        pinned in prop::option::of(1_u32..4),
        known: bool,
    ) {
        let target = facts(7, state, attempt);
        let told = judged(judgement, pinned, known.then_some(&target));
        let delivered = matches!(told, VerdictEffect::Answer(Reply::Delivered(_)));
        prop_assert_eq!(delivered, matches!(judgement, Judgement::Taken(_)));
    }

    #[test]
    fn no_request_is_answered_with_delivered_and_none_that_may_have_been_taken_with_an_end(
        state in state(),
        attempt in 1_u32..4,
        copy in 1_u32..4,
        pinned in prop::option::of(1_u32..4),
    ) {
        match sent(&pair(state, attempt), copy, pinned) {
            Sending::Answer(reply) => {
                let said = matches!(reply, Reply::Delivered(_) | Reply::Held);
                prop_assert!(!said);
                prop_assert!(copy == 1 || !reply.is_final(), "{:?} of copy {}", reply, copy);
            }
            Sending::Deliver { if_gone, .. } => {
                prop_assert!(!matches!(if_gone, Reply::Delivered(_) | Reply::Unknown));
            }
        }
    }
}
