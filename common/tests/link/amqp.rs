//! AMQP alone: connecting, time limits, alarms, and lapin's oddities.

mod connecting;
mod consuming;
mod leasing;
mod publishing;
mod settling;

use crate::broker;
use crate::toolkit::*;
use clutch_common::link::{self, Connection, Fault, Settlement, Terms};
use clutch_tests::broker::Vhost;
use clutch_tests::proxy::{Carry, Proxy, Way};
use std::time::Duration;

async fn connect_named(url: &str, name: &str) -> Box<dyn Connection> {
    within(link::transport(url, &Terms::default()).unwrap().connect(name)).await.unwrap()
}

async fn with_queue(vhost: &Vhost, name: &str) -> Box<dyn Connection> {
    let connection = connect(&vhost.url()).await;
    connection.declare(&queue(name, &[])).await.unwrap();
    connection
}

/// Waits until the client has closed a connection through a proxy.
async fn until_left(proxy: &Proxy) {
    within(async {
        while proxy.left() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
