//! Sets up tracing for both daemons: text on a terminal, JSON lines otherwise,
//! always to stderr, so that stdout carries only what a command was asked for.
//!
//! Promises that neither a line nor a panic's message ever waits for the reader of
//! stderr, or fails with it: see [`Sink`].

mod clean;
mod filter;
pub mod sink;
pub mod throttle;

use clean::Clean;
use sink::Sink;
use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::time::Duration;

/// How long the last lines may take to be written before the process ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

static STDERR: OnceLock<Sink> = OnceLock::new();

/// Starts logging at `default_level` (a `tracing` filter such as `info`),
/// which the environment variable `CLUTCH_LOG` changes; a value that cannot be used
/// is told and changes nothing. A second call in one process does nothing.
pub fn init(default_level: &str) {
    let asked = std::env::var_os("CLUTCH_LOG").map(|asked| asked.to_string_lossy().into_owned());
    let (filter, refused) = filter::chosen(default_level, asked.as_deref());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        .log_internal_errors(false);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).with_writer(|| Clean(Line)).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    match started {
        Ok(()) => std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}"))),
        Err(error) => tracing::debug!(%error, "logging was set up before"),
    }
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
}

/// Has a line written to stderr as it is, in its turn among those of the log.
pub fn say(line: &str) {
    stderr().say(format!("{line}\n").as_bytes());
}

/// Gives the last lines a moment to be written. To be called before the process
/// ends.
pub fn finish() {
    if let Some(stderr) = STDERR.get() {
        stderr.flush(LAST_WORDS);
    }
}

fn stderr() -> &'static Sink {
    STDERR.get_or_init(|| Sink::before(io::stderr(), tell))
}

fn tell(lost: u64) {
    tracing::warn!(
        lines = lost,
        "lines of the log were lost: stderr was not read, or could not be written to"
    );
}

/// Takes an event, whole, in one call.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr().say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
