//! Tests that need something absent say so, and are counted.

use std::io::Write as _;

/// Where skips are written, one a line, for whoever counts them.
pub const SKIPS: &str = "CLUTCH_TEST_SKIPS";

/// Says that `test` cannot run here, and why.
#[allow(clippy::print_stdout, reason = "a test's report")]
pub fn because(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os(SKIPS)
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        drop(writeln!(file, "{test}: {reason}"));
    }
}
