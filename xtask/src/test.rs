//! `cargo xtask test`: all tests, against a real broker, counted. The last lines say
//! which failed, and why.

mod failures;

use anyhow::{Context as _, Result};
use clutch_tests::binaries::{self, BIN_DIR};
use clutch_tests::broker::{BROKER, Broker, MANAGEMENT};
use clutch_tests::{python, skip, workspace};
use failures::Failures;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// Most integration tests wait for other processes, so more than one per core
/// may run.
const THREADS: &str = "4";

/// The tests to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed on to `cargo test`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the binaries, starts a broker for all tests, runs them and prints
/// `N passed, N failed, N skipped` as the last line, and before it each failed test
/// with its panic. Where skipping is [forbidden](skip::is_forbidden), a skip fails the
/// run.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    println!("building binaries and tests (release) …");
    let binaries = binaries::build_all()?;
    println!("built after {:.0} s", started.elapsed().as_secs_f64());
    let skips = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["test", "--release", "--workspace", "--no-fail-fast"])
        .args(&options.arguments)
        .current_dir(workspace())
        .env(BIN_DIR, binaries)
        .env(skip::SKIPS, skips.path());
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", THREADS);
    }
    if let Err(error) = python::with_pika() {
        println!("no Python client: {error:#}");
    }
    let broker = start_broker(&mut command)?;
    let (mut counts, failures, finished) = count(command)?;
    drop(broker);

    let skipped = std::fs::read_to_string(skips.path())?;
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    counts.skip(skipped.lines().count());
    println!("finished after {:.0} s", started.elapsed().as_secs_f64());
    println!("{}", counts.line());
    let whole = counts.skipped == 0 || !skip::is_forbidden();
    let good = finished && counts.failed == 0 && whole;
    if !good {
        print!("{}", failures.told());
        if counts.failed == 0 && !finished {
            println!("no test failed, but cargo did: see its last lines");
        }
        println!("{}", counts.line());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the broker that all tests share, if one is to be had; tests that
/// need one say so otherwise.
fn start_broker(command: &mut Command) -> Result<Option<Broker>> {
    if !Broker::available() {
        println!("there is no RabbitMQ: tests that need it will be skipped");
        return Ok(None);
    }
    let broker = Broker::start().context("starting the broker for the tests")?;
    let address = broker.address();
    println!("the broker is at {}", address.amqp);
    command.env(BROKER, &address.amqp).env(MANAGEMENT, &address.management);
    Ok(Some(broker))
}

/// Runs the tests, shows what they print, counts, and keeps what failed. The flag says
/// whether cargo itself was content.
fn count(mut command: Command) -> Result<(Counts, Failures, bool)> {
    let mut cargo = command.stdout(Stdio::piped()).spawn().context("running cargo test")?;
    let output = BufReader::new(cargo.stdout.take().context("cargo has no stdout")?);
    let (mut counts, mut failures) = (Counts::default(), Failures::default());
    for line in output.split(b'\n') {
        let line = line?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        let line = String::from_utf8_lossy(&line);
        counts.add(&line);
        failures.add(&line);
    }
    Ok((counts, failures, cargo.wait()?.success()))
}

#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    /// Takes in a line such as
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn add(&mut self, line: &str) {
        let Some((_, numbers)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split(';') {
            let (number, what) = part.trim().split_once(' ').unwrap_or_default();
            let number: usize = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => (),
            }
        }
    }

    /// Takes tests out of the passed ones that said that they cannot run.
    fn skip(&mut self, skipped: usize) {
        self.passed = self.passed.saturating_sub(skipped);
        self.skipped += skipped;
    }

    fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_summed_and_skips_are_no_passes() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        counts.add("test a::b ... ok");
        counts.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured");
        assert_eq!(counts, Counts { passed: 12, failed: 3, skipped: 1 });
        counts.skip(2);
        assert_eq!(counts.line(), "10 passed, 3 failed, 3 skipped");
    }
}
