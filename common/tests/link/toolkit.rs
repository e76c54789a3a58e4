//! Short calls of a transport, for these tests.

use clutch_common::link::{
    self, Connection, Delivery, Destination, Fault, Inlet, InletOptions, Message, Outlet,
    Settlement, Terms, Ticket,
};
use clutch_common::topology::{Argument, Queue, Topology};
use std::time::Duration;

/// How long anything may take that is expected to happen: the machine may be
/// busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub(crate) async fn try_connect(url: &str, terms: &Terms) -> Result<Box<dyn Connection>, Fault> {
    within(link::transport(url, terms).unwrap().connect("clutch-test")).await
}

pub(crate) async fn connect(url: &str) -> Box<dyn Connection> {
    try_connect(url, &Terms::default()).await.unwrap()
}

/// The fault of what was expected to fail.
pub(crate) fn fault<T>(result: Result<T, Fault>) -> Fault {
    match result {
        Ok(_) => panic!("no fault"),
        Err(fault) => fault,
    }
}

pub(crate) fn queue(name: &str, arguments: &[(&'static str, &str)]) -> Topology {
    let text = |value: &str| Argument::Text(value.to_owned());
    let arguments = arguments.iter().map(|(name, value)| (*name, text(value))).collect();
    Topology { queues: vec![Queue { name: name.to_owned(), arguments }], ..Topology::default() }
}

pub(crate) fn options(queue: &str, prefetch: u16, lease: Option<&str>) -> InletOptions {
    InletOptions {
        queue: queue.to_owned(),
        prefetch,
        lease: lease.map(str::to_owned),
        one_by_one: false,
    }
}

/// An inlet without a lease, with deliveries that are settled in any order.
pub(crate) async fn one_by_one(
    connection: &dyn Connection,
    queue: &str,
    prefetch: u16,
) -> Box<dyn Inlet> {
    let options = InletOptions { one_by_one: true, ..options(queue, prefetch, None) };
    connection.inlet(&options).await.unwrap()
}

/// The default exchange, by the name of a queue.
pub(crate) fn to(queue: &str) -> Destination {
    Destination { exchange: String::new(), routing_key: queue.to_owned() }
}

pub(crate) fn message(id: impl ToString) -> Message {
    Message { message_id: Some(id.to_string()), body: b"{}".to_vec(), ..Message::default() }
}

/// Waits until everything that is open is settled.
pub(crate) async fn settle(outlet: &mut dyn Outlet) -> Vec<(Ticket, Settlement)> {
    let mut all = Vec::new();
    while outlet.open() > 0 {
        all.extend(within(outlet.settled()).await.unwrap());
    }
    all
}

/// Publishes messages to a queue, by their ids; each is confirmed.
pub(crate) async fn publish(
    outlet: &mut dyn Outlet,
    queue: &str,
    ids: impl IntoIterator<Item = impl ToString>,
) {
    let confirmed = |settled: Vec<(Ticket, Settlement)>| {
        assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Confirmed));
    };
    for id in ids {
        outlet.publish(&to(queue), message(id)).await.unwrap();
        if outlet.open() >= 500 {
            confirmed(within(outlet.settled()).await.unwrap());
        }
    }
    confirmed(settle(outlet).await);
}

/// Publishes `count` messages, numbered, to a queue.
pub(crate) async fn fill(connection: &dyn Connection, queue: &str, count: usize) {
    let mut outlet = connection.outlet().await.unwrap();
    publish(outlet.as_mut(), queue, 0..count).await;
}

/// Receives `count` deliveries.
pub(crate) async fn take(inlet: &mut dyn Inlet, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(within(inlet.receive(count - all.len())).await.unwrap());
    }
    all
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| d.message.message_id.clone().unwrap()).collect()
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
