//! The Clutch endpoint daemon.
//!
//! Takes tasks from its queue, runs them, and delivers every result, over links
//! that come and go. `daemon` joins the parts; see ARCHITECTURE.md. For others
//! there is nothing here but [`main`], and what is [`measured`] in small.

mod check;
mod cli;
mod clutch;
mod config;
mod daemon;
mod disk_queue;
mod engine;
mod executor;
mod exit;
mod failpoint;
mod halt;
mod inbox;
mod instance;
mod journal;
mod ledger;
#[doc(hidden)]
pub mod measured;
mod outbox;
mod poison;
mod publisher;
mod session;
mod shutdown;
#[cfg(test)]
mod simulation;
mod spool;
mod subscriber;
#[cfg(test)]
mod testing;

use clap::Parser as _;
use cli::{Cli, Command, PlaceArgs};
use config::{Config, Overrides};
use exit::{Exit, Failure};
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Does what the command line says, and tells how that went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let started = match cli.command {
        Command::Run { place, slots, standby } => {
            clutch_common::logging::init("info");
            run(&place, slots, standby).map(|()| ExitCode::SUCCESS)
        }
        Command::Check { place, json } => {
            clutch_common::logging::init("warn");
            check(&place, json)
        }
    };
    match started {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(place: &PlaceArgs, slots: Option<usize>, standby: bool) -> Result<(), Failure> {
    failpoint::arm()?;
    let config = Config::load(&place.config, Overrides { state: place.state.clone(), slots })?;
    if let Some(exposure) = config::exposure(&place.config) {
        tracing::warn!("{exposure}");
    }
    runtime()?.block_on(daemon::run(config, standby))
}

fn check(place: &PlaceArgs, json: bool) -> Result<ExitCode, Failure> {
    let checked = runtime()?.block_on(check::run(place));
    checked.print(json).map_err(|error| {
        Failure::new(Exit::Internal, format!("writing what was found to stdout: {error}"))
    })?;
    Ok(checked.exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8)))
}

/// One thread: a second one wakes for what the first is about to do, and the journal,
/// the links and the processes have threads of their own (design/0013).
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("starting the runtime: {error}")))
}

/// Help and version go to stdout with 0, mistakes to stderr with 64.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    let code = if error.use_stderr() || printed.is_err() { 64 } else { 0 };
    ExitCode::from(code)
}
