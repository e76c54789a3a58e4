//! Writes a line to the standard error of a task's first process, or of the worker that has its
//! call, as the process would write it itself.
//!
//! Touches that stream. Promises that a stream with no room is waited for a moment only.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The most bytes of a line.
pub(super) const LINE_MAX: usize = 4096;
/// How long to wait for room.
const ROOM: Duration = Duration::from_secs(1);
/// The pause between two looks for room.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes a line, with an end. The error is words.
pub(super) async fn write(pid: Option<u32>, line: &[u8]) -> Result<(), String> {
    let Some(pid) = pid else {
        return Err("the task has no process that its output is read of".to_owned());
    };
    let mut line = line.trim_ascii_end().to_vec();
    line.push(b'\n');
    let failed = |error| format!("writing to the task's standard error: {error}");
    let until = Instant::now() + ROOM;
    loop {
        let line = line.clone();
        let written = spawn_blocking(move || try_write(pid, &line)).await;
        match written.map_err(std::io::Error::other).flatten() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(PAUSE).await;
            }
            written => return written.map_err(failed),
        }
    }
}

/// Writes a line, if there is room. So few bytes are written together, or not at all.
fn try_write(pid: u32, line: &[u8]) -> std::io::Result<()> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let path = format!("/proc/{pid}/fd/2");
    OpenOptions::new().append(true).custom_flags(flags).open(path)?.write_all(line)
}
