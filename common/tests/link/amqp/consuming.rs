//! Consuming: the ways that the broker ends it, and what arrives damaged.

use super::wire_proxy::{self, Proxy};
use super::*;
use clutch_common::link::Message;

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

async fn publish_fragile(connection: &dyn Connection) {
    let mut outlet = connection.outlet().await.unwrap();
    let message = Message { body: wire_proxy::FRAGILE.to_vec(), ..Message::default() };
    outlet.publish(&to("tasks"), message).await.unwrap();
    let settled = within(outlet.settled()).await.unwrap();
    assert_eq!(settled[0].1, Settlement::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_damaged_on_its_way_from_the_broker_is_asked_for_again() {
    let vhost = broker::shared().vhost();
    let proxy = Proxy::before(vhost.port()).await;
    let publishing = with_queue(&vhost, "tasks").await;
    publish_fragile(publishing.as_ref()).await;
    fill(publishing.as_ref(), "tasks", 1).await;
    proxy.damage(1);
    let connection = connect(&vhost.url_by(proxy.port)).await;
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let mut there = take(inlet.as_mut(), 1).await;
    // What is acknowledged does not cover what is to come again.
    inlet.acknowledge(there[0].tag).await.unwrap();
    there.extend(take(inlet.as_mut(), 1).await);
    assert!(proxy.has_damaged());
    there.sort_by_key(|delivery| delivery.message.body != wire_proxy::FRAGILE);
    assert_eq!(there[0].message.body, wire_proxy::FRAGILE);
    assert!(there[0].redelivered && there.iter().all(|one| one.message.damage.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_damaged_on_its_way_to_the_broker_is_told_to_be_and_may_be_refused() {
    let vhost = broker::shared().vhost();
    let proxy = Proxy::before(vhost.port()).await;
    let connection = with_queue(&vhost, "tasks").await;
    proxy.damage(1);
    publish_fragile(connect(&vhost.url_by(proxy.port)).await.as_ref()).await;
    assert!(proxy.has_damaged());
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let there = take(inlet.as_mut(), 1).await;
    assert!(there[0].redelivered && there[0].message.damage.is_some());
    inlet.dead_letter(there[0].tag).await.unwrap();
    fill(connection.as_ref(), "tasks", 1).await;
    let next = take(inlet.as_mut(), 1).await;
    assert_eq!(next[0].message.damage, None);
}
