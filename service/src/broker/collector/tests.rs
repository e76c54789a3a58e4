//! The collector on a stub broker, with a real store.

use super::*;
use crate::messages::posts;
use crate::model::Anomalies;
use crate::overlay::Overlay;
use crate::store::conformance::store;
use crate::stub_broker::{Broker, result};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::link::Message;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Ask, MessageBody, TaskMessage, TaskRequest};

async fn collect_all(broker: &Broker, store: &Store) -> Anomalies {
    let (commits, counts) = (watch::channel(0).0, Arc::default());
    let (overlay, (posts, _router)) = (Overlay::default(), posts());
    let recorder =
        Recorder { store, commits: &commits, overlay: &overlay, counts: &counts, posts: &posts };
    let liveness = Liveness::new(watch::channel(0).0, Arc::default());
    let stop = CancellationToken::new();
    let collecting = collect(broker.inlet(), &recorder, &liveness, &stop);
    let stopping = async {
        while broker.acknowledged().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    assert_eq!(tokio::join!(collecting, stopping).0, Ok(()));
    counts.read()
}

#[tokio::test]
async fn results_are_acknowledged_after_they_are_recorded_and_the_unreadable_set_aside() {
    let (_temp, store) = store().await;
    let broker = Broker::default().patient();
    let ours = result(Outcome::Succeeded);
    broker.deliver(b"{}".to_vec());
    let packed = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]);
    broker.deliver(packed.clone());
    broker.deliver(packed);
    broker.deliver(b"nonsense".to_vec());
    let counted = collect_all(&broker, &store).await;
    let expected = Anomalies { unknown: 1, foreign: 1, dead_lettered: 2, ..Anomalies::default() };
    assert_eq!(counted, expected);
    assert_eq!(broker.dead_lettered(), [Tag(1), Tag(4)]);
    assert_eq!(broker.acknowledged(), [Tag(4)]);
    let detail = store.task(ours.task_id).await.unwrap().unwrap();
    assert_eq!((detail.results.len(), detail.results[0].duplicates), (1, 1));
}

#[tokio::test]
async fn a_control_message_of_a_later_version_is_counted_and_acknowledged() {
    let (_temp, store) = store().await;
    let broker = Broker::default().patient();
    broker.deliver_message(Message {
        body: br#"{"version":2,"type":"clutch.presence"}"#.to_vec(),
        routing_key: Some(topology::results_key(EndpointId::new())),
        ..Message::default()
    });
    broker.deliver(br#"{"version":1,"type":"clutch.progress","percent":50}"#.to_vec());
    broker.deliver(br#"{"version":2,"type":"clutch.results","results":[]}"#.to_vec());
    let counted = collect_all(&broker, &store).await;
    let expected = Anomalies { passed_by: 2, dead_lettered: 1, ..Anomalies::default() };
    assert_eq!(counted, expected);
    assert_eq!(broker.dead_lettered(), [Tag(3)]);
}

#[tokio::test]
async fn what_was_published_with_the_key_of_another_endpoint_is_set_aside() {
    let (_temp, store) = store().await;
    let broker = Broker::default().patient();
    let ours = result(Outcome::Succeeded);
    let body = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]);
    let other = EndpointId::new();
    let key = Some(topology::results_key(other));
    for body in [body.clone(), wire::encode_ping()] {
        broker.deliver_message(Message { body, routing_key: key.clone(), ..Message::default() });
    }
    let own = Some(topology::results_key(ours.endpoint_id));
    let forged = TaskResult { endpoint_id: other, ..ours.clone() };
    let mixed = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&forged)]);
    for body in [mixed, body] {
        broker.deliver_message(Message { body, routing_key: own.clone(), ..Message::default() });
    }
    collect_all(&broker, &store).await;
    assert_eq!(broker.dead_lettered(), [Tag(1), Tag(2), Tag(3)]);
    let detail = store.task(ours.task_id).await.unwrap().unwrap();
    assert_eq!(detail.results[0].duplicates, 0);
}

#[test]
fn many_results_are_recorded_in_parts_that_take_what_they_need() {
    let one = result(Outcome::Succeeded);
    let batches = batches(vec![one; 9 * RESULTS_PER_TRANSACTION + 1], Batch::default());
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.results.len()).collect();
    assert_eq!(sizes, [&[RESULTS_PER_TRANSACTION; 9][..], &[1]].concat());
    let room: usize = batches.iter().map(|batch| batch.results.capacity()).sum();
    assert!(room < 11 * RESULTS_PER_TRANSACTION, "room for {room} results");
}

#[test]
fn a_copy_of_a_message_that_comes_twice_is_left_to_the_next_copy() {
    let (endpoint_id, to) = (EndpointId::new(), TaskId::new());
    let posts = |redelivered: bool, mailbox: bool| {
        let body = MessageBody::of(b"hello");
        let sent =
            TaskMessage { to, attempt: None, addressee: "in".into(), body, wait_ms: 1, mailbox };
        let body = wire::encode_request(&TaskRequest {
            endpoint_id,
            state_id: StateId::new(),
            request: uuid::Uuid::now_v7(),
            copy: 1,
            source: Attempt { task_id: TaskId::new(), attempt: 1 },
            ask: Ask::Send(sent),
        });
        let routing_key = Some(topology::results_key(endpoint_id));
        let message = Message { body, routing_key, ..Message::default() };
        let group = Group::read(vec![Delivery { tag: Tag(1), redelivered, message }], false);
        assert_eq!(group.tags.last, Some(Tag(1)));
        group.posts.len()
    };
    assert_eq!([posts(false, false), posts(true, false), posts(true, true)], [1, 0, 1]);
}

#[tokio::test]
async fn what_is_damaged_is_refused_once_all_that_is_unanswered_is_in_doubt() {
    let (_temp, store) = store().await;
    let endpoint = crate::store::conformance::submitted_task(&store).await;
    let broker = Broker::default().patient();
    let ours = result(Outcome::Succeeded);
    broker.deliver_message(Message {
        body: wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]),
        damage: Some("its checksum does not hold".to_owned()),
        ..Message::default()
    });
    collect_all(&broker, &store).await;
    assert_eq!(broker.dead_lettered(), [Tag(1)]);
    assert!(store.task(ours.task_id).await.unwrap().is_none(), "a damaged value is recorded");
    assert_eq!(store.endpoints_to_ask().await.unwrap(), [endpoint]);
}

#[tokio::test]
async fn a_locked_database_delays_the_acknowledgement_and_loses_nothing() {
    let (temp, store) = store().await;
    store.close().await;
    let broker = Broker::default().patient();
    let ours = result(Outcome::Failed);
    broker.deliver(wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]));
    let (commits, counts) = (watch::channel(0).0, Arc::default());
    let (overlay, (posts, _router)) = (Overlay::default(), posts());
    let recorder = Recorder {
        store: &store,
        commits: &commits,
        overlay: &overlay,
        counts: &counts,
        posts: &posts,
    };
    let liveness = Liveness::new(watch::channel(0).0, Arc::default());
    let stop = CancellationToken::new();
    let collecting = collect(broker.inlet(), &recorder, &liveness, &stop);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(collecting, stopping);
    assert_eq!(ended, Ok(()));
    assert_eq!(broker.acknowledged(), []);
    let store = Store::open(&crate::state_folder::StateFolder::new(temp.path())).await.unwrap();
    collect_all(&broker, &store).await;
    assert_eq!(broker.acknowledged(), [Tag(1)]);
    assert!(store.task(ours.task_id).await.unwrap().is_some());
}
