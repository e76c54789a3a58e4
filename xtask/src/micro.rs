//! `cargo xtask micro`: builds the microbenchmarks and runs them.

use anyhow::{Context as _, Result};
use clutch_tests::{binaries, workspace};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// What to measure; `--help` lists the rest.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on to the benchmarks: parts of names to measure only these
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Succeeds if everything could be measured.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let program = binaries::build_micro(&workspace())?;
    // Without it each operation is only tried.
    let status = Command::new(&program).arg("--bench").args(&options.arguments).status();
    let status = status.with_context(|| format!("running {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
