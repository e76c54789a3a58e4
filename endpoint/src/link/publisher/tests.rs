//! The publisher against a real disk queue and a fake link.

use super::*;
use crate::testing;
use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Role, ToService};
use std::time::Duration;

/// Finishes `count` tasks in a ledger; their ids, in order.
async fn finish(ledger: &Ledger, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let task = testing::task();
        ledger.accept(vec![task]).await.unwrap().await.unwrap();
        let held = ledger.take().unwrap();
        let result = ledger.not_run(held.task.attempt(), Outcome::Expired, "x".into());
        ledger.finish(&held, result).await.unwrap().await.unwrap();
        ids.push(held.task.id);
    }
    ids
}

/// Publishes until all is delivered, with the broker settling by `script`; what
/// was published.
async fn publish_all(
    ledger: &Ledger,
    instance: &Instance,
    script: impl IntoIterator<Item = Settlement>,
) -> (Result<(), SessionError>, Vec<ToService>) {
    let (mut outlet, mut messages) = testing::outlet(script);
    let destination = Destination { exchange: "results".into(), routing_key: "k".into() };
    let drain = CancellationToken::new();
    drain.cancel();
    let publishing = Publisher::new(&mut outlet, ledger, &destination, instance).publish(&drain);
    let outcome = tokio::time::timeout(Duration::from_secs(60), publishing).await.unwrap();
    let published = std::iter::from_fn(|| messages.try_recv().ok()).collect();
    (outcome, published)
}

/// Publishes for an instance without a presence message; returns the tasks of the results
/// that were published.
async fn publish(
    ledger: &Ledger,
    script: impl IntoIterator<Item = Settlement>,
) -> (Result<(), SessionError>, Vec<Vec<TaskId>>) {
    let (outcome, published) =
        publish_all(ledger, &Instance::new(uuid::Uuid::nil(), false), script).await;
    (outcome, published.into_iter().map(ids).collect())
}

fn ids(message: ToService) -> Vec<TaskId> {
    match message {
        ToService::Results(results) => results.results.iter().map(|one| one.task_id).collect(),
        other @ (ToService::Presence(_)
        | ToService::Ping
        | ToService::Claims(_)
        | ToService::Post(_)
        | ToService::Unknown(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_result_is_published_in_order_and_released() {
    let (_disk, ledger) = testing::ledger(10_000);
    let ids = finish(&ledger, 250).await;
    let (outcome, published) = publish(&ledger, []).await;
    assert!(outcome.is_ok());
    assert_eq!(published.concat(), ids);
    assert!(published.iter().all(|pack| pack.len() <= PACK));
    assert_eq!(testing::results_on_disk(&ledger).await, []);
    assert_eq!(ledger.undelivered(), 0);
}

#[tokio::test]
async fn a_backlog_larger_than_memory_comes_from_disk_without_gaps() {
    let (disk, ledger) = testing::ledger(10_000);
    let ids = finish(&ledger, 300).await;
    ledger.close().await;
    drop(ledger);
    let ledger = testing::ledger_on(&disk, 10_000);
    let newer = finish(&ledger, 20).await;
    let (outcome, published) = publish(&ledger, []).await;
    assert!(outcome.is_ok());
    assert_eq!(published.concat(), [ids, newer].concat());
}

#[tokio::test]
async fn what_is_in_doubt_is_sent_again_before_it_is_released() {
    let (_disk, ledger) = testing::ledger(10_000);
    let ids = finish(&ledger, 1).await;
    let (outcome, published) = publish(&ledger, [Settlement::Doubt, Settlement::Doubt]).await;
    assert!(outcome.is_ok());
    assert_eq!(published, vec![ids.clone(), ids.clone(), ids]);
    assert_eq!(testing::results_on_disk(&ledger).await, []);
}

#[tokio::test]
async fn what_is_returned_or_refused_stays_and_is_a_fault() {
    for (settlement, expected) in [
        (Settlement::Returned("NO_ROUTE".into()), "NO_ROUTE"),
        (Settlement::Refused, "results queue is full"),
    ] {
        let (_disk, ledger) = testing::ledger(10_000);
        let ids = finish(&ledger, 1).await;
        let (outcome, _) = publish(&ledger, [settlement]).await;
        let halt = outcome.unwrap_err().to_string();
        assert!(halt.contains(expected), "{halt}");
        let kept: Vec<TaskId> =
            testing::results_on_disk(&ledger).await.iter().map(|result| result.task_id).collect();
        assert_eq!(kept, ids);
        let (outcome, published) = publish(&ledger, []).await;
        assert!(outcome.is_ok());
        assert_eq!(published.concat(), ids, "the next session sends it again");
    }
}

#[tokio::test]
async fn a_result_that_the_broker_does_not_take_is_cut_and_keeps_nothing_else_back() {
    let (_disk, ledger) = testing::ledger(10_000);
    let task = testing::task();
    ledger.accept(vec![task]).await.unwrap().await.unwrap();
    let held = ledger.take().unwrap();
    let mut large = ledger.not_run(held.task.attempt(), Outcome::Failed, "exit code 1".into());
    large.stdout = vec![b'x'; 100_000].into();
    large.value = Some(format!("\"{}\"", "v".repeat(40_000)).parse().unwrap());
    let large_id = large.task_id;
    ledger.finish(&held, large).await.unwrap().await.unwrap();
    let others = finish(&ledger, 3).await;
    let (mut outlet, mut messages) = testing::outlet([Settlement::TooLarge(32 * 1024)]);
    let destination = Destination { exchange: "results".into(), routing_key: "k".into() };
    let drain = CancellationToken::new();
    drain.cancel();
    let instance = Instance::new(uuid::Uuid::nil(), false);
    Publisher::new(&mut outlet, &ledger, &destination, &instance).publish(&drain).await.unwrap();
    let mut results = Vec::new();
    while let Ok(ToService::Results(message)) = messages.try_recv() {
        results.extend(message.results);
    }
    let cut = results.iter().rfind(|result| result.task_id == large_id).unwrap();
    assert_eq!(cut.outcome, Outcome::Failed);
    assert!(cut.value.is_none() && cut.stdout.0.len() < 32 * 1024 && cut.stdout_omitted > 0);
    let reason = cut.reason.as_deref().unwrap();
    assert!(reason.starts_with("exit code 1; ") && reason.contains("max_message_size"), "{reason}");
    assert!(wire::encode_result(cut).len() <= 32 * 1024);
    assert!(others.iter().all(|id| results.iter().any(|result| result.task_id == *id)));
    assert_eq!(testing::results_on_disk(&ledger).await, [], "all of them are released");
}

#[tokio::test]
async fn small_results_go_on_while_a_large_one_is_on_its_way_and_others_wait_for_it() {
    let (_disk, ledger) = testing::ledger(10_000);
    let mut large = Vec::new();
    for _ in 0..3 {
        let task = testing::task();
        ledger.accept(vec![task]).await.unwrap().await.unwrap();
        let held = ledger.take().unwrap();
        let mut result = ledger.not_run(held.task.attempt(), Outcome::Failed, "x".into());
        result.stdout = vec![b'x'; PACK_BYTES].into();
        large.push(result.task_id);
        ledger.finish(&held, result).await.unwrap().await.unwrap();
    }
    let small = finish(&ledger, 3).await;
    let (mut outlet, _messages) = testing::outlet([]);
    let destination = Destination { exchange: "results".into(), routing_key: "k".into() };
    let instance = Instance::new(uuid::Uuid::nil(), false);
    let mut publisher = Publisher::new(&mut outlet, &ledger, &destination, &instance);
    let mut sent = Vec::new();
    while let Some(records) = publisher.take().await.unwrap() {
        sent.extend(records.iter().map(|(_, finished)| finished.attempt.task_id));
        publisher.send(records).await.unwrap();
    }
    assert_eq!(sent, [vec![large[0]], small].concat());
    // The rest is sent, and released, in the end.
    let drain = CancellationToken::new();
    drain.cancel();
    publisher.publish(&drain).await.unwrap();
    assert_eq!(testing::results_on_disk(&ledger).await, []);
}

#[tokio::test]
async fn after_several_results_one_waits_for_more_only_while_tasks_are_pending() {
    let (_disk, ledger) = testing::ledger(10);
    let (mut outlet, _messages) = testing::outlet([]);
    let destination = Destination { exchange: "results".into(), routing_key: "k".into() };
    let instance = Instance::new(uuid::Uuid::nil(), false);
    let mut publisher = Publisher::new(&mut outlet, &ledger, &destination, &instance);
    let mut taken = async || publisher.take().await.unwrap().map(|records| records.len());
    finish(&ledger, 2).await;
    assert_eq!(taken().await, Some(2));
    ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
    finish_rejected(&ledger).await;
    assert_eq!(taken().await, None, "another may end");
    let held = ledger.take().unwrap();
    let result = ledger.not_run(held.task.attempt(), Outcome::Expired, "x".into());
    ledger.finish(&held, result).await.unwrap().await.unwrap();
    assert_eq!(taken().await, Some(2), "there is none that could");
    finish_rejected(&ledger).await;
    assert_eq!(taken().await, Some(1));
    ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
    finish_rejected(&ledger).await;
    assert_eq!(taken().await, Some(1), "one came before it, and one at a time waits for no other");
}

/// Puts the result of a task that was never in the inbox into the outbox.
async fn finish_rejected(ledger: &Ledger) {
    let attempt = testing::task().attempt();
    ledger.reject(attempt, "x".into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_presence_goes_ahead_of_a_backlog_and_tells_of_it() {
    let (_disk, ledger) = testing::ledger(10_000);
    finish(&ledger, 250).await;
    let instance = Instance::new(uuid::Uuid::nil(), false);
    instance.set_role(Role::Active);
    let (outcome, mut published) = publish_all(&ledger, &instance, []).await;
    assert!(outcome.is_ok());
    let ToService::Presence(presence) = published.remove(0) else { panic!("{published:?}") };
    assert_eq!((presence.role, presence.pending), (Role::Active, 250));
    assert_eq!(published.into_iter().flat_map(ids).count(), 250);
}

#[tokio::test]
async fn a_presence_that_did_not_arrive_is_sent_again_unless_a_full_queue_refuses_one_that_waits() {
    for (settlement, sent) in [(Settlement::Doubt, 2), (Settlement::Refused, 1)] {
        let (_disk, ledger) = testing::ledger(10_000);
        let tasks = finish(&ledger, 1).await;
        let instance = Instance::new(uuid::Uuid::nil(), true);
        instance.set_role(Role::Standby);
        let (outcome, published) = publish_all(&ledger, &instance, [settlement]).await;
        assert!(outcome.is_ok());
        let is_presence = |message: &ToService| matches!(message, ToService::Presence(_));
        let (presences, results): (Vec<_>, Vec<_>) = published.into_iter().partition(is_presence);
        assert_eq!(presences.len(), sent);
        assert_eq!(results.into_iter().flat_map(ids).collect::<Vec<_>>(), tasks);
        assert_eq!(ledger.undelivered(), 0);
    }
}

#[tokio::test]
async fn who_is_active_and_cannot_say_so_has_no_link() {
    let (_disk, ledger) = testing::ledger(10);
    finish(&ledger, 1).await;
    let instance = Instance::new(uuid::Uuid::nil(), false);
    instance.set_role(Role::Active);
    let (outcome, _) = publish_all(&ledger, &instance, [Settlement::Refused]).await;
    assert!(matches!(outcome, Err(SessionError::Link(Fault::Rejected(_)))), "{outcome:?}");
}

#[tokio::test]
async fn a_presence_that_no_queue_takes_is_a_fault() {
    let (_disk, ledger) = testing::ledger(10);
    let (mut outlet, _messages) = testing::outlet([Settlement::Returned("NO_ROUTE".into())]);
    let destination = Destination { exchange: "results".into(), routing_key: "k".into() };
    let instance = Instance::new(uuid::Uuid::nil(), true);
    instance.set_role(Role::Standby);
    let drain = CancellationToken::new();
    let publishing = Publisher::new(&mut outlet, &ledger, &destination, &instance).publish(&drain);
    let outcome = tokio::time::timeout(Duration::from_secs(60), publishing).await.unwrap();
    assert!(matches!(outcome, Err(SessionError::Link(Fault::Missing(_)))));
}

#[tokio::test]
async fn only_the_newest_of_what_there_is_to_tell_is_told() {
    let (_disk, ledger) = testing::ledger(10);
    let instance = Instance::new(uuid::Uuid::nil(), true);
    instance.set_role(Role::Standby);
    instance.set_role(Role::Active);
    instance.take_ping();
    let (outcome, published) = publish_all(&ledger, &instance, []).await;
    assert!(outcome.is_ok());
    let [ToService::Presence(presence)] = published.as_slice() else { panic!("{published:?}") };
    assert_eq!(presence.role, Role::Active);
    instance.take_ping();
    instance.clear_role();
    let (_, published) = publish_all(&ledger, &instance, []).await;
    assert_eq!(published, [], "who has no role has nothing to tell");
}
