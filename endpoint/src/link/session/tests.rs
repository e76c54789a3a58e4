//! When tasks that an earlier run left start, and when the lease is asked for.

use super::*;
use crate::link::events_request::EventsRequests;
use crate::testing;
use clutch_common::link::{self, Terms};
use clutch_common::topology::{self, QueueKind};
use uuid::Uuid;

/// The link of an instance that shares it with no other, on a broker in memory.
async fn link_to(broker: &str, ledger: &Arc<Ledger>) -> Link {
    let transport = link::transport(broker, &Terms::default()).unwrap();
    let operator = transport.connect("operator").await.unwrap();
    operator.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
    operator.declare(&topology::endpoint(ledger.endpoint_id, QueueKind::Classic)).await.unwrap();
    Link {
        transport,
        inlet: inlet(ledger),
        results: Destination {
            exchange: topology::RESULTS_EXCHANGE.to_owned(),
            routing_key: topology::results_key(ledger.endpoint_id),
        },
        events: None,
        ledger: Arc::clone(ledger),
        instance: Arc::new(Instance::new(Uuid::nil(), false)),
        steering: Steering::new(EventsRequests::new().0),
        messages: None,
        heartbeat: Duration::from_secs(2),
        jitter: 0.0,
        intake: CancellationToken::new(),
        drain: CancellationToken::new(),
    }
}

fn inlet(ledger: &Ledger) -> InletOptions {
    InletOptions {
        queue: topology::tasks_queue(ledger.endpoint_id),
        prefetch: 10,
        lease: Some(topology::lease_queue(ledger.endpoint_id)),
        one_by_one: false,
    }
}

/// A ledger with a task that an earlier run left.
async fn left() -> (tempfile::TempDir, Arc<Ledger>) {
    let (disk, ledger) = testing::ledger(10);
    ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
    ledger.task_ready().await;
    ledger.shut();
    (disk, ledger)
}

#[tokio::test]
async fn what_an_earlier_run_left_starts_once_the_lease_is_held_and_not_while_another_has_it() {
    let (_disk, ledger) = left().await;
    tokio::time::pause();
    let link = link_to("memory:what-was-left", &ledger).await;
    let other = link.transport.connect("other").await.unwrap();
    let lease = other.inlet(&inlet(&ledger)).await.unwrap();
    let Err(failure) = link.run().await else { panic!("it had the lease") };
    assert_eq!(failure.exit, Exit::Refused);
    assert!(ledger.take().is_none(), "it ran beside another");
    drop(lease);
    other.close().await;
    let link = link_to("memory:what-was-left", &ledger).await;
    tokio::select! {
        _ = link.run() => panic!("it ended"),
        () = ledger.task_ready() => (),
    }
    assert!(ledger.take().is_some());
}

#[tokio::test]
async fn what_an_earlier_run_left_starts_without_a_broker() {
    let (_disk, ledger) = left().await;
    let mut link = link_to("memory:nobody-there", &ledger).await;
    link.transport = link::transport("amqp://127.0.0.1:1", &Terms::default()).unwrap();
    tokio::select! {
        _ = link.run() => panic!("it ended"),
        () = ledger.task_ready() => (),
    }
    assert!(ledger.take().is_some());
}

#[test]
fn a_lease_is_asked_for_when_nothing_consumes_the_queue_and_hardly_ever_otherwise() {
    assert_eq!(poll_after(Some(0), POLL), POLL);
    assert_eq!(poll_after(Some(0), POLL_REFUSED), POLL_REFUSED);
    assert!(POLL_REFUSED + POLL < Duration::from_secs(5), "a takeover takes no longer");
    assert_eq!(poll_after(Some(1), POLL), POLL_HELD);
    assert_eq!(poll_after(None, POLL_REFUSED), POLL, "a folder logs no refusal");
}
