//! Consuming: the ways that the broker ends it, and what arrives damaged.

use super::*;
use clutch_common::link::Message;
use std::num::NonZeroUsize;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_its_consumer_is_missing() {
    let vhost = broker::vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let mut waiting = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let mut absent = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let deleting = async { vhost.delete("tasks").unwrap() };
    let (received, ()) = within(async { tokio::join!(waiting.receive(8), deleting) }).await;
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
        broker.control(&["eval", &format!("application:set_env(rabbit, {setting}).")]).unwrap();
    }
    let vhost = broker.address().vhost().unwrap();
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

async fn publish_body(connection: &dyn Connection, body: &[u8]) {
    let mut outlet = connection.outlet().await.unwrap();
    let message = Message { body: body.to_vec(), ..Message::default() };
    outlet.publish(&to("tasks"), message).await.unwrap();
    let settled = within(outlet.settled()).await.unwrap();
    assert_eq!(settled[0].1, Settlement::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_damaged_on_its_way_from_the_broker_is_asked_for_again() {
    let vhost = broker::vhost();
    let proxy = broker::proxy(&vhost);
    let publishing = with_queue(&vhost, "tasks").await;
    publish_body(publishing.as_ref(), b"the first").await;
    publish_body(publishing.as_ref(), b"the second").await;
    // The second is damaged; when it comes again, it is the third body.
    proxy.damage(NonZeroUsize::new(2));
    let connection = connect(&broker::through(&proxy, &vhost)).await;
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let first = take(inlet.as_mut(), 1).await;
    assert_eq!(first[0].message.body, b"the first");
    // What is acknowledged does not cover what is to come again.
    inlet.acknowledge(first[0].tag).await.unwrap();
    let second = take(inlet.as_mut(), 1).await;
    assert_eq!(second[0].message.body, b"the second");
    assert!(second[0].redelivered && second[0].message.damage.is_none());
    assert_eq!(proxy.bodies(Way::Back), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_damaged_on_its_way_to_the_broker_is_told_to_be_and_may_be_refused() {
    let vhost = broker::vhost();
    let proxy = broker::proxy(&vhost);
    let connection = with_queue(&vhost, "tasks").await;
    proxy.damage(NonZeroUsize::new(1));
    let url = broker::through(&proxy, &vhost);
    publish_body(connect(&url).await.as_ref(), b"the first").await;
    assert_eq!(proxy.bodies(Way::There), 1);
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
    let vhost = broker::vhost();
    let connection = with_queue(&vhost, "tasks").await;
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
        let properties =
            serde_json::json!({ "message_id": id, "headers": { "a": 1, "x": header } });
        vhost.publish("", "tasks", properties, b"body").unwrap();
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
    let vhost = broker::vhost();
    let connection = with_queue(&vhost, "tasks").await;
    let mut outlet = connection.outlet().await.unwrap();
    let large = link::Message { body: vec![b'x'; 400_000], ..message("large") };
    outlet.publish(&to("tasks"), large).await.unwrap();
    settle(outlet.as_mut()).await;

    let proxy = broker::proxy(&vhost);
    let terms = Terms { confirm_timeout: Duration::from_secs(1), ..Terms::default() };
    let transport = link::transport(&broker::through(&proxy, &vhost), &terms).unwrap();
    let slow = within(transport.connect("slow")).await.unwrap();
    let mut browser = slow.browse("tasks", "lease").await.unwrap();
    proxy.carry(Carry::Slow(100_000)).unwrap();
    let found = browser.next().await.unwrap().unwrap();
    assert_eq!(found.message.body.len(), 400_000);
    proxy.carry(Carry::Stall).unwrap();
    let fault = browser.next().await.err();
    assert!(matches!(fault, Some(Fault::ConfirmTimeout(_))), "{fault:?}");
}
