//! The test harness: real brokers, real daemons, and an oracle that counts.
//!
//! [`broker`] brings a RabbitMQ of its own, [`postgres`] a PostgreSQL, [`process`] builds and runs the
//! binaries, [`world`] puts both together for one test, [`oracle`] says what
//! was lost and what ran twice, [`faults`] plays every fault there is. Everything a test starts hangs on a
//! [`leash`]: it ends with the test, however the test ends.

pub mod api;
pub mod api_events;
pub mod binaries;
pub mod broker;
pub mod escapes;
pub mod faults;
pub mod gate;
pub mod image;
pub mod leash;
pub mod machine;
pub mod mutations;
pub mod oracle;
pub mod pids;
pub mod poll;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod python;
pub mod scenario;
pub mod schedule_oracle;
pub mod skip;
pub mod tmpfs;
pub mod trace;
pub mod world;

use std::path::PathBuf;

/// The root folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
