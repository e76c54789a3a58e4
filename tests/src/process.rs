//! Runs the binaries: daemons on a leash, and commands with their output.

use crate::leash::Leash;
use crate::poll;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A running daemon and the reader of its log.
#[derive(Debug)]
pub struct Daemon {
    leash: Leash,
    log: PathBuf,
    seen: usize,
}

impl Daemon {
    /// Starts `program`; its log goes to a file of its own in `logs`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        logs: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(logs)?;
        let name = program.file_name().unwrap_or_default().display();
        let log = logs.join(format!("{name}-{}.log", uuid::Uuid::now_v7()));
        let leash = Leash::start(program, arguments, environment, &log)?;
        Ok(Self { leash, log, seen: 0 })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.leash.pid()
    }

    /// All that was printed so far.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).context("reading a daemon's log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for the next log line with this message, after the last one that
    /// was waited for, and returns the line.
    ///
    /// # Errors
    /// When it does not come in time or the daemon ends; the log's end is in
    /// the message.
    pub fn wait_for(&mut self, message: &str, within: Duration) -> Result<Value> {
        let what = format!("the log line '{message}'");
        let found = poll::until(&what, within, || self.next(message));
        found.with_context(|| format!("the log ends:\n{}", self.log_end()))
    }

    /// The next log line with this message, after the last one that was
    /// found, if it is there already.
    pub fn next(&mut self, message: &str) -> Result<Option<Value>> {
        let ended = self.leash.exited()?;
        let log = self.log()?;
        let found = log.lines().enumerate().skip(self.seen).find_map(|(index, line)| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == message).then_some((index, line))
        });
        match (found, ended) {
            (Some((index, line)), _) => {
                self.seen = index + 1;
                Ok(Some(line))
            }
            (None, Some(code)) => bail!("the daemon ended with code {code}"),
            (None, None) => Ok(None),
        }
    }

    /// Asks it to stop, and returns its exit code.
    ///
    /// # Errors
    /// When it has not stopped after `within`.
    pub fn stop(&mut self, within: Duration) -> Result<i32> {
        self.leash.signal("TERM")?;
        self.wait(within)
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// When it is still there after `within`; the log's end is in the message.
    pub fn wait(&mut self, within: Duration) -> Result<i32> {
        self.leash.wait(within).with_context(|| format!("the log ends:\n{}", self.log_end()))
    }

    /// Its exit code, if it has ended.
    pub fn exited(&mut self) -> Result<Option<i32>> {
        self.leash.exited()
    }

    /// Sends a signal, named as `kill` names it.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        self.leash.signal(name)
    }

    /// Ends it by `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.leash.kill()
    }

    /// Peak resident memory so far, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// How often its threads have waited for something and woke so far.
    pub fn wakes(&self) -> Result<u64> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        let threads = threads.context("the daemon is gone")?.flatten();
        // One that ended meanwhile has no status.
        let statuses =
            threads.filter_map(|it| std::fs::read_to_string(it.path().join("status")).ok());
        let wakes = statuses.filter_map(|status| {
            let line = status.lines().find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        });
        Ok(wakes.sum())
    }

    /// CPU time so far, in user and kernel mode.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .context("the daemon is gone")?;
        // The name before it may hold anything, a parenthesis as well.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: Vec<u64> =
            fields.skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        Ok(Duration::from_secs(ticks.iter().sum()) / rustix::param::clock_ticks_per_second() as u32)
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("the daemon is gone")?;
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB"))
            .with_context(|| format!("no {field} in the process's status"))?
            .trim()
            .parse()?;
        Ok(kilobytes * 1024)
    }

    fn log_end(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// The output of a command and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code: `128 + n` for signal `n`.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// Standard output as JSON values, one a line.
    pub fn json_lines(&self) -> Result<Vec<Value>> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    }

    /// Itself, if the exit code was 0.
    pub fn ok(self) -> Result<Self> {
        if self.code != 0 {
            bail!("exit code {}\nstdout: {}\nstderr: {}", self.code, self.text(), self.stderr);
        }
        Ok(self)
    }
}

/// Runs a command with `stdin` to its end.
///
/// # Errors
/// When it cannot be started, or has not ended after `within`; it is killed
/// then.
pub fn run(mut command: Command, stdin: &[u8], within: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut input = child.stdin.take().context("no stdin")?;
    let mut output = child.stdout.take().context("no stdout")?;
    let mut errors = child.stderr.take().context("no stderr")?;
    std::thread::scope(|scope| {
        // A command may end without reading all of its input.
        scope.spawn(move || drop(input.write_all(stdin)));
        let stdout = scope.spawn(move || {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).map(|_| bytes)
        });
        let stderr = scope.spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).map(|_| bytes)
        });
        let ended = poll::until("the command to end", within, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let stdout = stdout.join().map_err(|_| anyhow::anyhow!("reading stdout"))??;
        let stderr = stderr.join().map_err(|_| anyhow::anyhow!("reading stderr"))??;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let status = ended.with_context(|| format!("{command:?}\n{stderr}"))?;
        use std::os::unix::process::ExitStatusExt as _;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(Output { code, stdout, stderr })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_gets_its_input_and_gives_its_output_and_code() {
        let output =
            run(sh("cat; echo oh >&2; exit 3"), b"hello", Duration::from_secs(60)).unwrap();
        assert_eq!((output.code, output.text().as_str()), (3, "hello"));
        assert_eq!(output.stderr, "oh\n");
        assert!(output.ok().is_err());
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = run(sh("exec sleep 60"), b"", Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("in vain"), "{error:#}");
    }

    #[test]
    fn log_lines_are_found_once_each_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            r#"for i in 1 2; do echo '{"message":"up","i":'$i'}'; echo noise; done; sleep 600"#;
        let mut daemon = Daemon::start(
            Path::new("/bin/sh"),
            &["-c".to_owned(), script.to_owned()],
            &[],
            folder.path(),
        )
        .unwrap();
        let within = Duration::from_secs(60);
        assert_eq!(daemon.wait_for("up", within).unwrap()["i"], 1);
        assert_eq!(daemon.wait_for("up", within).unwrap()["i"], 2);
        let error = daemon.wait_for("up", Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("noise"));
        assert!(daemon.memory().unwrap() <= daemon.peak_memory().unwrap());
        daemon.kill().unwrap();
        assert!(daemon.memory().is_err());
    }
}
