//! The publisher of claims on a broker in memory.

use super::*;
use crate::pending::drain::{Drained, DrainedBy};
use crate::pending::inbox::FreeSlots;
use crate::pending::offer::Offer;
use crate::testing;
use clutch_common::id::EndpointId;
use clutch_common::link::{self, Inlet, InletOptions, Terms};
use clutch_common::task::Task;
use clutch_common::task::result::Loss;
use clutch_common::task::topic::TopicTerms;
use clutch_common::topology::{self, QueueKind};
use clutch_common::wire::{ToService, decode_to_service};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const START_BY: u64 = 60_000;

struct Rig {
    ledger: Arc<Ledger>,
    connection: Box<dyn Connection>,
    results: Destination,
    intake: CancellationToken,
    clock: Arc<AtomicU64>,
    _disk: tempfile::TempDir,
}

/// An endpoint with two slots, and the results queue.
async fn rig(broker: &str) -> (Rig, Box<dyn Inlet>) {
    let (disk, ledger) = testing::ledger(10);
    let clock = Arc::new(AtomicU64::new(START_BY));
    let told = Arc::clone(&clock);
    let ledger = Arc::into_inner(ledger).unwrap();
    let ledger = ledger.with_clock(Arc::new(move || told.load(Ordering::Relaxed)));
    let slots = FreeSlots { free: 2, all: 2 };
    assert!(ledger.take_fitting(slots).is_none());
    let transport = link::transport(broker, &Terms::default()).unwrap();
    let connection = transport.connect("endpoint").await.unwrap();
    connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
    let queue = topology::RESULTS_QUEUE.to_owned();
    let options = InletOptions { queue, prefetch: 100, lease: None, one_by_one: false };
    let inlet = connection.inlet(&options).await.unwrap();
    let results = Destination {
        exchange: topology::RESULTS_EXCHANGE.to_owned(),
        routing_key: topology::results_key(EndpointId(Uuid::nil())),
    };
    let (ledger, intake) = (Arc::new(ledger), CancellationToken::new());
    (Rig { ledger, connection, results, intake, clock, _disk: disk }, inlet)
}

impl Rig {
    async fn accept(&self) -> Task {
        let version = None;
        let terms = TopicTerms { name: "t".to_owned(), start_by_ms: START_BY, version };
        let task = Task { topic: Some(terms), ..testing::task() };
        self.ledger.accept(vec![task.clone()]).await.unwrap().await.unwrap();
        task
    }

    /// Claims until something holds.
    async fn claim_until(&self, holds: impl AsyncFn() -> bool) {
        let claiming = publish(&*self.connection, &self.results, &self.ledger, &self.intake);
        let held = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = claiming => panic!("it ended"),
            () = held => (),
        }
    }

    async fn lost(&self) -> Vec<Option<Loss>> {
        let results = testing::results_on_disk(&self.ledger).await;
        results.into_iter().map(|result| result.lost).collect()
    }

    async fn claim_until_lost(&self, loss: Loss) {
        self.claim_until(async || self.lost().await == [Some(loss)]).await;
        assert_eq!((self.ledger.waiting(), self.ledger.tasks()), (0, 0));
    }
}

#[tokio::test]
async fn an_attempt_waits_for_a_slot_once_the_broker_has_its_claim() {
    let (rig, mut inlet) = rig("memory:claims-confirmed").await;
    let tasks = [rig.accept().await, rig.accept().await, rig.accept().await];
    assert_eq!(rig.ledger.waiting(), 0);
    rig.claim_until(async || rig.ledger.waiting() == 2).await;
    let delivery = inlet.receive(1).await.unwrap().remove(0);
    assert_eq!(delivery.message.kind.as_deref(), Some(CLAIMS_TYPE));
    let ToService::Claims(claims) = decode_to_service(&delivery.message.body) else {
        panic!("{delivery:?}");
    };
    let expected: Vec<Attempt> = tasks[..2].iter().map(Task::attempt).collect();
    assert_eq!((claims.state_id, claims.attempts), (rig.ledger.state_id, expected));
    let held = rig.ledger.take().unwrap();
    assert_eq!(held.task.attempt(), tasks[0].attempt());
}

#[tokio::test]
async fn an_attempt_whose_moment_passes_is_answered_on_disk_and_never_starts() {
    let (rig, _inlet) = rig("memory:claims-late").await;
    rig.accept().await;
    rig.clock.fetch_add(1, Ordering::Relaxed);
    rig.claim_until_lost(Loss::NotStarted).await;
}

#[tokio::test]
async fn an_endpoint_that_stops_or_is_drained_gives_up_what_it_has_not_claimed() {
    let (stopping, _inlet) = rig("memory:claims-stop").await;
    stopping.accept().await;
    stopping.intake.cancel();
    stopping.claim_until_lost(Loss::NotStarted).await;
    let (drained, _inlet) = rig("memory:claims-drain").await;
    drained.ledger.drain(DrainedBy::Person, Some(Drained::default()));
    drained.accept().await;
    drained.claim_until_lost(Loss::NotStarted).await;
}

#[tokio::test]
async fn an_attempt_that_the_file_does_not_name_is_answered_as_that() {
    let (rig, _inlet) = rig("memory:claims-offer").await;
    rig.ledger.set_offer(Offer::default());
    rig.accept().await;
    rig.claim_until_lost(Loss::NotOffered).await;
}

#[tokio::test]
async fn what_was_not_confirmed_when_the_link_was_lost_is_claimed_on_the_next() {
    let (rig, mut inlet) = rig("memory:claims-again").await;
    let task = rig.accept().await;
    let claims = rig.ledger.ask_claims(ClaimMoment { uptime: Duration::ZERO, ahead: AHEAD });
    assert_eq!(claims[0].1, task.attempt());
    rig.ledger.claims_failed();
    rig.claim_until(async || rig.ledger.waiting() == 1).await;
    assert_eq!(inlet.receive(1).await.unwrap().len(), 1);
}
