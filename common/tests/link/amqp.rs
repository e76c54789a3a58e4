//! What is AMQP's alone: connecting, time limits, alarms, and lapin's oddities.

mod connecting;
mod consuming;
mod leasing;
mod publishing;
mod settling;
mod wire_proxy;

use crate::broker::{self, Vhost};
use crate::toolkit::*;
use clutch_common::link::{self, Connection, Fault, Settlement, Terms};
use std::time::Duration;

async fn connect_named(url: &str, name: &str) -> Box<dyn Connection> {
    within(link::transport(url, &Terms::default()).unwrap().connect(name)).await.unwrap()
}

async fn with_queue(vhost: &Vhost<'_>, name: &str) -> Box<dyn Connection> {
    let connection = connect(&vhost.url()).await;
    connection.declare(&queue(name, &[])).await.unwrap();
    connection
}
