//! The vocabulary both sides of Clutch share.
//!
//! Ids, tasks and their outcomes, the wire they travel in, the broker topology
//! as data, and the broker seam ([`link`]) with its transports. Only
//! [`link::amqp`] does network IO; everything else here is pure, except
//! [`clock`] (reads the clock), [`folder`] (tries a folder, and keeps one private),
//! [`removal`] (removes one), [`inherited`] and [`signals`] (what a daemon is started with,
//! and stopped by), [`logging`] (sets up tracing), [`sink`] (writes lines from a thread of
//! its own) and [`link::memory`] (keeps the brokers of the process).

pub mod blob;
pub mod byte_string;
pub mod clock;
pub mod counted;
pub mod folder;
pub mod id;
pub mod inherited;
pub mod json;
pub mod link;
pub mod logging;
pub mod printable;
pub mod reason;
pub mod removal;
pub mod result;
pub mod secret;
pub mod signals;
pub mod sink;
pub mod task;
mod text_or_base64;
pub mod topology;
pub mod wire;
