//! Overdue tasks on any engine.

use super::{ask, begin, chunk, done, record, spec, state};
use crate::model::{Missing, TaskState};
use crate::store::engine::append;
use crate::store::overdue::UNACCOUNTED_MAX;
use crate::store::{RecordedTask, Registration, Store, Write};
use crate::stub_broker;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Presence, Role};
use std::time::Duration;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

/// Tasks of an endpoint that were submitted at 1,000 ms.
async fn submitted(store: &Store, name: &str, count: usize) -> (EndpointId, Vec<RecordedTask>) {
    let wanted =
        Registration { name: name.to_owned(), id: None, queue: None, lost_after: None, now_ms: 1 };
    let endpoint = store.register(wanted).await.unwrap().0.id;
    let specs = vec![spec(&["true"]); count];
    let begun = begin(store, chunk(endpoint, name, &specs)).await.unwrap();
    let seqs = begun.iter().map(|one| (one.seq, 1)).collect();
    assert!(!store.mark_submitted(seqs, 1000).await.unwrap());
    (endpoint, begun)
}

async fn overdue(store: &Store, now_ms: u64) -> Vec<(EndpointId, u64, u64)> {
    let found = store.ask_for_overdue(MINUTE, now_ms).await.unwrap();
    found.iter().map(|one| (one.endpoint, one.tasks, one.since_ms)).collect()
}

pub(super) async fn a_task_without_a_result_for_long_is_asked_for(store: Store) {
    let (endpoint, begun) = submitted(&store, "lab", 3).await;
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    assert_eq!(overdue(&store, 60_999).await, []);
    assert_eq!(overdue(&store, 61_000).await, [(endpoint, 2, 1000)]);
    assert_eq!(overdue(&store, 62_000).await, [], "it is in doubt already");
    let asked = store.attempts_to_ask(endpoint, 10).await.unwrap();
    assert_eq!(asked.iter().map(|one| one.task).collect::<Vec<_>>(), [begun[1].seq, begun[2].seq]);
}

pub(super) async fn a_task_is_asked_for_again_after_growing_pauses(store: Store) {
    let (endpoint, begun) = submitted(&store, "lab", 1).await;
    record(&store, &[], &[presence(endpoint)], 5).await.unwrap();
    let mut asked_at = 61_000;
    assert_eq!(overdue(&store, asked_at).await.len(), 1);
    for pause in [60_000, 120_000, 240_000] {
        assert_eq!(ask(&store, endpoint, 10, asked_at).await, 1);
        assert_eq!(store.attempts_to_ask(endpoint, 10).await.unwrap(), []);
        assert_eq!(overdue(&store, asked_at + pause - 1).await, []);
        asked_at += pause;
        assert_eq!(overdue(&store, asked_at).await, [(endpoint, 1, 1000)], "after {pause}");
    }
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    assert_eq!(overdue(&store, asked_at * 10).await, []);
}

pub(super) async fn an_endpoint_with_many_overdue_tasks_does_not_hold_up_others(store: Store) {
    let (many, begun) = submitted(&store, "many", 1000).await;
    let (few, _) = submitted(&store, "few", 2).await;
    // As many as may be are unaccounted for already, at tasks of their own.
    let rows: Vec<u64> = (0..UNACCOUNTED_MAX - 1).map(|n| 1_000_000 + n).collect();
    let fill = move |write: &mut Write<'_>| {
        let into = "unaccounted (task, endpoint_id, attempt)";
        write.db.insert(into, &rows, |values, task| {
            append!(values, *task, many, 1);
        })
    };
    store.record_only("testing", fill, |()| ()).await.unwrap();
    let mut found = overdue(&store, 61_000).await;
    found.sort_by_key(|(_, tasks, _)| *tasks);
    assert_eq!(found, [(many, 1, 1000), (few, 2, 1000)]);
    let asked = store.attempts_to_ask(many, 10).await.unwrap();
    assert_eq!(asked.iter().map(|one| one.task).collect::<Vec<_>>(), [begun[0].seq]);
}

fn presence(endpoint_id: EndpointId) -> Presence {
    stub_broker::active(endpoint_id, StateId(Uuid::from_u128(1)), Uuid::from_u128(2))
}

pub(super) async fn a_delivered_result_that_is_not_recorded_has_all_asked_for_once(store: Store) {
    let (endpoint, begun) = submitted(&store, "lab", 2).await;
    let presence = |delivered| Presence { delivered, ..presence(endpoint) };
    let first = done(&begun[0], 1, Outcome::Succeeded);
    record(&store, std::slice::from_ref(&first), &[presence(None)], 5).await.unwrap();
    let recorded = presence(Some(first.attempt()));
    record(&store, &[], &[recorded], 6).await.unwrap();
    assert_eq!(store.attempts_to_ask(endpoint, 10).await.unwrap(), []);
    let second = done(&begun[1], 1, Outcome::Succeeded);
    let missed = presence(Some(second.attempt()));
    let tally = record(&store, &[], std::slice::from_ref(&missed), 7).await.unwrap();
    assert!(tally.is_news());
    assert_eq!(ask(&store, endpoint, 10, 8).await, 1);
    record(&store, &[], &[missed], 9).await.unwrap();
    assert_eq!(store.attempts_to_ask(endpoint, 10).await.unwrap(), [], "it was told and asked for");
    record(&store, &[second], &[], 10).await.unwrap();
    let ended = (TaskState::Done(Outcome::Succeeded), Some(1));
    assert_eq!(state(&store, begun[1].task.id).await, ended);
}

pub(super) async fn missing_tasks_are_reported_with_the_endpoints_answer(store: Store) {
    let (endpoint, begun) = submitted(&store, "lab", 3).await;
    assert_eq!(store.missing().await.unwrap(), []);
    overdue(&store, 61_000).await;
    let told = |found: &[Missing]| {
        let [one] = found else { panic!("{found:?}") };
        assert_eq!((one.endpoint.as_str(), one.tasks, one.since_ms), ("lab", 3, 1000));
        (one.unanswered, one.unasked, one.asked_at_ms)
    };
    assert_eq!(told(&store.missing().await.unwrap()), (3, 3, None));
    let active = presence(endpoint);
    record(&store, &[], std::slice::from_ref(&active), 61_000).await.unwrap();
    assert_eq!(ask(&store, endpoint, 2, 62_000).await, 2);
    assert_eq!(told(&store.missing().await.unwrap()), (3, 1, Some(62_000)));
    // What another disk says, and what is no answer, says nothing.
    let waiting = Presence { state_id: StateId::new(), role: Role::Standby, ..active.clone() };
    for (word, answered, unanswered) in
        [(&waiting, true, 3), (&active, false, 3), (&active, true, 1)]
    {
        let word = Presence { answered, ..word.clone() };
        record(&store, &[], &[word], 63_000).await.unwrap();
        assert_eq!(told(&store.missing().await.unwrap()).0, unanswered);
    }
    let asked = store.task(begun[0].task.id).await.unwrap().unwrap().asked.unwrap();
    assert_eq!((asked.asked_at_ms, asked.answered_at_ms), (Some(62_000), Some(63_000)));
    let done = begun.iter().map(|one| done(one, 1, Outcome::Succeeded)).collect::<Vec<_>>();
    record(&store, &done, &[], 64_000).await.unwrap();
    assert_eq!(store.missing().await.unwrap(), []);
    assert_eq!(store.task(begun[0].task.id).await.unwrap().unwrap().asked, None);
}
