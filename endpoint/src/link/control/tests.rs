//! The reader of the control queue, against a broker in memory and a real disk queue.

use super::*;
use crate::link::events_request::EventsRequests;
use crate::testing::{self, results_on_disk};
use clutch_common::id::Attempt;
use clutch_common::link::{self, Destination, Terms, Transport};
use clutch_common::task::result::{Loss, Outcome};
use clutch_common::topology::QueueKind;
use clutch_common::wire::{Follow, ReportRequest, Resume};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;

struct Rig {
    transport: Arc<dyn Transport>,
    connection: Box<dyn Connection>,
    ledger: Arc<Ledger>,
    instance: Instance,
    steering: Steering,
    requests: mpsc::Receiver<EventsRequest>,
    _disk: TempDir,
}

impl Rig {
    async fn new(name: &str) -> Self {
        let (disk, ledger) = testing::ledger(5000);
        let transport =
            link::transport(&format!("memory:control-{name}"), &Terms::default()).unwrap();
        let connection = transport.connect("endpoint").await.unwrap();
        connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
        let own = topology::endpoint(ledger.endpoint_id, QueueKind::Classic);
        connection.declare(&own).await.unwrap();
        let (events, requests) = EventsRequests::new();
        let instance = Instance::new(uuid::Uuid::nil(), false);
        let steering = Steering::new(events);
        Self { transport, connection, ledger, instance, steering, requests, _disk: disk }
    }

    async fn send(&self, message: &Message) {
        let operator = self.transport.connect("service").await.unwrap();
        let mut outlet = operator.outlet().await.unwrap();
        let queue = topology::control_queue(self.ledger.endpoint_id);
        let to = Destination { exchange: String::new(), routing_key: queue };
        let message = link::Message { body: message.encode(), ..link::Message::default() };
        outlet.publish(&to, message).await.unwrap();
        outlet.settled().await.unwrap();
    }

    async fn cancel(&self, number: u64, attempts: &[Attempt]) {
        self.send(&Message::Cancel(Cancel { number, attempts: attempts.to_vec() })).await;
    }

    async fn read(&self) -> ControlReader<'_> {
        let reader = ControlReader::read_waiting(
            self.connection.as_ref(),
            &self.ledger,
            &self.instance,
            &self.steering,
            None,
        );
        reader.await.unwrap()
    }

    async fn waiting(&self) -> u64 {
        let queue = topology::control_queue(self.ledger.endpoint_id);
        self.connection.waiting(&queue).await.unwrap()
    }

    async fn outcomes(&self) -> Vec<(Attempt, Outcome, Option<Loss>)> {
        let results = results_on_disk(&self.ledger).await;
        results.iter().map(|result| (result.attempt(), result.outcome, result.lost)).collect()
    }
}

/// Lets a reader work until something holds.
async fn until(reader: &mut ControlReader<'_>, mut holds: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        error = reader.run() => panic!("{error}"),
        done = timeout(Duration::from_secs(60), holds) => done.expect("it does not come to hold"),
    }
}

#[tokio::test]
async fn what_waits_is_obeyed_and_held_until_a_mark_releases_it() {
    let rig = Rig::new("held").await;
    let (waits, unknown) = (testing::task(), testing::task());
    rig.ledger.accept(vec![waits.clone()]).await.unwrap().await.unwrap();
    rig.cancel(1, &[waits.attempt(), unknown.attempt()]).await;
    rig.cancel(3, &[unknown.attempt()]).await;
    let mut reader = rig.read().await;
    assert!(rig.ledger.take().is_none(), "it was cancelled");
    assert!(rig.ledger.knows(unknown.attempt()).unwrap(), "it does not start if it comes");
    let mut outcomes = rig.outcomes().await;
    outcomes.sort_by_key(|(_, outcome, _)| outcome.as_str());
    assert_eq!(
        outcomes,
        [
            (waits.attempt(), Outcome::Cancelled, None),
            (unknown.attempt(), Outcome::Interrupted, Some(Loss::Unknown)),
        ]
    );
    assert_eq!(reader.held.count(), 2);
    tokio::select! {
        error = reader.run() => panic!("{error}"),
        () = rig.steering.release(2) => (),
    }
    assert_eq!(reader.held.count(), 1);
    drop(reader);
    assert_eq!(rig.waiting().await, 1, "the later one is given back, and in force");
    let reader = rig.read().await;
    assert_eq!(reader.held.count(), 1, "and the next reader has it");
    assert_eq!(rig.outcomes().await.len(), 2, "obeyed twice, it has one effect");
}

#[tokio::test]
async fn a_task_that_comes_later_than_its_cancel_ends_as_cancelled_also_an_earlier_attempt() {
    let rig = Rig::new("later").await;
    let task = testing::task();
    rig.cancel(1, &[Attempt { attempt: 3, ..task.attempt() }]).await;
    let _reader = rig.read().await;
    for attempt in [2, 3] {
        let late = clutch_common::task::Task { attempt, ..task.clone() };
        rig.ledger.accept(vec![late.clone()]).await.unwrap().await.unwrap();
        rig.ledger.accept_unsecured(vec![late]).await.unwrap().await.unwrap();
    }
    rig.ledger.secured(2).await.unwrap();
    assert!(rig.ledger.take().is_none());
    let next = clutch_common::task::Task { attempt: 4, ..task.clone() };
    rig.ledger.accept_unsecured(vec![next]).await.unwrap().await.unwrap();
    rig.ledger.secured(1).await.unwrap();
    assert_eq!(rig.ledger.take().unwrap().task.attempt, 4, "a later attempt is not covered");
}

#[tokio::test]
async fn a_running_task_is_told_to_stop_and_others_are_not() {
    let rig = Rig::new("running").await;
    let (one, other) = (testing::task(), testing::task());
    rig.ledger.accept(vec![one.clone(), other]).await.unwrap().await.unwrap();
    let (held, left) = (rig.ledger.take().unwrap(), rig.ledger.take().unwrap());
    let mut reader = rig.read().await;
    rig.cancel(1, &[one.attempt()]).await;
    until(&mut reader, async || held.stop.requested().is_some()).await;
    assert_eq!(held.stop.requested(), Some(crate::pending::stop::StopReason::Cancelled));
    assert_eq!(left.stop.requested(), None);
}

#[tokio::test]
async fn a_drain_holds_tasks_back_until_a_resume_with_a_higher_number() {
    let rig = Rig::new("drain").await;
    rig.ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
    let drain = |number| Message::Drain(Drain { number, deadline_ms: None });
    rig.send(&drain(4)).await;
    let mut reader = rig.read().await;
    assert!(rig.ledger.take().is_none() && rig.ledger.drains().is_draining());
    rig.send(&Message::Resume(Resume { number: 3 })).await;
    rig.send(&drain(5)).await;
    until(&mut reader, async || rig.waiting().await == 0).await;
    assert!(rig.ledger.take().is_none(), "a stale resume ends nothing");
    drop(reader);
    let mut reader = rig.read().await;
    assert!(rig.ledger.take().is_none(), "it binds the next session");
    rig.send(&Message::Resume(Resume { number: 6 })).await;
    until(&mut reader, async || !rig.ledger.drains().is_draining()).await;
    assert!(rig.ledger.take().is_some());
    drop(reader);
    assert_eq!(rig.waiting().await, 0, "all three are acknowledged");
}

#[tokio::test]
async fn a_drain_that_another_instance_saw_end_has_ended_here() {
    let rig = Rig::new("ended").await;
    rig.ledger.drain(DrainedBy::Service, Some(Drained::default()));
    rig.ledger.drain(DrainedBy::Person, Some(Drained::default()));
    let _reader = rig.read().await;
    assert_eq!(rig.ledger.drains().service, None);
    assert!(rig.ledger.drains().is_draining(), "that of a person is not the service's to end");
}

#[tokio::test]
async fn requests_about_events_are_handed_on_and_what_is_unknown_is_passed_by() {
    let mut rig = Rig::new("events").await;
    let follow =
        Follow { attempt: testing::task().attempt(), stdout_from: 1, stderr_from: 2, for_ms: 3 };
    rig.send(&Message::Follow(follow)).await;
    rig.send(&Message::Report(ReportRequest {})).await;
    let reader = rig.read().await;
    assert_eq!(reader.held.count(), 0);
    drop(reader);
    assert_eq!(rig.waiting().await, 0);
    assert_eq!(rig.requests.try_recv().unwrap(), EventsRequest::Follow(follow));
    assert_eq!(rig.requests.try_recv().unwrap(), EventsRequest::Report);
}

#[tokio::test]
async fn the_inlet_is_opened_anew_while_anything_is_held_and_as_more_is_held() {
    let rig = Rig::new("anew").await;
    let mut reader = rig.read().await;
    let many = u64::from(FIRST) * 3;
    for number in 1..=many {
        rig.cancel(number, &[testing::task().attempt()]).await;
    }
    until(&mut reader, async || rig.outcomes().await.len() as u64 == many).await;
    drop(reader);
    let mut reader = rig.read().await;
    assert_eq!(reader.held.count() as u64, many, "more than the first prefetch");
    let opened = reader.opened;
    reader.opened = opened.checked_sub(REOPEN).unwrap();
    reader.step().await.unwrap();
    assert!(reader.opened > opened && reader.held.count() == 0, "it was opened anew");
    tokio::select! {
        error = reader.run() => panic!("{error}"),
        () = rig.steering.release(many) => (),
    }
    until(&mut reader, async || rig.waiting().await == 0).await;
}

#[tokio::test]
async fn a_mark_that_comes_before_its_cancel_waits_for_it() {
    let rig = Rig::new("overtaken").await;
    let task = testing::task();
    rig.ledger.accept(vec![task.clone()]).await.unwrap().await.unwrap();
    let mut reader = rig.read().await;
    rig.cancel(1, &[task.attempt()]).await;
    // The order is obeyed first, as nothing of the queue has been read since.
    tokio::select! {
        biased;
        () = rig.steering.release(1) => (),
        error = reader.run() => panic!("{error}"),
    }
    assert!(rig.ledger.take().is_none(), "it was cancelled");
    assert_eq!(reader.held.count(), 0);
    drop(reader);
    assert_eq!(rig.waiting().await, 0, "nothing is in force any more");
}
