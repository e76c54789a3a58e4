//! `cargo xtask openapi`: writes `service/openapi.json` anew, from what the routes of the
//! service's API say. A test of the service fails while the file is another.

use anyhow::{Result, ensure};
use clutch_tests::workspace;
use std::process::{Command, ExitCode};

/// The test that compares the file, and writes it where it is told to.
const TEST: &str = "the_kept_document_is_what_the_routes_say";

/// The chore.
pub(crate) fn run() -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut test = Command::new(cargo);
    test.args(["test", "-p", "clutch-service", "--lib", "--quiet", TEST])
        .env("CLUTCH_KEEP_OPENAPI", "1")
        .current_dir(workspace());
    let status = test.status()?;
    ensure!(status.success(), "{test:?} failed: {status}");
    println!("service/openapi.json is written");
    Ok(ExitCode::SUCCESS)
}
