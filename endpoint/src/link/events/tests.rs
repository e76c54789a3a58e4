//! The publisher of events on a broker in memory. Time is the test's.

use super::*;
use crate::testing;
use clutch_common::id::Attempt;
use clutch_common::link::{self, Inlet, InletOptions, Terms};
use clutch_common::topology::QueueKind;
use clutch_common::wire::{AttemptEvent, Follow, Phase, StreamName};

struct Rig {
    connection: Box<dyn Connection>,
    ledger: Arc<Ledger>,
    live: Arc<Live>,
    publisher: EventsPublisher,
    requests: super::super::events_request::EventsRequests,
    instance: Instance,
    _disk: tempfile::TempDir,
}

/// A publisher on an endpoint with a task that an earlier run accepted.
async fn rig(broker: &str) -> (Rig, Attempt) {
    let (disk, ledger) = testing::ledger(10);
    let task = testing::task();
    ledger.accept(vec![task.clone()]).await.unwrap().await.unwrap();
    ledger.close().await;
    drop(ledger);
    let ledger = testing::ledger_on(&disk, 10);
    let (requests, received) = super::super::events_request::EventsRequests::new();
    let live = Arc::new(Live::default());
    let troubles = Troubles::default();
    troubles.begin("disk full", "no byte is free");
    let transport = link::transport(broker, &Terms::default()).unwrap();
    tokio::time::pause();
    let rig = Rig {
        connection: transport.connect("endpoint").await.unwrap(),
        ledger,
        publisher: EventsPublisher::new(
            Arc::clone(&live),
            received,
            SlotCount::new(4),
            troubles.clone(),
        ),
        live,
        requests,
        instance: Instance::new(Uuid::nil(), false),
        _disk: disk,
    };
    (rig, task.attempt())
}

impl Rig {
    async fn declare(&self) -> Box<dyn Inlet> {
        self.connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
        let queue = topology::EVENTS_QUEUE.to_owned();
        let options = InletOptions { queue, prefetch: 100, lease: None, one_by_one: false };
        self.connection.inlet(&options).await.unwrap()
    }

    async fn publish(&self) {
        self.publisher.publish(self.connection.as_ref(), &self.ledger, &self.instance, None).await;
    }

    /// The next message.
    async fn next(&self, inlet: &mut dyn Inlet) -> Events {
        let receive = async {
            let delivery = inlet.receive(1).await.unwrap().remove(0);
            inlet.acknowledge(delivery.tag).await.unwrap();
            delivery.message
        };
        let message = tokio::select! {
            biased;
            message = receive => message,
            () = self.publish() => panic!("it ended"),
        };
        assert_eq!(message.kind.as_deref(), Some(EVENTS_TYPE));
        serde_json::from_slice(&message.body).unwrap()
    }
}

#[tokio::test]
async fn what_is_pending_is_told_and_that_nothing_is_any_more() {
    let (rig, attempt) = rig("memory:events-told").await;
    let mut inlet = rig.declare().await;
    let told = rig.next(inlet.as_mut()).await;
    let phases: Vec<(Attempt, Phase)> = told
        .attempts
        .iter()
        .map(|AttemptEvent { attempt, phase, .. }| (*attempt, *phase))
        .collect();
    assert_eq!((told.complete, phases), (true, vec![(attempt, Phase::Accepted)]));
    let load = told.load.unwrap();
    assert_eq!((load.slots, load.running, load.accepted), (4, 0, 1));
    assert_eq!(load.troubles, ["disk full: no byte is free"]);
    assert_eq!((told.endpoint_id, told.state_id), (rig.ledger.endpoint_id, rig.ledger.state_id));
    rig.requests.send(EventsRequest::Report);
    let again = rig.next(inlet.as_mut()).await;
    assert_eq!((again.complete, again.attempts.len()), (true, 1), "as it was asked for");
    // Events of one session only: what is over is told by the one that told it before.
    let held = rig.ledger.take().unwrap();
    let finish = async {
        tokio::time::sleep(TICK * 3).await;
        let outcome = clutch_common::task::result::Outcome::Failed;
        let result = rig.ledger.not_run(held.task.attempt(), outcome, "x".to_owned());
        rig.ledger.finish(&held, result).await.unwrap().await.unwrap();
        std::future::pending::<()>().await;
    };
    let all_told = async {
        loop {
            let delivery = inlet.receive(1).await.unwrap().remove(0);
            inlet.acknowledge(delivery.tag).await.unwrap();
            let told: Events = serde_json::from_slice(&delivery.message.body).unwrap();
            let load = told.load.unwrap();
            if load.running + load.accepted == 0 {
                return told.complete;
            }
        }
    };
    tokio::select! {
        complete = all_told => assert!(complete),
        () = rig.publish() => panic!("it ended"),
        () = finish => (),
    }
}

#[tokio::test]
async fn output_of_a_followed_attempt_is_published_and_of_no_other() {
    let (rig, attempt) = rig("memory:events-followed").await;
    let mut inlet = rig.declare().await;
    rig.next(inlet.as_mut()).await;
    assert!(!rig.live.take(attempt, StreamName::Stdout, 0, b"not followed"));
    let follow = Follow { attempt, stdout_from: 0, stderr_from: 0, for_ms: 60_000 };
    rig.requests.send(EventsRequest::Follow(follow));
    let written = async {
        rig.live.asked(0).await;
        rig.live.attach(attempt, StreamName::Stdout, |_| vec![(0, b"kept, ".to_vec())]);
        rig.live.take(attempt, StreamName::Stdout, 6, b"written");
    };
    tokio::select! {
        () = written => (),
        () = rig.publish() => panic!("it ended"),
    }
    let output = loop {
        let told = rig.next(inlet.as_mut()).await;
        if let Some(output) = told.output.into_iter().next() {
            break output;
        }
    };
    assert_eq!((output.from, output.bytes.0.as_slice()), (0, &b"kept, written"[..]));
}

#[tokio::test]
async fn where_there_is_no_exchange_events_are_lost_and_nothing_else_is() {
    let (rig, _) = rig("memory:events-lost").await;
    let told = async {
        while !rig.publisher.told_loss.load(Ordering::Relaxed) {
            tokio::time::sleep(TICK).await;
        }
        tokio::time::sleep(PAUSE * 3).await;
    };
    tokio::select! {
        () = told => (),
        () = rig.publish() => panic!("it ended the session"),
    }
}
