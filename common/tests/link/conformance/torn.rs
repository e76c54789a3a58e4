//! Producers and consumers that are dropped in the middle, at whatever they wait
//! for, against a model of what they may rely on.

use super::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
use tokio::task::yield_now;

/// At least so many; more where they are over before there is much to see.
const ROUNDS: u64 = 40;

/// The test's knowledge of the messages, which are numbers.
#[derive(Default)]
struct Record {
    published: u64,
    confirmed: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    again: u64,
    /// Acknowledged on a connection that is still open.
    acknowledged: BTreeSet<u64>,
    /// Acknowledged on one that was closed in order since.
    gone: BTreeSet<u64>,
}

impl Record {
    fn see(&mut self, delivery: &Delivery) -> u64 {
        let number: u64 = delivery.message.message_id.as_ref().unwrap().parse().unwrap();
        assert!(number < self.published, "{number} was never published");
        assert!(!self.gone.contains(&number), "{number} comes again after it was acknowledged");
        if !self.seen.insert(number) {
            assert!(delivery.redelivered, "{number} comes again without saying so");
            self.again += 1;
        }
        number
    }
}

/// Polls a future so many times, then drops it. So that one that waits is
/// dropped as well, what is left to it is halved time and again.
async fn torn(future: impl Future<Output = ()>, mut polls: u64) {
    let mut future = Box::pin(future);
    let mut halving = tokio::time::interval(Duration::from_millis(10));
    poll_fn(|context| {
        while halving.poll_tick(context).is_ready() {
            polls /= 2;
        }
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        future.as_mut().poll(context)
    })
    .await;
}

async fn produce(connection: &dyn Connection, record: &RefCell<Record>) {
    let mut outlet = connection.outlet().await.unwrap();
    let mut open = BTreeMap::new();
    loop {
        for _ in 0..3 {
            let number = record.borrow().published;
            record.borrow_mut().published += 1;
            open.insert(outlet.publish(&to("q"), message(number)).await.unwrap(), number);
            yield_now().await;
        }
        for (ticket, settlement) in outlet.settled().await.unwrap() {
            assert_eq!(settlement, Settlement::Confirmed);
            record.borrow_mut().confirmed.insert(open.remove(&ticket).unwrap());
        }
    }
}

async fn consume(connection: &dyn Connection, record: &RefCell<Record>) {
    let mut inlet = shared(connection, "q", 20).await;
    let mut held = BTreeMap::new();
    loop {
        for delivery in inlet.receive(5).await.unwrap() {
            held.insert(delivery.tag, record.borrow_mut().see(&delivery));
        }
        yield_now().await;
        // The younger half stays unsettled.
        let (&up_to, _) = held.iter().nth(held.len() / 2).unwrap();
        inlet.acknowledge(up_to).await.unwrap();
        let settled = held.extract_if(..=up_to, |_, _| true).map(|(_, number)| number);
        record.borrow_mut().acknowledged.extend(settled);
    }
}

/// Consumes until everything that was confirmed has been seen.
async fn drain(connection: &dyn Connection, record: &mut Record) {
    let mut inlet = shared(connection, "q", 500).await;
    while !record.confirmed.is_subset(&record.seen) {
        let there = within(inlet.receive(500)).await.unwrap();
        for delivery in &there {
            record.see(delivery);
        }
        inlet.acknowledge(there.last().unwrap().tag).await.unwrap();
    }
}

pub(super) async fn torn_at_any_await_nothing_confirmed_is_lost_and_nothing_acked_returns(
    site: &impl Site,
) {
    with_queue(site, "q").await.close().await;
    let record = RefCell::new(Record::default());
    let mut rng = Rng(40);
    // As often a few polls as thousands.
    let mut polls = move || {
        let scale = 1 << rng.below(14);
        scale + rng.below(scale)
    };
    let mut round = 0;
    while round < ROUNDS || record.borrow().again == 0 || record.borrow().gone.is_empty() {
        round += 1;
        assert!(round < 25 * ROUNDS, "no round comes far enough");
        let publishing = connect(&site.url()).await;
        let consuming = connect(&site.url()).await;
        tokio::join!(
            torn(produce(publishing.as_ref(), &record), polls()),
            torn(consume(consuming.as_ref(), &record), polls()),
        );
        let acknowledged = std::mem::take(&mut record.borrow_mut().acknowledged);
        if round % 2 == 0 {
            consuming.close().await;
            record.borrow_mut().gone.extend(acknowledged);
        }
    }
    let mut record = record.into_inner();
    drain(connect(&site.url()).await.as_ref(), &mut record).await;
    println!(
        "{round} rounds: {} published, {} confirmed, {} seen, {} of them again, {} \
         acknowledged for good",
        record.published,
        record.confirmed.len(),
        record.seen.len(),
        record.again,
        record.gone.len(),
    );
}
