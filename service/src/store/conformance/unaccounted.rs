//! Unaccounted attempts and new attempts on any engine.

use super::{assert_counts_agree, begin, chunk, done, spec, state};
use crate::model::{TaskSpec, TaskState};
use crate::store::{
    Batch, Positions, PresenceMessage, RecordedTask, Registration, Store, StoredState,
};
use crate::stub_broker;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::task::Task;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::topology::QueueKind;
use clutch_common::wire::{self, Presence, Role};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn lost(task: &RecordedTask, attempt: u32, loss: Loss) -> TaskResult {
    TaskResult { lost: Some(loss), ..done(task, attempt, Outcome::Interrupted) }
}

async fn registered(store: &Store, lost_after: Option<Duration>) -> EndpointId {
    let wanted =
        Registration { name: "lab".to_owned(), id: None, queue: None, lost_after, now_ms: 1 };
    store.register(wanted).await.unwrap().0.id
}

/// Tasks of `lab` that the broker has.
async fn submitted(store: &Store, specs: &[TaskSpec]) -> Vec<RecordedTask> {
    let endpoint = registered(store, None).await;
    let begun = begin(store, chunk(endpoint, "k", specs)).await.unwrap();
    let seqs = begun.iter().map(|one| (one.seq, 1)).collect();
    assert!(!store.mark_submitted(seqs, 5).await.unwrap());
    begun
}

async fn record(store: &Store, results: &[TaskResult]) {
    super::record(store, results, &[], 5).await.unwrap();
}

/// Records that an attempt is lost that was asked for.
async fn lose(store: &Store, task: &RecordedTask, attempt: u32) {
    record(store, &[lost(task, attempt, Loss::HandedBack)]).await;
    record(store, &[lost(task, attempt, Loss::Unknown)]).await;
}

pub(super) async fn only_its_own_endpoint_loses_an_attempt_and_only_one_that_it_was_asked_for(
    store: Store,
) {
    let begun = submitted(&store, &[spec(&["a"])]).await;
    let submitted = (TaskState::Submitted, None);
    record(&store, &[lost(&begun[0], 1, Loss::Unknown)]).await;
    assert_eq!(state(&store, begun[0].task.id).await, submitted, "it was not asked for");
    for loss in [Loss::HandedBack, Loss::Unknown] {
        let forged = vec![lost(&begun[0], 1, loss)];
        let forged = Arc::new(Batch { results: forged, ..Batch::default() });
        store.record(forged, 5, |_| ()).await.unwrap();
        assert_eq!(to_ask(&store).await, [0; 0], "another endpoint has it lost");
    }
    lose(&store, &begun[0], 1).await;
    assert_eq!(state(&store, begun[0].task.id).await, (TaskState::Waiting, None));
}

/// A session of another instance, on a disk of an age.
fn session_of(age: u64) -> Uuid {
    let (chance, _) = Uuid::new_v4().as_u64_pair();
    wire::session_name(chance, age, 0)
}

fn active(endpoint_id: EndpointId) -> Presence {
    stub_broker::active(endpoint_id, StateId::new(), session_of(1))
}

/// The attempts that are to be asked for.
async fn to_ask(store: &Store) -> Vec<u32> {
    let endpoint = registered(store, None).await;
    let unaccounted = store.attempts_to_ask(endpoint, 10).await.unwrap();
    unaccounted.iter().map(|one| one.attempt.attempt).collect()
}

pub(super) async fn a_lost_attempt_has_no_result_and_only_the_one_under_way_ends_the_task(
    store: Store,
) {
    let begun = submitted(&store, &[spec(&["a"]), spec(&["b"])]).await;
    let [a, b] = [&begun[0], &begun[1]];
    lose(&store, a, 1).await;
    lose(&store, b, 1).await;
    let waiting = (TaskState::Waiting, None);
    assert_eq!(state(&store, a.task.id).await, waiting);
    assert_eq!(store.task(a.task.id).await.unwrap().unwrap().results, []);
    // A late result of the first attempt, before the second one's and after it.
    record(&store, &[done(a, 1, Outcome::Failed)]).await;
    assert_eq!(state(&store, a.task.id).await, waiting);
    record(&store, &[lost(a, 1, Loss::Unknown), lost(a, 1, Loss::HandedBack)]).await;
    assert_eq!(to_ask(&store).await, [0; 0]);
    record(&store, &[done(a, 2, Outcome::Succeeded), done(b, 2, Outcome::Succeeded)]).await;
    record(&store, &[done(b, 1, Outcome::Failed)]).await;
    for task in [a, b] {
        let succeeded = (TaskState::Done(Outcome::Succeeded), Some(2));
        assert_eq!(state(&store, task.task.id).await, succeeded);
        assert_eq!(store.task(task.task.id).await.unwrap().unwrap().results.len(), 2);
    }
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

pub(super) async fn the_next_attempt_waits_until_the_broker_has_it_under_the_same_key(
    store: Store,
) {
    let specs = [spec(&["a"]), TaskSpec { rerun: false, ..spec(&["b"]) }];
    let begun = submitted(&store, &specs).await;
    let endpoint = registered(&store, None).await;
    lose(&store, &begun[0], 1).await;
    lose(&store, &begun[1], 1).await;
    let again = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let ids = |all: &[RecordedTask]| all.iter().map(|one| one.task.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&begun));
    let states: Vec<StoredState> = again.iter().map(|one| one.state).collect();
    assert_eq!(states, [StoredState::Waiting, StoredState::Done(Outcome::Interrupted)]);
    assert_eq!(again[0].task, Task { attempt: 2, ..begun[0].task.clone() });
    let found = store.hand_over(endpoint, Positions::default(), 10).await.unwrap();
    let tasks: Vec<Task> = found.iter().map(|one| one.task.clone()).collect();
    assert_eq!(tasks, [again[0].task.clone()]);
    assert_eq!(found[0].body, again[0].body);
    store.mark_submitted(vec![(begun[0].seq, 1)], 6).await.unwrap();
    assert_eq!(state(&store, begun[0].task.id).await.0, TaskState::Waiting, "another attempt");
    store.mark_submitted(vec![(begun[0].seq, 2)], 6).await.unwrap();
    assert_eq!(state(&store, begun[0].task.id).await, (TaskState::Submitted, None));
    // It can be lost as well.
    lose(&store, &begun[0], 2).await;
    assert_eq!(
        store.hand_over(endpoint, Positions::default(), 10).await.unwrap()[0].task.attempt,
        3
    );
}

pub(super) async fn a_task_whose_confirm_is_on_its_way_is_asked_for_once_it_is_there(store: Store) {
    let endpoint = registered(&store, None).await;
    let begun = begin(&store, chunk(endpoint, "k", &[spec(&["a"])])).await.unwrap();
    super::record(&store, &[], &[active(endpoint)], 5).await.unwrap();
    let tally = super::record(&store, &[], &[active(endpoint)], 5).await.unwrap();
    assert!(tally.is_news());
    assert_eq!(to_ask(&store).await, [0; 0]);
    assert!(store.mark_submitted(vec![(begun[0].seq, 1)], 5).await.unwrap());
    assert_eq!(to_ask(&store).await, [1]);
}

pub(super) async fn an_attempt_that_is_lost_before_its_confirm_is_followed_by_the_next(
    store: Store,
) {
    let endpoint = registered(&store, None).await;
    let begun = begin(&store, chunk(endpoint, "k", &[spec(&["a"])])).await.unwrap();
    lose(&store, &begun[0], 1).await;
    let late = vec![(begun[0].seq, 1)];
    store.mark_submitted(late, 5).await.unwrap();
    assert_eq!(state(&store, begun[0].task.id).await, (TaskState::Waiting, None));
    assert_eq!(
        store.hand_over(endpoint, Positions::default(), 10).await.unwrap()[0].task.attempt,
        2
    );
}

pub(super) async fn an_attempt_is_asked_for_once_until_there_is_a_reason_to_ask_again(
    store: Store,
) {
    let begun = submitted(&store, &[spec(&["a"]), spec(&["b"])]).await;
    let endpoint = registered(&store, None).await;
    let first = active(endpoint);
    super::record(&store, &[], std::slice::from_ref(&first), 5).await.unwrap();
    let handed_back = [0, 1].map(|index: usize| lost(&begun[index], 1, Loss::HandedBack));
    record(&store, &handed_back).await;
    let ask = async || super::ask(&store, endpoint, 10, 7).await;
    assert_eq!((ask().await, ask().await), (2, 0));
    assert_eq!(store.endpoints_to_ask().await.unwrap(), []);
    // The same instance again is no reason; handing back again is one, and so are
    // another session and another instance.
    super::record(&store, &[], std::slice::from_ref(&first), 5).await.unwrap();
    assert_eq!(ask().await, 0);
    record(&store, &handed_back[..1]).await;
    assert_eq!(ask().await, 1);
    store.ask_all_again().await.unwrap();
    assert_eq!(store.endpoints_to_ask().await.unwrap(), [endpoint]);
    assert_eq!(ask().await, 2);
    let restarted = Presence { instance: session_of(1), ..first };
    super::record(&store, &[], &[restarted], 5).await.unwrap();
    assert_eq!(ask().await, 2);
    // A result is the end of it.
    record(&store, &[done(&begun[0], 1, Outcome::Failed)]).await;
    store.ask_all_again().await.unwrap();
    assert_eq!(ask().await, 1);
}

pub(super) async fn a_roll_call_that_another_instance_passes_by_is_none(store: Store) {
    let begun = submitted(&store, &[spec(&["a"])]).await;
    let endpoint = registered(&store, None).await;
    let first = active(endpoint);
    super::record(&store, &[], std::slice::from_ref(&first), 5).await.unwrap();
    record(&store, &[lost(&begun[0], 1, Loss::HandedBack)]).await;
    let known = super::state_to_ask(&store, endpoint).await;
    let attempts = store.attempts_to_ask(endpoint, 10).await.unwrap();
    // Its presence is recorded between the roll call and the broker's confirm of that.
    let restarted = Presence { instance: session_of(2), ..first };
    super::record(&store, &[], &[restarted], 6).await.unwrap();
    assert!(!store.mark_asked(endpoint, &known, attempts, 7).await.unwrap());
    assert_eq!(to_ask(&store).await, [1], "the instance that is there is not asked");
    assert_eq!(super::ask(&store, endpoint, 10, 8).await, 1);
    assert_eq!(to_ask(&store).await, [0; 0]);
}

pub(super) async fn a_disk_that_went_back_is_asked_for_every_open_attempt(store: Store) {
    let begun = submitted(&store, &[spec(&["a"]), spec(&["b"])]).await;
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)]).await;
    let endpoint = registered(&store, None).await;
    let first = Presence { instance: session_of(5), ..active(endpoint) };
    for (age, asked) in [(5, 0), (9, 0), (8, 1)] {
        let word = Presence { instance: session_of(age), ..first.clone() };
        super::record(&store, &[], &[word], 5).await.unwrap();
        assert_eq!(to_ask(&store).await.len(), asked, "{age}");
    }
}

pub(super) async fn losses_of_external_tasks_and_presences_of_unknown_endpoints_are_ignored(
    store: Store,
) {
    let nobody = crate::stub_broker::result(Outcome::Interrupted);
    let loss = TaskResult { lost: Some(Loss::Unknown), ..nobody.clone() };
    let tally =
        super::record(&store, std::slice::from_ref(&loss), &[active(EndpointId::new())], 5).await;
    let tally = tally.unwrap();
    assert_eq!((tally.losses.ignored, tally.external, tally.is_news()), (1, 0, false));
    assert_eq!(store.task(nobody.task_id).await.unwrap(), None);
    assert_eq!(store.endpoint_states().await.unwrap(), []);
    // Nor once its result has made it known.
    record(&store, &[nobody, TaskResult { attempt: 2, ..loss }]).await;
    assert_eq!(store.endpoints_with_waiting().await.unwrap(), []);
}

pub(super) async fn provisioning_again_changes_the_patience_and_has_open_attempts_asked_for(
    store: Store,
) {
    let begun = submitted(&store, &[spec(&["a"]), spec(&["b"])]).await;
    let endpoint = registered(&store, None).await;
    super::record(&store, &[], &[active(endpoint)], 5).await.unwrap();
    let patience = async || store.endpoint_states().await.unwrap()[0].lost_after;
    assert_eq!(patience().await, Duration::from_secs(3600));
    registered(&store, Some(Duration::from_secs(10))).await;
    registered(&store, None).await;
    assert_eq!(patience().await, Duration::from_secs(10));
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)]).await;
    assert!(!store.declared(endpoint, QueueKind::Classic).await.unwrap(), "it is new");
    assert_eq!(to_ask(&store).await, [0; 0]);
    assert!(store.declared(endpoint, QueueKind::Classic).await.unwrap());
    assert_eq!(to_ask(&store).await, [1]);
}

pub(super) async fn only_a_state_that_is_not_active_can_be_given_up_and_only_once(store: Store) {
    submitted(&store, &[spec(&["a"])]).await;
    let endpoint = registered(&store, None).await;
    let (old, new) = (active(endpoint), Presence { standby: true, ..active(endpoint) });
    super::record(&store, &[], &[old.clone(), new.clone()], 5).await.unwrap();
    assert_eq!(store.give_up(endpoint, new.state_id, 6).await.unwrap(), None);
    assert_eq!(store.give_up(endpoint, StateId::new(), 6).await.unwrap(), None);
    assert_eq!(store.give_up(endpoint, old.state_id, 6).await.unwrap(), Some(1));
    assert_eq!(store.give_up(endpoint, old.state_id, 6).await.unwrap(), None);
    // A state that is heard all the same is not given up any more.
    let waiting = Presence { role: Role::Standby, pending: 1, ..old.clone() };
    super::record(&store, &[], &[waiting], 7).await.unwrap();
    assert_eq!(store.give_up(endpoint, old.state_id, 8).await.unwrap(), Some(1));
}

pub(super) async fn a_presence_that_comes_again_revives_no_state_that_was_given_up(store: Store) {
    submitted(&store, &[spec(&["a"])]).await;
    let endpoint = registered(&store, None).await;
    let old = PresenceMessage {
        presence: active(endpoint),
        message: Some("old".to_owned()),
        commits: None,
        waited: false,
    };
    let new = PresenceMessage {
        presence: active(endpoint),
        message: Some("new".to_owned()),
        commits: None,
        waited: false,
    };
    let hear = async |presences: &[PresenceMessage]| {
        let batch = Batch { presences: presences.to_vec(), ..Batch::default() };
        store.record(Arc::new(batch), 5, |_| ()).await.unwrap().states_changed
    };
    assert!(hear(&[old.clone(), new.clone()]).await);
    let known = store.endpoint_states().await.unwrap();
    // The broker was not told before the link was lost.
    assert!(!hear(&[old.clone(), new]).await);
    assert_eq!(store.endpoint_states().await.unwrap(), known);
    // The old one is there after all.
    assert!(hear(&[PresenceMessage { message: Some("later".to_owned()), ..old }]).await);
}

pub(super) async fn an_endpoint_that_lost_messages_is_asked_and_no_other(store: Store) {
    let endpoint = registered(&store, None).await;
    submitted(&store, &[spec(&["a"])]).await;
    super::record(&store, &[], &[active(endpoint)], 5).await.unwrap();
    assert_eq!(to_ask(&store).await, [0; 0]);
    let word = Presence { lost: true, ..active(EndpointId::new()) };
    assert!(!super::record(&store, &[], &[word], 5).await.unwrap().is_news());
    let known = store.endpoint_states().await.unwrap()[0].states[0].clone();
    let word =
        Presence { lost: true, state_id: known.id, instance: known.instance, ..active(endpoint) };
    assert!(super::record(&store, &[], &[word], 5).await.unwrap().is_news());
    assert_eq!(to_ask(&store).await, [1]);
}
