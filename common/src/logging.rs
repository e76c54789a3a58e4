//! Sets up tracing for both daemons: text on a terminal, JSON lines otherwise,
//! always to stderr, so that stdout carries only what a command was asked for.

mod clean;
mod filter;

use clean::Clean;
use std::io::IsTerminal as _;

/// Starts logging at `default_level` (a `tracing` filter such as `info`),
/// which the environment variable `CLUTCH_LOG` changes; a value that cannot be used
/// is told and changes nothing. A second call in one process does nothing.
pub fn init(default_level: &str) {
    let asked = std::env::var_os("CLUTCH_LOG").map(|asked| asked.to_string_lossy().into_owned());
    let (filter, refused) = filter::chosen(default_level, asked.as_deref());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).with_writer(|| Clean(std::io::stderr())).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was set up before");
    }
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
}
