//! The project's own chores, as `cargo xtask NAME`. Brings what it needs: on
//! Debian, as root, a Rust toolchain is enough.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod acceptance;
mod bench;
mod broker;
mod ci;
mod faults;
mod instructions;
mod micro;
mod mutants;
mod openapi;
mod python;
mod record;
mod schemathesis;
mod simulate;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own chores")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs all tests against a real broker, and counts them
    Test(test::Options),
    /// Runs the long scenarios in full and prints their figures
    Acceptance(acceptance::Options),
    /// Measures the transports, each figure beside a limit of the same run
    Bench(bench::Options),
    /// Measures single operations of a task's way, each alone
    Micro(bench::Options),
    /// Counts the instructions that they take, and compares with those kept
    Instructions(instructions::Options),
    /// Plays every fault against real processes and brokers, and judges what came of it
    Faults(faults::Options),
    /// Plays seeded simulations of the endpoint and of schedules, or one seed with its trace
    Simulate(simulate::Options),
    /// Makes deliberate mistakes in a copy, and sees whether the simulation
    /// notices each
    Mutants(mutants::Options),
    /// Checks format, lints, documentation, dependencies, the Python package, the API's
    /// document and instruction counts
    Ci,
    /// Checks the Python package: format, lints, types and tests
    Python,
    /// Writes the OpenAPI document of the service's API anew, from its routes
    Openapi,
    /// Has schemathesis ask a service all that its OpenAPI document allows and forbids
    Schemathesis,
    /// Starts a private broker and keeps it until interrupted
    Broker,
    /// Plays the demonstration and draws it, for the README
    Record,
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Test(options) => test::run(&options),
        Chore::Acceptance(options) => acceptance::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Micro(options) => micro::run(&options),
        Chore::Instructions(options) => instructions::run(&options),
        Chore::Faults(options) => faults::run(&options),
        Chore::Simulate(options) => simulate::run(&options),
        Chore::Mutants(options) => mutants::run(&options),
        Chore::Ci => ci::run(),
        Chore::Python => python::run(),
        Chore::Openapi => openapi::run(),
        Chore::Schemathesis => schemathesis::run(),
        Chore::Broker => broker::run(),
        Chore::Record => record::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
