//! Cancellations on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, spec, specs, state};
use crate::model::{NamePattern, TaskSpec, TaskState};
use crate::store::{Chunk, Handing, PendingCancel, Positions, RecordedTask, Store, TaskSelection};
use crate::stub_broker;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::wire::{self, Presence, Role};

/// Tasks of an endpoint that the broker has.
async fn submitted(store: &Store, endpoint: EndpointId, key: &str, specs: &[TaskSpec]) -> Tasks {
    let begun = begin(store, chunk(endpoint, key, specs)).await.unwrap();
    let seqs: Vec<i64> = begun.iter().map(|one| one.seq).collect();
    store.mark_submitted(seqs.iter().map(|seq| (*seq, 1)).collect(), 5).await.unwrap();
    Tasks { begun, seqs }
}

struct Tasks {
    begun: Vec<RecordedTask>,
    seqs: Vec<i64>,
}

fn presence(endpoint: EndpointId, state: StateId, age: u64, role: Role, pending: u64) -> Presence {
    let instance = wire::session_name(1, age, 0);
    let active = stub_broker::active(endpoint, state, instance);
    Presence { role, standby: true, pending, ..active }
}

fn lost(task: &RecordedTask, loss: Loss, state: StateId) -> TaskResult {
    let attempt = task.task.attempt;
    let lost = Some(loss);
    TaskResult { lost, state_id: Some(state), ..done(task, attempt, Outcome::Interrupted) }
}

async fn lose(store: &Store, task: &RecordedTask, loss: Loss, state: StateId) {
    record(store, &[lost(task, loss, state)], &[], 6).await.unwrap();
}

pub(super) async fn a_cancellation_is_sent_until_the_broker_has_it_and_then_marked_and_binds_no_outcome(
    store: Store,
) {
    let lab = EndpointId::new();
    let Tasks { begun, seqs } = submitted(&store, lab, "k", &specs(3)).await;
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 6).await.unwrap();
    let slice = store.cancel(seqs.clone(), 7).await.unwrap();
    assert_eq!((slice.cancelled, slice.too_late), (0, 1));
    assert_eq!(slice.asked[&lab], (1, seqs[1..].to_vec()));
    let named = |at: &[usize]| at.iter().map(|at| begun[*at].task.attempt()).collect();
    let message =
        |number, at: &[usize]| PendingCancel { endpoint: lab, number, attempts: named(at) };
    for _ in 0..2 {
        assert_eq!(store.pending_cancels(&[]).await.unwrap(), [message(1, &[1, 2])]);
    }
    assert_eq!(store.pending_cancels(&[lab]).await.unwrap(), []);
    assert_eq!(store.marks_to_send().await.unwrap(), []);
    // Asked again, it is sent again; and its own result ends a task, whatever that is.
    assert_eq!(store.cancel(vec![seqs[2]], 8).await.unwrap().asked[&lab].0, 2);
    record(&store, &[done(&begun[1], 1, Outcome::Failed)], &[], 6).await.unwrap();
    let expected = [message(1, &[]), message(2, &[2])];
    assert_eq!(store.pending_cancels(&[]).await.unwrap(), expected);
    let open = |messages| store.open_cancellations(messages);
    assert_eq!(open(vec![(lab, 1), (lab, 2)]).await.unwrap()[&lab], 1);
    store.cancel_confirmed(lab, 1).await.unwrap();
    assert_eq!(store.marks_to_send().await.unwrap(), [], "another is to be sent before");
    store.cancel_confirmed(lab, 2).await.unwrap();
    assert_eq!(store.pending_cancels(&[]).await.unwrap(), []);
    assert_eq!(store.marks_to_send().await.unwrap(), [(lab, 2)]);
    store.mark_confirmed(lab, 2).await.unwrap();
    assert_eq!(store.marks_to_send().await.unwrap(), []);
    record(&store, &[done(&begun[2], 1, Outcome::Cancelled)], &[], 6).await.unwrap();
    assert_eq!(open(vec![(lab, 2)]).await.unwrap()[&lab], 0);
    let outcomes = store.count_outcomes(vec![(seqs[0], seqs[2])]).await.unwrap();
    let expected = [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled].map(|one| (one, 1));
    assert_eq!(outcomes, expected.into());
    // Provisioned anew, an endpoint may have lost the queue that had what is in force.
    let Tasks { seqs, .. } = submitted(&store, lab, "l", &specs(1)).await;
    let (number, _) = store.cancel(seqs, 9).await.unwrap().asked[&lab];
    store.cancel_confirmed(lab, number).await.unwrap();
    let kind = clutch_common::topology::QueueKind::Classic;
    for sent in [0, 1] {
        store.declared(lab, kind).await.unwrap();
        assert_eq!(store.pending_cancels(&[]).await.unwrap().len(), sent);
    }
}

pub(super) async fn a_task_to_be_cancelled_ends_once_it_is_nowhere_for_certain_and_is_not_submitted_again(
    store: Store,
) {
    let lab = EndpointId::new();
    let Tasks { begun, seqs } = submitted(&store, lab, "k", &specs(3)).await;
    let (old, new) = (StateId::new(), StateId::new());
    let presences =
        [presence(lab, old, 1, Role::Active, 0), presence(lab, new, 2, Role::Active, 0)];
    record(&store, &[], &presences, 6).await.unwrap();
    store.cancel(seqs, 7).await.unwrap();
    // The old state may have it.
    for task in &begun {
        lose(&store, task, Loss::Unknown, new).await;
        assert_eq!(state(&store, task.task.id).await, (TaskState::Submitted, None));
    }
    lose(&store, &begun[1], Loss::HandedBack, old).await;
    let asked = store.attempts_to_ask(lab, 10).await.unwrap();
    assert_eq!(asked.len(), 3, "all are in doubt");
    record(&store, &[], &[presence(lab, old, 1, Role::Standby, 0)], 6).await.unwrap();
    let cancelled = (TaskState::Done(Outcome::Cancelled), Some(1));
    for task in &begun {
        lose(&store, task, Loss::Unknown, new).await;
        assert_eq!(state(&store, task.task.id).await, cancelled);
        // It had the task after all: that is kept, and changes nothing.
        record(&store, &[done(task, 1, Outcome::Succeeded)], &[], 6).await.unwrap();
        assert_eq!(state(&store, task.task.id).await, cancelled);
    }
    assert_eq!(store.attempts_to_ask(lab, 10).await.unwrap(), []);
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

pub(super) async fn what_never_left_is_cancelled_at_once_and_what_may_have_left_is_not_sent_again(
    store: Store,
) {
    let lab = EndpointId::new();
    let waiting = Chunk { handing: Handing::Nothing, ..chunk(lab, "w", &specs(3)) };
    let begun = begin(&store, waiting).await.unwrap();
    let seqs: Vec<i64> = begun.iter().map(|one| one.seq).collect();
    // One is handed over, and the broker says nothing.
    let handed = store.hand_over(lab, Positions::default(), 1).await.unwrap();
    assert_eq!(handed[0].seq, seqs[0]);
    let slice = store.cancel(seqs.clone(), 7).await.unwrap();
    assert_eq!((slice.cancelled, slice.asked[&lab].1.clone()), (2, vec![seqs[0]]));
    let detail = store.task(begun[1].task.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Cancelled));
    assert_eq!(detail.results[0].result.attempt, 1);
    assert_eq!(store.hand_over(lab, Positions::default(), 10).await.unwrap(), []);
    assert_eq!(store.still_submitting(lab, seqs.clone()).await.unwrap(), []);
    store.keep_waiting(vec![(seqs[0], 1)]).await.unwrap();
    assert_eq!(store.hand_over(lab, Positions::default(), 10).await.unwrap(), []);
    let again = Chunk { handing: Handing::Unconfirmed, ..chunk(lab, "w", &specs(3)) };
    let again = begin(&store, again).await.unwrap();
    assert!(again.iter().all(|one| one.hand_over.is_none()), "it is submitted again");
    let submission = store.submission("w").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

pub(super) async fn a_cancelled_task_that_ran_to_its_end_is_not_called_cancelled(store: Store) {
    let lab = EndpointId::new();
    let Tasks { begun, seqs } = submitted(&store, lab, "k", &specs(1)).await;
    let disk = StateId::new();
    record(&store, &[], &[presence(lab, disk, 1, Role::Active, 0)], 6).await.unwrap();
    store.cancel(seqs, 7).await.unwrap();
    lose(&store, &begun[0], Loss::Delivered, disk).await;
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Interrupted));
    let reason = detail.results[0].result.reason.clone().unwrap();
    assert!(reason.contains("ran to its end"), "{reason}");
}

pub(super) async fn tasks_are_selected_once_in_slices_by_every_condition(store: Store) {
    let [lab, other] = [EndpointId::new(), EndpointId::new()];
    let named = |name: &str| TaskSpec { name: Some(name.to_owned()), ..spec(&["a"]) };
    let all = [named("fit-1"), named("fit-2"), spec(&["b"]), named("plot")];
    let Tasks { begun, seqs } = submitted(&store, lab, "k", &all).await;
    let Tasks { seqs: others, .. } = submitted(&store, other, "l", &[named("fit-3")]).await;
    record(&store, &[done(&begun[3], 1, Outcome::Failed)], &[], 6).await.unwrap();
    let open = || vec!["submitted".to_owned()];
    let of = |states: Vec<String>| TaskSelection { states, ..TaskSelection::default() };
    let submission = store.submission("k").await.unwrap();
    let ids = begun.iter().map(|one| one.task.id).collect();
    for (selection, expected) in [
        (of(open()), [&seqs[..3], &others[..]].concat()),
        (TaskSelection { submission, ..of(open()) }, seqs[..3].to_vec()),
        (TaskSelection { submission, ..of(vec!["failed".to_owned()]) }, vec![seqs[3]]),
        (TaskSelection { submission, ..of(vec![]) }, seqs.clone()),
        (TaskSelection { endpoint: Some(other), ..of(open()) }, others.clone()),
        (
            TaskSelection { name: Some(NamePattern::new("fit-*")), ..of(open()) },
            vec![seqs[0], seqs[1], others[0]],
        ),
        (TaskSelection { tasks: ids, ..of(vec![]) }, seqs.clone()),
        (
            TaskSelection {
                tasks: vec![begun[3].task.id, begun[0].task.id],
                ..of(vec!["failed".to_owned()])
            },
            vec![seqs[3]],
        ),
        (of(vec!["waiting".to_owned()]), vec![]),
        (of(vec!["running".to_owned()]), [&seqs[..3], &others[..]].concat()),
    ] {
        for limit in [1, 2, 10] {
            let mut cursor = store.select(selection.clone()).await.unwrap();
            let mut found = Vec::new();
            loop {
                let (next, slice) = store.next_selected(cursor, limit).await.unwrap();
                cursor = next;
                assert!(slice.len() <= limit);
                if slice.is_empty() {
                    break;
                }
                found.extend(slice.into_iter().map(|one| one.seq));
            }
            assert_eq!(found, expected, "{selection:?} by {limit}");
        }
    }
}
