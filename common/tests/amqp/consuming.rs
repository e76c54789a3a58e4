//! Consuming: the lease, settling deliveries, and how it ends.

use super::*;
use clutch_common::link::Tag;
use clutch_common::topology::{self, QueueKind};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_missing() {
    let vhost = broker::shared().vhost();
    let connection = connect(&vhost.url()).await;
    for lease in [None, Some("nothing.lease")] {
        let fault = fault(connection.inlet(&options("nothing", 8, lease)).await);
        assert!(matches!(&fault, Fault::Missing(text) if text.contains("nothing")), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_locked_out_until_the_first_is_gone() {
    let vhost = broker::shared().vhost();
    let endpoint = clutch_common::id::EndpointId::new();
    let first = connect(&vhost.url()).await;
    let second = connect(&vhost.url()).await;
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let tasks = format!("{}.{}", topology::tasks_queue(endpoint), kind.as_str());
        let mut own = topology::endpoint(endpoint, kind);
        own.queues[0].name.clone_from(&tasks);
        first.declare(&own).await.unwrap();
        let with_lease = options(&tasks, 8, Some(&format!("{tasks}.lease")));
        let inlet = first.inlet(&with_lease).await.unwrap();
        let fault = fault(second.inlet(&with_lease).await);
        assert!(matches!(fault, Fault::Locked(_)), "{kind:?}: {fault}");
        drop(inlet);
    }
    first.close().await;
    let tasks = format!("{}.classic", topology::tasks_queue(endpoint));
    let inlet = second.inlet(&options(&tasks, 8, Some(&format!("{tasks}.classic.lease")))).await;
    inlet.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_exclusive_consumer_is_locked_out_whatever_its_lease() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let _first = connection.inlet(&options("tasks", 8, Some("a.lease"))).await.unwrap();
    let fault = fault(connection.inlet(&options("tasks", 8, Some("b.lease"))).await);
    assert!(matches!(&fault, Fault::Locked(text) if text.contains("exclusive use")), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_consume_without_a_lease() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "results").await;
    let _first = connection.inlet(&options("results", 8, None)).await.unwrap();
    connection.inlet(&options("results", 8, None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_a_range_leaves_out_what_was_dead_lettered() {
    let vhost = broker::shared().vhost();
    let connection = connect(&vhost.url()).await;
    connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
    let tasks = queue("tasks", &[("x-dead-letter-exchange", topology::DEAD_LETTER_EXCHANGE)]);
    connection.declare(&tasks).await.unwrap();
    fill(connection.as_ref(), "tasks", 10).await;
    let mut inlet = connection.inlet(&options("tasks", 100, None)).await.unwrap();
    let tags: Vec<Tag> = take(inlet.as_mut(), 10).await.iter().map(|d| d.tag).collect();
    inlet.acknowledge(Tag(0)).await.unwrap();
    inlet.dead_letter(tags[2]).await.unwrap();
    inlet.dead_letter(tags[5]).await.unwrap();
    inlet.dead_letter(tags[5]).await.unwrap();
    // The end of the range is settled already; so is the whole range, later.
    inlet.acknowledge(tags[5]).await.unwrap();
    inlet.acknowledge(tags[5]).await.unwrap();
    inlet.acknowledge(tags[3]).await.unwrap();
    inlet.acknowledge(Tag(tags[9].0 + 1000)).await.unwrap();
    inlet.acknowledge(tags[9]).await.unwrap();
    // The channel lives, so the broker objected to nothing.
    fill(connection.as_ref(), "tasks", 1).await;
    take(inlet.as_mut(), 1).await;
    let mut dead = connection.inlet(&options(topology::DEAD_LETTER_QUEUE, 9, None)).await.unwrap();
    assert_eq!(ids(&take(dead.as_mut(), 2).await), ["2", "5"]);
    connection.close().await;
    let connection = connect(&vhost.url()).await;
    let mut inlet = connection.inlet(&options("tasks", 100, None)).await.unwrap();
    assert_eq!(ids(&take(inlet.as_mut(), 1).await), ["0"], "only the last one is unsettled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_is_delivered_again_after_a_close() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    fill(connection.as_ref(), "tasks", 20).await;
    let mut inlet = connection.inlet(&options("tasks", 8, Some("lease"))).await.unwrap();
    let deliveries = take(inlet.as_mut(), 8).await;
    assert!(deliveries.iter().all(|d| !d.redelivered));
    inlet.acknowledge(deliveries[3].tag).await.unwrap();
    connection.close().await;
    assert!(matches!(inlet.receive(1).await, Err(Fault::Closed(_))));
    assert!(matches!(inlet.acknowledge(deliveries[7].tag).await, Err(Fault::Closed(_))));
    let connection = connect(&vhost.url()).await;
    let mut inlet = connection.inlet(&options("tasks", 100, Some("lease"))).await.unwrap();
    let again = take(inlet.as_mut(), 16).await;
    let expected: BTreeSet<String> = (4..20).map(|n| n.to_string()).collect();
    assert_eq!(ids(&again).into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(again.iter().filter(|d| d.redelivered).count() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefetch_bounds_what_is_under_way_and_zero_is_not_boundless() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    fill(connection.as_ref(), "tasks", 50).await;
    for (prefetch, expected) in [(7, 7), (0, 1)] {
        let mut inlet = connection.inlet(&options("tasks", prefetch, None)).await.unwrap();
        take(inlet.as_mut(), expected).await;
        let more = tokio::time::timeout(Duration::from_millis(500), inlet.receive(100)).await;
        assert!(more.is_err(), "more than {prefetch} came");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_receive_loses_nothing_and_keeps_the_order() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let mut inlet = connection.inlet(&options("tasks", 50, None)).await.unwrap();
    let consuming = async {
        let mut seen = Vec::new();
        let mut cancelled = 0;
        while seen.len() < 3000 {
            tokio::select! {
                biased;
                received = inlet.receive(7) => {
                    let received = received.unwrap();
                    inlet.acknowledge(received.last().unwrap().tag).await.unwrap();
                    seen.extend(ids(&received));
                }
                () = tokio::task::yield_now() => cancelled += 1,
            }
        }
        assert!(cancelled > 0);
        seen
    };
    let publishing = fill(connection.as_ref(), "tasks", 3000);
    let (seen, ()) = within(async { tokio::join!(consuming, publishing) }).await;
    assert_eq!(seen, (0..3000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_its_consumer_is_missing() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let mut waiting = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let mut absent = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let deleting =
        async { vhost.broker.api("DELETE", &format!("queues/{}/tasks", vhost.name), None) };
    let (received, _) = within(async { tokio::join!(waiting.receive(8), deleting) }).await;
    for fault in [fault(received), fault(within(absent.receive(8)).await)] {
        assert!(matches!(&fault, Fault::Missing(text) if text.contains("tasks")), "{fault}");
    }
    // The connection is none the worse.
    connection.declare(&queue("tasks", &[])).await.unwrap();
    connection.inlet(&options("tasks", 8, None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_kept_for_too_long_closes_and_comes_again() {
    let (_alone, broker) = broker::private().await;
    for setting in ["consumer_timeout, 2000", "channel_tick_interval, 500"] {
        broker.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let vhost = broker.vhost();
    let publishing = with_queue(&vhost, "tasks").await;
    fill(publishing.as_ref(), "tasks", 1).await;
    let connection = connect(&vhost.url()).await;
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let kept = take(inlet.as_mut(), 1).await;
    let fault = fault(within(inlet.receive(1)).await);
    assert!(matches!(&fault, Fault::Closed(text) if text.contains("timed out")), "{fault}");
    assert!(matches!(inlet.acknowledge(kept[0].tag).await, Err(Fault::Closed(_))));
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    assert!(take(inlet.as_mut(), 1).await[0].redelivered);
}
