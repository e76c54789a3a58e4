//! Tests that need something absent say so, and are counted. In CI, where everything
//! can be brought, such a test fails instead.

use std::io::Write as _;

/// Names the file that lists the skipped tests, one a line, for `cargo xtask test`.
pub const SKIPS: &str = "CLUTCH_TEST_SKIPS";

/// Whether every test has to run: `CI` is set.
#[must_use]
pub fn is_forbidden() -> bool {
    std::env::var("CI").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
}

/// Says that `test` cannot run here, and why.
///
/// # Panics
/// Where skipping [is forbidden](is_forbidden).
#[allow(clippy::print_stdout, reason = "a test's report")]
pub fn because(test: &str, reason: &str) {
    assert!(!is_forbidden(), "{test} cannot run here, and in CI every test has to: {reason}");
    println!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os(SKIPS)
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        drop(writeln!(file, "{test}: {reason}"));
    }
}
