//! Submissions on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, spec, specs, state};
use crate::model::{TaskSpec, TaskState};
use crate::store::{Chunk, Error, RecordedTask, Store, TaskFilter};
use clutch_common::id::EndpointId;
use clutch_common::task::result::Outcome;

pub(super) async fn submitting_again_records_nothing_twice_and_goes_on_where_it_stopped(
    store: Store,
) {
    let (endpoint, specs) = (EndpointId::new(), specs(250));
    let first = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let seqs: Vec<i64> = first.iter().take(100).map(|one| one.seq).collect();
    store.mark_submitted(seqs, 2000).await.unwrap();
    let again = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let ids = |all: &[RecordedTask]| all.iter().map(|one| one.task.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    let open = again.iter().filter(|one| one.state == TaskState::Submitting).count();
    assert_eq!(open, 150);
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
    let progress = store.submission_progress(submission).await.unwrap().unwrap();
    assert_eq!((progress.total, progress.states["submitted"]), (250, 100));
}

pub(super) async fn tasks_that_the_broker_did_not_take_are_submitted_again_and_never_fall_back(
    store: Store,
) {
    let (endpoint, specs) = (EndpointId::new(), specs(3));
    let again = async || begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let begun = again().await;
    let submission = store.submission("k").await.unwrap().unwrap();
    let states = async || {
        assert_counts_agree(&store, submission).await;
        let mut states = Vec::new();
        for one in &begun {
            states.push(state(&store, one.task.id).await.0);
        }
        states
    };
    use TaskState::{Refused, Returned, Submitted, Submitting};
    store.mark_unplaced(vec![begun[0].seq, begun[1].seq], Returned).await.unwrap();
    store.mark_unplaced(vec![begun[2].seq], Refused).await.unwrap();
    assert_eq!(states().await, [Returned, Returned, Refused]);
    // A second request with the same key was under way, and had more luck.
    store.mark_submitted(vec![begun[1].seq], 2000).await.unwrap();
    store.mark_unplaced(vec![begun[1].seq], Refused).await.unwrap();
    assert_eq!(states().await, [Returned, Submitted, Refused]);
    let again: Vec<TaskState> = again().await.iter().map(|one| one.state).collect();
    assert_eq!(again, [Submitting, Submitted, Submitting]);
    assert_eq!(states().await, again);
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    store.mark_unplaced(vec![begun[0].seq], Returned).await.unwrap();
    assert_eq!(states().await[0], TaskState::Done(Outcome::Succeeded));
}

pub(super) async fn a_task_that_is_confirmed_twice_at_once_is_counted_once(store: Store) {
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(1))).await.unwrap();
    store.mark_submitted(vec![begun[0].seq; 2], 2000).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

pub(super) async fn a_key_cannot_be_used_for_other_tasks(store: Store) {
    let (endpoint, specs) = (EndpointId::new(), specs(3));
    begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let mut other = specs.clone();
    other[2] = spec(&["rm"]);
    let refused = async |chunk: Chunk| match begin(&store, chunk).await {
        Err(Error::Conflict(words)) => words,
        other => panic!("no conflict: {other:?}"),
    };
    assert!(refused(chunk(endpoint, "k", &other)).await.contains("task 2 differs"));
    assert!(refused(chunk(endpoint, "k", &specs[..2])).await.contains("it has 3 tasks"));
    assert!(refused(chunk(EndpointId::new(), "k", &specs)).await.contains("endpoint"));
    let page = store.tasks(&TaskFilter { limit: 10, ..TaskFilter::default() }).await.unwrap();
    assert_eq!(page.items.len(), 3);
}

pub(super) async fn an_expiry_counts_from_the_first_recording(store: Store) {
    let endpoint = EndpointId::new();
    let specs = [TaskSpec { expires_in_ms: Some(500), ..spec(&["true"]) }];
    begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let later = Chunk { now_ms: 9000, ..chunk(endpoint, "k", &specs) };
    let again = begin(&store, later).await.unwrap();
    assert_eq!(again[0].task.expires_at_ms, Some(1500));
}
