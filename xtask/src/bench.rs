//! `cargo xtask bench`: builds the benchmarks and runs them; how programs that
//! measure are given their arguments.

use anyhow::{Context as _, Result};
use clutch_tests::binaries;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// The rows to measure; `--help` lists them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on to the benchmarks
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Options {
    /// Runs a program with the arguments, and succeeds if it does.
    pub(crate) fn measure(&self, program: &mut Command) -> Result<ExitCode> {
        let status = program.args(&self.arguments).status();
        let status = status.with_context(|| format!("running {program:?}"))?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Succeeds if every bar is met.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let folder = binaries::build_ordinary()?;
    options.measure(Command::new(folder.join(binaries::BENCH)).env(binaries::BIN_DIR, &folder))
}
