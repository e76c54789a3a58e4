//! Messages that come again, messages that do not, and the place of those that came too
//! often.

use super::*;
use clutch_common::link::{DELIVERY_LIMIT, REJECTED};
use clutch_common::system::clock::now_ms;

pub(super) async fn what_is_not_settled_comes_again_in_order_after_a_close(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 20).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    let there = take(inlet.as_mut(), 8).await;
    assert!(there.iter().all(|delivery| !delivery.redelivered));
    inlet.acknowledge(there[3].tag).await.unwrap();
    connection.close().await;
    let connection = connect(&site.url()).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    let again = take(inlet.as_mut(), 16).await;
    assert_eq!(ids(&again), numbers(4..20));
    assert!(again[..4].iter().all(|delivery| delivery.redelivered));
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

pub(super) async fn what_is_not_settled_comes_again_in_order_after_a_drop(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 20).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    take(inlet.as_mut(), 8).await;
    drop((inlet, connection));
    let connection = connect(&site.url()).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    let again = take(inlet.as_mut(), 20).await;
    assert_eq!(ids(&again), numbers(0..20));
    assert!(again[..8].iter().all(|delivery| delivery.redelivered));
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

pub(super) async fn what_a_dropped_inlet_had_goes_to_another(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 6).await;
    let mut first = shared(connection.as_ref(), "tasks", 4).await;
    let mut second = shared(connection.as_ref(), "tasks", 100).await;
    assert_eq!(ids(&take(first.as_mut(), 4).await), numbers(0..4));
    assert_eq!(ids(&take(second.as_mut(), 2).await), numbers(4..6));
    drop(first);
    let again = take(second.as_mut(), 4).await;
    assert_eq!(ids(&again), numbers(0..4));
    assert!(again.iter().all(|delivery| delivery.redelivered));
}

pub(super) async fn what_an_inlet_beside_the_one_with_the_lease_holds_comes_again(
    site: &impl Site,
) {
    let connection = with_queue(site, "tasks").await;
    connection.declare(&queue("control", &[])).await.unwrap();
    let mut tasks = leased(connection.as_ref(), "tasks", "lease").await;
    fill(connection.as_ref(), "tasks", 4).await;
    fill(connection.as_ref(), "control", 4).await;
    let mut beside = one_by_one(connection.as_ref(), "control", 9).await;
    let there = take(beside.as_mut(), 4).await;
    beside.acknowledge_one(there[2].tag).await.unwrap();
    beside.secured().await.unwrap();
    drop(beside);
    let mut beside = one_by_one(connection.as_ref(), "control", 9).await;
    let again = take(beside.as_mut(), 3).await;
    assert_eq!(ids(&again), ["0", "1", "3"], "on the next inlet of the same connection");
    assert!(again.iter().all(|delivery| delivery.redelivered));
    assert_eq!(ids(&take(tasks.as_mut(), 4).await), numbers(0..4), "the other one lives");
    connection.close().await;
    let connection = connect(&site.url()).await;
    let mut beside = one_by_one(connection.as_ref(), "control", 9).await;
    assert_eq!(ids(&take(beside.as_mut(), 3).await), ["0", "1", "3"], "on the next connection");
    assert_eq!(connection.waiting("control").await.unwrap(), 0);
    nothing_else(connection.as_ref(), "control", beside.as_mut()).await;
}

pub(super) async fn nothing_acknowledged_comes_again_after_a_close(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 100).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 30).await;
    for _ in 0..10 {
        let there = take(inlet.as_mut(), 10).await;
        inlet.acknowledge(there[6].tag).await.unwrap();
        inlet.acknowledge(there[9].tag).await.unwrap();
    }
    connection.close().await;
    let connection = connect(&site.url()).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 30).await;
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

pub(super) async fn nothing_secured_comes_again_after_a_drop(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    fill(connection.as_ref(), "tasks", 30).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    for _ in 0..3 {
        let there = take(inlet.as_mut(), 4).await;
        inlet.acknowledge(there[2].tag).await.unwrap();
        within(inlet.secured()).await.unwrap();
        inlet.acknowledge(there[3].tag).await.unwrap();
    }
    take(inlet.as_mut(), 1).await;
    within(inlet.secured()).await.unwrap();
    drop((inlet, connection));
    let connection = connect(&site.url()).await;
    let mut inlet = leased(connection.as_ref(), "tasks", "lease").await;
    assert_eq!(ids(&take(inlet.as_mut(), 18).await), numbers(12..30));
}

/// A queue `dead` behind an exchange `letters`.
pub(super) async fn with_letters(site: &impl Site) -> Box<dyn Connection> {
    let connection = with_queue(site, "dead").await;
    let letters = exchange("letters", ExchangeKind::Fanout, &[("dead", "")]);
    connection.declare(&letters).await.unwrap();
    connection
}

/// A message died once, there and then, where a broker has a clock.
pub(super) fn died(message: &Message, queue: &str, reason: &str, before_ms: u64) {
    let [death] = &message.deaths[..] else { panic!("{:?}", message.deaths) };
    assert_eq!((&*death.queue, &*death.reason, death.count), (queue, reason, 1));
    // AMQP has seconds.
    let moments = before_ms - before_ms % 1000..=now_ms();
    assert!(death.at_ms.is_none_or(|at| moments.contains(&at)), "{death:?}");
}

pub(super) async fn a_dead_letter_arrives_as_it_was(site: &impl Site) {
    let connection = with_letters(site).await;
    let tasks = queue("tasks", &[("x-dead-letter-exchange", "letters")]);
    connection.declare(&tasks).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    let sent = Message {
        correlation_id: Some("task".to_owned()),
        kind: Some("kind".to_owned()),
        timestamp_ms: Some(1_700_000_000_000),
        body: vec![0, 255],
        ..message("bad")
    };
    let before = now_ms();
    outlet.publish(&to("tasks"), sent.clone()).await.unwrap();
    settle(outlet.as_mut()).await;
    let mut inlet = shared(connection.as_ref(), "tasks", 8).await;
    let tag = take(inlet.as_mut(), 1).await[0].tag;
    inlet.dead_letter(tag).await.unwrap();
    let mut dead = shared(connection.as_ref(), "dead", 8).await;
    let arrived = take(dead.as_mut(), 1).await.remove(0).message;
    died(&arrived, "tasks", REJECTED, before);
    assert_eq!(Message { deaths: vec![], routing_key: None, ..arrived }, sent);
    nothing_else(connection.as_ref(), "tasks", inlet.as_mut()).await;
}

/// Only a quorum queue counts deliveries, where there are kinds of queues.
pub(super) async fn past_the_delivery_limit_a_message_is_a_dead_letter(site: &impl Site) {
    let connection = with_letters(site).await;
    let arguments = [("x-queue-type", "quorum"), ("x-dead-letter-exchange", "letters")];
    let mut counted = queue("counted", &arguments);
    counted.queues[0].arguments.push(("x-delivery-limit", Argument::Number(2)));
    connection.declare(&counted).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    let before = now_ms();
    publish(outlet.as_mut(), "counted", ["poison"]).await;
    for attempt in 0..3 {
        let passing = connect(&site.url()).await;
        let mut inlet = shared(passing.as_ref(), "counted", 1).await;
        let there: Vec<Delivery> = take(inlet.as_mut(), 1).await;
        assert_eq!(ids(&there), ["poison"]);
        assert_eq!(there[0].redelivered, attempt > 0);
        passing.close().await;
    }
    let mut dead = shared(connection.as_ref(), "dead", 8).await;
    let there = take(dead.as_mut(), 1).await;
    assert_eq!(ids(&there), ["poison"]);
    died(&there[0].message, "counted", DELIVERY_LIMIT, before);
    let mut inlet = shared(connection.as_ref(), "counted", 8).await;
    nothing_else(connection.as_ref(), "counted", inlet.as_mut()).await;
}
