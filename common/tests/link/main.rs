//! The transports behind the broker's seam: what all of them promise
//! (`conformance`), what is AMQP's alone (`amqp`), against a real RabbitMQ, and what is a
//! folder's alone (`folder`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod amqp;
mod broker;
mod conformance;
mod folder;
mod toolkit;
