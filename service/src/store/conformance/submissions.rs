//! Submissions on any engine.

use super::{assert_counts_agree, begin, chunk, done, record, spec, specs, state};
use crate::model::{TaskSpec, TaskState};
use crate::store::engine::{Db, values};
use crate::store::{
    Chunk, Error, HandOver, Handing, Positions, RecordedTask, Store, StoredState, TaskFilter,
};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::Outcome;

pub(super) async fn submitting_again_records_nothing_twice_and_goes_on_where_it_stopped(
    store: Store,
) {
    let (endpoint, specs) = (EndpointId::new(), specs(250));
    let first = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let seqs = first.iter().take(100).map(|one| (one.seq, 1)).collect();
    store.mark_submitted(seqs, 2000).await.unwrap();
    let again = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let ids = |all: &[RecordedTask]| all.iter().map(|one| one.task.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    let open = again.iter().filter(|one| one.state == StoredState::Submitting).count();
    assert_eq!(open, 150);
    assert!(first.iter().all(|one| one.new && one.hand_over == Some(HandOver::First)));
    assert!(again.iter().all(|one| !one.new && one.hand_over.is_none()), "others do that");
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
    let progress = store.submission_progress(submission).await.unwrap().unwrap();
    assert_eq!((progress.total, progress.states["submitted"]), (250, 100));
}

/// The states of tasks, as the database has them.
async fn states(store: &Store, begun: &[RecordedTask]) -> Vec<StoredState> {
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(store, submission).await;
    let seqs: Vec<i64> = begun.iter().map(|one| one.seq).collect();
    let read = move |db: &Db<'_>| {
        let find = "SELECT state FROM tasks WHERE seq = ?";
        let states = seqs.iter().map(|seq| Ok(db.only::<(StoredState,)>(find, values![seq])?.0));
        states.collect()
    };
    store.read("testing", read).await.unwrap()
}

pub(super) async fn what_the_broker_did_not_take_waits_and_never_falls_back(store: Store) {
    use StoredState::{Done, Submitted, Submitting, Waiting};
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(3))).await.unwrap();
    let attempts: Vec<(i64, u32)> = begun.iter().map(|one| (one.seq, 1)).collect();
    store.keep_waiting(attempts[..2].to_vec()).await.unwrap();
    assert_eq!(states(&store, &begun).await, [Waiting, Waiting, Submitting]);
    // A second request with the same key was under way, and had more luck.
    store.mark_submitted(vec![attempts[1]], 2000).await.unwrap();
    store.keep_waiting(attempts[1..2].to_vec()).await.unwrap();
    assert_eq!(states(&store, &begun).await, [Waiting, Submitted, Submitting]);
    // The broker's word about another attempt is none about this one.
    store.mark_submitted(vec![(begun[2].seq, 2)], 2000).await.unwrap();
    store.keep_waiting(vec![(begun[2].seq, 2)]).await.unwrap();
    assert_eq!(states(&store, &begun).await, [Waiting, Submitted, Submitting]);
    record(&store, &[done(&begun[2], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    store.keep_waiting(attempts[2..].to_vec()).await.unwrap();
    assert_eq!(states(&store, &begun).await[2], Done(Outcome::Succeeded));
    assert_eq!(state(&store, begun[0].task.id).await.0, TaskState::Waiting);
}

pub(super) async fn a_caller_that_wants_the_brokers_word_hands_over_all_that_has_none(
    store: Store,
) {
    let (endpoint, specs) = (EndpointId::new(), specs(4));
    let with = |handing| Chunk { handing, ..chunk(endpoint, "k", &specs) };
    let first = Chunk { specs: specs[..3].to_vec(), ..with(Handing::Nothing) };
    let begun = begin(&store, first).await.unwrap();
    assert_eq!(states(&store, &begun).await, [StoredState::Waiting; 3]);
    let page = store.hand_over(endpoint, Positions::default(), 2).await.unwrap();
    store.mark_submitted(vec![(page[0].seq, 1)], 5).await.unwrap();
    let all = begin(&store, with(Handing::Unconfirmed)).await.unwrap();
    let handed: Vec<Option<HandOver>> = all.iter().map(|one| one.hand_over).collect();
    let (first, again) = (Some(HandOver::First), Some(HandOver::Again));
    assert_eq!(handed, [None, again, first, first]);
    let expected = [StoredState::Submitted, StoredState::Submitting];
    assert_eq!(states(&store, &all[..2]).await, expected);
    assert_eq!(states(&store, &all[2..]).await, [StoredState::Submitting; 2]);
}

pub(super) async fn what_waits_is_handed_over_in_pages_in_order_and_once(store: Store) {
    let (here, there) = (EndpointId::new(), EndpointId::new());
    assert_eq!(store.endpoints_with_waiting().await.unwrap(), []);
    let specs = specs(5);
    let waiting =
        |endpoint, key| Chunk { handing: Handing::Nothing, ..chunk(endpoint, key, &specs) };
    let other = begin(&store, waiting(there, "other")).await.unwrap();
    let begun = begin(&store, waiting(here, "k")).await.unwrap();
    assert_eq!(store.endpoints_with_waiting().await.unwrap().len(), 2);
    let page = async |after| store.hand_over(here, after, 2).await.unwrap();
    let (mut handed, mut after) = (Vec::new(), Positions::default());
    loop {
        let page = page(after).await;
        if page.is_empty() {
            break;
        }
        after.pass(&page);
        assert!(page.iter().all(|one| one.hand_over == HandOver::First));
        handed.extend(page);
    }
    let ids: Vec<TaskId> = handed.iter().map(|one| one.task.id).collect();
    assert_eq!(ids, begun.iter().map(|one| one.task.id).collect::<Vec<_>>());
    assert_eq!(handed[3].body, begun[3].body);
    assert_eq!(states(&store, &begun).await, [StoredState::Submitting; 5]);
    assert_eq!(states(&store, &other).await, [StoredState::Waiting; 5]);
    assert_eq!(store.endpoints_with_waiting().await.unwrap(), [there]);
    assert_eq!(
        page(Positions::default()).await,
        [],
        "what is handed over is not handed over again"
    );
}

pub(super) async fn what_waits_is_handed_over_by_priority_in_turns(store: Store) {
    let (here, there) = (EndpointId::new(), EndpointId::new());
    let of = |priority| TaskSpec { priority, ..spec(&["true"]) };
    let waiting = async |endpoint, key, specs: Vec<TaskSpec>| {
        let chunk = Chunk { handing: Handing::Nothing, ..chunk(endpoint, key, &specs) };
        begin(&store, chunk).await.unwrap()
    };
    waiting(there, "other", vec![of(Priority::Highest); 3]).await;
    let normal = waiting(here, "normal", vec![of(Priority::Normal); 4]).await;
    let low = waiting(here, "low", vec![of(Priority::Low); 2]).await;
    let high = waiting(here, "high", vec![of(Priority::High); 9]).await;
    let (mut handed, mut after) = (Vec::new(), Positions::default());
    loop {
        let page = store.hand_over(here, after, 8).await.unwrap();
        if page.is_empty() {
            break;
        }
        after.pass(&page);
        handed.extend(page.iter().map(|one| one.task.id));
    }
    let ids =
        |tasks: &[RecordedTask]| -> Vec<TaskId> { tasks.iter().map(|one| one.task.id).collect() };
    let (high, rest) = (ids(&high), [ids(&normal), ids(&low)].concat());
    assert_eq!(handed[..8], [&high[..7], &rest[..1]].concat(), "the oldest has the eighth turn");
    assert_eq!(handed[8..], [&high[7..], &rest[1..]].concat());
}

pub(super) async fn what_was_handed_over_without_an_answer_is_found_again(store: Store) {
    let endpoint = EndpointId::new();
    let begun = begin(&store, chunk(endpoint, "k", &specs(4))).await.unwrap();
    let seqs: Vec<i64> = begun.iter().map(|one| one.seq).collect();
    store.mark_submitted(vec![(seqs[0], 1)], 5).await.unwrap();
    store.keep_waiting(vec![(seqs[1], 1)]).await.unwrap();
    let found = store.submitting_since(1000).await.unwrap();
    assert_eq!(found, [(endpoint, seqs[2]), (endpoint, seqs[3])]);
    assert_eq!(store.submitting_since(999).await.unwrap(), []);
    record(&store, &[done(&begun[3], 1, Outcome::Failed)], &[], 5).await.unwrap();
    let open = store.still_submitting(endpoint, seqs.clone()).await.unwrap();
    assert_eq!(
        open.iter().map(|one| (one.seq, one.hand_over)).collect::<Vec<_>>(),
        [(seqs[2], HandOver::Again)]
    );
}

pub(super) async fn a_task_that_is_confirmed_twice_at_once_is_counted_once(store: Store) {
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(1))).await.unwrap();
    store.mark_submitted(vec![(begun[0].seq, 1); 2], 2000).await.unwrap();
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
