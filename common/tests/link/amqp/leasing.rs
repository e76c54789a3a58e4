//! Leases as AMQP has them: calls to their holder, and patience with it.

use super::*;
use futures_util::StreamExt as _;
use std::time::Instant;

/// As an endpoint consumes its tasks.
fn leased_options() -> link::InletOptions {
    options("tasks", 8, Some("lease"))
}

/// A refusal costs the channel, of which a connection has no more than 2,047.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_may_be_asked_for_without_end_on_one_connection() {
    let vhost = broker::vhost();
    let holder = with_queue(&vhost, "tasks").await;
    let inlet = holder.inlet(&leased_options()).await.unwrap();
    let waiting = connect(&vhost.url()).await;
    for _ in 0..2_200 {
        let asked = within(waiting.inlet(&leased_options())).await;
        let asked = asked.err();
        assert!(matches!(asked, Some(Fault::Locked(_))), "{asked:?}");
    }
    drop(inlet);
    let patience = Instant::now() + Duration::from_secs(10);
    while let Err(fault) = within(waiting.inlet(&leased_options())).await {
        assert!(matches!(fault, Fault::Locked(_)), "{fault}");
        assert!(Instant::now() < patience, "it is free and is not found to be");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_lease_and_nobody_else_hears_what_is_published_to_it() {
    let vhost = broker::vhost();
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
    let mut calls = inlet.calls();
    let call = within(calls.next()).await.unwrap().unwrap();
    assert_eq!(call.message_id.as_deref(), Some("call"));
    // Calls do not get in the way of settling.
    let more = take(inlet.as_mut(), 1).await;
    inlet.acknowledge(there[0].tag).await.unwrap();
    inlet.acknowledge(more[0].tag).await.unwrap();
    within(inlet.secured()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_consumes_is_seen_without_asking_for_the_lease_and_by_a_user_with_no_rights() {
    let vhost = broker::vhost();
    let holder = with_queue(&vhost, "tasks").await;
    let user = format!("{}-looks", vhost.name());
    let other = connect(&broker::user(&vhost, &user, ["^$", "^$", "^$"])).await;
    let inlet = holder.inlet(&options("tasks", 8, Some("lease"))).await.unwrap();
    assert_eq!(other.consumers("tasks").await.unwrap(), Some(1));
    drop(inlet);
    holder.close().await;
    within(async {
        while other.consumers("tasks").await.unwrap() != Some(0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
