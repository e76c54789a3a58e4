//! Forgetting on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, specs, state};
use crate::model::TaskState;
use crate::store::{Error, Forgettable, RecordedTask, Store};
use crate::stub_broker::active;
use clutch_common::id::{EndpointId, StateId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire::Presence;
use uuid::{NoContext, Timestamp, Uuid};

/// Records that tasks succeeded.
async fn succeed(store: &Store, tasks: &[RecordedTask], now_ms: u64) {
    let results: Vec<TaskResult> =
        tasks.iter().map(|one| done(one, 1, Outcome::Succeeded)).collect();
    record(store, &results, &[], now_ms).await.unwrap();
}

/// Forgets to the end; returns how many tasks and submissions went, and how many slices that
/// took.
pub(super) async fn forget(store: &Store, which: Forgettable) -> (u64, u64, u64) {
    let (mut tasks, mut submissions, mut slices, mut next) = (0, 0, 0, Some(0));
    while let Some(from) = next {
        let slice = store.forget(which, from, false).await.unwrap();
        (tasks, submissions) = (tasks + slice.tasks, submissions + slice.submissions);
        (slices, next) = (slices + 1, slice.next);
    }
    (tasks, submissions, slices)
}

pub(super) async fn rows(store: &Store, table: &str) -> u64 {
    let count = format!("SELECT count(*) FROM {table}");
    let read = move |db: &crate::store::engine::Db<'_>| db.only::<(u64,)>(&count, &[]);
    store.read("counting", read).await.unwrap().0
}

pub(super) async fn ended_tasks_go_with_all_of_theirs_and_the_others_stay(store: Store) {
    let endpoint = EndpointId::new();
    let specs = specs(5);
    let begun = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    succeed(&store, &begun[..3], 5).await;
    let submission = store.submission("k").await.unwrap().unwrap();
    let before = store.submission_progress(submission).await.unwrap();
    assert_eq!(forget(&store, Forgettable::Submission(submission)).await, (3, 0, 1));
    for gone in &begun[..3] {
        assert_eq!(store.task(gone.task.id).await.unwrap(), None);
    }
    for stays in &begun[3..] {
        assert_eq!(state(&store, stays.task.id).await, (TaskState::Waiting, None));
    }
    for (table, left) in [("tasks", 2), ("payloads", 2), ("results", 0)] {
        assert_eq!(rows(&store, table).await, left, "{table}");
    }
    assert_eq!(store.submission_progress(submission).await.unwrap(), before, "its progress stays");
    let (counted, page) = store.results(submission, 0, 10).await.unwrap();
    assert_eq!((counted, page.items.len()), ((5, 3), 2));
    let again = begin(&store, chunk(endpoint, "k", &specs)).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "they would run a second time: {again:?}");
    let known = crate::store::Chunk { first: 3, ..chunk(endpoint, "k", &specs) };
    let known = crate::store::Chunk { specs: specs[3..].to_vec(), ..known };
    let again = begin(&store, known).await.unwrap();
    let tasks = |all: &[RecordedTask]| all.iter().map(|one| one.task.clone()).collect::<Vec<_>>();
    assert_eq!(tasks(&again), tasks(&begun[3..]));
}

pub(super) async fn a_submission_goes_with_its_last_task_and_its_key_is_free_again(store: Store) {
    let endpoint = EndpointId::new();
    let specs = specs(4);
    let begun = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let first = store.submission("k").await.unwrap().unwrap();
    succeed(&store, &begun[1..], 5).await;
    assert_eq!(forget(&store, Forgettable::Submission(first)).await, (3, 0, 1));
    succeed(&store, &begun[..1], 5).await;
    assert_eq!(forget(&store, Forgettable::Submission(first)).await, (1, 1, 1));
    assert_eq!(store.submission("k").await.unwrap(), None);
    assert_eq!(store.submission_progress(first).await.unwrap(), None);
    assert_eq!((rows(&store, "counts").await, rows(&store, "submissions").await), (0, 0));
    let again = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    assert!(again.iter().all(|one| one.state == crate::store::StoredState::Submitting));
    let second = store.submission("k").await.unwrap().unwrap();
    assert_ne!(first, second, "a caller may hold on to the first");
    assert_counts_agree(&store, second).await;
}

pub(super) async fn tasks_go_by_the_age_of_their_outcome(store: Store) {
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(4))).await.unwrap();
    succeed(&store, &begun[..2], 2000).await;
    succeed(&store, &begun[2..3], 3000).await;
    let external = crate::stub_broker::result(Outcome::Failed);
    record(&store, std::slice::from_ref(&external), &[], 2500).await.unwrap();
    assert_eq!(forget(&store, Forgettable::EndedBefore(1000)).await, (0, 0, 1));
    assert_eq!(forget(&store, Forgettable::EndedBefore(2000)).await, (0, 0, 1));
    assert_eq!(forget(&store, Forgettable::EndedBefore(2001)).await, (2, 0, 1));
    assert_eq!(forget(&store, Forgettable::EndedBefore(3000)).await, (1, 0, 1));
    assert_eq!(store.task(external.task_id).await.unwrap(), None, "an external one");
    assert_eq!(forget(&store, Forgettable::EndedBefore(u64::MAX)).await, (1, 0, 1));
    assert_eq!(state(&store, begun[3].task.id).await, (TaskState::Waiting, None));
}

pub(super) async fn a_row_that_is_forgotten_is_given_to_no_other_task(store: Store) {
    let endpoint = EndpointId::new();
    let begun = begin(&store, chunk(endpoint, "first", &specs(2))).await.unwrap();
    succeed(&store, &begun, 5).await;
    assert_eq!(forget(&store, Forgettable::EndedBefore(u64::MAX)).await.0, 2);
    let second = begin(&store, chunk(endpoint, "second", &specs(2))).await.unwrap();
    assert!(second[0].seq > begun[1].seq);
    // A broker's word on the first ones that comes late.
    store.mark_submitted(begun.iter().map(|one| (one.seq, 1)).collect(), 6).await.unwrap();
    for one in &second {
        assert_eq!(state(&store, one.task.id).await.0, TaskState::Waiting);
    }
}

pub(super) async fn a_result_of_a_forgotten_task_that_comes_late_is_counted_and_not_kept(
    store: Store,
) {
    let endpoint_id = EndpointId::new();
    let begun = begin(&store, chunk(endpoint_id, "k", &specs(1))).await.unwrap();
    let late = TaskResult { endpoint_id, ..done(&begun[0], 1, Outcome::Succeeded) };
    record(&store, std::slice::from_ref(&late), &[], 5).await.unwrap();
    let horizon = now_ms() + 60_000;
    assert_eq!(forget(&store, Forgettable::EndedBefore(horizon)).await.0, 1);
    let later = Timestamp::from_unix(NoContext, horizon / 1000 + 1, 0);
    let of = |id: Uuid| TaskResult { task_id: TaskId(id), ..late.clone() };
    for (what, result, forgotten) in [
        ("it comes again", late.clone(), 1),
        ("its id is made later", of(Uuid::new_v7(later)), 0),
        ("its id does not tell", of(Uuid::new_v4()), 0),
        ("it ended later", TaskResult { ended_at_ms: horizon, ..of(Uuid::now_v7()) }, 0),
        ("of another's", TaskResult { endpoint_id: EndpointId::new(), ..of(Uuid::now_v7()) }, 0),
    ] {
        let tally = record(&store, std::slice::from_ref(&result), &[], 6).await.unwrap();
        assert_eq!((tally.forgotten, tally.external), (forgotten, 1 - forgotten), "{what}");
        assert_eq!(store.task(result.task_id).await.unwrap().is_none(), forgotten == 1, "{what}");
    }
}

pub(super) async fn a_forgotten_task_that_a_disk_delivered_is_not_missing(store: Store) {
    let endpoint = EndpointId::new();
    let begun = begin(&store, chunk(endpoint, "k", &specs(2))).await.unwrap();
    store.mark_submitted(begun.iter().map(|one| (one.seq, 1)).collect(), 5).await.unwrap();
    succeed(&store, &begun[..1], 5).await;
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_eq!(forget(&store, Forgettable::Submission(submission)).await.0, 1);
    let delivered = Some(begun[0].task.attempt());
    let active = active(endpoint, StateId::new(), Uuid::now_v7());
    record(&store, &[], &[Presence { delivered, ..active }], 6).await.unwrap();
    assert_eq!(store.attempts_to_ask(endpoint, 10).await.unwrap(), []);
}

pub(super) async fn many_tasks_go_in_slices_and_a_dry_run_counts_them(store: Store) {
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(1201))).await.unwrap();
    succeed(&store, &begun[..1200], 5).await;
    let which = Forgettable::EndedBefore(u64::MAX);
    let dry = store.forget(which, 0, true).await.unwrap();
    assert_eq!((dry.tasks, rows(&store, "tasks").await), (500, 1201));
    assert_eq!(forget(&store, which).await, (1200, 0, 3));
    assert_eq!(rows(&store, "tasks").await, 1);
}
