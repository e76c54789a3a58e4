//! Results on any engine.

use super::{begin, chunk, done, record, specs, state};
use crate::model::TaskState;
use crate::store::{Batch, Store};
use crate::stub_broker::{result, result_of};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::call_error::CallError;
use clutch_common::task::removed_files::RemovedFiles;
use clutch_common::task::result::{Outcome, TaskResult};
use std::sync::Arc;

pub(super) async fn the_first_result_of_an_attempt_wins_and_the_rest_is_counted(store: Store) {
    let specs = specs(1);
    let endpoint_id = EndpointId::new();
    let begun = begin(&store, chunk(endpoint_id, "k", &specs)).await.unwrap();
    let first = done(&begun[0], 1, Outcome::Succeeded);
    let first = TaskResult { stdout: "one".into(), endpoint_id, ..first };
    let second = TaskResult { stdout: "two".into(), ..done(&begun[0], 1, Outcome::Failed) };
    let tally = record(&store, &[first.clone(), second.clone()], &[], 5).await.unwrap();
    assert_eq!((tally.recorded, tally.duplicates, tally.external), (1, 1, 0));
    assert_eq!(record(&store, &[second], &[], 6).await.unwrap().duplicates, 1);
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.results.len(), 1);
    assert_eq!((&detail.results[0].result, detail.results[0].duplicates), (&first, 2));
    assert_eq!(detail.results[0].received_at_ms, 5);
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Succeeded));
}

pub(super) async fn a_later_attempt_supersedes_and_an_older_one_is_only_kept(store: Store) {
    let first = TaskResult { attempt: 2, ..result(Outcome::Failed) };
    let of = |attempt, outcome| TaskResult { attempt, outcome, ..first.clone() };
    let id = first.task_id;
    record(&store, std::slice::from_ref(&first), &[], 5).await.unwrap();
    record(&store, &[of(1, Outcome::Interrupted)], &[], 6).await.unwrap();
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Failed), Some(2)));
    let batch = [of(4, Outcome::Succeeded), of(3, Outcome::Failed)];
    record(&store, &batch, &[], 7).await.unwrap();
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Succeeded), Some(4)));
    let results = store.task(id).await.unwrap().unwrap().results;
    let attempts: Vec<u32> = results.iter().map(|one| one.result.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
}

pub(super) async fn only_the_endpoint_that_was_given_an_attempt_answers_for_it(store: Store) {
    let endpoint_id = EndpointId::new();
    let begun = begin(&store, chunk(endpoint_id, "k", &specs(1))).await.unwrap();
    let id = begun[0].task.id;
    let of = |endpoint_id, attempt, outcome| TaskResult {
        endpoint_id,
        ..done(&begun[0], attempt, outcome)
    };
    let send = async |result| {
        let batch = Batch { results: vec![result], ..Batch::default() };
        store.record(Arc::new(batch), 5, |_| ()).await.unwrap().refused
    };
    let open = state(&store, id).await;
    for (endpoint, attempt) in [(EndpointId::new(), 1), (endpoint_id, 2), (endpoint_id, 0)] {
        assert_eq!(send(of(endpoint, attempt, Outcome::Succeeded)).await, 1);
        assert_eq!(state(&store, id).await, open);
    }
    assert_eq!(send(of(endpoint_id, 1, Outcome::Failed)).await, 0);
    assert_eq!(send(of(endpoint_id, 2, Outcome::Succeeded)).await, 1);
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Failed), Some(1)));
    assert_eq!(store.task(id).await.unwrap().unwrap().results.len(), 1);
    let theirs = result(Outcome::Failed);
    assert_eq!(send(theirs.clone()).await, 0, "a task that another submitted");
    assert_eq!(send(TaskResult { endpoint_id, ..theirs }).await, 1);
}

pub(super) async fn a_result_that_overtakes_the_confirmation_stays(store: Store) {
    let specs = specs(1);
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap();
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    store.mark_submitted(vec![(begun[0].seq, 1)], 6).await.unwrap();
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Succeeded));
    assert_eq!(detail.summary.submitted_at_ms, Some(6));
}

pub(super) async fn an_external_task_is_recorded_by_its_result_with_every_field(store: Store) {
    let result = TaskResult {
        exit_code: Some(-3),
        signal: Some(9),
        value: Some("[1.50, null]".parse().unwrap()),
        stdout: vec![0, 255].into(),
        stdout_omitted: u64::MAX,
        error: Some(Box::new(CallError::new("ValueError", "no", Some("[1.0]".parse().unwrap())))),
        accepted_at_ms: Some(0),
        started_at_ms: Some(1),
        published_at_ms: Some(4),
        cpu_ms: Some(2),
        peak_memory_bytes: Some(3),
        removed_files: Some(RemovedFiles {
            count: 30,
            names: vec!["out.dat".into(), vec![0xff].into()],
        }),
        state_id: Some(clutch_common::id::StateId::new()),
        ..result_of(Attempt { task_id: TaskId::new(), attempt: 1 }, Outcome::Poisoned)
    };
    let tally = record(&store, std::slice::from_ref(&result), &[], 5).await.unwrap();
    assert_eq!((tally.external, tally.unprovisioned), (1, 1));
    let detail = store.task(result.task_id).await.unwrap().unwrap();
    let expected = TaskResult { stdout_omitted: i64::MAX.unsigned_abs(), ..result };
    assert_eq!(detail.results[0].result, expected);
    assert_eq!((detail.summary.key, detail.task), (None, None));
}
