//! Schedules and their occurrences on any engine.

use super::{begin, chunk, record, specs, state};
use crate::model::{NamedSchedule, RemovedSchedule, ScheduleChange, ScheduleDetail, TaskState};
use crate::schedule::PauseCause;
use crate::store::{Error, ScheduleSet, Store};
use crate::stub_broker::result_of;
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::task::result::Outcome;
use serde_json::{Value, json};

/// A schedule that has an instant every second.
pub(super) fn every_second(name: &str, endpoint: EndpointId, policy: Value) -> NamedSchedule {
    let spec = json!({
        "endpoint": endpoint.to_string(),
        "rule": { "recurrence": { "every_ms": 1000 } },
        "policy": policy,
        "task": { "argv": ["true"] },
    });
    NamedSchedule { name: name.to_owned(), spec: serde_json::from_value(spec).unwrap() }
}

pub(super) fn set(schedules: Vec<NamedSchedule>) -> ScheduleSet {
    ScheduleSet { owner: None, schedules, replace: false, prune: false, dry_run: false }
}

/// An endpoint that is known.
pub(super) async fn endpoint(store: &Store) -> EndpointId {
    let lab = EndpointId::new();
    begin(store, chunk(lab, &lab.to_string(), &specs(1))).await.unwrap();
    lab
}

pub(super) async fn shown(store: &Store, name: &str) -> ScheduleDetail {
    store.schedule(name.to_owned()).await.unwrap().unwrap()
}

/// The instants of a schedule and their ends, the oldest first.
pub(super) async fn ends(store: &Store, name: &str) -> Vec<(i64, String)> {
    let occurrences = shown(store, name).await.occurrences;
    occurrences.into_iter().rev().map(|one| (one.instant_ms, one.end)).collect()
}

/// Ends the last task of a schedule.
async fn end_last(store: &Store, name: &str, outcome: Outcome, now_ms: u64) {
    let task = shown(store, name).await.occurrences[0].task.unwrap();
    let result = result_of(Attempt { task_id: task, attempt: 1 }, outcome);
    record(store, &[result], &[], now_ms).await.unwrap();
    assert_eq!(store.settle_occurrences(now_ms).await.unwrap().0, 1);
}

pub(super) async fn an_instant_has_one_record_and_one_task(store: Store) {
    let lab = endpoint(&store).await;
    let allow = json!({ "overlap": "allow", "catch_up": "all" });
    store.apply_schedules(set(vec![every_second("a", lab, allow)]), 10_500).await.unwrap();
    let first = store.fire_due(10_999).await.unwrap();
    assert_eq!((first.tasks, first.next_ms), (0, Some(11_000)), "not before");
    let both = store.fire_due(12_000).await.unwrap();
    assert_eq!((both.tasks, both.next_ms), (2, Some(13_000)));
    assert_eq!(store.fire_due(12_000).await.unwrap().tasks, 0);
    assert_eq!(store.fire_due(5000).await.unwrap().tasks, 0, "the clock was set back");
    let expected = [(11_000, "task".to_owned()), (12_000, "task".to_owned())];
    assert_eq!(ends(&store, "a").await, expected);
    let detail = shown(&store, "a").await;
    assert_eq!(detail.next_ms[..2], [13_000, 14_000]);
    let one = &detail.occurrences[1];
    assert_eq!((one.state, one.late_ms), (Some(TaskState::Waiting), Some(1000)));
    assert_eq!(state(&store, one.task.unwrap()).await.0, TaskState::Waiting);
    // A schedule that is added again comes to an instant again that has its record.
    let removed = store.remove_schedule("a".to_owned()).await.unwrap().unwrap();
    let open = detail.occurrences.iter().rev().filter_map(|one| one.task).collect();
    assert_eq!(removed, RemovedSchedule { name: "a".to_owned(), open: 2, tasks: open });
    assert_eq!(store.remove_schedule("a".to_owned()).await.unwrap(), None);
    let again = every_second("a", lab, json!({ "overlap": "allow", "catch_up": "all" }));
    store.apply_schedules(set(vec![again]), 10_500).await.unwrap();
    while store.fire_due(12_000).await.unwrap().next_ms <= Some(12_000) {}
    assert_eq!(ends(&store, "a").await, expected);
}

pub(super) async fn a_set_is_applied_as_a_whole_and_the_same_changes_nothing(store: Store) {
    let lab = endpoint(&store).await;
    let one = |name: &str| every_second(name, lab, json!({}));
    let of = |schedules| ScheduleSet { owner: Some("site".to_owned()), ..set(schedules) };
    let changes = async |set: ScheduleSet| {
        let changed = store.apply_schedules(set, 5000).await.unwrap();
        changed.into_iter().map(|one| one.change).collect::<Vec<_>>()
    };
    assert_eq!(changes(of(vec![one("a"), one("b")])).await, [ScheduleChange::Added; 2]);
    store.fire_due(6000).await.unwrap();
    assert_eq!(changes(of(vec![one("a")])).await, [ScheduleChange::Unchanged]);
    let mut other = one("a");
    other.spec.rule.jitter_ms = 7;
    let refused = store.apply_schedules(of(vec![one("c"), other.clone()]), 5000).await;
    let Err(Error::Conflict(words)) = refused else { panic!("taken: {refused:?}") };
    assert!(words.contains("jitter: 0s → 7ms"), "{words}");
    assert!(store.schedule("c".to_owned()).await.unwrap().is_none());
    let pruned = ScheduleSet { replace: true, prune: true, ..of(vec![other]) };
    let expected = [ScheduleChange::Replaced, ScheduleChange::Removed];
    let before = store.schedules(None, String::new(), 10).await.unwrap();
    assert_eq!(changes(ScheduleSet { dry_run: true, ..pruned.clone() }).await, expected);
    assert_eq!(store.schedules(None, String::new(), 10).await.unwrap(), before);
    assert_eq!(changes(pruned).await, expected);
    assert_eq!(shown(&store, "a").await.summary.tasks, 1, "how far it was is kept");
    let all = store.schedules(None, String::new(), 10).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].last.as_ref().map(|last| last.instant_ms), Some(6000));
}

pub(super) async fn a_schedule_of_an_owner_is_changed_by_this_owner_only(store: Store) {
    let lab = endpoint(&store).await;
    let apply = async |owner: Option<&str>, jitter_ms: i64| {
        let mut one = every_second("a", lab, json!({}));
        one.spec.rule.jitter_ms = jitter_ms;
        let owner = owner.map(str::to_owned);
        let set = ScheduleSet { owner, replace: true, ..set(vec![one]) };
        store.apply_schedules(set, 5000).await.map(|changed| changed[0].change)
    };
    assert_eq!(apply(None, 0).await.unwrap(), ScheduleChange::Added);
    assert_eq!(apply(Some("site"), 0).await.unwrap(), ScheduleChange::Replaced, "adopted");
    assert_eq!(apply(None, 0).await.unwrap(), ScheduleChange::Unchanged);
    for other in [apply(None, 7).await, apply(Some("lab"), 0).await] {
        let Err(Error::Conflict(words)) = other else { panic!("taken: {other:?}") };
        assert!(words.contains("declared by the owner 'site'"), "{words}");
    }
    assert_eq!(apply(Some("site"), 7).await.unwrap(), ScheduleChange::Replaced);
}

pub(super) async fn an_overlap_and_a_pause_skip_and_an_end_goes_on(store: Store) {
    let lab = endpoint(&store).await;
    let twice = json!({ "pause_after": 2 });
    store.apply_schedules(set(vec![every_second("a", lab, twice)]), 500).await.unwrap();
    store.fire_due(1000).await.unwrap();
    store.fire_due(2000).await.unwrap();
    end_last_task(&store, 1000, Outcome::Failed, 2500).await;
    store.fire_due(3000).await.unwrap();
    let expected = [(1000, "task"), (2000, "skipped"), (3000, "task")];
    let expected = expected.map(|(at, end)| (at, end.to_owned()));
    assert_eq!(ends(&store, "a").await, expected);
    end_last(&store, "a", Outcome::Failed, 3500).await;
    let paused = shown(&store, "a").await.summary;
    assert_eq!(paused.paused_ms, Some(3500));
    assert_eq!(paused.pause_cause, Some(PauseCause::Failures { count: 2 }));
    assert_eq!(store.fire_due(9000).await.unwrap().next_ms, None);
    assert_eq!(store.pause_schedule("a".to_owned(), None, 9100).await.unwrap(), Some(true));
    while store.fire_due(10_000).await.unwrap().next_ms <= Some(10_000) {}
    let last = ends(&store, "a").await;
    assert_eq!(last.last().unwrap(), &(10_000, "task".to_owned()));
    assert_eq!(last.iter().filter(|(_, end)| end == "skipped").count(), 7);
    let by_hand = || Some(PauseCause::ByHand { reason: Some("no disk".to_owned()) });
    let paused = async |name: &str| store.pause_schedule(name.to_owned(), by_hand(), 11_000).await;
    assert_eq!(paused("none").await.unwrap(), None);
    assert_eq!(paused("a").await.unwrap(), Some(true));
    assert_eq!(paused("a").await.unwrap(), Some(false));
    let detail = shown(&store, "a").await;
    assert_eq!((detail.summary.pause_cause, detail.next_ms), (by_hand(), vec![]));
}

/// Ends the task of an instant.
async fn end_last_task(store: &Store, instant_ms: i64, outcome: Outcome, now_ms: u64) {
    let all = shown(store, "a").await.occurrences;
    let task = all.iter().find(|one| one.instant_ms == instant_ms).unwrap().task.unwrap();
    let result = result_of(Attempt { task_id: task, attempt: 1 }, outcome);
    record(store, &[result], &[], now_ms).await.unwrap();
    assert_eq!(store.settle_occurrences(now_ms).await.unwrap().0, 1);
}

pub(super) async fn what_cannot_be_placed_failed_with_its_reason_and_others_go_on(store: Store) {
    let lab = endpoint(&store).await;
    let all = vec![
        every_second("gone", EndpointId::new(), json!({})),
        every_second("well", lab, json!({})),
    ];
    store.apply_schedules(set(all), 500).await.unwrap();
    while store.fire_due(1000).await.unwrap().next_ms <= Some(1000) {}
    let failed = shown(&store, "gone").await;
    assert_eq!(failed.occurrences[0].end, "failed");
    assert!(failed.occurrences[0].reason.as_ref().unwrap().contains("no endpoint"));
    assert_eq!((failed.summary.failures, failed.summary.running), (1, 0));
    assert_eq!(ends(&store, "well").await, [(1000, "task".to_owned())]);
    let by_hand = store.run_schedule("well".to_owned(), 1000).await.unwrap().unwrap();
    assert!(by_hand.by_hand && by_hand.instant_ms == 1001, "{by_hand:?}");
    assert_eq!(shown(&store, "well").await.summary.running, 2);
    let refused = store.run_schedule("gone".to_owned(), 1000).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict(_)));
}
