//! Writes what a command was asked for to stdout, and messages for people to
//! stderr. A reader that has gone away (`| head`) ends the command quietly.

use clutch_common::text::printable;
use serde::Serialize;
use std::io::{self, Write as _};

/// Writes bytes to stdout as they are.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    named(io::stdout().lock().write_all(bytes))
}

/// Writes text for people to stdout, and ends its line: what a terminal would act on
/// is escaped.
pub(crate) fn line(text: &str) -> io::Result<()> {
    raw_line(&printable::lines(text))
}

/// Writes one line to stdout as it is.
pub(crate) fn raw_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    named(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")))
}

/// Writes out what was written to stdout and is kept back: only then is it certain
/// that it could be written.
pub(crate) fn flush() -> io::Result<()> {
    named(io::stdout().lock().flush())
}

/// Names an error of writing, so that it is not taken for one of reading.
fn named(written: io::Result<()>) -> io::Result<()> {
    written.map_err(|error| io::Error::new(error.kind(), format!("writing to stdout: {error}")))
}

/// Writes a value to stdout as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    raw_line(&serde_json::to_string(value)?)?;
    Ok(())
}

/// Writes bytes to stderr as they are; an error of stderr is ignored.
pub(crate) fn raw_to_stderr(bytes: &[u8]) {
    drop(io::stderr().lock().write_all(bytes));
}

/// Writes a line for people to stderr, with control characters escaped; an error of stderr is
/// ignored.
pub(crate) fn note(text: &str) {
    raw_to_stderr(format!("{}\n", printable::lines(text)).as_bytes());
}

/// Text on one line: what a terminal would act on, and what would break the line, is
/// escaped.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    printable::line(text).into_owned()
}

/// Whether the error means that stdout's reader has gone away.
#[must_use]
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
