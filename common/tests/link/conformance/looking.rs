//! Looking through a queue without taking from it, and taking single messages out
//! of it.

use super::redelivering::{died, with_letters};
use super::*;
use clutch_common::link::{HeldMessage, QueueBrowser, QueueSight, REJECTED};
use clutch_common::system::clock::now_ms;

const LEASE: &str = "letters.lease";

/// Opens a browser as soon as its lease is free.
async fn browser(connection: &dyn Connection, queue: &str) -> Box<dyn QueueBrowser> {
    let trying = async {
        loop {
            match connection.browse(queue, LEASE).await {
                Ok(browser) => return browser,
                Err(Fault::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(fault) => panic!("{fault}"),
            }
        }
    };
    within(trying).await
}

async fn look(browser: &mut dyn QueueBrowser) -> Option<HeldMessage> {
    within(browser.next()).await.unwrap()
}

/// The next message, when it has come: a refused one is on its way for a while.
async fn arrival(browser: &mut dyn QueueBrowser) -> HeldMessage {
    loop {
        match look(browser).await {
            Some(held) => return held,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The ids of all that a browser still shows.
async fn rest(browser: &mut dyn QueueBrowser) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(held) = look(browser).await {
        ids.push(held.message.message_id.unwrap());
    }
    ids
}

pub(super) async fn looking_leaves_everything_where_it_was(site: &impl Site) {
    let connection = with_queue(site, "letters").await;
    fill(connection.as_ref(), "letters", 20).await;
    for all in [true, false, true] {
        let looking = connect(&site.url()).await;
        let mut browser = browser(looking.as_ref(), "letters").await;
        if all {
            assert_eq!(rest(browser.as_mut()).await, numbers(0..20));
            // There is still nothing more.
            assert!(look(browser.as_mut()).await.is_none());
        } else {
            assert_eq!(look(browser.as_mut()).await.unwrap().message.message_id.unwrap(), "0");
            drop(browser);
        }
        looking.close().await;
    }
    let mut inlet = shared(connection.as_ref(), "letters", 100).await;
    assert_eq!(ids(&take(inlet.as_mut(), 20).await), numbers(0..20));
}

pub(super) async fn what_is_removed_is_gone_and_the_rest_is_not(site: &impl Site) {
    let connection = with_queue(site, "letters").await;
    fill(connection.as_ref(), "letters", 10).await;
    let looking = connect(&site.url()).await;
    let mut there = browser(looking.as_ref(), "letters").await;
    let mut tags = Vec::new();
    while let Some(held) = look(there.as_mut()).await {
        tags.push(held.tag);
    }
    for place in [7, 0, 3, 4, 9] {
        within(there.remove(tags[place])).await.unwrap();
    }
    // What is not held is not there to be removed.
    within(there.remove(tags[7])).await.unwrap();
    within(there.remove(clutch_common::link::Tag(1000))).await.unwrap();
    // What was removed is certain, however this ends.
    drop((there, looking));
    let looking = connect(&site.url()).await;
    let mut there = browser(looking.as_ref(), "letters").await;
    assert_eq!(rest(there.as_mut()).await, ["1", "2", "5", "6", "8"]);
    looking.close().await;
    let mut inlet = shared(connection.as_ref(), "letters", 100).await;
    assert_eq!(ids(&take(inlet.as_mut(), 5).await), ["1", "2", "5", "6", "8"]);
    nothing_else(connection.as_ref(), "letters", inlet.as_mut()).await;
}

pub(super) async fn what_is_held_goes_to_nobody_else(site: &impl Site) {
    let connection = with_queue(site, "letters").await;
    fill(connection.as_ref(), "letters", 3).await;
    let looking = connect(&site.url()).await;
    let mut first = browser(looking.as_ref(), "letters").await;
    assert!(look(first.as_mut()).await.is_some());
    let other = connect(&site.url()).await;
    let fault = fault(other.browse("letters", LEASE).await);
    assert!(matches!(fault, Fault::Locked(_)), "{fault}");
    looking.close().await;
    let mut second = browser(connect(&site.url()).await.as_ref(), "letters").await;
    assert_eq!(rest(second.as_mut()).await, numbers(0..3));
}

pub(super) async fn what_waits_is_counted_without_taking_any(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    assert_eq!(connection.waiting("q").await.unwrap(), 0);
    fill(connection.as_ref(), "q", 3).await;
    let other = connect(&site.url()).await;
    for _ in 0..2 {
        assert_eq!(other.waiting("q").await.unwrap(), 3);
    }
    assert!(matches!(fault(other.waiting("none").await), Fault::Missing(_)));
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    assert!(take(inlet.as_mut(), 3).await.iter().all(|delivery| !delivery.redelivered));
}

pub(super) async fn a_look_tells_what_waits_and_whether_an_instance_is_there(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    fill(connection.as_ref(), "q", 3).await;
    let other = connect(&site.url()).await;
    let sight = |waiting, consumed| QueueSight { waiting, consumed: Some(consumed) };
    for _ in 0..2 {
        assert_eq!(other.look("q", LEASE).await.unwrap(), sight(3, false));
    }
    let looks = (0..5).map(|_| other.look("q", LEASE));
    for seen in futures_util::future::join_all(looks).await {
        assert_eq!(seen.unwrap(), sight(3, false));
    }
    assert!(matches!(fault(other.look("none", LEASE).await), Fault::Missing(_)));
    let mut inlet = leased(connection.as_ref(), "q", LEASE).await;
    drop(take(inlet.as_mut(), 3).await);
    assert_eq!(other.look("q", LEASE).await.unwrap(), sight(0, true));
    drop(inlet);
    connection.close().await;
    let free = async {
        while other.look("q", LEASE).await.unwrap().consumed == Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(free).await;
}

pub(super) async fn what_waits_is_counted_and_what_comes_later_is_shown(site: &impl Site) {
    let connection = with_queue(site, "letters").await;
    let looking = connect(&site.url()).await;
    let mut there = browser(looking.as_ref(), "letters").await;
    assert!(look(there.as_mut()).await.is_none());
    assert_eq!(within(there.waiting()).await.unwrap(), 0);
    fill(connection.as_ref(), "letters", 5).await;
    assert_eq!(within(there.waiting()).await.unwrap(), 5);
    for left in [4, 3] {
        look(there.as_mut()).await.unwrap();
        assert_eq!(within(there.waiting()).await.unwrap(), left);
    }
    fill(connection.as_ref(), "letters", 2).await;
    assert_eq!(within(there.waiting()).await.unwrap(), 5);
    // Of two producers, either may come first.
    let mut all = rest(there.as_mut()).await;
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3", "4"]);
}

pub(super) async fn a_shelf_needs_its_queue_its_lease_and_its_connection(site: &impl Site) {
    let connection = connect(&site.url()).await;
    let missing = fault(connection.browse("letters", LEASE).await);
    assert!(matches!(&missing, Fault::Missing(text) if text.contains("letters")), "{missing}");
    let connection = with_queue(site, "letters").await;
    fill(connection.as_ref(), "letters", 2).await;
    let mut there = browser(connection.as_ref(), "letters").await;
    let held = look(there.as_mut()).await.unwrap();
    connection.close().await;
    assert!(matches!(within(there.next()).await, Err(Fault::Closed(_))));
    assert!(matches!(within(there.remove(held.tag)).await, Err(Fault::Closed(_))));
}

pub(super) async fn a_dead_letter_says_where_it_died_and_why(site: &impl Site) {
    let connection = with_letters(site).await;
    let tasks = queue("tasks", &[("x-dead-letter-exchange", "letters")]);
    connection.declare(&tasks).await.unwrap();
    let before = now_ms();
    for round in 0..2 {
        let mut outlet = connection.outlet().await.unwrap();
        publish(outlet.as_mut(), "tasks", [round]).await;
        let mut inlet = shared(connection.as_ref(), "tasks", 8).await;
        let tag = take(inlet.as_mut(), 1).await[0].tag;
        inlet.dead_letter(tag).await.unwrap();
        let mut browser = browser(connection.as_ref(), "dead").await;
        let held = within(arrival(browser.as_mut())).await;
        assert_eq!(held.message.message_id, Some(round.to_string()));
        died(&held.message, "tasks", REJECTED, before);
        within(browser.remove(held.tag)).await.unwrap();
    }
}

pub(super) async fn what_is_published_was_never_dead(site: &impl Site) {
    let connection = with_queue(site, "letters").await;
    let mut outlet = connection.outlet().await.unwrap();
    let death = clutch_common::link::Death {
        queue: "tasks".to_owned(),
        reason: REJECTED.to_owned(),
        at_ms: None,
        count: 1,
    };
    let again = Message { deaths: vec![death], ..message("again") };
    outlet.publish(&to("letters"), again).await.unwrap();
    settle(outlet.as_mut()).await;
    let mut there = browser(connection.as_ref(), "letters").await;
    assert_eq!(look(there.as_mut()).await.unwrap().message, message("again"));
}
