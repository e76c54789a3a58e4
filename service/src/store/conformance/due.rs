//! Scheduled submissions on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, spec, specs, state};
use crate::model::{DueTime, TaskSpec, TaskState};
use crate::store::{Chunk, Error, Forgettable, Handing, Positions, Store, TaskFilter};
use clutch_common::id::EndpointId;
use clutch_common::task::result::Outcome;

/// A submission that is due at 5000; it is recorded at 1000.
fn scheduled(endpoint: EndpointId, key: &str, specs: &[TaskSpec]) -> Chunk {
    Chunk { due: Some(DueTime::AtMs(5000)), ..chunk(endpoint, key, specs) }
}

pub(super) async fn tasks_are_released_at_their_moment_and_not_before(store: Store) {
    let lab = EndpointId::new();
    let limited = TaskSpec { expires_in_ms: Some(500), ..spec(&["true"]) };
    let begun = begin(&store, scheduled(lab, "k", &[limited, spec(&["b"])])).await.unwrap();
    assert!(begun.iter().all(|one| one.hand_over.is_none()), "the link gets none");
    assert_eq!(begun[0].task.expires_at_ms, Some(5500), "its expiry counts from its moment");
    let id = begun[0].task.id;
    assert_eq!(state(&store, id).await.0, TaskState::Scheduled);
    assert!(store.endpoints_with_waiting().await.unwrap().is_empty());
    let early = store.release_due(4999, None).await.unwrap();
    assert_eq!((early.tasks, early.next_ms), (0, Some(5000)));
    let filter = TaskFilter { states: vec![TaskState::Scheduled], limit: 5, ..Default::default() };
    assert_eq!(store.tasks(&filter).await.unwrap().items.len(), 2);
    let released = store.release_due(5020, None).await.unwrap();
    assert_eq!((released.tasks, released.late_ms, released.next_ms), (2, 20, None));
    let detail = store.task(id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Waiting);
    assert_eq!((detail.due_at_ms, detail.late_ms), (Some(5000), Some(20)));
    assert_eq!(store.endpoints_with_waiting().await.unwrap(), [lab]);
    assert_eq!(store.release_due(9000, None).await.unwrap().tasks, 0, "once");
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

pub(super) async fn a_key_keeps_its_moment_and_another_one_is_a_conflict(store: Store) {
    let (lab, specs) = (EndpointId::new(), specs(3));
    let with = |due, now_ms| Chunk { due, now_ms, ..chunk(lab, "k", &specs) };
    let first = begin(&store, with(Some(DueTime::InMs(4000)), 1000)).await.unwrap();
    let again = begin(&store, with(Some(DueTime::InMs(4000)), 3000)).await.unwrap();
    assert_eq!(first[0].task, again[0].task);
    begin(&store, with(Some(DueTime::AtMs(5000)), 3000)).await.unwrap();
    for other in [None, Some(DueTime::AtMs(5001))] {
        let refused = begin(&store, with(other, 3000)).await.unwrap_err();
        assert!(matches!(&refused, Error::Conflict(words) if words.contains("scheduled for")));
    }
    let past = Chunk { due: Some(DueTime::AtMs(400)), ..chunk(lab, "past", &specs) };
    let begun = begin(&store, past).await.unwrap();
    assert!(begun.iter().all(|one| one.hand_over.is_some()), "what is past is now");
    begin(&store, chunk(lab, "now", &specs)).await.unwrap();
    let late = Chunk { due: Some(DueTime::InMs(1)), ..chunk(lab, "now", &specs) };
    let refused = begin(&store, late).await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict(words) if words.contains("not scheduled")));
    assert_eq!(store.release_due(0, None).await.unwrap().next_ms, Some(5000));
}

pub(super) async fn a_scheduled_task_is_cancelled_at_once_and_goes_with_its_submission(
    store: Store,
) {
    let lab = EndpointId::new();
    let begun = begin(&store, scheduled(lab, "k", &specs(2))).await.unwrap();
    assert_eq!(store.count_open(lab).await.unwrap(), 2);
    let slice = store.cancel(vec![begun[0].seq], 2000).await.unwrap();
    assert_eq!((slice.cancelled, slice.asked.len()), (1, 0));
    assert_eq!(state(&store, begun[0].task.id).await.0, TaskState::Done(Outcome::Cancelled));
    assert_eq!(store.release_due(5000, None).await.unwrap().tasks, 1, "the other one");
    record(&store, &[done(&begun[1], 1, Outcome::Succeeded)], &[], 6000).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    let slice = store.forget(Forgettable::Submission(submission), 0, false).await.unwrap();
    assert_eq!((slice.tasks, slice.submissions), (2, 1));
    let cancelled = begin(&store, scheduled(lab, "c", &specs(1))).await.unwrap();
    store.cancel(vec![cancelled[0].seq], 2000).await.unwrap();
    let left = store.release_due(5000, None).await.unwrap();
    assert_eq!((left.tasks, left.next_ms), (0, None));
}

pub(super) async fn many_tasks_are_released_in_slices_in_order(store: Store) {
    let (lab, all) = (EndpointId::new(), specs(12_500));
    let handing = Handing::Nothing;
    begin(&store, Chunk { handing, ..scheduled(lab, "large", &all) }).await.unwrap();
    begin(&store, scheduled(lab, "small", &all[..1])).await.unwrap();
    let (mut place, mut released) = (None, Vec::new());
    for _ in 0..3 {
        let slice = store.release_due(5000, place).await.unwrap();
        place = slice.place;
        released.push((slice.tasks, slice.next_ms));
    }
    assert_eq!(released, [(5000, Some(5000)), (5000, Some(5000)), (2501, None)]);
    let submission = store.submission("large").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
    let page = store.hand_over(lab, Positions::default(), 20_000).await.unwrap();
    assert_eq!(page.len(), 12_501);
}
