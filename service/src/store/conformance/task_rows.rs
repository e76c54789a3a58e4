//! Where tasks are in the records, on any engine.

use super::{begin, chunk, done, record, spec, specs};
use crate::model::{TaskSpec, TaskState};
use crate::store::{Store, TaskFilter, TaskPlace};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::Outcome;

pub(super) async fn tasks_ahead_of_one_are_those_that_its_endpoint_got_before_it(store: Store) {
    let (here, there) = (EndpointId::new(), EndpointId::new());
    for (endpoint, key) in [(here, "a"), (there, "b"), (here, "c")] {
        let begun = begin(&store, chunk(endpoint, key, &specs(3))).await.unwrap();
        let tasks = begun.iter().map(|one| (one.seq, 1)).collect();
        store.mark_submitted(tasks, 5).await.unwrap();
        record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    }
    let filter = TaskFilter { endpoint: Some(here), limit: 10, ..TaskFilter::default() };
    let listed = store.tasks(&filter).await.unwrap().items;
    let ids: Vec<TaskId> = listed.iter().map(|task| task.id).collect();
    let asked = ids.iter().copied().chain([TaskId::new()]).collect();
    let places = store.task_places(asked).await.unwrap();
    assert_eq!(places.len(), ids.len(), "one is not known");
    let mut ahead = Vec::new();
    for id in &ids {
        ahead.push(store.tasks_ahead(here, &places[id]).await.unwrap());
    }
    // The newest first; the oldest of each submission is done.
    assert_eq!(ahead, [3, 2, 2, 1, 0, 0]);
    let TaskPlace { index, state, attempt, .. } = places[&ids[2]];
    assert_eq!((index, state, attempt), (Some(0), TaskState::Done(Outcome::Succeeded), 1));
    assert_eq!(store.endpoint_of(ids[0]).await.unwrap(), Some(here));
    assert_eq!(store.walltimes(ids).await.unwrap(), [None; 6]);
    let mut open = store.endpoints_with_open_tasks(9).await.unwrap();
    open.sort();
    let mut expected = [here, there];
    expected.sort();
    assert_eq!(open, expected);
    assert_eq!(store.endpoints_with_open_tasks(1).await.unwrap().len(), 1);
}

pub(super) async fn tasks_ahead_are_those_of_a_higher_priority_too_and_none_of_a_lower_one(
    store: Store,
) {
    let (here, there) = (EndpointId::new(), EndpointId::new());
    let levels =
        [Priority::Normal, Priority::Low, Priority::High, Priority::Normal, Priority::Lowest];
    let specs = levels.map(|priority| TaskSpec { priority, ..spec(&["a"]) });
    let mut begun = Vec::new();
    for (endpoint, key) in [(here, "a"), (there, "b"), (here, "c")] {
        let new = begin(&store, chunk(endpoint, key, &specs)).await.unwrap();
        store.mark_submitted(new.iter().map(|one| (one.seq, 1)).collect(), 5).await.unwrap();
        begun.extend(new.into_iter().filter(|_| endpoint == here));
    }
    // One that has ended is ahead of none.
    record(&store, &[done(&begun[7], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    let ids: Vec<TaskId> = begun.iter().map(|one| one.task.id).collect();
    let places = store.task_places(ids.clone()).await.unwrap();
    let mut ahead = Vec::new();
    for id in ids.iter().take(7).chain(&ids[8..]) {
        ahead.push(store.tasks_ahead(here, &places[id]).await.unwrap());
    }
    // Two normal ones, the low, the high and the lowest one in each.
    assert_eq!(ahead, [1, 5, 0, 2, 7, 3, 6, 4, 8]);
}

pub(super) async fn submitted_tasks_are_listed_at_positions_in_pages(store: Store) {
    let here = EndpointId::new();
    let begun = begin(&store, chunk(here, "a", &specs(6))).await.unwrap();
    store.mark_submitted(begun.iter().map(|one| (one.seq, 1)).collect(), 5).await.unwrap();
    record(&store, &[done(&begun[3], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    let submission = store.submission("a").await.unwrap();
    let mut filter = TaskFilter { submission, limit: 2, ..TaskFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.tasks_at(&filter, vec![5, 3, 1, 0]).await.unwrap();
        seen.push(page.items.iter().map(|task| task.index.unwrap()).collect::<Vec<_>>());
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, [vec![5], vec![1, 0]], "the one that is done is not listed");
}
