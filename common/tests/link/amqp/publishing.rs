//! Publishing: how fast, and what the broker holds up.

use super::wire_proxy::Proxy;
use super::*;
use clutch_common::link::Message;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_messages_goes_by_thousands_per_second() {
    let vhost = broker::shared().vhost();
    let connection = with_queue(&vhost, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let body = vec![b'x'; 1024];
    let (count, mut confirmed) = (20_000, 0);
    let began = Instant::now();
    for number in 0..count {
        let message = Message { body: body.clone(), ..message(number) };
        outlet.publish(&to("q"), message).await.unwrap();
        if outlet.open() >= 1000 {
            confirmed += within(outlet.settled()).await.unwrap().len();
        }
    }
    confirmed += settle(outlet.as_mut()).await.len();
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    println!("{rate:.0} messages of 1 KiB per second");
    assert_eq!(confirmed, count as usize);
    assert!(rate > 1000.0, "{rate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_does_not_come_is_a_fault_in_time() {
    let vhost = broker::shared().vhost();
    with_queue(&vhost, "q").await.close().await;
    let proxy = Proxy::before(vhost.port()).await;
    let patience = Duration::from_millis(700);
    let terms = Terms { confirm_timeout: patience, ..Terms::default() };
    let connection = try_connect(&vhost.url_by(proxy.port), &terms).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    // Nothing is open: waiting is no fault.
    let idle = tokio::time::timeout(Duration::from_millis(1500), outlet.settled()).await;
    assert!(idle.is_err());
    proxy.stall(true);
    let began = Instant::now();
    outlet.publish(&to("q"), message(1)).await.unwrap();
    assert_eq!(fault(within(outlet.settled()).await), Fault::ConfirmTimeout(patience));
    assert!(began.elapsed() >= patience && began.elapsed() < patience * 3);
    assert_eq!(fault(within(connection.outlet()).await), Fault::ConfirmTimeout(patience));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_is_a_fault_only_after_its_own_timeout() {
    let broker = broker::private();
    let vhost = broker.vhost();
    with_queue(&vhost, "q").await.close().await;
    let terms = Terms {
        blocked_timeout: Duration::from_secs(5),
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
    // It does not end.
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    let began = Instant::now();
    outlet.publish(&to("q"), message(2)).await.unwrap();
    let fault = fault(within(outlet.settled()).await);
    assert!(matches!(&fault, Fault::Blocked { after, .. } if *after == terms.blocked_timeout));
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    let closing = Instant::now();
    connection.close().await;
    assert!(closing.elapsed() < Duration::from_secs(5));
}
