//! The subscriber against a real disk queue and a fake link.

mod marks;

use super::*;
use crate::link::events_request::EventsRequests;
use crate::storage::journal::OutSeq;
use crate::storage::sent::{SentConfig, SentLog};
use crate::testing::{self, InletBroker, Settled};
use clutch_common::id::StateId;
use clutch_common::link::Message;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::task::{Process, Work};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

mod copies;

struct Rig {
    ledger: Arc<Ledger>,
    broker: InletBroker,
    intake: CancellationToken,
    ended: JoinSet<Result<(), SessionError>>,
    instance: Arc<Instance>,
    steering: Arc<Steering>,
    _disk: TempDir,
}

fn rig(max_tasks: usize) -> Rig {
    rig_of(Instance::new(uuid::Uuid::nil(), false), max_tasks)
}

fn fenced_rig(max_tasks: usize) -> Rig {
    rig_of(Instance::new(uuid::Uuid::nil(), true), max_tasks)
}

fn rig_of(instance: Instance, max_tasks: usize) -> Rig {
    let (disk, ledger) = testing::ledger(max_tasks);
    let instance = Arc::new(instance);
    let (mut inlet, broker) = testing::inlet();
    let intake = CancellationToken::new();
    let mut ended = JoinSet::new();
    let (theirs, who, stop) = (Arc::clone(&ledger), Arc::clone(&instance), intake.clone());
    let steering = Arc::new(Steering::new(EventsRequests::new().0));
    let shared = Arc::clone(&steering);
    ended.spawn(async move { subscribe(&mut inlet, &theirs, &who, &shared, &stop).await });
    Rig { ledger, broker, intake, ended, instance, steering, _disk: disk }
}

impl Rig {
    async fn deliver(&self, message: Message) {
        self.broker.deliver.send(message).await.unwrap();
    }

    async fn settled(&mut self) -> Settled {
        let settled = tokio::time::timeout(Duration::from_secs(60), self.broker.settled.recv());
        settled.await.expect("nothing was settled").unwrap()
    }

    /// Waits until the subscriber has had its chance to read and still waits for room.
    async fn leaves_unread(&self, count: usize) {
        // The first notice may be from before the last delivery.
        for _ in 0..2 {
            let waits =
                tokio::time::timeout(Duration::from_secs(60), self.broker.watched.notified());
            waits.await.expect("it does not wait for room");
        }
        assert_eq!(self.broker.unread(), count, "read although the inbox was full");
    }

    async fn secure(&self) {
        self.broker.secure.send(()).await.unwrap();
    }

    /// Waits until `count` tasks may start, and takes them.
    async fn take(&self, count: usize) -> Vec<TaskId> {
        let enough = async {
            while self.ledger.waiting() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), enough).await.expect("too few may start");
        self.take_all()
    }

    /// Loses the link while an acknowledgement is not certain, and hands back
    /// what waits for it.
    async fn lose_the_link(self) -> (Arc<Ledger>, TempDir) {
        let Self { ledger, broker, mut ended, _disk, .. } = self;
        drop(broker);
        let halt = ended.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(halt, SessionError::Link(Fault::Closed(_))), "{halt}");
        ledger.hand_back().await.unwrap().await.unwrap();
        (ledger, _disk)
    }

    /// Ends a task, which makes room in the inbox.
    async fn end_one(&self) {
        let held = self.ledger.take().unwrap();
        let ended = self.ledger.not_run(held.task.attempt(), Outcome::Failed, String::new());
        drop(self.ledger.finish(&held, ended).await.unwrap());
    }

    fn take_all(&self) -> Vec<TaskId> {
        std::iter::from_fn(|| self.ledger.take()).map(|held| held.task.id).collect()
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
    let held = rig.ledger.take().unwrap();
    assert_eq!(rig.take_all(), []);

    let done = rig.ledger.not_run(held.task.attempt(), Outcome::Expired, "x".into());
    rig.ledger.finish(&held, done).await.unwrap().await.unwrap();
    rig.deliver(testing::message(&[&task])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(3));
    assert_eq!(rig.take_all(), []);
}

#[tokio::test]
async fn a_control_message_of_another_version_is_acknowledged() {
    let mut rig = rig(100);
    let body = br#"{"version":2,"type":"clutch.roll_call","attempts":[]}"#.to_vec();
    rig.deliver(Message { body, ..Message::default() }).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
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
    rig.leaves_unread(1).await;
    rig.end_one().await;
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
    assert!(matches!(ended.unwrap().unwrap().unwrap(), Err(SessionError::Link(Fault::Closed(_)))));
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
    assert!(matches!(halt, SessionError::Link(Fault::Closed(_))), "{halt}");
}

#[tokio::test]
async fn a_fenced_instance_starts_a_task_once_its_acknowledgement_is_certain() {
    let mut rig = fenced_rig(100);
    let (one, two) = (testing::task(), testing::task());
    rig.deliver(testing::message(&[&one])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.settled().await, Settled::Secured);
    assert_eq!(rig.ledger.pending(), 1);
    assert_eq!(rig.take_all(), []);
    rig.secure().await;
    assert_eq!(rig.take(1).await, [one.id]);
    rig.deliver(testing::message(&[&two])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
    assert_eq!(rig.settled().await, Settled::Secured);
    rig.secure().await;
    assert_eq!(rig.take(1).await, [two.id]);
}

#[tokio::test]
async fn what_waits_to_be_certain_has_its_room_in_the_inbox() {
    let mut rig = fenced_rig(1);
    rig.deliver(testing::message(&[&testing::task()])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.settled().await, Settled::Secured);
    rig.secure().await;
    rig.deliver(testing::message(&[&testing::task()])).await;
    rig.leaves_unread(1).await;
    rig.end_one().await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
}

#[tokio::test]
async fn one_that_was_pinged_is_fenced_from_the_next_delivery_on() {
    let mut rig = rig(100);
    let (one, two) = (testing::task(), testing::task());
    rig.deliver(testing::message(&[&one])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.take_all(), [one.id]);
    rig.instance.take_ping();
    rig.deliver(testing::message(&[&two])).await;
    // The group that was being waited for may still be of before.
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
    assert_eq!(rig.settled().await, Settled::Secured);
    assert_eq!(rig.take_all(), []);
    rig.secure().await;
    assert_eq!(rig.take(1).await, [two.id]);
}

#[tokio::test]
async fn what_was_not_certain_when_the_link_was_lost_is_handed_back_and_forgotten() {
    let mut rig = fenced_rig(100);
    let (one, two) = (testing::task(), testing::task());
    rig.deliver(testing::message(&[&one, &two])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.settled().await, Settled::Secured);
    assert!(rig.ledger.knows(one.attempt()).unwrap());
    let (ledger, disk) = rig.lose_the_link().await;
    assert!(ledger.take().is_none());
    assert!(!ledger.knows(one.attempt()).unwrap());
    assert_eq!((ledger.tasks(), ledger.undelivered(), ledger.pending()), (0, 2, 2));
    let results = testing::results_on_disk(&ledger).await;
    let told: Vec<_> = results.iter().map(|one| (one.task_id, one.outcome, one.lost)).collect();
    let lost = (Outcome::Interrupted, Some(Loss::HandedBack));
    assert_eq!(told, [(one.id, lost.0, lost.1), (two.id, lost.0, lost.1)]);
    assert!(
        results[0].reason.as_deref().unwrap().contains("it is not certain that no other instance")
    );

    ledger.close().await;
    drop(ledger);
    let ledger = testing::ledger_on(&disk, 100);
    assert!(!ledger.knows(one.attempt()).unwrap() && ledger.take().is_none());
    assert_eq!(ledger.undelivered(), 2);
}

#[tokio::test]
async fn what_was_handed_back_is_accepted_when_it_comes_again() {
    let (disk, ledger) = testing::ledger(100);
    let task = testing::task();
    for _ in 0..2 {
        ledger.accept_unsecured(vec![task.clone()]).await.unwrap().await.unwrap();
        ledger.hand_back().await.unwrap().await.unwrap();
    }
    ledger.accept_unsecured(vec![task.clone()]).await.unwrap().await.unwrap();
    ledger.secured(1).await.unwrap();
    let held = ledger.take().unwrap();
    assert!(ledger.knows(task.attempt()).unwrap());
    let done = ledger.not_run(task.attempt(), Outcome::Expired, "x".into());
    ledger.finish(&held, done).await.unwrap().await.unwrap();
    ledger.hand_back().await.unwrap().await.unwrap();
    let results = testing::results_on_disk(&ledger).await;
    let lost: Vec<_> = results.iter().map(|result| result.lost).collect();
    assert_eq!(lost, [Some(Loss::HandedBack), Some(Loss::HandedBack), None]);
    ledger.close().await;
    drop(ledger);
    let ledger = testing::ledger_on(&disk, 100);
    assert!(ledger.knows(task.attempt()).unwrap());
}

#[tokio::test]
async fn handing_back_a_later_attempt_leaves_the_earlier_one_known() {
    let (_disk, ledger) = testing::ledger(100);
    let mut task = testing::task();
    let first = task.attempt();
    ledger.accept(vec![task.clone()]).await.unwrap().await.unwrap();
    for attempt in [2, 3] {
        task.attempt = attempt;
        ledger.accept_unsecured(vec![task.clone()]).await.unwrap().await.unwrap();
    }
    ledger.hand_back().await.unwrap().await.unwrap();
    assert!(ledger.knows(first).unwrap());
    task.attempt = 2;
    assert!(!ledger.knows(task.attempt()).unwrap());
}

#[tokio::test]
async fn what_was_not_certain_when_the_daemon_died_is_handed_back_by_the_next_one() {
    let (disk, ledger) = testing::ledger(100);
    let (certain, doubtful) = (testing::task(), testing::task());
    for task in [&certain, &doubtful] {
        ledger.accept_unsecured(vec![task.clone()]).await.unwrap().await.unwrap();
    }
    ledger.secured(1).await.unwrap();
    // Nothing is handed back: it does not end in order.
    ledger.close().await;
    drop(ledger);
    let ledger = testing::ledger_on(&disk, 100);
    assert_eq!(ledger.take().unwrap().task.id, certain.id);
    assert!(ledger.take().is_none() && ledger.knows(doubtful.attempt()).unwrap());
    assert_eq!(ledger.tasks(), 2);
    ledger.hand_back().await.unwrap().await.unwrap();
    assert_eq!(ledger.tasks(), 1);
    assert!(!ledger.knows(doubtful.attempt()).unwrap());
    let results = testing::results_on_disk(&ledger).await;
    let told: Vec<_> = results.iter().map(|one| (one.task_id, one.lost)).collect();
    assert_eq!(told, [(doubtful.id, Some(Loss::HandedBack))]);
}

fn roll_call(state_id: StateId, attempts: &[Attempt]) -> Message {
    let roll_call = RollCall { state_id, instance: uuid::Uuid::nil(), attempts: attempts.to_vec() };
    Message { body: wire::encode_roll_call(&roll_call), ..Message::default() }
}

#[tokio::test]
async fn a_roll_call_is_answered_once_for_what_is_not_known_and_not_for_what_is() {
    for fenced in [false, true] {
        let mut rig = rig_of(Instance::new(uuid::Uuid::nil(), fenced), 100);
        let (known, unknown) = (testing::task(), testing::task());
        rig.ledger.accept(vec![known.clone()]).await.unwrap().await.unwrap();
        let call = roll_call(rig.ledger.state_id, &[known.attempt(), unknown.attempt()]);
        for tag in 1..=2 {
            rig.deliver(call.clone()).await;
            assert_eq!(rig.settled().await, Settled::Acknowledged(tag));
            let results = testing::results_on_disk(&rig.ledger).await;
            let [result] = results.as_slice() else { panic!("{results:?}") };
            assert_eq!(result.attempt(), unknown.attempt());
            assert_eq!((result.outcome, result.lost), (Outcome::Interrupted, Some(Loss::Unknown)));
        }
        rig.deliver(testing::message(&[&unknown])).await;
        assert_eq!(rig.settled().await, Settled::Acknowledged(3));
        assert_eq!(rig.take_all(), [known.id], "one that was disowned is not run any more");
    }
}

#[tokio::test]
async fn a_roll_call_has_a_delivered_result_sent_again_or_says_that_it_was() {
    for kept in [true, false] {
        let (disk, mut ledger) = testing::ledger(100);
        if kept {
            let (path, keep) = (disk.path().join("sent"), std::time::Duration::from_secs(60));
            let config = SentConfig { path, keep, keep_bytes: 1 << 20 };
            let plain = std::sync::Arc::into_inner(ledger).unwrap();
            ledger = std::sync::Arc::new(plain.with_sent_log(SentLog::open(config).unwrap()));
        }
        let (delivered, pending) = (testing::task(), testing::task());
        for task in [&delivered, &pending] {
            ledger.reject(task.attempt(), "no".to_owned()).await.unwrap().await.unwrap();
        }
        let first = ledger.backlog(OutSeq(0), 1, usize::MAX).await.unwrap();
        ledger.delivered(first.iter().map(|(_, result)| std::sync::Arc::clone(result)).collect());
        ledger.release(vec![first[0].0]).await.unwrap().await.unwrap();
        let call = roll_call(ledger.state_id, &[delivered.attempt(), pending.attempt()]);
        let call = Delivery { tag: Tag(1), redelivered: false, message: call };
        let instance = Instance::new(uuid::Uuid::nil(), false);
        accept(&ledger, vec![call], &instance).await.unwrap().await.unwrap();
        let results = testing::results_on_disk(&ledger).await;
        let told: Vec<_> = results.iter().map(|one| (one.task_id, one.outcome, one.lost)).collect();
        let again = if kept {
            (delivered.id, Outcome::Rejected, None)
        } else {
            (delivered.id, Outcome::Interrupted, Some(Loss::Delivered))
        };
        assert_eq!(told, [(pending.id, Outcome::Rejected, None), again]);
        assert!(
            instance.presence_due().now_or_never().is_some(),
            "the service is told who answered"
        );
    }
}

#[tokio::test]
async fn a_roll_call_knows_what_came_in_the_same_group_before_it_and_not_after() {
    let (_disk, ledger) = testing::ledger(100);
    let (before, after) = (testing::task(), testing::task());
    let call = roll_call(ledger.state_id, &[before.attempt(), after.attempt()]);
    let messages = [testing::message(&[&before]), call, testing::message(&[&after])];
    let deliveries = (1..).zip(messages).map(|(tag, message)| Delivery {
        tag: Tag(tag),
        redelivered: false,
        message,
    });
    let instance = Instance::new(uuid::Uuid::nil(), true);
    let group = accept(&ledger, deliveries.collect(), &instance).await.unwrap().await.unwrap();
    assert_eq!((group.last, group.unsecured), (Tag(3), 1));
    let results = testing::results_on_disk(&ledger).await;
    assert_eq!(results.iter().map(TaskResult::attempt).collect::<Vec<_>>(), [after.attempt()]);
}

#[tokio::test]
async fn a_roll_call_for_another_state_folder_or_session_is_dropped_and_who_reads_it_told() {
    let mut rig = rig(100);
    let task = testing::task();
    let call = roll_call(StateId::new(), &[task.attempt()]);
    rig.deliver(call).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert!(rig.instance.presence_due().now_or_never().is_some());
    let call = roll_call(rig.ledger.state_id, &[task.attempt()]);
    rig.instance.begin_session();
    rig.deliver(call).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
    assert!(rig.instance.presence_due().now_or_never().is_some());
    assert_eq!(testing::results_on_disk(&rig.ledger).await, []);
    rig.deliver(testing::message(&[&task])).await;
    rig.settled().await;
    assert_eq!(rig.take_all(), [task.id]);
}

#[tokio::test]
async fn what_is_damaged_is_refused_once_the_service_was_told_and_the_rest_goes_on() {
    let mut rig = rig(100);
    rig.instance.set_role(clutch_common::wire::Role::Active);
    let (damaged, task) = (testing::task(), testing::task());
    let damage = Some("its checksum does not hold".to_owned());
    rig.deliver(Message { damage, ..testing::message(&[&damaged]) }).await;
    rig.deliver(testing::message(&[&task])).await;
    assert_eq!(rig.take(1).await, [task.id], "nothing of what is damaged counts");
    assert!(rig.broker.settled.try_recv().is_err(), "the service was not told");
    assert!(rig.instance.presence(&rig.ledger).unwrap().lost);
    rig.instance.losses_reported(rig.instance.losses());
    assert_eq!(rig.settled().await, Settled::DeadLettered(1));
    let mut last = rig.settled().await;
    while last != Settled::Acknowledged(2) {
        last = rig.settled().await;
    }
    assert!(!rig.instance.presence(&rig.ledger).unwrap().lost);
    assert_eq!(testing::results_on_disk(&rig.ledger).await, []);
}
