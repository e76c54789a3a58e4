//! Cancellations through the real session on a fake broker.

use super::{SOON, World, until, world};
use crate::model::TaskState;
use crate::store::RecordedTask;
use crate::store::conformance::spec;
use clutch_common::id::{Attempt, StateId};
use clutch_common::task::result::{Loss, Outcome};
use clutch_common::topology;
use clutch_common::wire::{self, Cancel, CancelMark, Role, Steering, ToEndpoint};

impl World {
    /// Has tasks cancelled, by a session that begins then.
    async fn cancel(&self, tasks: &[RecordedTask]) {
        let rows = tasks.iter().map(|one| one.seq).collect();
        self.store.cancel(rows, 3000).await.unwrap();
        self.serve();
    }

    /// The cancellations in the control queue, in order.
    fn cancels(&self) -> Vec<Cancel> {
        let queue = self.published(&topology::control_queue(self.endpoint));
        let cancel = |body: &[u8]| match wire::decode_steering(body) {
            Ok(Steering::Cancel(cancel)) => Some(cancel),
            // A session asks endpoints with submitted tasks for all that they have.
            Ok(Steering::Report(_)) => None,
            other => panic!("{other:?} in the control queue"),
        };
        queue.iter().filter_map(|message| cancel(&message.body)).collect()
    }

    /// The marks in the task queue, in order.
    fn marks(&self) -> Vec<CancelMark> {
        let marks = self.task_queue().into_iter().filter_map(|message| match message {
            ToEndpoint::CancelMark(mark) => Some(mark),
            ToEndpoint::RollCall(_) | ToEndpoint::Tasks(_) | ToEndpoint::Unknown(_) => None,
        });
        marks.collect()
    }
}

#[tokio::test]
async fn a_cancellation_is_sent_until_the_broker_has_it_and_its_mark_and_not_again() {
    let world = world(SOON).await;
    let begun = world.submitted(&[spec(&["a"]), spec(&["b"])]).await;
    let attempts: Vec<Attempt> = begun.iter().map(|one| one.task.attempt()).collect();
    let control = topology::control_queue(world.endpoint);
    world.broker.return_for(&control, true);
    world.cancel(&begun).await;
    until("a cancellation that is returned", async || !world.cancels().is_empty()).await;
    assert!(world.marks().is_empty(), "the broker does not have it");
    world.broker.return_for(&control, false);
    world.serve();
    until("the mark", async || !world.marks().is_empty()).await;
    assert_eq!(world.marks(), [CancelMark { up_to: 1 }]);
    assert!(world.cancels().iter().all(|one| one.number == 1 && one.attempts == attempts));
    let sent = world.cancels().len();
    // What a later session has to do is done when another cancellation is.
    let other = world.submitted_to(world.endpoint, &[spec(&["a"]), spec(&["b"])]).await;
    world.cancel(&other[..1]).await;
    until("the next mark", async || world.marks().len() == 2).await;
    assert_eq!((world.cancels().len(), world.marks()[1].up_to), (sent + 1, 2));
    world.deliver(&crate::stub_broker::result_of(attempts[1], Outcome::Cancelled));
    let cancelled = TaskState::Done(Outcome::Cancelled);
    until("the outcome", async || world.state(attempts[1].task_id).await == cancelled).await;
}

#[tokio::test]
async fn a_cancelled_task_that_may_be_elsewhere_is_asked_for_and_never_submitted_again() {
    let world = world(SOON).await;
    let begun = world.submitted(&[spec(&["a"]), spec(&["b"])]).await;
    let [a, b] = [begun[0].task.id, begun[1].task.id];
    let (old, new) = (StateId::new(), StateId::new());
    world.tell(old, Role::Active, true, 0);
    world.tell(new, Role::Active, true, 0);
    world.another_is_asked("first").await;
    world.cancel(&begun).await;
    // The old state may have them: it has one, and has finished it.
    world.lose(a, 1, Loss::Unknown, new);
    world.lose(b, 1, Loss::Unknown, new);
    world.deliver(&crate::stub_broker::result_of(begun[0].task.attempt(), Outcome::Succeeded));
    world.tell(old, Role::Standby, true, 0);
    until("the roll call", async || !world.roll_calls().is_empty()).await;
    let asked: Vec<Attempt> =
        world.roll_calls().into_iter().flat_map(|call| call.attempts).collect();
    assert_eq!(asked, [Attempt { task_id: b, attempt: 1 }]);
    world.lose(b, 1, Loss::Unknown, new);
    let cancelled = TaskState::Done(Outcome::Cancelled);
    until("the outcome", async || world.state(b).await == cancelled).await;
    assert_eq!(world.state(a).await, TaskState::Done(Outcome::Succeeded));
    assert!(world.attempts().is_empty(), "a cancelled task was submitted again");
}
