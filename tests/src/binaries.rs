//! The two binaries under test: where they are, built if need be.

use crate::workspace;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds finished binaries; if it is set, nothing is built.
pub const BIN_DIR: &str = "CLUTCH_BIN_DIR";

/// The daemon on the compute node.
pub const ENDPOINT: &str = "clutch-endpoint";
/// The service and its command line.
pub const SERVICE: &str = "clutch-service";

/// The path of a binary. Without [`BIN_DIR`], both are built once, in the
/// profile that the calling program was built in.
///
/// # Errors
/// When they cannot be built or found.
pub fn path(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER
        .get_or_init(|| folder().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = folder.join(name);
    ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path)
}

/// Whether the binaries are optimised ones, whose speed and memory count.
#[must_use]
pub fn optimised() -> bool {
    path(ENDPOINT).is_ok_and(|path| path.parent().is_some_and(|folder| folder.ends_with("release")))
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(BIN_DIR) {
        return Ok(folder.into());
    }
    let here = std::env::current_exe()?;
    let release = here.components().any(|part| part.as_os_str() == "release");
    build(release)
}

/// Builds both binaries and returns the folder they are in.
///
/// # Errors
/// When cargo fails.
pub fn build(release: bool) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", ENDPOINT, "--package", SERVICE])
        .current_dir(workspace());
    if release {
        command.arg("--release");
    }
    let status = command.status().context("running cargo build")?;
    ensure!(status.success(), "cargo build failed: {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(Path::new(&folder)));
    Ok(target.join(if release { "release" } else { "debug" }))
}
