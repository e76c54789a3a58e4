//! The AMQP transport against a real RabbitMQ.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod broker;
mod connecting;
mod consuming;
mod publishing;
mod settling;
mod wire_proxy;

use broker::Vhost;
use clutch_common::link::{
    self, Connection, Delivery, Destination, Fault, Inlet, InletOptions, Message, Outlet,
    Settlement, Terms, Ticket,
};
use clutch_common::topology::{Argument, Queue, Topology};
use std::time::Duration;

/// How long anything may take that is expected to happen: the machine may be
/// busy.
const PATIENCE: Duration = Duration::from_secs(120);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn try_connect(url: &str, terms: &Terms) -> Result<Box<dyn Connection>, Fault> {
    within(link::transport(url, terms).unwrap().connect("clutch-test")).await
}

async fn connect(url: &str) -> Box<dyn Connection> {
    try_connect(url, &Terms::default()).await.unwrap()
}

async fn connect_named(url: &str, name: &str) -> Box<dyn Connection> {
    within(link::transport(url, &Terms::default()).unwrap().connect(name)).await.unwrap()
}

/// The fault of what was expected to fail.
fn fault<T>(result: Result<T, Fault>) -> Fault {
    match result {
        Ok(_) => panic!("no fault"),
        Err(fault) => fault,
    }
}

fn queue(name: &str, arguments: &[(&'static str, &str)]) -> Topology {
    let text = |value: &str| Argument::Text(value.to_owned());
    let arguments = arguments.iter().map(|(name, value)| (*name, text(value))).collect();
    Topology { queues: vec![Queue { name: name.to_owned(), arguments }], ..Topology::default() }
}

async fn with_queue(vhost: &Vhost<'_>, name: &str) -> Box<dyn Connection> {
    let connection = connect(&vhost.url()).await;
    connection.declare(&queue(name, &[])).await.unwrap();
    connection
}

fn options(queue: &str, prefetch: u16, lease: Option<&str>) -> InletOptions {
    InletOptions { queue: queue.to_owned(), prefetch, lease: lease.map(str::to_owned) }
}

fn to(queue: &str) -> Destination {
    Destination { exchange: String::new(), routing_key: queue.to_owned() }
}

fn message(id: impl ToString) -> Message {
    Message { message_id: Some(id.to_string()), body: b"{}".to_vec(), ..Message::default() }
}

/// Waits until everything that is open is settled.
async fn settle(outlet: &mut dyn Outlet) -> Vec<(Ticket, Settlement)> {
    let mut all = Vec::new();
    while outlet.open() > 0 {
        all.extend(within(outlet.settled()).await.unwrap());
    }
    all
}

/// Publishes `count` messages, numbered, to a queue.
async fn fill(connection: &dyn Connection, queue: &str, count: usize) {
    let mut outlet = connection.outlet().await.unwrap();
    for number in 0..count {
        outlet.publish(&to(queue), message(number)).await.unwrap();
        if outlet.open() >= 500 {
            within(outlet.settled()).await.unwrap();
        }
    }
    settle(outlet.as_mut()).await;
}

/// Receives `count` deliveries.
async fn take(inlet: &mut dyn Inlet, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(within(inlet.receive(count - all.len())).await.unwrap());
    }
    all
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| d.message.message_id.clone().unwrap()).collect()
}
