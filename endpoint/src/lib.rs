//! The Clutch endpoint daemon.
//!
//! Takes tasks from its queue, runs them, and delivers every result, over links
//! that come and go. `daemon` joins the parts; see ARCHITECTURE.md. Public are only
//! [`main`], and [`bench_api`] for the benchmarks.

#[doc(hidden)]
pub mod bench_api;
mod check;
mod cli;
mod config;
mod daemon;
mod execution;
mod exit;
mod failpoint;
mod link;
mod local;
mod messages;
mod pending;
#[cfg(test)]
mod simulation;
mod storage;
mod system;
#[cfg(test)]
mod testing;

use clap::Parser as _;
use cli::{Cli, Command, PlaceArgs};
use clutch_common::system::inherited::{self, Descriptors};
use clutch_common::text::{printable, secret};
use config::{Config, Overrides};
use daemon::Sharing;
use daemon::reload::Source;
use exit::{Exit, Failure};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long an idle thread for blocking work is kept: for ever.
const KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs the command of the command line, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let inherited = inherited::shed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let started = match cli.command {
        Command::Run { place, worker, slots, standby, replace } => {
            clutch_common::log::init("info");
            let overrides = Overrides { state: place.state.clone(), slots, worker };
            let sharing = Sharing { standby, replace };
            run(&place, overrides, sharing, inherited).map(|()| ExitCode::SUCCESS)
        }
        Command::Check { place, worker, standby, json } => {
            clutch_common::log::init("warn");
            check(&place, worker, standby, json, inherited)
        }
        Command::Status { place, json } => ask(local::commands::status(&place, json)),
        Command::Tasks { place, limit, json } => ask(local::commands::tasks(&place, limit, json)),
        Command::Drain { place, deadline, wait, json } => {
            ask(local::commands::drain(&place, deadline, wait, json))
        }
        Command::Resume { place, json } => ask(local::commands::resume(&place, json)),
        Command::Task(command) => ask(local::task_commands::run(command)),
    };
    let code = match started {
        Ok(code) => code,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.exit as u8)
        }
    };
    clutch_common::log::finish();
    code
}

/// Reports why the program ends, however little is logged.
fn tell(failure: &Failure) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{failure}");
    } else {
        let words = format!("clutch-endpoint: {failure}");
        clutch_common::log::say(&printable::lines(&words));
    }
}

/// Writes to stderr; that it is gone changes no exit code.
fn write_to_stderr(text: &str) {
    drop(std::io::stderr().write_all(printable::lines(text).as_bytes()));
}

/// Returns the failure of an error of stdout; `None` where its reader has gone away.
fn unprinted(error: std::io::Error) -> Option<Failure> {
    let failure = || Failure::new(Exit::Internal, format!("writing to stdout: {error}"));
    (error.kind() != std::io::ErrorKind::BrokenPipe).then(failure)
}

fn run(
    place: &PlaceArgs,
    overrides: Overrides,
    sharing: Sharing,
    inherited: Descriptors,
) -> Result<(), Failure> {
    failpoint::arm()?;
    let config = Config::load(&place.config, overrides.clone())?;
    let worker = overrides.worker.map(|file| std::path::absolute(&file).unwrap_or(file));
    let overrides = Overrides { worker, ..overrides };
    // Absolute: the working folder changes.
    let path = std::path::absolute(&place.config).unwrap_or_else(|_| place.config.clone());
    // Not before: the configuration may be read from one of them.
    inherited.close();
    runtime()?.block_on(daemon::run(config, Source { path, overrides }, sharing))
}

fn check(
    place: &PlaceArgs,
    worker: Option<PathBuf>,
    standby: bool,
    json: bool,
    inherited: Descriptors,
) -> Result<ExitCode, Failure> {
    let checked = runtime()?.block_on(check::run(place, worker, standby, inherited));
    if let Err(Some(failure)) = checked.print(json).map_err(unprinted) {
        return Err(failure);
    }
    Ok(checked.exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8)))
}

/// Asks the daemon that runs here. A person reads the answer: an error is words, and no line
/// of a log.
fn ask(asked: impl Future<Output = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    match runtime()?.block_on(asked) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            write_to_stderr(&format!("clutch-endpoint: {failure}\n"));
            Ok(ExitCode::from(failure.exit as u8))
        }
    }
}

/// Builds the runtime, with one thread: a second one would wake for work that the first is
/// about to do, and the journal, the links and the processes have threads of their own
/// (design/0013). Threads for blocking work are kept, and the first is started here:
/// where the system allows no further one, work waits for those that exist.
fn runtime() -> Result<Runtime, Failure> {
    let runtime =
        Builder::new_current_thread().enable_all().thread_keep_alive(KEPT).build().map_err(
            |error| Failure::new(Exit::Internal, format!("starting the runtime: {error}")),
        )?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

/// Help and version go to stdout with 0, mistakes to stderr with 64.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let words = error.render().to_string();
        write_to_stderr(&secret::redacted(&words));
        return ExitCode::from(64);
    }
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match printed.map_err(unprinted) {
        Ok(()) | Err(None) => ExitCode::SUCCESS,
        Err(Some(failure)) => {
            write_to_stderr(&format!("clutch-endpoint: {failure}\n"));
            ExitCode::from(failure.exit as u8)
        }
    }
}
