//! A Python environment under `target/`: with `pika`, a stock AMQP client,
//! for a client that shares no code with ours; and with tools that come as
//! ready-made Python packages.

use crate::{machine, workspace};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One at a time changes the environment.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

/// The interpreter of an environment that has `pika`; it is installed if it
/// is missing.
///
/// # Errors
/// When there is no Python 3 to be had, or `pika` cannot be installed.
pub fn with_pika() -> Result<PathBuf> {
    with_module("pika==1.3.2", "pika")
}

/// The interpreter of an environment that has a module of a package; the package is installed
/// if the module is missing.
///
/// # Errors
/// When there is no Python 3 to be had, or the package cannot be installed.
pub fn with_module(package: &str, module: &str) -> Result<PathBuf> {
    let _alone = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let python = environment()?;
    let has_module = || {
        let check = Command::new(&python).args(["-c", &format!("import {module}")]).output();
        check.is_ok_and(|output| output.status.success())
    };
    if !has_module() {
        install(&python, package)?;
        ensure!(has_module(), "{package} was installed and {module} cannot be imported");
    }
    Ok(python)
}

/// A program that a Python package brings; the package is installed if the
/// program is missing.
pub fn tool(package: &str, version: &str, program: &str) -> Result<PathBuf> {
    let _alone = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let python = environment()?;
    let path = python.with_file_name(program);
    if !path.is_file() {
        install(&python, &format!("{package}=={version}"))?;
        ensure!(path.is_file(), "{package} {version} brings no {program}");
    }
    Ok(path)
}

fn environment() -> Result<PathBuf> {
    let folder = workspace().join("target").join("python");
    let python = folder.join("bin").join("python");
    let pip = || run(Command::new(&python).args(["-m", "pip", "--version"])).is_ok();
    if pip() {
        return Ok(python);
    }
    if create(&folder).is_err() || !pip() {
        machine::install(&["python3", "python3-venv"])?;
        create(&folder)?;
    }
    Ok(python)
}

fn create(folder: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
}

fn install(python: &Path, package: &str) -> Result<()> {
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
    run(Command::new(python).args(pip))
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
