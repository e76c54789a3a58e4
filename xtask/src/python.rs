//! `cargo xtask python`: the Python package's format, lints, types and tests. Brings
//! the tools as Python packages, into `target/`.

use anyhow::{Result, ensure};
use clutch_tests::{python, workspace};
use std::process::{Command, ExitCode};

/// The tools: a package, its release, and what is run with it. The tests come before
/// the types, which look into pytest.
const CHECKS: [(&str, &str, &[&str]); 4] = [
    ("ruff", "0.17.6", &["format", "--check", "."]),
    ("ruff", "0.17.6", &["check", "."]),
    ("pytest", "9.2.0", &[]),
    ("mypy", "2.4.1", &[]),
];

/// Runs all checks, so that one run shows all that is wrong.
pub(crate) fn check() -> Result<()> {
    let mut failed = Vec::new();
    for (tool, version, arguments) in CHECKS {
        let mut command = Command::new(python::tool(tool, version, tool)?);
        command.args(arguments).current_dir(workspace().join("python"));
        if !command.status()?.success() {
            failed.push(format!("{tool} {}", arguments.join(" ")));
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The chore.
pub(crate) fn run() -> Result<ExitCode> {
    check().map(|()| ExitCode::SUCCESS)
}
