//! Leases as AMQP has them: calls to their holder, and acknowledgements that are
//! certain before another one may come.

use super::*;

/// As an endpoint consumes its tasks.
fn leased_options() -> link::InletOptions {
    options("tasks", 8, Some("lease"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secured_does_not_come_again_though_the_connection_is_cut() {
    let vhost = broker::shared().vhost();
    let first = with_queue(&vhost, "tasks").await;
    fill(first.as_ref(), "tasks", 3).await;
    let mut inlet = first.inlet(&leased_options()).await.unwrap();
    let there = take(inlet.as_mut(), 3).await;
    inlet.acknowledge(there[1].tag).await.unwrap();
    within(inlet.secured()).await.unwrap();
    drop((inlet, first));
    let second = connect(&vhost.url()).await;
    let mut inlet = within(async {
        loop {
            match second.inlet(&leased_options()).await {
                Ok(inlet) => return inlet,
                Err(fault) => assert!(matches!(fault, Fault::Locked(_)), "{fault}"),
            }
        }
    })
    .await;
    assert_eq!(ids(&take(inlet.as_mut(), 1).await), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_lease_and_nobody_else_hears_what_is_published_to_it() {
    let vhost = broker::shared().vhost();
    let holder = with_queue(&vhost, "tasks").await;
    let caller = connect(&vhost.url()).await;
    let mut outlet = caller.outlet().await.unwrap();
    outlet.publish(&to("lease"), message("early")).await.unwrap();
    let settled = settle(outlet.as_mut()).await;
    assert!(matches!(settled[0].1, Settlement::Returned(_)), "{settled:?}");

    let mut inlet = holder.inlet(&leased_options()).await.unwrap();
    fill(caller.as_ref(), "tasks", 2).await;
    let there = take(inlet.as_mut(), 1).await;
    publish(outlet.as_mut(), "lease", ["call"]).await;
    let call = within(inlet.called()).await.unwrap();
    assert_eq!(call.message_id.as_deref(), Some("call"));
    // Calls do not get in the way of settling.
    let more = take(inlet.as_mut(), 1).await;
    inlet.acknowledge(there[0].tag).await.unwrap();
    inlet.acknowledge(more[0].tag).await.unwrap();
    within(inlet.secured()).await.unwrap();
}
