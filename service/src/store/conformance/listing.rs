//! Listings on any engine.

use super::{begin, chunk, done, record, specs};
use crate::model::TaskState;
use crate::store::{RecordedTask, Store, TaskFilter};
use clutch_common::id::{EndpointId, TaskId};
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
    let state = Some(TaskState::Done(Outcome::Failed));
    let all = TaskFilter { limit: 4, ..TaskFilter::default() };
    let expected = [
        (all.clone(), 50),
        (TaskFilter { endpoint: Some(there), ..all.clone() }, 25),
        (TaskFilter { state, ..all.clone() }, 9),
        (TaskFilter { state, endpoint: Some(here), ..all.clone() }, 9),
        (TaskFilter { state, endpoint: Some(there), ..all.clone() }, 0),
        (TaskFilter { submission, ..all.clone() }, 25),
        (TaskFilter { submission, state, endpoint: Some(here), ..all }, 9),
    ];
    for (mut filter, count) in expected {
        let mut seen: Vec<TaskId> = Vec::new();
        loop {
            let page = store.tasks(&filter).await.unwrap();
            seen.extend(page.items.iter().map(|task| task.id));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), count, "{filter:?}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{filter:?}");
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
