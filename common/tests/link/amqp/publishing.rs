//! Publishing: how fast, and what the broker holds up.

use super::*;
use clutch_common::link::{Message, Outlet};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_messages_goes_faster_than_one_at_a_time() {
    let vhost = broker::vhost();
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
async fn a_missing_exchange_is_named_by_whichever_call_learns_of_it() {
    let vhost = broker::vhost();
    with_queue(&vhost, "q").await.close().await;
    let nowhere = link::Destination { exchange: "nowhere".to_owned(), routing_key: "q".to_owned() };
    for _ in 0..20 {
        let connection = connect(&vhost.url()).await;
        let mut outlet = connection.outlet().await.unwrap();
        let mut number = 0;
        let fault = loop {
            number += 1;
            if let Err(fault) = outlet.publish(&nowhere, message(number)).await {
                break fault;
            }
        };
        assert!(matches!(&fault, Fault::Missing(text) if text.contains("nowhere")), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_the_broker_takes_is_told_and_costs_nothing_else() {
    let (_alone, broker) = broker::private().await;
    let vhost = broker.address().vhost().unwrap();
    with_queue(&vhost, "q").await.close().await;
    let set = |limit: &str| {
        broker
            .control(&["eval", &format!("application:set_env(rabbit, max_message_size, {limit}).")])
            .unwrap();
    };
    set("131072");
    let transport = link::transport(&vhost.url(), &Terms::default()).unwrap();
    let connection = transport.connect("test").await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    let sized = |number: usize, size: usize| Message { body: vec![b'x'; size], ..message(number) };
    let sizes = [10, 200_000, 100_000, 10, 131_072, 131_073, 10];
    let mut sent = std::collections::BTreeMap::new();
    for (number, size) in sizes.into_iter().enumerate() {
        sent.insert(outlet.publish(&to("q"), sized(number, size)).await.unwrap(), size);
    }
    while outlet.open() > 0 {
        for (ticket, settlement) in within(outlet.settled()).await.unwrap() {
            let size = sent.remove(&ticket).unwrap();
            let expected =
                if size > 131_072 { Settlement::TooLarge(131_072) } else { Settlement::Confirmed };
            assert_eq!(settlement, expected, "{size}");
        }
    }
    assert!(sent.is_empty());
    assert_eq!(outlet.limit(), 131_072);
    // What one connection has learnt, the next one knows.
    connection.close().await;
    let connection = transport.connect("test").await.unwrap();
    assert_eq!(connection.outlet().await.unwrap().limit(), 131_072);
    connection.close().await;
    set("134217728");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_does_not_come_is_a_fault_in_time() {
    let vhost = broker::vhost();
    with_queue(&vhost, "q").await.close().await;
    let proxy = broker::proxy(&vhost);
    let patience = Duration::from_secs(2);
    let terms = Terms { confirm_timeout: patience, ..Terms::default() };
    let connection = try_connect(&broker::through(&proxy, &vhost), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    // Nothing is open: waiting is no fault.
    let idle = tokio::time::timeout(patience * 3 / 2, outlet.settled()).await;
    assert!(idle.is_err());
    proxy.carry(Carry::Stall).unwrap();
    let began = Instant::now();
    outlet.publish(&to("q"), message(1)).await.unwrap();
    assert_eq!(fault(within(outlet.settled()).await), Fault::ConfirmTimeout(patience));
    assert!(began.elapsed() >= patience && began.elapsed() < patience * 7);
    assert_eq!(fault(within(connection.outlet()).await), Fault::ConfirmTimeout(patience));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_is_a_fault_only_after_its_own_timeout() {
    let (_alone, broker) = broker::private().await;
    let vhost = broker.address().vhost().unwrap();
    with_queue(&vhost, "q").await.close().await;
    // Long enough for the alarm to end in the meantime.
    let terms = Terms {
        blocked_timeout: PATIENCE,
        confirm_timeout: Duration::from_secs(2),
        ..Terms::default()
    };
    let connection = try_connect(&vhost.url(), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).unwrap();
    // It ends in time: nothing is lost, although the confirm is late.
    outlet.publish(&to("q"), message(1)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(3), outlet.settled()).await;
    assert!(waited.is_err(), "{waited:?}");
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    assert_eq!(settle(outlet.as_mut()).await[0].1, Settlement::Confirmed);
    connection.close().await;
    // It does not end.
    let terms = Terms { blocked_timeout: Duration::from_secs(5), ..terms };
    let connection = try_connect(&vhost.url(), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).unwrap();
    let began = Instant::now();
    outlet.publish(&to("q"), message(2)).await.unwrap();
    let fault = fault(within(outlet.settled()).await);
    assert!(matches!(&fault, Fault::Blocked { after, .. } if *after == terms.blocked_timeout));
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    let closing = Instant::now();
    connection.close().await;
    assert!(closing.elapsed() < Duration::from_secs(15));
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
}
