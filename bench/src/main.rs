//! The benchmarks, as `cargo xtask bench`: each figure beside a limit or a peer
//! that was measured in the same run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod api;
mod bare;
mod correspondent;
mod disk;
mod driver;
mod echo;
mod input;
mod page;
mod pair;
mod peers;
mod pipe;
mod proc;
mod report;
mod rows;
mod site;
mod stats;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum as _};
use clutch_common::id::EndpointId;
use clutch_tests::broker::{Broker, Management};
use peers::Peers;
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
    /// The rows to measure; without a name all that can be
    #[arg(value_enum, value_name = "ROW")]
    rows: Vec<Name>,
    /// Prints one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    /// Little of everything, to see that it works: the bars do not count
    #[arg(long)]
    quick: bool,
    /// Measures Celery, HyperQueue and Globus Compute as well, where they do the
    /// same work; they are installed from PyPI beside this program. HyperQueue's
    /// command line is used if `hq` is in PATH
    #[arg(long)]
    peers: bool,
    /// Writes what was measured into BENCHMARKS.md
    #[arg(long, conflicts_with = "quick")]
    record: bool,
    /// Where to make spool folders, on the disk to be measured [default: where
    /// this program is]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
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
    /// Answers messages until its input ends
    #[command(name = bare::CHORE, hide = true)]
    BareEcho {
        /// The broker
        url: String,
        /// Where tasks come from
        tasks: String,
        /// Where results go
        results: String,
    },
    /// Sends messages to another task, or takes them
    #[command(name = correspondent::CHORE, hide = true)]
    Correspond {
        #[command(subcommand)]
        part: correspondent::Part,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.chore {
        Some(Chore::Echo { url, endpoint }) => echo::process(url, *endpoint).await.map(|()| true),
        Some(Chore::BareEcho { url, tasks, results }) => {
            bare::process(url, tasks, results).await.map(|()| true)
        }
        Some(Chore::Correspond { part }) => correspondent::process(part).await.map(|()| true),
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
    let peers = options.peers.then(Peers::install).transpose()?;
    let bench = Bench { folder: folder(options)?, scale, peers };
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
    if options.record {
        record(&measured, options.peers)?;
    }
    if options.json {
        println!("{}", serde_json::json!({ "quick": options.quick, "rows": measured }));
    }
    Ok(measured.iter().all(Row::good))
}

/// Writes the page, with all that was measured now and nothing else.
fn record(measured: &[Row], with_peers: bool) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let overview =
        Management::new(Broker::shared()?.address())?.call("GET", &["overview"], None)?;
    let mut machine = vec![
        format!("{cores} cores, {}", system.unwrap_or("Linux").trim_matches('"')),
        format!("Clutch {}", env!("CARGO_PKG_VERSION")),
        format!("RabbitMQ {}", overview["rabbitmq_version"].as_str().unwrap_or("of some version")),
    ];
    if with_peers {
        machine.extend(peers::versions());
    }
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let date = date.get(..10).unwrap_or_default();
    let page = page::page(&page::About { date, machine: &machine }, measured);
    let path = clutch_tests::workspace().join("BENCHMARKS.md");
    std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
}

/// The rows that were asked for, else all there are.
fn chosen(options: &Options) -> Vec<Name> {
    if options.rows.is_empty() { Name::value_variants().to_vec() } else { options.rows.clone() }
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
    fn all_is_measured_unless_rows_are_named() {
        assert_eq!(chosen(&options(&[])).len(), Name::value_variants().len());
        assert_eq!(chosen(&options(&["folder-latency"])), [Name::FolderLatency]);
    }
}
