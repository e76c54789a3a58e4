//! A process that cannot outlive the process that started it.
//!
//! The process runs under a small shell that reads a pipe: a line on the pipe
//! is a signal to pass on, the end of the pipe kills everything in the
//! process group. The pipe ends when the [`Leash`] is dropped and also when
//! its owner dies, be it by `kill -9`, so nothing stays behind.

use crate::poll;
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

const SHELL: &str = r#"
exec 3<&0
log=$1
shift
"$@" 3<&- </dev/null >>"$log" 2>&1 &
child=$!
echo "$child"
(
    while read -r signal <&3; do kill -s "$signal" "$child"; done
    kill -s KILL 0
) >/dev/null 2>&1 &
wait "$child"
"#;

/// A running process and the line it is held by.
#[derive(Debug)]
pub struct Leash {
    shell: Child,
    line: Option<ChildStdin>,
    pid: u32,
}

impl Leash {
    /// Starts `program` with `arguments`; what it prints is appended to `log`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("creating the log {}", log.display()))?;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SHELL, "leash"])
            .arg(log)
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A shell tells there how its child ended; `exited` says it anyway.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let line = shell.stdin.take();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().context("the shell has no stdout")?)
            .read_line(&mut pid)
            .context("reading the process id")?;
        let pid = pid.trim().parse().with_context(|| format!("'{pid}' is no process id"))?;
        Ok(Self { shell, line, pid })
    }

    /// The id of the process itself, not of the shell around it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, named as `kill` names it: `TERM`, `KILL`, …
    pub fn signal(&mut self, name: &str) -> Result<()> {
        let line = self.line.as_mut().context("the process was let go")?;
        writeln!(line, "{name}").with_context(|| format!("sending {name} to {}", self.pid))
    }

    /// The exit code, if the process has ended: `128 + n` for signal `n`.
    pub fn exited(&mut self) -> Result<Option<i32>> {
        Ok(self.shell.try_wait()?.map(|status| {
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
        }))
    }

    /// Waits for the end and returns the exit code.
    ///
    /// # Errors
    /// When the process is still there after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<i32> {
        let what = format!("the end of process {}", self.pid);
        poll::until(&what, within, || self.exited())
    }

    /// Kills the process and everything in its group, and waits until it is
    /// gone.
    pub fn kill(&mut self) -> Result<()> {
        self.line = None;
        self.wait(Duration::from_secs(60))?;
        poll::until("the killed process to go", Duration::from_secs(60), || {
            Ok((!alive(self.pid)).then_some(()))
        })
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.line = None;
        drop(self.shell.wait());
    }
}

/// Whether a process runs; one that is dead and not yet waited for does not. A
/// killed one runs until its last thread has gone: until then it has its files
/// open, and its locks.
#[must_use]
pub fn alive(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| {
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        !matches!(state, Some('Z' | 'X'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, log: &Path) -> Leash {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Leash::start(Path::new("/bin/sh"), &arguments, &[("COLOUR".into(), "red".into())], log)
            .unwrap()
    }

    #[test]
    fn the_exit_code_and_the_output_come_through() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut leash = start("echo $COLOUR; echo blue >&2; exit 7", &log);
        assert_eq!(leash.wait(Duration::from_secs(60)).unwrap(), 7);
        assert_eq!(std::fs::read_to_string(log).unwrap(), "red\nblue\n");
    }

    #[test]
    fn a_signal_reaches_the_process_itself() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut leash = start("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done", &log);
        poll::until("the trap", Duration::from_secs(60), || {
            Ok((std::fs::read_to_string(&log)? == "up\n").then_some(()))
        })
        .unwrap();
        leash.signal("TERM").unwrap();
        assert_eq!(leash.wait(Duration::from_secs(60)).unwrap(), 3);
        let mut leash = start("sleep 600", &log);
        leash.signal("KILL").unwrap();
        assert_eq!(leash.wait(Duration::from_secs(60)).unwrap(), 137);
    }

    #[test]
    fn letting_go_kills_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let leash = start("sleep 601 & echo $!; wait", &log);
        let grandchild: u32 = poll::until("the grandchild", Duration::from_secs(60), || {
            Ok(std::fs::read_to_string(&log)?.trim().parse().ok())
        })
        .unwrap();
        let pid = leash.pid();
        assert!(alive(pid) && alive(grandchild));
        drop(leash);
        poll::until("both to go", Duration::from_secs(60), || {
            Ok((!alive(pid) && !alive(grandchild)).then_some(()))
        })
        .unwrap();
    }
}
