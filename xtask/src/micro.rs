//! `cargo xtask micro`: builds the microbenchmarks and runs them.

use crate::bench::Options;
use anyhow::Result;
use clutch_tests::{binaries, workspace};
use std::process::{Command, ExitCode};

/// Succeeds if everything could be measured.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let program = binaries::build_micro(&workspace())?;
    // Without it each operation is only tried.
    options.measure(Command::new(program).arg("--bench"))
}
