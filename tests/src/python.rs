//! A Python with `pika`, a stock AMQP client: somebody who does not know our
//! code.

use crate::{machine, workspace};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The interpreter of an environment under `target/` that has `pika`; it is
/// made at first use.
///
/// # Errors
/// When there is no Python 3 to be had, or `pika` cannot be installed.
pub fn with_pika() -> Result<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON
        .get_or_init(|| make().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow::anyhow!("python with pika: {error}"))
}

fn make() -> Result<PathBuf> {
    let folder = workspace().join("target").join("python");
    let python = folder.join("bin").join("python");
    let has_pika = || {
        let check = Command::new(&python).args(["-c", "import pika"]).output();
        check.is_ok_and(|output| output.status.success())
    };
    if has_pika() {
        return Ok(python);
    }
    let venv = || -> Result<()> {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
    };
    if venv().is_err() {
        machine::install(&["python3", "python3-venv"])?;
        venv()?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pika==1.3.2"];
    run(Command::new(&python).args(pip))?;
    ensure!(has_pika(), "pika was installed and cannot be imported");
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
