//! Tasks of topics: placed by credit and turns, fenced, lost, and ended where no member takes them.

use super::*;
use crate::model::{DueTime, TopicOrder};
use crate::store::{Forgettable, HandOver, Handed, StoredState};
use crate::stub_broker;
use crate::topics::After;
use clutch_common::id::StateId;
use clutch_common::task::result::Loss;
use clutch_common::wire::{Claims, FunctionOffer, InstanceDetails};
use uuid::Uuid;

/// A chunk of calls of a function for the topic.
fn calls(key: &str, function: &str, count: usize, now_ms: u64) -> Chunk {
    let spec = serde_json::json!({ "call": { "function": function } });
    let spec: TaskSpec = serde_json::from_value(spec).unwrap();
    let order = TopicOrder {
        topic: "cloud".to_owned(),
        version: None,
        start_within_ms: 60_000,
        place_within_ms: None,
    };
    Chunk {
        to: Destination::Topic(order),
        now_ms,
        ..chunk(EndpointId::new(), key, &vec![spec; count])
    }
}

/// A member of the topic that has the function `add`, or another one.
async fn member(store: &Store, slots: u64, function: &str, now_ms: u64) -> EndpointId {
    let endpoint = EndpointId::new();
    let name = format!("m-{endpoint}");
    let (id, lost_after) = (Some(endpoint), None);
    store.register(Registration { name, id, queue: None, lost_after, now_ms: 1 }).await.unwrap();
    tells(store, endpoint, slots, function, now_ms).await;
    endpoint
}

async fn tells(store: &Store, endpoint: EndpointId, slots: u64, function: &str, now_ms: u64) {
    let details = InstanceDetails {
        version: "1".to_owned(),
        host: "node".to_owned(),
        slots,
        free: slots,
        topics: vec!["cloud".to_owned()],
        functions: vec![FunctionOffer { name: function.to_owned(), version: None }],
        started_at_ms: 1,
        clock_ms: now_ms,
        draining: false,
    };
    let active = stub_broker::active(endpoint, StateId::new(), Uuid::new_v4());
    let presence = Presence { details: Some(details), ..active };
    record(store, &[], &[presence], now_ms).await.unwrap();
}

async fn place(store: &Store, now_ms: u64) -> BTreeMap<EndpointId, Vec<Handed>> {
    store.place_topic_tasks(100, now_ms).await.unwrap().by_member
}

/// How many tasks each member is given.
fn given(placed: &BTreeMap<EndpointId, Vec<Handed>>) -> BTreeMap<EndpointId, usize> {
    placed.iter().map(|(member, tasks)| (*member, tasks.len())).collect()
}

async fn ends(store: &Store, member: EndpointId, task: &Handed, now_ms: u64) -> Tally {
    let result = result_of(task.task.attempt(), Outcome::Succeeded);
    let results = vec![TaskResult { endpoint_id: member, ..result }];
    let batch = Batch { results, ..Batch::default() };
    store.record(Arc::new(batch), now_ms, |_| ()).await.unwrap()
}

async fn claims(store: &Store, member: EndpointId, attempts: Vec<Attempt>) -> Tally {
    let claims = vec![Claims { endpoint_id: member, state_id: StateId::new(), attempts }];
    let batch = Batch { claims, ..Batch::default() };
    store.record(Arc::new(batch), 3000, |_| ()).await.unwrap()
}

async fn loses(store: &Store, member: EndpointId, task: &Handed, loss: Loss) {
    let result = result_of(task.task.attempt(), Outcome::Interrupted);
    let results = vec![TaskResult { endpoint_id: member, lost: Some(loss), ..result }];
    store.record(Arc::new(Batch { results, ..Batch::default() }), 3000, |_| ()).await.unwrap();
}

pub(super) async fn members_are_given_tasks_by_their_slots_and_no_more_than_their_credit(
    store: Store,
) {
    let begun = begin(&store, calls("k", "add", 10, 1000)).await.unwrap();
    assert!(begun.iter().all(|one| one.hand_over.is_none() && one.state == StoredState::InTopic));
    assert_eq!(store.endpoints_with_waiting().await.unwrap(), []);
    assert!(place(&store, 1000).await.is_empty(), "there is no member");
    let (four, one) = (member(&store, 4, "add", 1000).await, member(&store, 1, "add", 1000).await);
    let other = member(&store, 8, "sub", 1000).await;
    let placed = place(&store, 1000).await;
    assert_eq!(given(&placed), BTreeMap::from([(four, 4), (one, 1)]));
    for task in placed.values().flatten() {
        assert_eq!(task.task.topic.as_ref().unwrap().start_by_ms, 61_000);
        assert_eq!(
            serde_json::from_str::<clutch_common::task::Task>(&task.body).unwrap(),
            task.task
        );
        assert_eq!(task.hand_over, HandOver::First);
    }
    assert!(place(&store, 1000).await.is_empty(), "none has credit");
    // Long after, so that it gets no more than its slots.
    ends(&store, one, &placed[&one][0], 9000).await;
    assert_eq!(given(&place(&store, 19_000).await), BTreeMap::from([(one, 1)]));
    assert!(!placed.contains_key(&other), "it has another function");
    assert_counts_agree(&store, store.submission("k").await.unwrap().unwrap()).await;
    let record = store.topic("cloud").await.unwrap().unwrap();
    assert_eq!((record.waiting[0].tasks, record.placed, record.members.len()), (4, 5, 3));
}

pub(super) async fn a_run_that_begins_knows_what_is_placed(store: Store) {
    let lab = member(&store, 2, "add", 1000).await;
    begin(&store, calls("k", "add", 5, 1000)).await.unwrap();
    let placed = place(&store, 1000).await;
    store.load_topics(1000).await.unwrap();
    assert!(place(&store, 1000).await.is_empty(), "nothing is forgotten, or counted twice");
    ends(&store, lab, &placed[&lab][0], 1000).await;
    store.load_topics(60_000).await.unwrap();
    store.topic_board().heard([lab], 60_000);
    assert_eq!(given(&place(&store, 60_000).await), BTreeMap::from([(lab, 1)]));
    let seqs = placed[&lab].iter().map(|one| one.seq).collect();
    let again = store.still_submitting(lab, seqs).await.unwrap();
    assert_eq!(again[0].task.topic, placed[&lab][1].task.topic, "published again as it was");
}

pub(super) async fn what_is_not_claimed_is_placed_elsewhere_and_a_late_result_ends_nothing(
    store: Store,
) {
    let first = member(&store, 2, "add", 1000).await;
    let begun = begin(&store, calls("k", "add", 2, 1000)).await.unwrap();
    let placed = place(&store, 1000).await;
    let [claimed, not] = [&placed[&first][0], &placed[&first][1]];
    let strange = Attempt { task_id: TaskId::new(), attempt: 1 };
    let later = Attempt { attempt: 2, ..claimed.task.attempt() };
    let tally = claims(&store, first, vec![claimed.task.attempt(), strange, later]).await;
    assert_eq!(tally.stale, 2);
    assert_eq!(claims(&store, first, vec![claimed.task.attempt()]).await.stale, 0);
    let fenced = |read_ms| store.topic_board().with(|board| board.fenced(read_ms, 10));
    assert_eq!(fenced(91_000), []);
    assert_eq!(fenced(91_001), [(not.seq, 1)]);
    let both = vec![(claimed.seq, 1), (not.seq, 1)];
    let ended = store.end_placements(both, After::Fenced, 91_001).await.unwrap();
    assert_eq!((ended.again, ended.interrupted, ended.cancelled), (1, 0, 0));
    let second = member(&store, 1, "add", 91_001).await;
    let again = place(&store, 91_001).await;
    assert_eq!(again[&second][0].task.attempt, 2);
    let tally = ends(&store, first, not, 91_002).await;
    assert_eq!((tally.refused, tally.stale, tally.recorded), (0, 1, 1));
    let place_of = store.placement_of(not.seq).await.unwrap().unwrap();
    assert_eq!((place_of.member, place_of.attempt), (Some(second), 2));
    assert_eq!((place_of.earlier[0].member, place_of.earlier[0].attempt), (first, 1));
    let id = begun.iter().find(|one| one.seq == not.seq).unwrap().task.id;
    assert_eq!(state(&store, id).await.0, TaskState::Waiting);
    assert_eq!(ends(&store, second, &again[&second][0], 91_003).await.stale, 0);
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Succeeded), Some(2)));
}

pub(super) async fn what_a_member_does_not_start_or_offer_is_placed_elsewhere(store: Store) {
    let first = member(&store, 1, "add", 1000).await;
    begin(&store, calls("k", "add", 1, 1000)).await.unwrap();
    let placed = place(&store, 1000).await;
    loses(&store, first, &placed[&first][0], Loss::NotOffered).await;
    assert!(place(&store, 1000).await.is_empty(), "it does not offer it");
    tells(&store, first, 1, "add", 2000).await;
    let again = place(&store, 2000).await;
    assert_eq!(again[&first][0].task.attempt, 2);
    loses(&store, first, &again[&first][0], Loss::NotStarted).await;
    store.topic_board().heard([first], 4000);
    assert_eq!(place(&store, 4000).await[&first][0].task.attempt, 3);
}

pub(super) async fn what_a_lost_member_claimed_runs_again_only_if_it_may(store: Store) {
    let first = member(&store, 2, "add", 1000).await;
    let mut both = calls("k", "add", 2, 1000);
    both.specs[1].rerun = false;
    let begun = begin(&store, both).await.unwrap();
    let placed = place(&store, 1000).await;
    let attempts = placed[&first].iter().map(|one| one.task.attempt()).collect();
    claims(&store, first, attempts).await;
    assert_eq!(store.lose_member(first, 5000).await.unwrap(), 2);
    assert_eq!(state(&store, begun[0].task.id).await.0, TaskState::Waiting);
    let interrupted = TaskState::Done(Outcome::Interrupted);
    assert_eq!(state(&store, begun[1].task.id).await.0, interrupted);
}

pub(super) async fn submissions_take_turns_and_what_is_scheduled_waits(store: Store) {
    let lab = member(&store, 4, "add", 1000).await;
    let first = begin(&store, calls("first", "add", 20, 1000)).await.unwrap();
    place(&store, 1000).await;
    let second = begin(&store, calls("second", "add", 20, 1000)).await.unwrap();
    let due = Some(DueTime::AtMs(5000));
    begin(&store, Chunk { due, ..calls("later", "add", 1, 1000) }).await.unwrap();
    let big = member(&store, 8, "add", 1000).await;
    let placed = place(&store, 1000).await;
    let seqs: Vec<i64> = placed[&big].iter().map(|one| one.seq).collect();
    for begun in [&first, &second] {
        let of = begun.iter().filter(|one| seqs.contains(&one.seq)).count();
        assert_eq!(of, 4, "of {} placed at {lab}", seqs.len());
    }
    assert_eq!(store.release_due(5000, None).await.unwrap().tasks, 1);
    let record = store.topic("cloud").await.unwrap().unwrap();
    assert_eq!(record.waiting[0].tasks, 12 + 16 + 1);
}

pub(super) async fn what_nobody_takes_expires_in_words_and_cancelled_tasks_are_not_placed(
    store: Store,
) {
    member(&store, 1, "sub", 1000).await;
    let mut impatient = calls("k", "add", 2, 1000);
    if let Destination::Topic(order) = &mut impatient.to {
        order.place_within_ms = Some(60_000);
    }
    let begun = begin(&store, impatient).await.unwrap();
    let slice = store.cancel(vec![begun[1].seq], 2000).await.unwrap();
    assert_eq!(slice.cancelled, 1);
    assert_eq!(store.expire_unplaced(60_999).await.unwrap(), 0);
    assert_eq!(store.expire_unplaced(61_000).await.unwrap(), 1);
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Expired));
    let reason = detail.results[0].result.reason.clone().unwrap().to_string();
    for words in ["topic cloud", "function add", "has sub", "1m"] {
        assert!(reason.contains(words), "{reason}");
    }
    member(&store, 4, "add", 61_000).await;
    assert!(place(&store, 61_000).await.is_empty(), "both have ended");
    let rows = |db: &Db<'_>| db.only::<(u64,)>("SELECT count(*) FROM topic_tasks", &[]);
    assert_eq!(store.read("counting", rows).await.unwrap(), (2,));
    let submission = store.submission("k").await.unwrap().unwrap();
    store.forget(Forgettable::Submission(submission), 0, false).await.unwrap();
    assert_eq!(store.read("counting", rows).await.unwrap(), (0,));
}

pub(super) async fn what_the_broker_does_not_take_and_what_is_retried_is_placed_again(
    store: Store,
) {
    let lab = member(&store, 1, "add", 1000).await;
    begin(&store, calls("k", "add", 1, 1000)).await.unwrap();
    let placed = place(&store, 1000).await;
    let seq = placed[&lab][0].seq;
    store.keep_waiting(vec![(seq, 1)]).await.unwrap();
    let again = place(&store, 1000).await;
    assert_eq!(again[&lab][0].task.attempt, 1, "no member was given it");
    ends(&store, lab, &again[&lab][0], 1000).await;
    assert_eq!(store.retry(vec![seq], 1000).await.unwrap().retried, 1);
    assert_eq!(place(&store, 1000).await[&lab][0].task.attempt, 2);
    assert_counts_agree(&store, store.submission("k").await.unwrap().unwrap()).await;
}
