//! `cargo xtask faults`: every fault against real processes and a real broker,
//! and a table of what came of it.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::broker::Release;
use clutch_tests::faults::record::{self, About};
use clutch_tests::faults::{self, Long, Need, Plan, Report, Row};
use clutch_tests::{binaries, workspace};
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

/// Where the table is kept.
const PAGE: &str = "FAULTS.md";

/// The faults to play, and where to record the outcomes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The RabbitMQ to play on
    #[arg(long, value_enum, default_value_t = Broker::System)]
    broker: Broker,
    /// Only this row; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// One JSON object per row, and nothing else
    #[arg(long)]
    json: bool,
    /// How many rows at once
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Says what rows there are, and plays none
    #[arg(long)]
    list: bool,
    /// Writes what came of it into FAULTS.md
    #[arg(long)]
    record: bool,
    /// How many tasks the row `million` has
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    tasks: usize,
    /// The seed of the rows `million` and `messages-at-random`; the same faults come again
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Keeps the folders, with the logs, of rows that do not hold
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Broker {
    /// The system's release: 3.10 on Debian 12
    #[value(name = "3.10")]
    System,
    /// 4.0
    #[value(name = "4.0")]
    Four,
    /// One after the other
    All,
}

/// Plays the rows; succeeds if every one keeps the contract.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let all = faults::rows();
    let rows = chosen(&all, &options.only)?;
    if options.list {
        rows.iter().for_each(|row| println!("{:26} {}", row.name, row.what));
        return Ok(ExitCode::SUCCESS);
    }
    let releases = match options.broker {
        Broker::System => vec![Release::System],
        Broker::Four => vec![Release::Four],
        Broker::All => vec![Release::System, Release::Four],
    };
    for release in &releases {
        ensure!(release.available(), "RabbitMQ {release} is not here and cannot be installed");
    }
    if !options.json {
        println!("building the binaries (release) …");
    }
    // As it is when they are built: the checkout may be another one when the last row ends.
    let about = options.record.then(about).transpose()?;
    let binaries = binaries::build_bins()?;
    let aloud: fn(&str) = if options.json { |_| () } else { |words| println!("{words}") };
    let long = Long { tasks: options.tasks, seed: options.seed, tell: aloud };
    let plan = Plan { releases, jobs: options.jobs, binaries, keep: options.keep, long };
    let begun = Instant::now();
    let tell = |report: &Report| tell(report, options.json);
    let reports = faults::play(&rows, &plan, &tell)?;
    if let Some(about) = about {
        let page = workspace().join(PAGE);
        let old = std::fs::read_to_string(&page).unwrap_or_default();
        std::fs::write(&page, record::page(&old, &all, &reports, &about))?;
    }
    if !options.json {
        summary(&reports, begun);
    }
    Ok(if reports.iter().all(Report::good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(all: &[Row], only: &[String]) -> Result<Vec<Row>> {
    for name in only {
        let known = all.iter().any(|row| row.name == name);
        ensure!(known, "there is no fault '{name}'; --list says what there is");
    }
    let wanted = |row: &&Row| {
        if only.is_empty() {
            !row.needs.contains(&Need::Hours)
        } else {
            only.iter().any(|name| name == row.name)
        }
    };
    Ok(all.iter().filter(wanted).copied().collect())
}

fn tell(report: &Report, json: bool) {
    let line = if json { report.json().to_string() } else { record::line(report) };
    // The reader is gone: the table may still be written.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

fn summary(reports: &[Report], begun: Instant) {
    let skipped = reports.iter().filter(|report| report.seen.is_none() && report.good()).count();
    let bad = reports.iter().filter(|report| !report.good()).count();
    println!(
        "{} held, {bad} did not, {skipped} skipped, after {:.0} s",
        reports.len() - bad - skipped,
        begun.elapsed().as_secs_f64()
    );
}

fn about() -> Result<About> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(workspace())
        .output()
        .context("asking git for the commit")?;
    let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let cores = std::thread::available_parallelism()?;
    Ok(About {
        date: now.split('T').next().unwrap_or_default().to_owned(),
        clutch: format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        system: format!("{}, {cores} cores", name.unwrap_or("Linux").trim_matches('"')),
    })
}
