//! The two binaries under test, unit tests and benchmarks: where they are, built
//! if need be.

use crate::workspace;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The folder that holds finished binaries; if it is set, nothing is built.
pub const BIN_DIR: &str = "CLUTCH_BIN_DIR";

/// The daemon on the compute node.
pub const ENDPOINT: &str = "clutch-endpoint";
/// The service and its command line.
pub const SERVICE: &str = "clutch-service";
/// The daemon once more, with failure points; in the folder of the others.
pub const MORTAL_ENDPOINT: &str = "failpoints/clutch-endpoint";

/// Cargo's arguments to build both.
const OURS: [&str; 4] = ["--package", ENDPOINT, "--package", SERVICE];

/// The benchmarks.
pub const BENCH: &str = "clutch-bench";
/// The microbenchmarks.
const MICRO: &str = "micro";

/// The folder that both binaries are in. Without [`BIN_DIR`], they are built
/// once, in the profile that the calling program was built in.
pub fn folder() -> Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Whether the binaries are optimised, so that their speed and memory count.
#[must_use]
pub fn optimised() -> bool {
    folder().is_ok_and(|folder| folder.ends_with("release"))
}

fn find() -> Result<PathBuf> {
    let folder = match std::env::var_os(BIN_DIR) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let here = std::env::current_exe()?;
            let release = here.components().any(|part| part.as_os_str() == "release");
            build_failure_points(&OURS, release)?;
            build(release)?
        }
    };
    for binary in [ENDPOINT, SERVICE] {
        let path = folder.join(binary);
        ensure!(path.is_file(), "there is no {}", path.display());
    }
    Ok(folder)
}

/// Builds both binaries and returns the folder they are in.
pub fn build(release: bool) -> Result<PathBuf> {
    cargo_build(&OURS, release)
}

/// Builds all there is, tests included, optimised, and returns the folder that
/// the binaries are in. What is tested is then what people run, and everything
/// is compiled once.
pub fn build_all() -> Result<PathBuf> {
    // A test among them has dependencies built with the features that tests need.
    build_failure_points(&["--workspace", "--bins", "--test", "tidy"], true)?;
    cargo_build(&["--workspace", "--all-targets"], true)
}

/// Builds the endpoint that has failure points into a folder of its own. Cargo
/// puts it where the ordinary one belongs, which is to be built after it; no
/// dependency is compiled twice.
fn build_failure_points(what: &[&str], release: bool) -> Result<()> {
    let feature = format!("{ENDPOINT}/failpoints");
    let built = cargo_build(&[what, &["--features", &feature]].concat(), release)?;
    let mortal = built.join(MORTAL_ENDPOINT);
    // One that runs is not written over.
    let fresh = mortal.with_extension(std::process::id().to_string());
    mortal
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::copy(built.join(ENDPOINT), &fresh))
        .and_then(|_| std::fs::rename(&fresh, &mortal))
        .with_context(|| format!("copying the endpoint to {}", mortal.display()))
}

/// Builds all programs, optimised, and returns the folder they are in.
pub fn build_bins() -> Result<PathBuf> {
    build_failure_points(&["--workspace", "--bins"], true)?;
    build_ordinary()
}

/// Builds all programs, optimised, but for the one with failure points, and
/// returns the folder they are in.
pub fn build_ordinary() -> Result<PathBuf> {
    cargo_build(&["--workspace", "--bins"], true)
}

/// Builds the unit tests of a package from the workspace in `source`, optimised, with the
/// features that all else has and further options of cargo's, and returns the program.
/// Dependencies are compiled once for all sources.
pub fn build_unit_tests(package: &str, source: &Path, options: &[&str]) -> Result<PathBuf> {
    // The benchmarks have no library, and need everything that the workspace does.
    let what = ["test", "--lib", "--package", package, "--package", BENCH, "--no-run"];
    executable(&[&what, options].concat(), source, &package.replace('-', "_"))
}

/// Builds the microbenchmarks from the workspace in `source`, optimised, with the
/// features that all else has, and returns the program.
pub fn build_micro(source: &Path) -> Result<PathBuf> {
    executable(&["build", "--workspace", "--bench", MICRO], source, MICRO)
}

/// Has cargo build, optimised, and returns the test or benchmark of that name that
/// came of it.
fn executable(what: &[&str], source: &Path, name: &str) -> Result<PathBuf> {
    let built = cargo()
        .args(what)
        .args(["--quiet", "--release", "--message-format=json-render-diagnostics"])
        .current_dir(source)
        .env("CARGO_TARGET_DIR", target())
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(built.status.success(), "cargo {} failed: {}", what.join(" "), built.status);
    let messages = String::from_utf8_lossy(&built.stdout);
    let program = messages.lines().find_map(|message| {
        let message: Value = serde_json::from_str(message).ok()?;
        let ours = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    program.with_context(|| format!("cargo {} named no program '{name}'", what.join(" ")))
}

fn cargo_build(what: &[&str], release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet"]).args(what).current_dir(workspace());
    if release {
        command.arg("--release");
    }
    let status = command.status().context("running cargo build")?;
    ensure!(status.success(), "cargo build failed: {status}");
    Ok(target().join(if release { "release" } else { "debug" }))
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The folder that cargo builds in.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(Path::new(&folder)))
}
