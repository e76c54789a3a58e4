//! The Clutch service: provisions endpoints, collects results, keeps records, answers the API,
//! and is its own client.
//!
//! `cli` is the command line. `client` has the commands that ask a running service, `admin` those
//! that work without one, `demo` the demonstration. `serve` runs the service: `broker` (the link,
//! and the results that arrive), `publishing`, `failover` and `api` (HTTP for the commands), all
//! of them above `store` (the records) and `model` (the types of tasks). Only `store` knows SQL.
//! The crate offers only [`main`], and [`bench_api`] for the microbenchmarks.

mod admin;
mod api;
#[doc(hidden)]
pub mod bench_api;
mod broker;
mod cli;
mod client;
mod config;
mod demo;
mod failover;
mod failure;
mod feed;
mod messages;
mod model;
mod overlay;
mod publishing;
mod schedule;
mod serve;
mod state_folder;
mod store;
#[cfg(test)]
mod stub_broker;
mod topics;

use admin::{dead_letters, deprovision, doctor, provision, schedule_preview};
use clap::Parser as _;
use clap::error::ErrorKind;
use cli::schedule::ScheduleCommand;
use cli::{Cli, Command, GlobalArgs, output};
use client::Client;
use clutch_common::log;
use clutch_common::system::inherited::{self, Descriptors};
use clutch_common::text::printable;
use config::Settings;
use failure::ErrorReport;
use std::process::ExitCode;
use std::time::Duration;

/// How long a thread for what blocks is kept without work: for ever.
const KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// Does what the command line says, and tells how that went.
#[must_use]
pub fn main() -> ExitCode {
    let inherited = inherited::shed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A command line that cannot be read may ask for JSON all the same.
            let own = std::env::args_os().take_while(|argument| argument != "--");
            let code = explain(&error, own.into_iter().any(|argument| argument == "--json"));
            log::finish();
            return code;
        }
    };
    let level = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    log::init(level);
    let code = match run(&cli, inherited).and_then(|code| Ok(output::flush().map(|()| code)?)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => unprinted(&error, cli.global.json),
    };
    log::finish();
    code
}

/// A reader of stdout that has gone away has what it wanted; anything else is told, with
/// `--json` as the last line of stderr.
fn unprinted(error: &anyhow::Error, json: bool) -> ExitCode {
    if output::is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if json {
        report(&ErrorReport::of(error));
    } else {
        log::say(&printable::lines(&format!("clutch-service: {error:#}")));
    }
    ExitCode::from(failure::exit_code(error))
}

fn report(report: &ErrorReport) {
    log::say(&serde_json::to_string(report).unwrap_or_default());
}

/// Help and version succeed; what cannot be parsed is wrong usage.
fn explain(error: &clap::Error, json: bool) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked_for {
        let printed = error.print().and_then(|()| output::flush());
        return printed.map_or_else(|error| unprinted(&error.into(), json), |()| ExitCode::SUCCESS);
    }
    let mistake = cli::mistake(error);
    if json {
        report(&ErrorReport::usage(mistake.trim_end()));
    } else {
        output::note(mistake.trim_end());
    }
    ExitCode::from(failure::USAGE)
}

fn run(cli: &Cli, inherited: Descriptors) -> anyhow::Result<u8> {
    // A second thread of the runtime wakes for what the first is about to do: that
    // costs a lone task more than it gains a thousand (design/0013).
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Threads for what blocks stay, and the first is there from the start: where the
    // system allows no further one, work waits for those that are there.
    let runtime = runtime.enable_all().thread_keep_alive(KEPT).build()?;
    drop(runtime.spawn_blocking(|| ()));
    runtime.block_on(command(&cli.global, &cli.command, inherited))
}

async fn command(
    global: &GlobalArgs,
    command: &Command,
    inherited: Descriptors,
) -> anyhow::Result<u8> {
    let settings = || Settings::load(global, command.broker());
    let client = || settings().map(|settings| Client::new(&settings.state));
    let json = global.json;
    match command {
        Command::Demo(args) => {
            inherited.close();
            return demo::run(global, args).await;
        }
        Command::Provision(args) => provision::run(&settings()?, args).await?,
        Command::Deprovision(args) => deprovision::run(&settings()?, args).await?,
        Command::Serve(args) => {
            let settings = settings()?;
            // Not before: the configuration may be read from one of them.
            inherited.close();
            serve::serve(&settings, args).await?;
        }
        Command::Doctor(args) => return doctor::run(&settings()?, args).await,
        Command::Submit(args) => return client::submit::run(client()?, args, json).await,
        Command::Tasks(args) if args.watch => {
            client::watch::run(client()?, args, json).await?;
        }
        Command::Tasks(args) => client::tasks::run(&client()?, args, json).await?,
        Command::Show(args) => client::show::run(&client()?, args, json).await?,
        Command::Logs(args) => return client::logs::run(&client()?, args, json).await,
        Command::Wait(args) => {
            let succeeded = client::wait::run(client()?, args, json).await?;
            return Ok(client::wait::exit_code(succeeded));
        }
        Command::Endpoints(args) => client::endpoints::run(&client()?, args, json).await?,
        Command::Endpoint(args) => client::endpoint::run(&client()?, &args.what, json).await?,
        Command::Topics(args) => client::topics::list(&client()?, args, json).await?,
        Command::Topic(args) => client::topics::show(&client()?, &args.what, json).await?,
        Command::WaitForWorkers(args) => client::workers::run(client()?, args, json).await?,
        Command::Cancel(args) => client::cancel::run(&client()?, args, json).await?,
        Command::Retry(args) => client::retry::run(&client()?, args, json).await?,
        Command::DeadLetters(args) => return dead_letters::run(&settings()?, &args.what).await,
        Command::Forget(args) => client::forget::run(&client()?, args, json).await?,
        Command::Schedule(args) => match &args.what {
            ScheduleCommand::Preview(args) => schedule_preview::run(args, json)?,
            ScheduleCommand::Service(asked) => {
                client::schedules::run(&client()?, asked, json).await?;
            }
        },
        Command::Results(args) => client::results::run(&client()?, args, json).await?,
    }
    Ok(0)
}
