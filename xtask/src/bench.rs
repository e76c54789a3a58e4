//! `cargo xtask bench`: builds the benchmarks and runs them.

use anyhow::{Context as _, Result};
use clutch_tests::binaries;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// What to measure; `--help` lists the rows.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on to the benchmarks
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Succeeds if every bar is met.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let folder = binaries::build_ordinary()?;
    let program = folder.join(binaries::BENCH);
    let mut bench = Command::new(&program);
    let status = bench.args(&options.arguments).env(binaries::BIN_DIR, &folder).status();
    let status = status.with_context(|| format!("running {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
