//! The integration suite: real binaries, a real broker, one module per
//! subject. Each test has a vhost and a folder of its own and may run beside
//! the others; those that load the machine take turns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "tests: they stop at the first surprise, show figures, and hold long tables"
)]

mod bad_input;
mod cancel;
mod crash;
mod database;
mod demo;
mod doctor;
mod endpoints;
mod events;
mod failover;
mod families;
mod faults;
mod feed;
mod folder;
mod harness;
mod hygiene;
mod letters;
mod link;
mod local;
mod logs;
mod memory;
mod messages;
mod order;
mod ownership;
mod path;
mod poison;
mod priority;
mod provision;
mod rehearsal;
mod retention;
mod schedule_timers;
mod scheduled;
mod schedules;
mod standby;
mod steering;
mod stranger;
mod terms;
mod topics;
mod topics_commands;
mod versions;
mod why;
mod why_at_work;
mod words;
mod workers;

use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, World};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by tests that load the whole machine.
fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A world in which everything runs.
struct Running {
    endpoint: Endpoint,
    daemon: Daemon,
    service: Daemon,
    world: World,
}

/// Provisions an endpoint and starts both daemons; nothing where the test
/// cannot run.
fn running(test: &str) -> Option<Running> {
    let world = World::or_skip(test)?;
    let endpoint = world.provision("lab").unwrap();
    let service = world.serve().unwrap();
    let daemon = world.run(&endpoint).unwrap();
    Some(Running { endpoint, daemon, service, world })
}
