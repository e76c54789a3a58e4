//! Consuming: the ways that the broker ends it.

use super::*;

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
