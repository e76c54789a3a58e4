//! Publishing: what arrives, in which order, and what is said of the rest.

use super::*;
use clutch_common::wire::MAX_BODY;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinSet;

pub(super) async fn a_message_arrives_as_it_was_sent(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let sent = Message {
        message_id: Some("m-1".to_owned()),
        correlation_id: Some("t/1 é\n".to_owned()),
        kind: Some("clutch.tasks".to_owned()),
        timestamp_ms: Some(1_700_000_000_000),
        body: vec![0, 159, 146, 150, b'\n', 0, 255],
        ..Message::default()
    };
    outlet.publish(&to("q"), sent.clone()).await.unwrap();
    outlet.publish(&to("q"), Message::default()).await.unwrap();
    outlet.publish(&to("q"), Message::default()).await.unwrap();
    let settled = settle(outlet.as_mut()).await;
    assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Confirmed));
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    let there = take(inlet.as_mut(), 3).await;
    assert!(there.iter().all(|delivery| !delivery.redelivered));
    assert_eq!(there[0].message, sent);
    let [_, first, second] = ids(&there).try_into().unwrap();
    assert!(!first.is_empty() && first != second, "every message gets an id of its own");
    let bare = Message { message_id: Some(first), ..Message::default() };
    assert_eq!(there[1].message, bare);
}

pub(super) async fn bodies_from_nothing_to_the_limit_arrive_whole(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    for size in [0, 1, 64 << 10, 1 << 20, MAX_BODY] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let large = Message { body: body.clone(), ..message(size) };
        outlet.publish(&to("q"), large).await.unwrap();
        assert_eq!(settle(outlet.as_mut()).await[0].1, Settlement::Confirmed, "{size}");
        let there = take(inlet.as_mut(), 1).await;
        assert_eq!(ids(&there), [size.to_string()]);
        assert!(there[0].message.body == body, "{size}");
        inlet.acknowledge(there[0].tag).await.unwrap();
    }
}

pub(super) async fn one_byte_over_the_limit_is_refused_and_loses_nothing_else(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    outlet.publish(&to("q"), message("before")).await.unwrap();
    let large = Message { body: vec![b'x'; MAX_BODY + 1], ..message("large") };
    let refused = fault(outlet.publish(&to("q"), large).await);
    let limit = MAX_BODY.to_string();
    assert!(matches!(&refused, Fault::Protocol(text) if text.contains(&limit)), "{refused}");
    outlet.publish(&to("q"), message("after")).await.unwrap();
    let settled = settle(outlet.as_mut()).await;
    assert_eq!(settled.len(), 2);
    assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Confirmed));
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    assert_eq!(ids(&take(inlet.as_mut(), 2).await), ["before", "after"]);
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}

pub(super) async fn what_is_confirmed_is_there_although_everything_was_dropped(site: &impl Site) {
    with_queue(site, "q").await.close().await;
    {
        let connection = connect(&site.url()).await;
        let mut outlet = connection.outlet().await.unwrap();
        publish(outlet.as_mut(), "q", 0..300).await;
    }
    let connection = connect(&site.url()).await;
    let mut inlet = shared(connection.as_ref(), "q", 500).await;
    assert_eq!(ids(&take(inlet.as_mut(), 300).await), numbers(0..300));
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}

pub(super) async fn order_is_kept_per_producer(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut producers = JoinSet::new();
    for producer in 0..4 {
        let url = site.url();
        producers.spawn(async move {
            let connection = connect(&url).await;
            let mut outlet = connection.outlet().await.unwrap();
            let own = (0..500).map(|number| format!("{producer} {number}"));
            publish(outlet.as_mut(), "q", own).await;
        });
    }
    let mut inlet = shared(connection.as_ref(), "q", 64).await;
    let mut seen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for _ in 0..2000 {
        let there = take(inlet.as_mut(), 1).await;
        inlet.acknowledge(there[0].tag).await.unwrap();
        let id = ids(&there).remove(0);
        let (producer, number) = id.split_once(' ').unwrap();
        seen.entry(producer.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    within(producers.join_all()).await;
    let whole: Vec<usize> = (0..500).collect();
    assert_eq!(seen, (0..4).map(|producer| (producer, whole.clone())).collect());
}

pub(super) async fn unroutable_is_told(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let topic = exchange("topic", ExchangeKind::Topic, &[("q", "*.results")]);
    connection.declare(&topic).await.unwrap();
    connection.declare(&exchange("bare", ExchangeKind::Fanout, &[])).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    for stray in [by("", "nowhere"), by("topic", "a.b.results"), by("bare", "q")] {
        let ticket = outlet.publish(&stray, message(1)).await.unwrap();
        let settled = settle(outlet.as_mut()).await;
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].0, ticket);
        let told = matches!(&settled[0].1, Settlement::Returned(why) if why.contains("NO_ROUTE"));
        assert!(told, "{stray:?}: {settled:?}");
    }
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}

/// A message in doubt is published again, as the seam has it.
pub(super) async fn unroutable_is_told_in_the_midst_of_what_is_routable(site: &impl Site) {
    let connection = with_queue(site, "here").await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut pending: Vec<usize> = (0..900).collect();
    let (mut confirmed, mut returned) = (BTreeSet::new(), BTreeSet::new());
    while !pending.is_empty() {
        let mut tickets = BTreeMap::new();
        for number in pending.drain(..) {
            let key = if number % 3 == 0 { "nowhere" } else { "here" };
            let ticket = outlet.publish(&to(key), message(number)).await.unwrap();
            assert!(tickets.insert(ticket, number).is_none(), "tickets are unique");
        }
        for (ticket, settlement) in settle(outlet.as_mut()).await {
            let number = tickets.remove(&ticket).expect("settled once");
            match settlement {
                Settlement::Confirmed => assert!(confirmed.insert(number)),
                Settlement::Returned(_) => assert!(returned.insert(number)),
                Settlement::Doubt => pending.push(number),
                Settlement::Refused | Settlement::TooLarge(_) => panic!("nothing is refused"),
            }
        }
        assert!(tickets.is_empty(), "everything is settled");
    }
    let third: BTreeSet<usize> = (0..900).step_by(3).collect();
    assert_eq!(confirmed, (0..900).filter(|number| !third.contains(number)).collect());
    assert_eq!(returned, third);
}

pub(super) async fn a_missing_exchange_is_missing_and_only_the_outlet_is_lost(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    outlet.publish(&by("nowhere", "q"), message(1)).await.unwrap();
    let reason = fault(within(outlet.settled()).await);
    assert!(matches!(&reason, Fault::Missing(text) if text.contains("nowhere")), "{reason}");
    assert_eq!(fault(outlet.publish(&to("q"), message(2)).await), reason);
    assert_eq!(fault(outlet.settled().await), reason);
    fill(connection.as_ref(), "q", 1).await;
}

pub(super) async fn a_full_queue_refuses(site: &impl Site) {
    let connection = connect(&site.url()).await;
    let mut full = queue("full", &[("x-overflow", "reject-publish")]);
    full.queues[0].arguments.push(("x-max-length", Argument::Number(1)));
    connection.declare(&full).await.unwrap();
    fill(connection.as_ref(), "full", 1).await;
    let mut outlet = connection.outlet().await.unwrap();
    // How soon a broker sees that the queue is full is its own affair.
    let mut settled = Vec::new();
    for number in 1..6 {
        outlet.publish(&to("full"), message(number)).await.unwrap();
        settled.extend(settle(outlet.as_mut()).await);
    }
    assert_eq!(settled.len(), 5);
    assert_eq!(settled[4].1, Settlement::Refused);
    let confirmed =
        settled.iter().filter(|(_, settlement)| *settlement == Settlement::Confirmed).count();
    let mut inlet = shared(connection.as_ref(), "full", 100).await;
    let there = take(inlet.as_mut(), 1 + confirmed).await;
    assert_eq!(ids(&there), numbers(0..1 + confirmed));
}

pub(super) async fn a_cancelled_settled_loses_nothing(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut open = BTreeSet::new();
    let (mut rng, mut published) = (Rng(2), 0);
    let settling = async {
        while published < 2000 || !open.is_empty() {
            if published < 2000 {
                for _ in 0..5 {
                    open.insert(outlet.publish(&to("q"), message(published)).await.unwrap());
                    published += 1;
                }
            }
            tokio::select! {
                biased;
                settled = outlet.settled() => for (ticket, settlement) in settled.unwrap() {
                    assert_eq!(settlement, Settlement::Confirmed);
                    assert!(open.remove(&ticket), "settled once");
                },
                () = impatience(&mut rng) => {}
            }
            tokio::task::yield_now().await;
        }
    };
    within(settling).await;
    // Nothing is open: there is nothing to wait for but a fault.
    tokio::select! {
        biased;
        settled = outlet.settled() => panic!("{settled:?}"),
        () = impatience(&mut rng) => {}
    }
    assert_eq!(outlet.open(), 0);
}

pub(super) async fn a_closed_connection_is_told_to_its_outlet(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let (settled, ()) = within(async { tokio::join!(outlet.settled(), connection.close()) }).await;
    assert!(matches!(settled, Err(Fault::Closed(_))), "{settled:?}");
    let published = outlet.publish(&to("q"), message(1)).await;
    assert!(matches!(published, Err(Fault::Closed(_))), "{published:?}");
    assert!(matches!(connection.outlet().await, Err(Fault::Closed(_))));
    assert!(matches!(connection.declare(&queue("q", &[])).await, Err(Fault::Closed(_))));
}
