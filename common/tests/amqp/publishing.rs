//! Publishing: what arrives, how fast, and the ways it fails.

use super::wire_proxy::Proxy;
use super::*;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_as_it_was_sent() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let sent = Message {
        message_id: Some("m-1".to_owned()),
        correlation_id: Some("t-1".to_owned()),
        kind: Some("clutch.tasks".to_owned()),
        timestamp_ms: Some(1_700_000_000_000),
        body: vec![0, 159, 146, 150],
    };
    outlet.publish(&to("q"), sent.clone()).await.unwrap();
    outlet.publish(&to("q"), Message::default()).await.unwrap();
    let settled = settle(outlet.as_mut()).await;
    assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Confirmed));
    let mut inlet = connection.inlet(&options("q", 8, None)).await.unwrap();
    let there = take(inlet.as_mut(), 2).await;
    assert_eq!(there[0].message, sent);
    assert!(there[1].message.message_id.is_some(), "every message gets an id");
    assert_eq!(there[1].message.body, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_arrive_whole() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut inlet = connection.inlet(&options("q", 8, None)).await.unwrap();
    for size in [1 << 20, 15 << 20] {
        let body: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let began = Instant::now();
        let large = Message { body: body.clone(), ..Message::default() };
        outlet.publish(&to("q"), large).await.unwrap();
        assert_eq!(settle(outlet.as_mut()).await[0].1, Settlement::Confirmed);
        let there = take(inlet.as_mut(), 1).await;
        println!("{} MiB there and back: {:?}", size >> 20, began.elapsed());
        assert!(there[0].message.body == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_messages_goes_faster_than_one_at_a_time() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let one_at_a_time = rate(outlet.as_mut(), 1_000, 1).await;
    let by_window = rate(outlet.as_mut(), 20_000, 1000).await;
    println!("{one_at_a_time:.0} messages of 1 KiB per second, {by_window:.0} by a window");
    assert!(by_window > 2.0 * one_at_a_time, "{one_at_a_time}, {by_window}");
}

/// How many messages per second are confirmed, with up to `window` open.
async fn rate(outlet: &mut dyn Outlet, count: u32, window: usize) -> f64 {
    let body = vec![b'x'; 1024];
    let mut confirmed = 0;
    let began = Instant::now();
    for number in 0..count {
        let message = Message { body: body.clone(), ..message(number) };
        outlet.publish(&to("q"), message).await.unwrap();
        if outlet.open() >= window {
            confirmed += within(outlet.settled()).await.unwrap().len();
        }
    }
    confirmed += settle(outlet).await.len();
    assert_eq!(confirmed, count as usize);
    f64::from(count) / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_does_not_exist_is_missing() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let nowhere = Destination { exchange: "nowhere".to_owned(), routing_key: "k".to_owned() };
    outlet.publish(&nowhere, message(1)).await.unwrap();
    let reason = fault(within(outlet.settled()).await);
    assert!(matches!(&reason, Fault::Missing(text) if text.contains("nowhere")), "{reason}");
    assert_eq!(fault(outlet.publish(&to("q"), message(2)).await), reason);
    assert_eq!(fault(outlet.settled().await), reason);
    // Only the outlet is lost.
    fill(connection.as_ref(), "q", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses() {
    let vhost = broker::shared().vhost();
    let connection = connect(&vhost.url()).await;
    let mut full = queue("full", &[("x-overflow", "reject-publish")]);
    full.queues[0].arguments.push(("x-max-length", Argument::Number(1)));
    connection.declare(&full).await.unwrap();
    fill(connection.as_ref(), "full", 1).await;
    let mut outlet = connection.outlet().await.unwrap();
    for number in 0..5 {
        outlet.publish(&to("full"), message(number)).await.unwrap();
    }
    let settled = settle(outlet.as_mut()).await;
    assert_eq!(settled.len(), 5);
    assert!(settled.iter().any(|(_, settlement)| *settlement == Settlement::Refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_does_not_come_is_a_fault_in_time() {
    let vhost = broker::shared().vhost();
    with_queue(&vhost, "q").await.close().await;
    let proxy = Proxy::before(vhost.port()).await;
    let patience = Duration::from_secs(2);
    let terms = Terms { confirm_timeout: patience, ..Terms::default() };
    let connection = try_connect(&vhost.url_by(proxy.port), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    // Nothing is open: waiting is no fault.
    let idle = tokio::time::timeout(patience * 3 / 2, outlet.settled()).await;
    assert!(idle.is_err());
    proxy.stall(true);
    let began = Instant::now();
    outlet.publish(&to("q"), message(1)).await.unwrap();
    assert_eq!(fault(within(outlet.settled()).await), Fault::ConfirmTimeout(patience));
    assert!(began.elapsed() >= patience && began.elapsed() < patience * 7);
    assert_eq!(fault(within(connection.outlet()).await), Fault::ConfirmTimeout(patience));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_is_a_fault_only_after_its_own_timeout() {
    let (_alone, broker) = broker::private().await;
    let vhost = broker.vhost();
    with_queue(&vhost, "q").await.close().await;
    // Long enough for the alarm to end in the meantime.
    let terms = Terms {
        blocked_timeout: PATIENCE,
        confirm_timeout: Duration::from_secs(2),
        ..Terms::default()
    };
    let connection = try_connect(&vhost.url(), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    // It ends in time: nothing is lost, although the confirm is late.
    outlet.publish(&to("q"), message(1)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(3), outlet.settled()).await;
    assert!(waited.is_err(), "{waited:?}");
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    assert_eq!(settle(outlet.as_mut()).await[0].1, Settlement::Confirmed);
    connection.close().await;
    // It does not end.
    let terms = Terms { blocked_timeout: Duration::from_secs(5), ..terms };
    let connection = try_connect(&vhost.url(), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    let began = Instant::now();
    outlet.publish(&to("q"), message(2)).await.unwrap();
    let fault = fault(within(outlet.settled()).await);
    assert!(matches!(&fault, Fault::Blocked { after, .. } if *after == terms.blocked_timeout));
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    let closing = Instant::now();
    connection.close().await;
    assert!(closing.elapsed() < Duration::from_secs(15));
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
}
