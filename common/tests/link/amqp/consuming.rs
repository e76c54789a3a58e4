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

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_no_frame_holds_or_no_stack_keep_no_message_from_being_delivered() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let path = format!("exchanges/{}/amq.default/publish", vhost.name);
    let nested =
        |depth| (0..depth).fold(serde_json::json!(1), |n, _| serde_json::json!({ "n": n }));
    let headers = [
        ("large", "y".repeat(33_000).into()),
        ("larger", "y".repeat(120_000).into()),
        ("largest", "y".repeat(200_000).into()),
        ("nested", nested(90)),
        ("good", 1.into()),
    ];
    for (id, header) in &headers {
        let message = serde_json::json!({
            "routing_key": "tasks", "payload": "body", "payload_encoding": "string",
            "properties": { "message_id": id, "headers": { "a": 1, "x": header } },
        });
        vhost.broker.api("POST", &path, Some(&message.to_string()));
    }
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let taken = take(inlet.as_mut(), headers.len()).await;
    for (delivery, (id, _)) in taken.iter().zip(&headers) {
        assert_eq!(delivery.message.message_id.as_deref(), Some(*id));
        assert_eq!(delivery.message.body, b"body");
    }
    inlet.acknowledge(taken[headers.len() - 1].tag).await.unwrap();
    within(inlet.secured()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_on_a_slow_link_is_waited_for_while_it_comes() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let mut outlet = connection.outlet().await.unwrap();
    let large = link::Message { body: vec![b'x'; 400_000], ..message("large") };
    outlet.publish(&to("tasks"), large).await.unwrap();
    settle(outlet.as_mut()).await;

    let proxy = Proxy::before(vhost.port()).await;
    let terms = Terms { confirm_timeout: Duration::from_secs(1), ..Terms::default() };
    let transport = link::transport(&vhost.url_by(proxy.port), &terms).unwrap();
    let slow = within(transport.connect("slow")).await.unwrap();
    let mut shelf = slow.shelf("tasks", "lease").await.unwrap();
    proxy.slow(100_000);
    let found = shelf.next().await.unwrap().unwrap();
    assert_eq!(found.message.body.len(), 400_000);
    proxy.stall(true);
    let fault = shelf.next().await.err();
    assert!(matches!(fault, Some(Fault::ConfirmTimeout(_))), "{fault:?}");
}
