//! The subscriber against a real disk queue and a fake link.

use super::*;
use crate::testing::{self, InletBroker, Settled};
use clutch_common::link::Message;
use clutch_common::result::Outcome;
use clutch_common::task::{Process, Work};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

struct Rig {
    ledger: Arc<Ledger>,
    broker: InletBroker,
    intake: CancellationToken,
    ended: JoinSet<Result<(), Halt>>,
    _disk: TempDir,
}

fn rig(max_tasks: usize) -> Rig {
    let (disk, ledger) = testing::ledger(max_tasks);
    let (mut inlet, broker) = testing::inlet();
    let intake = CancellationToken::new();
    let mut ended = JoinSet::new();
    let (theirs, stop) = (Arc::clone(&ledger), intake.clone());
    ended.spawn(async move { subscribe(&mut inlet, &theirs, &stop).await });
    Rig { ledger, broker, intake, ended, _disk: disk }
}

impl Rig {
    async fn deliver(&self, message: Message) {
        self.broker.deliver.send(message).await.unwrap();
    }

    async fn settled(&mut self) -> Settled {
        let settled = tokio::time::timeout(Duration::from_secs(60), self.broker.settled.recv());
        settled.await.expect("nothing was settled").unwrap()
    }

    fn take_all(&self) -> Vec<TaskId> {
        std::iter::from_fn(|| self.ledger.inbox.take()).map(|held| held.task.id).collect()
    }
}

#[tokio::test]
async fn tasks_reach_the_inbox_and_their_messages_are_acknowledged() {
    let mut rig = rig(100);
    let (one, two) = (testing::task(), testing::task());
    rig.deliver(testing::message(&[&one, &two])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.take_all(), [one.id, two.id]);
}

#[tokio::test]
async fn a_task_delivered_again_is_acknowledged_and_not_run_again() {
    let mut rig = rig(100);
    let task = testing::task();
    rig.deliver(testing::message(&[&task, &task])).await;
    rig.settled().await;
    rig.deliver(testing::message(&[&task])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
    let held = rig.ledger.inbox.take().unwrap();
    assert_eq!(rig.take_all(), []);

    let done = rig.ledger.not_run(held.task.attempt(), Outcome::Expired, "x".into());
    rig.ledger.finish(&held, done).await.unwrap().await.unwrap();
    rig.deliver(testing::message(&[&task])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(3));
    assert_eq!(rig.take_all(), []);
}

#[tokio::test]
async fn a_later_attempt_is_a_task_of_its_own() {
    let mut rig = rig(100);
    let mut task = testing::task();
    rig.deliver(testing::message(&[&task])).await;
    rig.settled().await;
    task.attempt = 2;
    rig.deliver(testing::message(&[&task])).await;
    rig.settled().await;
    assert_eq!(rig.take_all(), [task.id, task.id]);
}

#[tokio::test]
async fn an_unreadable_message_is_dead_lettered_and_its_task_rejected() {
    let mut rig = rig(100);
    let task = testing::task();
    let broken = Message {
        correlation_id: Some(task.id.to_string()),
        body: b"{\"version\":1,".to_vec(),
        ..Message::default()
    };
    rig.deliver(broken).await;
    assert_eq!(rig.settled().await, Settled::DeadLettered(1));
    let results = testing::results_on_disk(&rig.ledger).await;
    assert_eq!((results[0].task_id, results[0].outcome), (task.id, Outcome::Rejected));
    assert!(results[0].reason.as_deref().unwrap().contains("JSON"));
}

#[tokio::test]
async fn a_task_that_cannot_be_run_is_rejected_and_its_message_acknowledged() {
    let mut rig = rig(100);
    let mut task = testing::task();
    task.work = Work::Process(Process::default());
    rig.deliver(testing::message(&[&task])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    let results = testing::results_on_disk(&rig.ledger).await;
    assert_eq!((results[0].task_id, results[0].outcome), (task.id, Outcome::Rejected));
}

#[tokio::test]
async fn a_full_inbox_stops_the_reading_until_there_is_room() {
    let mut rig = rig(1);
    let first = testing::task();
    rig.deliver(testing::message(&[&first])).await;
    rig.settled().await;
    rig.deliver(testing::message(&[&testing::task()])).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(rig.broker.settled.try_recv().is_err(), "read although the inbox was full");
    let held = rig.ledger.inbox.take().unwrap();
    rig.ledger.inbox.free(&held);
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
}

#[tokio::test]
async fn a_link_lost_while_the_inbox_is_full_is_noticed() {
    let mut rig = rig(1);
    rig.deliver(testing::message(&[&testing::task()])).await;
    rig.settled().await;
    let Rig { broker, mut ended, .. } = rig;
    drop(broker.deliver);
    let ended = tokio::time::timeout(Duration::from_secs(60), ended.join_next()).await;
    assert!(matches!(ended.unwrap().unwrap().unwrap(), Err(Halt::Link(Fault::Closed(_)))));
}

#[tokio::test]
async fn stopping_the_intake_settles_what_was_read_and_ends() {
    let mut rig = rig(100);
    rig.deliver(testing::message(&[&testing::task()])).await;
    rig.settled().await;
    rig.intake.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(60), rig.ended.join_next()).await;
    assert!(ended.unwrap().unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_lost_link_ends_it_with_the_fault() {
    let Rig { broker, mut ended, .. } = rig(100);
    drop(broker);
    let halt = ended.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(halt, Halt::Link(Fault::Closed(_))), "{halt}");
}
