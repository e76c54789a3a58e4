//! Records of instants on any engine: forgotten ones, and those of schedules that are gone or
//! cannot be read.

use super::forgetting::{forget, rows};
use super::record;
use super::schedules::{endpoint, ends, every_second, set, shown};
use crate::model::ScheduleChange;
use crate::schedule::ScheduleId;
use crate::store::engine::values;
use crate::store::{Error, Forgettable, ScheduleSet, Store};
use crate::stub_broker::result_of;
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::task::result::{Outcome, TaskResult};
use serde_json::{Value, json};

/// A policy by which each instant becomes a task.
fn each() -> Value {
    json!({ "overlap": "allow", "catch_up": "all" })
}

/// Adds a schedule of each second, and records what becomes of its instants up to a moment.
async fn fire(store: &Store, name: &str, lab: EndpointId, (added, until): (u64, u64)) {
    let schedule = every_second(name, lab, each());
    store.apply_schedules(set(vec![schedule]), added).await.unwrap();
    fire_all(store, until).await;
}

async fn fire_all(store: &Store, now_ms: u64) -> u64 {
    let mut tasks = 0;
    loop {
        let slice = store.fire_due(now_ms).await.unwrap();
        tasks += slice.tasks;
        if slice.next_ms.is_none_or(|next| next > now_ms) {
            return tasks;
        }
    }
}

/// Ends the tasks of a schedule's first instants, at each second.
async fn end_first(store: &Store, name: &str, count: i64, now_ms: u64) {
    let id = ScheduleId::of(name);
    let attempt = |at: i64| Attempt { task_id: id.occurrence(at * 1000), attempt: 1 };
    let results: Vec<TaskResult> =
        (1..=count).map(|at| result_of(attempt(at), Outcome::Succeeded)).collect();
    record(store, &results, &[], now_ms).await.unwrap();
    while store.settle_occurrences(now_ms).await.unwrap().0 > 0 {}
}

/// Forgets old records to the end; returns how many.
async fn forget_occurrences(store: &Store, before_ms: u64) -> u64 {
    let (mut records, mut next) = (0, Some(String::new()));
    while let Some(after) = next {
        let slice = store.forget_occurrences(before_ms, after).await.unwrap();
        (records, next) = (records + slice.records, slice.next);
    }
    records
}

pub(super) async fn old_records_go_with_their_tasks_and_the_last_twenty_stay(store: Store) {
    let lab = endpoint(&store).await;
    fire(&store, "a", lab, (500, 30_000)).await;
    fire(&store, "b", lab, (500, 30_000)).await;
    end_first(&store, "a", 25, 31_000).await;
    assert_eq!(forget_occurrences(&store, 50_000).await, 0, "their tasks are recorded");
    assert_eq!(forget(&store, Forgettable::EndedBefore(40_000)).await.0, 25);
    assert_eq!(forget_occurrences(&store, 30_000).await, 0, "they are not as old");
    assert_eq!(forget_occurrences(&store, 30_001).await, 10);
    assert_eq!(forget_occurrences(&store, 30_001).await, 0);
    let kept = shown(&store, "a").await.occurrences;
    assert_eq!((kept.len(), kept[19].instant_ms), (20, 11_000));
    assert!(kept[19].task.is_some() && kept[19].state.is_none(), "{:?}", kept[19]);
    assert_eq!(shown(&store, "a").await.summary.tasks, 30);
    assert!(store.remove_schedule("a".to_owned()).await.unwrap().is_some());
    assert_eq!(forget_occurrences(&store, 30_001).await, 15, "five tasks have no outcome");
    assert_eq!(rows(&store, "occurrences").await, 35);
}

pub(super) async fn an_instant_whose_record_is_forgotten_does_not_fire_again(store: Store) {
    let lab = endpoint(&store).await;
    fire(&store, "gone", lab, (500, 5000)).await;
    fire(&store, "there", lab, (500, 30_000)).await;
    assert_eq!(fire_all(&store, 30_000).await, 0);
    end_first(&store, "gone", 30, 31_000).await;
    end_first(&store, "there", 30, 31_000).await;
    assert!(store.remove_schedule("gone".to_owned()).await.unwrap().is_some());
    assert_eq!(forget(&store, Forgettable::EndedBefore(40_000)).await.0, 60);
    assert_eq!(forget_occurrences(&store, 40_000).await, 40);
    assert_eq!(rows(&store, "occurrences").await, 20);
    // The clock is set back, and the first one is added again.
    assert_eq!(fire_all(&store, 5000).await, 0, "it is there, and goes on behind its records");
    let by_hand = store.run_schedule("there".to_owned(), 5000).await.unwrap().unwrap();
    assert_eq!((by_hand.instant_ms, by_hand.by_hand), (5000, true), "not the last instant");
    fire(&store, "gone", lab, (500, 5000)).await;
    assert_eq!(ends(&store, "gone").await, []);
    assert_eq!(shown(&store, "gone").await.next_ms[0], 31_000);
    fire(&store, "new", lab, (500, 5000)).await;
    assert_eq!(shown(&store, "new").await.occurrences.len(), 5, "another name has none of these");
    assert_eq!(fire_all(&store, 31_000).await, 28, "both go on, and the new one catches up");
    assert_eq!(ends(&store, "gone").await, [(31_000, "task".to_owned())]);
}

pub(super) async fn a_schedule_that_cannot_be_read_rests_alone_until_it_is_replaced(store: Store) {
    let lab = endpoint(&store).await;
    let both = || vec![every_second("bad", lab, each()), every_second("well", lab, each())];
    store.apply_schedules(set(both()), 500).await.unwrap();
    assert_eq!(fire_all(&store, 1000).await, 2);
    let spoil = "UPDATE schedules SET spec = '{\"endpoint\": 7}' WHERE name = 'bad'";
    store.write("spoiling", |write| write.db.run(spoil, values![])).await.unwrap();
    assert_eq!(fire_all(&store, 3000).await, 2, "the other one goes on");
    assert_eq!(store.fire_due(3000).await.unwrap().next_ms, Some(4000), "it is not tried again");
    let listed = store.schedules(None, String::new(), 10).await.unwrap();
    let broken = listed[0].broken.as_deref().unwrap();
    assert!(broken.starts_with("spec: ") && listed[0].spec.is_none(), "{listed:?}");
    assert_eq!((listed[0].due_at_ms, &listed[1].broken), (None, &None));
    assert_eq!(ends(&store, "bad").await, [(1000, "task".to_owned())], "it is shown all the same");
    end_first(&store, "bad", 1, 3000).await;
    let of = |name: &str| name.to_owned();
    for refused in [
        store.pause_schedule(of("bad"), None, 3000).await.map(drop),
        store.run_schedule(of("bad"), 3000).await.map(drop),
        store.apply_schedules(set(both()), 3000).await.map(drop),
    ] {
        let Err(Error::Conflict(words)) = refused else { panic!("taken: {refused:?}") };
        assert!(words.contains("spec: "), "{words}");
    }
    let mended = ScheduleSet { replace: true, ..set(both()) };
    let changed = store.apply_schedules(mended, 3500).await.unwrap();
    let changes: Vec<ScheduleChange> = changed.into_iter().map(|one| one.change).collect();
    assert_eq!(changes, [ScheduleChange::Replaced, ScheduleChange::Unchanged]);
    assert_eq!(fire_all(&store, 4000).await, 2);
    assert_eq!(shown(&store, "bad").await.summary.broken, None);
}

pub(super) async fn an_instant_that_waits_for_a_rule_that_is_gone_is_skipped(store: Store) {
    let lab = endpoint(&store).await;
    let queue = || json!({ "overlap": "queue-one", "catch_up": "all" });
    let both = || vec![every_second("a", lab, queue()), every_second("b", lab, queue())];
    store.apply_schedules(set(both()), 500).await.unwrap();
    assert_eq!(fire_all(&store, 2000).await, 2);
    assert_eq!(ends(&store, "a").await[1], (2000, "queued".to_owned()));
    let mut other = both().remove(0);
    other.spec.rule.jitter_ms = 7;
    let replaced = ScheduleSet { replace: true, ..set(vec![other]) };
    store.apply_schedules(replaced, 2500).await.unwrap();
    assert!(store.remove_schedule("b".to_owned()).await.unwrap().is_some());
    store.apply_schedules(set(both()[1..].to_vec()), 2500).await.unwrap();
    for (name, reason) in [("a", "replaced"), ("b", "removed")] {
        let waited = &shown(&store, name).await.occurrences[0];
        let told = (waited.end.as_str(), waited.reason.as_deref());
        assert_eq!(told, ("skipped", Some(reason)), "{name}");
    }
}
