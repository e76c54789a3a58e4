//! Marks behind cancelled tasks.

use super::*;
use clutch_common::wire::CancelMark;

#[tokio::test]
async fn a_mark_releases_cancels_once_the_tasks_before_it_are_off_the_queue_for_good() {
    let mut rig = rig(100);
    rig.deliver(testing::message(&[&testing::task()])).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    let mut orders = rig.steering.orders();
    let body = wire::encode_mark(&CancelMark { up_to: 7 });
    rig.deliver(Message { body, ..Message::default() }).await;
    assert_eq!(rig.settled().await, Settled::Acknowledged(1));
    assert_eq!(rig.settled().await, Settled::Secured);
    assert!(orders.next().now_or_never().is_none(), "the acknowledgement may be lost");
    rig.secure().await;
    let order = orders.next().await;
    assert_eq!(order.up_to, 7);
    assert!(rig.broker.settled.try_recv().is_err(), "the mark is still needed");
    rig.steering.released(order);
    assert_eq!(rig.settled().await, Settled::Acknowledged(2));
}
