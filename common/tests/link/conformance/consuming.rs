//! Consuming: what may be under way, settling it, and waiting for it.

use super::*;
use clutch_common::link::Tag;
use clutch_common::topology;

pub(super) async fn a_missing_queue_is_missing(site: &impl Site) {
    let connection = connect(&site.url()).await;
    for lease in [None, Some("nothing.lease")] {
        let fault = fault(connection.inlet(&options("nothing", 8, lease)).await);
        assert!(matches!(&fault, Fault::Missing(text) if text.contains("nothing")), "{fault}");
    }
}

pub(super) async fn acknowledging_a_range_leaves_out_what_was_dead_lettered(site: &impl Site) {
    let connection = connect(&site.url()).await;
    connection.declare(&topology::shared(topology::QueueKind::Classic)).await.unwrap();
    let tasks = queue("tasks", &[("x-dead-letter-exchange", topology::DEAD_LETTER_EXCHANGE)]);
    connection.declare(&tasks).await.unwrap();
    fill(connection.as_ref(), "tasks", 10).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 100).await;
    let tags: Vec<Tag> = take(inlet.as_mut(), 10).await.iter().map(|d| d.tag).collect();
    assert!(tags.is_sorted());
    inlet.acknowledge(Tag(0)).await.unwrap();
    inlet.dead_letter(tags[2]).await.unwrap();
    inlet.dead_letter(tags[5]).await.unwrap();
    inlet.dead_letter(tags[5]).await.unwrap();
    // The end of the range is settled already; so is the whole range, later.
    inlet.acknowledge(tags[5]).await.unwrap();
    inlet.acknowledge(tags[5]).await.unwrap();
    inlet.dead_letter(tags[4]).await.unwrap();
    inlet.acknowledge(tags[3]).await.unwrap();
    inlet.acknowledge(Tag(tags[9].0 + 1000)).await.unwrap();
    inlet.acknowledge(tags[9]).await.unwrap();
    // The inlet lives, so the broker objected to nothing.
    fill(connection.as_ref(), "tasks", 1).await;
    take(inlet.as_mut(), 1).await;
    let letters = topology::DEAD_LETTER_QUEUE;
    let mut dead = shared(connection.as_ref(), letters, 9).await;
    assert_eq!(ids(&take(dead.as_mut(), 2).await), ["2", "5"]);
    nothing_else(connection.as_ref(), letters, dead.as_mut()).await;
    connection.close().await;
    let connection = connect(&site.url()).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 100).await;
    assert_eq!(ids(&take(inlet.as_mut(), 1).await), ["0"], "only the last one is unsettled");
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

pub(super) async fn one_delivery_is_settled_by_itself(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 6).await;
    let mut inlet = one_by_one(connection.as_ref(), "tasks", 100).await;
    let tags: Vec<Tag> = take(inlet.as_mut(), 6).await.iter().map(|d| d.tag).collect();
    inlet.acknowledge_one(tags[3]).await.unwrap();
    inlet.acknowledge_one(tags[3]).await.unwrap();
    inlet.acknowledge_one(tags[1]).await.unwrap();
    inlet.acknowledge_one(Tag(tags[5].0 + 1000)).await.unwrap();
    inlet.acknowledge(tags[1]).await.unwrap();
    inlet.acknowledge_one(tags[0]).await.unwrap();
    inlet.secured().await.unwrap();
    // The inlet lives, so the broker objected to nothing.
    fill(connection.as_ref(), "tasks", 1).await;
    let last = take(inlet.as_mut(), 1).await[0].tag;
    inlet.acknowledge_one(last).await.unwrap();
    inlet.secured().await.unwrap();
    connection.close().await;
    let connection = connect(&site.url()).await;
    let mut inlet = one_by_one(connection.as_ref(), "tasks", 100).await;
    assert_eq!(ids(&take(inlet.as_mut(), 3).await), ["2", "4", "5"]);
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

pub(super) async fn the_prefetch_bounds_what_is_under_way_and_zero_is_not_boundless(
    site: &impl Site,
) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 50).await;
    for (prefetch, expected) in [(7, 7), (0, 1)] {
        let mut inlet = shared(connection.as_ref(), "tasks", prefetch).await;
        let there = take(inlet.as_mut(), expected).await;
        let more = tokio::time::timeout(Duration::from_millis(300), inlet.receive(100)).await;
        assert!(more.is_err(), "more than {expected} came");
        inlet.acknowledge(there[0].tag).await.unwrap();
        assert_eq!(within(inlet.receive(100)).await.unwrap().len(), 1);
    }
}

pub(super) async fn what_one_prefetch_leaves_goes_to_another_consumer(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 10).await;
    let mut first = shared(connection.as_ref(), "tasks", 3).await;
    assert_eq!(ids(&take(first.as_mut(), 3).await), numbers(0..3));
    let mut second = shared(connection.as_ref(), "tasks", 100).await;
    assert_eq!(ids(&take(second.as_mut(), 7).await), numbers(3..10));
}

pub(super) async fn a_cancelled_receive_loses_nothing_and_keeps_the_order(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    let mut inlet = shared(connection.as_ref(), "tasks", 50).await;
    let consuming = async {
        let mut seen = Vec::new();
        let (mut rng, mut cancelled) = (Rng(1), 0);
        while seen.len() < 3000 {
            tokio::select! {
                biased;
                received = inlet.receive(7) => {
                    let received = received.unwrap();
                    inlet.acknowledge(received.last().unwrap().tag).await.unwrap();
                    seen.extend(ids(&received));
                }
                () = impatience(&mut rng) => cancelled += 1,
            }
            tokio::task::yield_now().await;
        }
        assert!(cancelled > 0);
        seen
    };
    let publishing = async {
        let mut outlet = connection.outlet().await.unwrap();
        for number in 0..3000 {
            publish(outlet.as_mut(), "tasks", [number]).await;
            tokio::task::yield_now().await;
        }
    };
    let (seen, ()) = within(async { tokio::join!(consuming, publishing) }).await;
    assert_eq!(seen, numbers(0..3000));
}

pub(super) async fn waiting_for_the_loss_of_the_link_swallows_no_delivery(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    let mut inlet = shared(connection.as_ref(), "tasks", 50).await;
    let mut outlet = connection.outlet().await.unwrap();
    for first in (0..40).step_by(10) {
        tokio::select! {
            biased;
            fault = inlet.lost() => panic!("{fault}"),
            () = publish(outlet.as_mut(), "tasks", first..first + 10) => {}
        }
    }
    assert_eq!(ids(&take(inlet.as_mut(), 40).await), numbers(0..40));
    let (lost, ()) = within(async { tokio::join!(inlet.lost(), connection.close()) }).await;
    assert!(matches!(lost, Fault::Closed(_)), "{lost}");
    // And to a later call.
    assert!(matches!(within(inlet.lost()).await, Fault::Closed(_)));
}

pub(super) async fn a_closed_connection_is_told_to_its_inlet(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 2).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 50).await;
    let there = take(inlet.as_mut(), 2).await;
    let (received, ()) = within(async { tokio::join!(inlet.receive(1), connection.close()) }).await;
    assert!(matches!(received, Err(Fault::Closed(_))), "{received:?}");
    assert!(matches!(inlet.receive(1).await, Err(Fault::Closed(_))));
    assert!(matches!(inlet.dead_letter(there[0].tag).await, Err(Fault::Closed(_))));
    assert!(matches!(inlet.acknowledge(there[1].tag).await, Err(Fault::Closed(_))));
    let opened = connection.inlet(&options("tasks", 1, None)).await;
    assert!(matches!(opened, Err(Fault::Closed(_))));
}
