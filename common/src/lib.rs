//! The crate that both sides of Clutch share: the vocabulary, the wire, and the ways to a broker.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | typed ids of tasks, endpoints, services and instances |
//! | [`task`] | a task, its result, and what both are made of |
//! | [`wire`] | messages: encoding, decoding, refusing |
//! | [`topology`] | queues, exchanges and bindings as data |
//! | [`failover`] | the rules by which one of several instances is active |
//! | [`link`] | the traits of a transport, and three transports: AMQP, a folder, memory |
//! | [`text`] | text for people |
//! | [`log`] | logging |
//! | [`system`] | clock, folders, signals |
//!
//! Ids, tasks, wire, topology, failover and text are pure, except that a new id reads the clock and
//! the system's randomness. [`link::amqp`] uses the network, [`link::filesystem`] a shared
//! folder, [`link::memory`] keeps brokers inside the process; [`log`] writes to stderr from
//! a thread of its own; [`system`] calls the operating system.

pub mod failover;
pub mod id;
pub mod link;
pub mod log;
pub mod system;
pub mod task;
pub mod text;
pub mod topology;
pub mod wire;
