//! The Clutch endpoint daemon.
//!
//! Takes tasks from its queue, runs them, and delivers every result, over links
//! that come and go. `daemon` joins the parts; see ARCHITECTURE.md.

mod cli;
mod clutch;
mod config;
mod daemon;
mod disk_queue;
mod engine;
mod executor;
mod exit;
mod halt;
mod inbox;
mod journal;
mod ledger;
mod outbox;
mod publisher;
mod session;
mod shutdown;
mod spool;
mod subscriber;
#[cfg(test)]
mod testing;

use clap::Parser as _;
use cli::{Cli, Command};
use config::{Config, Overrides};
use exit::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    clutch_common::logging::init("info");
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let Command::Run { config, state, slots } = cli.command;
    let config = Config::load(&config, Overrides { state, slots })?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
            Failure::new(exit::Exit::Internal, format!("starting the runtime: {error}"))
        })?;
    runtime.block_on(daemon::run(config))
}

/// Help and version go to stdout with 0, mistakes to stderr with 64.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    let code = if error.use_stderr() || printed.is_err() { 64 } else { 0 };
    ExitCode::from(code)
}
