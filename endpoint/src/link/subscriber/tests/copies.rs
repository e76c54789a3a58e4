//! Copies of urgent tasks that come ahead of the task queue.

use super::*;
use clutch_common::task::priority::Priority;

fn urgent() -> Task {
    Task { priority: Priority::High, ..testing::task() }
}

/// Waits until so many tasks are accepted.
async fn accepted(rig: &Rig, tasks: usize) {
    let enough = async {
        while rig.ledger.tasks() < tasks {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("too few are accepted");
}

#[tokio::test]
async fn a_copy_overtakes_what_a_full_inbox_leaves_unread_and_runs_once() {
    let mut rig = rig(2);
    let (one, two, three, urgent) = (testing::task(), testing::task(), testing::task(), urgent());
    rig.deliver(testing::message(&[&one, &two])).await;
    rig.settled().await;
    rig.deliver(testing::message(&[&three])).await;
    rig.deliver(testing::message(&[&urgent])).await;
    rig.leaves_unread(2).await;
    rig.steering.offer(vec![urgent.clone(), urgent.clone()]);
    accepted(&rig, 3).await;
    let more: Vec<Task> = std::iter::repeat_with(testing::task).take(3).collect();
    rig.steering.offer(more.clone());
    accepted(&rig, 4).await;
    let mut order = Vec::new();
    while let Some(held) = rig.ledger.take() {
        order.push(held.task.id);
        let ended = rig.ledger.not_run(held.task.attempt(), Outcome::Failed, String::new());
        drop(rig.ledger.finish(&held, ended).await.unwrap());
    }
    assert_eq!(order, [urgent.id, one.id, two.id, more[0].id], "as many again, and no more");
    accepted(&rig, 1).await;
    assert_eq!(rig.take_all(), [three.id]);
    rig.deliver(testing::message(&[&urgent, &more[1]])).await;
    assert_eq!(rig.take(1).await, [more[1].id], "one that was left out comes by the queue");
}

#[tokio::test]
async fn a_fenced_instance_leaves_copies_to_the_queue_that_another_may_read() {
    let mut rig = fenced_rig(10);
    let urgent = urgent();
    rig.steering.offer(vec![urgent.clone()]);
    rig.deliver(testing::message(&[&urgent])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.settled().await, Settled::Secured);
    assert!(rig.take_all().is_empty(), "it waits for its acknowledgement, as others do");
    rig.secure().await;
    assert_eq!(rig.take(1).await, [urgent.id]);
    assert_eq!(rig.ledger.tasks(), 1);
}
