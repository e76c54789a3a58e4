//! The benchmarks, as `cargo xtask bench`: each figure beside a limit or a peer
//! that was measured in the same run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod disk;
mod driver;
mod echo;
mod report;
mod rows;
mod site;
mod stats;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum as _};
use clutch_common::id::EndpointId;
use report::Row;
use rows::{Bench, Name, Scale};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "clutch-bench",
    bin_name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    about = "Measures the transports. Fails when a bar is missed"
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    chore: Option<Chore>,
}

#[derive(clap::Args)]
struct Options {
    /// What to measure; without a name everything that can be
    #[arg(value_enum, value_name = "ROW")]
    rows: Vec<Name>,
    /// Prints one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    /// Little of everything, to see that it works: the bars do not count
    #[arg(long)]
    quick: bool,
    /// Where to make spool folders, on the disk to be measured [default: where
    /// this program is]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// A RabbitMQ to compare with; queues of this run stay there, so give it a
    /// virtual host of its own
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
}

#[derive(Subcommand)]
enum Chore {
    /// Answers tasks until its input ends
    #[command(name = echo::CHORE, hide = true)]
    Echo {
        /// The broker
        url: String,
        /// The endpoint
        endpoint: EndpointId,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.chore {
        Some(Chore::Echo { url, endpoint }) => echo::process(url, *endpoint).await.map(|()| true),
        None => measure(&cli.options).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints, and says whether every bar is met.
async fn measure(options: &Options) -> Result<bool> {
    let scale = if options.quick { Scale::QUICK } else { Scale::FULL };
    let bench = Bench { folder: folder(options)?, broker: options.broker.clone(), scale };
    let mut measured: Vec<Row> = Vec::new();
    for name in chosen(options) {
        let mut row = bench.measure(name).await?;
        if options.quick {
            row.bars.clear();
        }
        if !options.json {
            println!("{row}");
        }
        measured.push(row);
    }
    if options.json {
        println!("{}", serde_json::json!({ "quick": options.quick, "rows": measured }));
    }
    Ok(measured.iter().all(Row::good))
}

/// What was asked for, else all that there is a broker for.
fn chosen(options: &Options) -> Vec<Name> {
    if !options.rows.is_empty() {
        return options.rows.clone();
    }
    let possible = |name: &Name| *name != Name::AmqpThroughput || options.broker.is_some();
    Name::value_variants().iter().copied().filter(possible).collect()
}

fn folder(options: &Options) -> Result<PathBuf> {
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("this program is nowhere")?.to_owned(),
    };
    folder.canonicalize().with_context(|| format!("looking for the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn options(arguments: &[&str]) -> Options {
        Cli::parse_from(["bench"].iter().chain(arguments)).options
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_is_measured_that_can_be_unless_rows_are_named() {
        assert!(!chosen(&options(&[])).contains(&Name::AmqpThroughput));
        assert_eq!(chosen(&options(&["--broker", "amqp://b"])).len(), Name::value_variants().len());
        assert_eq!(chosen(&options(&["folder-latency"])), [Name::FolderLatency]);
    }
}
