//! The order of effects, proven from a trace of system calls: nothing is
//! acknowledged that was not on the disk by then.
//!
//! [`COMMAND`] runs an endpoint under strace, [`judge()`] reads what that wrote.
//! The judge knows the wire and the state folder from their design records and
//! has no code in common with what it judges; it sees nothing but the calls.

mod amqp;
mod calls;
mod disk;
mod judge;
#[cfg(test)]
mod tests;

use crate::machine;
use anyhow::{Context as _, Result};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use uuid::Uuid;

/// The command line that goes before an endpoint's, but for `-o FILE`. The
/// endpoint stays the child of the caller; other calls than these cost
/// it nothing; data is printed whole.
pub const COMMAND: [&str; 9] = [
    "strace",
    "-D",
    "-f",
    "--seccomp-bpf",
    "-yy",
    "-s",
    "2000000",
    "-e",
    "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,recvfrom,recvmsg,\
     fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat",
];

/// In so many bytes at the end of a trace is the line about the process's end.
const END: u64 = 1 << 20;

/// Why an endpoint cannot be traced here, if it cannot. strace is installed
/// where that is possible.
#[must_use]
pub fn missing() -> Option<String> {
    let there = machine::find("strace").is_some()
        || machine::can_install() && machine::install(&["strace"]).is_ok();
    if !there {
        return Some("there is no strace, and it cannot be installed".to_owned());
    }
    let [program, options @ ..] = COMMAND;
    let mut command = Command::new(program);
    command.args(options).args(["-o", "/dev/null", "true"]);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    match quiet {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            Some(format!("strace cannot trace here: {}", words.trim()))
        }
        Err(error) => Some(format!("strace cannot be started: {error}")),
    }
}

/// Whether a trace is whole: it says how the process ended. What follows is about
/// tasks that outlive it.
pub fn is_whole(trace: &Path, pid: u32) -> Result<bool> {
    let mut file = File::open(trace).context("opening the trace")?;
    let start = file.metadata()?.len().saturating_sub(END);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let pid = pid.to_string();
    let ended = |line: &[u8]| {
        let rest = line.strip_prefix(pid.as_bytes());
        rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"+++"))
    };
    Ok(end.split_inclusive(|byte| *byte == b'\n').any(|line| line.ends_with(b"\n") && ended(line)))
}

/// A task that was missing on the disk when its acknowledgement left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Missing {
    /// No record of the task had been written.
    Record,
    /// No sync of the store's file that began after the record was written had
    /// ended.
    StoreSync,
    /// The payload was not where the record says.
    Payload,
    /// The file that the payload is in got its name before it was synced.
    FileSync,
    /// The spool file had no name when the record was written.
    Name,
    /// The folder had not been synced between that and the record.
    FolderSync,
}

/// A task that was acknowledged too early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breach {
    /// The task.
    pub task: Uuid,
    /// The line of the trace at which its acknowledgement left.
    pub line: u64,
    /// The part that was missing.
    pub missing: Missing,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = match self.missing {
            Missing::Record => "no record of it had been written",
            Missing::StoreSync => "no sync had covered its record",
            Missing::Payload => "its payload was not where its record says",
            Missing::FileSync => "its payload's file was named before it was synced",
            Missing::Name => "its payload's file had no name when its record was written",
            Missing::FolderSync => "its payload's folder was not synced before its record",
        };
        write!(f, "line {}: task {} was acknowledged, but {missing}", self.line, self.task)
    }
}

/// The findings of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// Messages that were delivered in full.
    pub deliveries: usize,
    /// Acknowledgements of messages that brought tasks.
    pub acknowledgements: usize,
    /// Tasks that were acknowledged.
    pub tasks: usize,
    /// Those without a breach that have their payload in the spool.
    pub spooled: usize,
    /// Those without a breach that lay in the inbox; the others had ended before
    /// their group was written, and it was their result that was.
    pub in_inbox: usize,
    /// Syncs of the store's file.
    pub syncs: usize,
    /// The attempts that were acknowledged too early.
    pub breaches: Vec<Breach>,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks in {} deliveries, {} acknowledgements and {} syncs; of the tasks {} in the \
             inbox, {} spooled, {} acknowledged too early",
            self.tasks,
            self.deliveries,
            self.acknowledgements,
            self.syncs,
            self.in_inbox,
            self.spooled,
            self.breaches.len(),
        )
    }
}

/// Reads the trace of an endpoint with the state folder `state`, a path without
/// links. A line that is being written is left out.
pub fn judge(mut trace: impl BufRead, state: &Path) -> Result<Proof> {
    let mut judge = judge::Judge::new(state);
    let mut line = Vec::new();
    while trace.read_until(b'\n', &mut line).context("reading the trace")? > 0 {
        if line.last() != Some(&b'\n') {
            break;
        }
        judge.push(&line)?;
        line.clear();
    }
    Ok(judge.proof())
}
