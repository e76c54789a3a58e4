//! Others' programs that know when schedules are due: cronsim with zoneinfo (Python), and
//! systemd-analyze.

use crate::{machine, python, workspace};
use anyhow::{Result, ensure};
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

/// The answers of `tests/python/schedule_oracle.py` to cases, each a line of JSON.
///
/// # Errors
/// When there is no Python with cronsim to be had.
///
/// # Panics
/// When the program fails.
pub fn cron(cases: &[String]) -> Result<Vec<String>> {
    let python = python::with_module("cronsim==2.8", "cronsim")?;
    let mut asked = tempfile::tempfile()?;
    asked.write_all(cases.join("\n").as_bytes())?;
    asked.rewind()?;
    let script = workspace().join("tests/python/schedule_oracle.py");
    let output = Command::new(python).arg(script).stdin(asked).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle failed: {told}");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// Makes sure that there is a systemd-analyze.
///
/// # Errors
/// When there is none, and none can be installed.
pub fn find_systemd() -> Result<()> {
    if machine::find("systemd-analyze").is_none() {
        machine::install(&["systemd"])?;
        ensure!(machine::find("systemd-analyze").is_some(), "systemd brings no systemd-analyze");
    }
    Ok(())
}

/// The first times of a calendar expression after a moment (in seconds), as
/// `2026-11-30 08:00:00` in UTC; nothing where the expression is refused.
///
/// # Errors
/// When systemd-analyze cannot be run.
pub fn calendar(expression: &str, after: i64, count: usize) -> Result<Option<Vec<String>>> {
    let output = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={count}"), &format!("--base-time=@{after}")])
        .arg(expression)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    let printed = String::from_utf8(output.stdout)?;
    let times = printed.lines().filter_map(|line| {
        let (before, time) = line.split_once(": ")?;
        let named = before.contains("Next elapse") || before.contains("Iter");
        let time = time.strip_suffix(" UTC").filter(|_| named)?;
        Some(time.split_once(' ')?.1.to_owned())
    });
    Ok(output.status.success().then(|| times.collect()))
}
