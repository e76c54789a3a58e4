//! Declaring: once, twice, and otherwise.

use super::*;
use clutch_common::id::{EndpointId, ServiceId};
use clutch_common::link::ownership::{self, Claim};
use clutch_common::topology::{self, QueueKind};

pub(super) async fn declaring_again_changes_nothing(site: &impl Site) {
    let connection = connect(&site.url()).await;
    for _ in 0..2 {
        connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
    }
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let own = topology::endpoint(EndpointId::new(), kind);
        connection.declare(&own).await.unwrap();
        let other = connect(&site.url()).await;
        other.declare(&own).await.unwrap();
        other.close().await;
    }
}

pub(super) async fn a_queue_declared_again_keeps_what_it_has(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let topic = exchange("topic", ExchangeKind::Topic, &[("q", "*.results")]);
    connection.declare(&topic).await.unwrap();
    fill(connection.as_ref(), "q", 3).await;
    connection.declare(&queue("q", &[])).await.unwrap();
    connection.declare(&topic).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    outlet.publish(&by("topic", "a.results"), message(3)).await.unwrap();
    settle(outlet.as_mut()).await;
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    // Two outlets' messages have no order among them.
    let mut there = ids(&take(inlet.as_mut(), 4).await);
    there.sort();
    assert_eq!(there, numbers(0..4));
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}

pub(super) async fn a_mismatch_says_what_differs_and_what_to_do(site: &impl Site) {
    let connection = connect(&site.url()).await;
    let classic = queue("mine", &[("x-queue-type", "classic")]);
    connection.declare(&classic).await.unwrap();
    let quorum = queue("mine", &[("x-queue-type", "quorum")]);
    let mismatch = fault(connection.declare(&quorum).await);
    assert!(matches!(mismatch, Fault::Mismatch(_)), "{mismatch}");
    let text = mismatch.to_string();
    for part in ["queue 'mine'", "x-queue-type", "'quorum'", "'classic'", "delete it"] {
        assert!(text.contains(part), "{text}");
    }
    let hub = |kind| exchange("hub", kind, &[]);
    connection.declare(&hub(ExchangeKind::Topic)).await.unwrap();
    let fault = fault(connection.declare(&hub(ExchangeKind::Fanout)).await);
    assert!(matches!(fault, Fault::Mismatch(_)), "{fault}");
    assert!(fault.to_string().contains("exchange 'hub'"), "{fault}");
    // The connection has outlived both.
    connection.declare(&classic).await.unwrap();
}

pub(super) async fn a_queue_that_is_removed_takes_nothing_and_can_be_declared_again(
    site: &impl Site,
) {
    let connection = with_queue(site, "q").await;
    let topic = exchange("topic", ExchangeKind::Topic, &[("q", "*.results")]);
    connection.declare(&topic).await.unwrap();
    fill(connection.as_ref(), "q", 3).await;
    for _ in 0..2 {
        connection.remove_queue("q").await.unwrap();
    }
    assert!(matches!(fault(connection.browse("q", "lease").await), Fault::Missing(_)));
    let again = connect(&site.url()).await;
    again.declare(&queue("q", &[])).await.unwrap();
    let mut outlet = again.outlet().await.unwrap();
    outlet.publish(&by("topic", "a.results"), message(0)).await.unwrap();
    let settled = settle(outlet.as_mut()).await;
    assert!(settled.iter().any(|(_, one)| matches!(one, Settlement::Returned(_))), "{settled:?}");
    let mut inlet = shared(again.as_ref(), "q", 8).await;
    nothing_else(again.as_ref(), "q", inlet.as_mut()).await;
}

pub(super) async fn results_are_of_one_service_until_another_takes_them_over(site: &impl Site) {
    let (first, second) = (ServiceId::new(), ServiceId::new());
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let one = connect(&site.url()).await;
        one.remove_queue(topology::OWNER_QUEUE).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ownership::claim(one.as_ref(), first, kind).await.unwrap(), Claim::Ours);
        }
        // They are so whether or not that one is there.
        one.close().await;
        let other = connect(&site.url()).await;
        for claimed in [QueueKind::Classic, QueueKind::Quorum] {
            let claim = ownership::claim(other.as_ref(), second, claimed).await.unwrap();
            let told = matches!(&claim, Claim::Theirs { service, .. } if *service == Some(first));
            assert!(told, "{kind:?} {claimed:?}: {claim:?}");
            let ours = ownership::claim(other.as_ref(), first, claimed).await.unwrap();
            assert_eq!(ours, Claim::Ours, "{kind:?} {claimed:?}");
        }
        ownership::take_over(other.as_ref(), second, kind).await.unwrap();
        let again = connect(&site.url()).await;
        let claim = ownership::claim(again.as_ref(), first, kind).await.unwrap();
        assert!(matches!(claim, Claim::Theirs { service, .. } if service == Some(second)));
        assert_eq!(ownership::claim(again.as_ref(), second, kind).await.unwrap(), Claim::Ours);
    }
}
