//! Sets up tracing for both daemons: text on a terminal, JSON lines otherwise,
//! always to stderr, so that stdout carries only what a command was asked for.

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging at `default_level` (a `tracing` filter such as `info`),
/// which the environment variable `CLUTCH_LOG` overrides. A second call in
/// one process does nothing.
pub fn init(default_level: &str) {
    let filter = EnvFilter::try_from_env("CLUTCH_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},lapin=off")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was set up before");
    }
}
