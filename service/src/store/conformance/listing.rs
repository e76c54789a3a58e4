//! Listings on any engine.

use super::{begin, chunk, done, record, spec, specs};
use crate::model::{NamePattern, TaskSpec, TaskState};
use crate::store::{Chunk, RecordedTask, Store, TaskFilter};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::{Outcome, TaskResult};

pub(super) async fn pages_show_every_task_once_newest_first_under_every_filter(store: Store) {
    let (here, there) = (EndpointId::new(), EndpointId::new());
    let specs = specs(25);
    let begun = begin(&store, chunk(here, "a", &specs)).await.unwrap();
    begin(&store, chunk(there, "b", &specs)).await.unwrap();
    let failed: Vec<TaskResult> =
        begun.iter().take(9).map(|one| done(one, 1, Outcome::Failed)).collect();
    record(&store, &failed, &[], 5).await.unwrap();
    let submission = store.submission("a").await.unwrap();
    let failed = vec![TaskState::Done(Outcome::Failed)];
    let states = || failed.clone();
    let many = vec![TaskState::Done(Outcome::Failed), TaskState::Waiting];
    let all = TaskFilter { limit: 4, ..TaskFilter::default() };
    let expected = [
        (all.clone(), 50),
        (TaskFilter { endpoint: Some(there), ..all.clone() }, 25),
        (TaskFilter { states: states(), ..all.clone() }, 9),
        (TaskFilter { states: states(), endpoint: Some(here), ..all.clone() }, 9),
        (TaskFilter { states: states(), endpoint: Some(there), ..all.clone() }, 0),
        (TaskFilter { states: many.clone(), ..all.clone() }, 50),
        (TaskFilter { states: many.clone(), endpoint: Some(here), ..all.clone() }, 25),
        (TaskFilter { states: many, submission, ..all.clone() }, 25),
        (TaskFilter { submission, ..all.clone() }, 25),
        (TaskFilter { submission, states: states(), endpoint: Some(here), ..all }, 9),
    ];
    for (mut filter, count) in expected {
        let seen = listed(&store, &mut filter).await;
        assert_eq!(seen.len(), count, "{filter:?}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{filter:?}");
    }
}

/// Every task that a filter selects, page by page.
async fn listed(store: &Store, filter: &mut TaskFilter) -> Vec<TaskId> {
    let mut seen: Vec<TaskId> = Vec::new();
    loop {
        let page = store.tasks(filter).await.unwrap();
        seen.extend(page.items.iter().map(|task| task.id));
        filter.before = page.next;
        if page.next.is_none() {
            return seen;
        }
    }
}

pub(super) async fn names_and_times_select_tasks_with_every_other_filter(store: Store) {
    let endpoint = EndpointId::new();
    let named = |name: &str| TaskSpec { name: Some(name.to_owned()), ..spec(&["a"]) };
    let high = TaskSpec { priority: Priority::High, cores: 3, ..spec(&["b"]) };
    let specs = [named("sweep-1"), named("Sweep-2"), named("100%"), high];
    let later = Chunk { now_ms: 2000, ..chunk(endpoint, "later", &specs) };
    begin(&store, chunk(endpoint, "first", &specs)).await.unwrap();
    begin(&store, later).await.unwrap();
    let submission = store.submission("later").await.unwrap();
    let name = |pattern: &str| Some(NamePattern::new(pattern));
    let all = TaskFilter { limit: 3, ..TaskFilter::default() };
    let since = |ms| TaskFilter { since_ms: Some(ms), ..all.clone() };
    for (mut filter, count) in [
        (TaskFilter { name: name("sweep*"), ..all.clone() }, 2),
        (TaskFilter { name: name("*%"), ..all.clone() }, 2),
        (TaskFilter { name: name("none"), ..all.clone() }, 0),
        (TaskFilter { name: name("*"), ..all.clone() }, 6),
        (TaskFilter { name: name("*"), submission, ..all.clone() }, 3),
        (TaskFilter { priority: Some(Priority::High), ..all.clone() }, 2),
        (TaskFilter { priority: Some(Priority::Normal), submission, ..all.clone() }, 3),
        (since(1000), 8),
        (since(1001), 4),
        (since(2001), 0),
        (TaskFilter { until_ms: Some(2000), ..all.clone() }, 4),
        (TaskFilter { until_ms: Some(1000), ..all.clone() }, 0),
        (TaskFilter { until_ms: Some(2001), ..since(1001) }, 4),
        (TaskFilter { submission, until_ms: Some(2000), ..all.clone() }, 0),
        (TaskFilter { name: name("*2"), states: vec![TaskState::Waiting], ..since(1500) }, 1),
    ] {
        let seen = listed(&store, &mut filter).await;
        assert_eq!(seen.len(), count, "{filter:?}");
    }
}

pub(super) async fn results_come_in_the_order_of_submission_in_pages_bounded_by_bytes(
    store: Store,
) {
    let specs = specs(7);
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap();
    let large = |one: &RecordedTask| TaskResult {
        stdout: vec![b'x'; 1_500_000].into(),
        ..done(one, 1, Outcome::Succeeded)
    };
    let results: Vec<TaskResult> = begun.iter().rev().skip(1).map(large).collect();
    record(&store, &results, &[], 5).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    let (mut from, mut indices, mut open) = (Some(0), Vec::new(), 0);
    while let Some(index) = from {
        let (_, page) = store.results(submission, index, 100).await.unwrap();
        assert!(page.items.len() <= 2);
        indices.extend(page.items.iter().filter_map(|one| one.summary.index));
        open += page.items.iter().filter(|one| one.result.is_none()).count();
        from = page.next;
    }
    assert_eq!((indices, open), ((0..7).collect(), 1));
}
