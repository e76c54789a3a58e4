//! Writes what a command was asked for to stdout, and messages for people to
//! stderr. A reader that has gone away (`| head`) ends the command quietly.

use serde::Serialize;
use std::io::{self, Write as _};

/// Writes bytes to stdout as they are.
///
/// # Errors
/// When stdout cannot be written to.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes)
}

/// Writes one line to stdout.
///
/// # Errors
/// When stdout cannot be written to.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// Writes a value to stdout as one line of JSON.
///
/// # Errors
/// When stdout cannot be written to.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)?;
    Ok(())
}

/// Writes bytes to stderr as they are; a stderr that is gone is nobody's loss.
pub(crate) fn raw_to_stderr(bytes: &[u8]) {
    drop(io::stderr().lock().write_all(bytes));
}

/// Writes one line to stderr; a stderr that is gone is nobody's loss.
pub(crate) fn note(text: &str) {
    raw_to_stderr(format!("{text}\n").as_bytes());
}

/// Text on one line: control characters are escaped, and nothing else is.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { shown.extend(char.escape_debug()) } else { shown.push(char) }
    }
    shown
}

/// Whether the error means that stdout's reader has gone away.
#[must_use]
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
