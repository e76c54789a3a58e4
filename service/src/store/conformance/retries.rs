//! Running tasks again on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, specs, state};
use crate::model::{RetryPolicy, TaskSpec, TaskState};
use crate::store::{Chunk, Positions, RecordedTask, RetrySlice, Store};
use clutch_common::id::EndpointId;
use clutch_common::task::result::Outcome;

const WAITING: (TaskState, Option<u32>) = (TaskState::Waiting, None);

/// Tasks of an endpoint that the broker has, with a policy.
async fn submitted(
    store: &Store,
    lab: EndpointId,
    retry: Option<RetryPolicy>,
) -> Vec<RecordedTask> {
    let begun = begin(store, Chunk { retry, ..chunk(lab, "k", &specs(3)) }).await.unwrap();
    confirm(store, &begun, 1).await;
    begun
}

/// Records that the broker has an attempt at each task.
async fn confirm(store: &Store, tasks: &[RecordedTask], attempt: u32) {
    let tasks = tasks.iter().map(|one| (one.seq, attempt)).collect();
    store.mark_submitted(tasks, 5).await.unwrap();
}

async fn end(store: &Store, task: &RecordedTask, attempt: u32, outcome: Outcome, now_ms: u64) {
    record(store, &[done(task, attempt, outcome)], &[], now_ms).await.unwrap();
}

async fn assert_consistent(store: &Store) {
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(store, submission).await;
}

pub(super) async fn a_task_is_run_again_as_its_next_attempt_and_keeps_its_results(store: Store) {
    let lab = EndpointId::new();
    let begun = submitted(&store, lab, None).await;
    let [a, b] = [&begun[0], &begun[1]];
    end(&store, a, 1, Outcome::Failed, 6).await;
    end(&store, b, 1, Outcome::Succeeded, 6).await;
    let seqs: Vec<i64> = begun.iter().map(|one| one.seq).collect();
    let slice = store.retry(seqs.clone(), 6).await.unwrap();
    assert_eq!(slice, RetrySlice { retried: 2, open: 1, external: 0 });
    assert_eq!(state(&store, a.task.id).await, WAITING);
    // A late copy of the first result ends nothing.
    end(&store, a, 1, Outcome::Failed, 7).await;
    assert_eq!(state(&store, a.task.id).await, WAITING);
    let handed = store.hand_over(lab, Positions::default(), 10).await.unwrap();
    let attempts: Vec<_> = handed.iter().map(|one| (one.seq, one.task.attempt)).collect();
    assert_eq!(attempts, [(a.seq, 2), (b.seq, 2)]);
    assert_eq!(store.retry(seqs, 8).await.unwrap().open, 3, "all are under way");
    end(&store, a, 2, Outcome::Succeeded, 8).await;
    let detail = store.task(a.task.id).await.unwrap().unwrap();
    let outcomes: Vec<Outcome> = detail.results.iter().map(|one| one.result.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
    assert_eq!(state(&store, a.task.id).await, (TaskState::Done(Outcome::Succeeded), Some(2)));
    assert_consistent(&store).await;
}

pub(super) async fn a_policy_runs_a_task_again_after_a_pause_that_a_cancellation_ends(
    store: Store,
) {
    let lab = EndpointId::new();
    let policy = RetryPolicy {
        retries: 2,
        first_pause_ms: 100,
        longest_pause_ms: 500,
        on: vec![Outcome::Failed],
    };
    let begun = submitted(&store, lab, Some(policy.clone())).await;
    let [a, b, c] = [&begun[0], &begun[1], &begun[2]];
    let other = RetryPolicy { retries: 3, ..policy.clone() };
    for retry in [None, Some(other)] {
        let again = Chunk { retry, ..chunk(lab, "k", &specs(3)) };
        assert!(begin(&store, again).await.is_err(), "the key has another policy");
    }
    for task in [a, b] {
        end(&store, task, 1, Outcome::Failed, 1000).await;
        assert_eq!(state(&store, task.task.id).await, WAITING);
    }
    end(&store, c, 1, Outcome::TimedOut, 1000).await;
    let timed_out = TaskState::Done(Outcome::TimedOut);
    assert_eq!(state(&store, c.task.id).await, (timed_out, Some(1)), "that is no reason");
    // Not before the pause is over; and not after it is cancelled.
    assert_eq!(store.end_pauses(1099).await.unwrap(), (0, Some(1100)));
    assert_eq!(store.hand_over(lab, Positions::default(), 10).await.unwrap(), []);
    assert_eq!(store.cancel(vec![b.seq], 1050).await.unwrap().cancelled, 1);
    let cancelled = (TaskState::Done(Outcome::Cancelled), Some(2));
    assert_eq!(state(&store, b.task.id).await, cancelled);
    assert_eq!(store.end_pauses(1100).await.unwrap(), (1, None));
    let handed = store.hand_over(lab, Positions::default(), 10).await.unwrap();
    assert_eq!(handed.iter().map(|one| one.seq).collect::<Vec<_>>(), [a.seq]);
    confirm(&store, &begun[..1], 2).await;
    end(&store, a, 2, Outcome::Failed, 2000).await;
    assert_eq!(store.end_pauses(2200).await.unwrap(), (1, None), "it is twice as long");
    store.hand_over(lab, Positions::default(), 10).await.unwrap();
    // The retries are used up.
    end(&store, a, 3, Outcome::Failed, 3000).await;
    let failed = TaskState::Done(Outcome::Failed);
    assert_eq!(state(&store, a.task.id).await, (failed, Some(3)));
    // Where a cancellation was requested, no policy applies.
    store.retry(vec![c.seq], 3000).await.unwrap();
    store.hand_over(lab, Positions::default(), 10).await.unwrap();
    assert_eq!(store.cancel(vec![c.seq], 3000).await.unwrap().asked.len(), 1);
    end(&store, c, 2, Outcome::Failed, 3000).await;
    assert_eq!(state(&store, c.task.id).await, (failed, Some(2)));
    assert_consistent(&store).await;
}

pub(super) async fn a_task_that_is_run_again_may_wait_as_long_as_it_might_at_first(store: Store) {
    let lab = EndpointId::new();
    let policy = RetryPolicy {
        retries: 2,
        first_pause_ms: 50,
        longest_pause_ms: 50,
        on: vec![Outcome::Failed],
    };
    let expires = TaskSpec { expires_in_ms: Some(100), ..specs(1)[0].clone() };
    let specs = [expires, specs(1)[0].clone()];
    let first = Chunk { now_ms: 1000, retry: Some(policy), ..chunk(lab, "k", &specs) };
    let begun = begin(&store, first.clone()).await.unwrap();
    confirm(&store, &begun, 1).await;
    let [one, other] = [&begun[0], &begun[1]];
    assert_eq!(one.task.expires_at_ms, Some(1100));
    let published = async || {
        let handed = store.hand_over(lab, Positions::default(), 10).await.unwrap();
        handed.iter().map(|one| one.task.expires_at_ms).collect::<Vec<_>>()
    };
    // By a person's wish, from that on.
    end(&store, one, 1, Outcome::Expired, 1100).await;
    end(&store, other, 1, Outcome::TimedOut, 1100).await;
    store.retry(vec![one.seq, other.seq], 5000).await.unwrap();
    assert_eq!(published().await, [Some(5100), None]);
    let again = store.still_submitting(lab, vec![one.seq]).await.unwrap();
    assert_eq!(again[0].task.expires_at_ms, Some(5100));
    let shown = store.task(one.task.id).await.unwrap().unwrap();
    assert_eq!(shown.task.unwrap().expires_at_ms, Some(5100));
    // By the policy, from the end of the pause on; counted from the first submission as before.
    end(&store, one, 2, Outcome::Failed, 6000).await;
    store.end_pauses(6050).await.unwrap();
    assert_eq!(published().await, [Some(6150)]);
    // The key is that of the same tasks still.
    let known = begin(&store, first).await.unwrap();
    assert_eq!(known[0].task.expires_at_ms, Some(6150));
}
