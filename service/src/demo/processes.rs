//! The processes of the demonstration: the two daemons, `sha256sum`, and a guard that ends the
//! daemons if the demonstration itself is killed. The only file of the service that starts
//! processes.

use super::log_follower::LogFollower;
use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at a process or its log.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How long a daemon may take to say something, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many files one `sha256sum` gets.
const FILES_AT_ONCE: usize = 200;
/// The endpoint's program, and its package.
const ENDPOINT: &str = "clutch-endpoint";

/// Reads orders from a pipe. When the demonstration dies, the pipe ends: then the guard kills
/// the processes and removes the folder.
const GUARD: &str = r#"
pids=
while read -r order rest; do
    case $order in
        hold) pids=$rest ;;
        leave) exit ;;
    esac
done
for pid in $pids; do kill -s KILL "$pid"; done
rm -rf -- "$1"
"#;

/// A daemon that runs, and its log. Killed when dropped, unless left.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    log: LogFollower,
    left: bool,
}

impl Daemon {
    /// Starts a program in a process group of its own, out of reach of the
    /// terminal's interrupt. It sees none of the caller's `CLUTCH_…` variables.
    pub(super) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let doing = || format!("starting {}", program.display());
        let file = File::options().create(true).append(true).open(log).with_context(doing)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CLUTCH_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).envs(environment.iter().copied()).process_group(0);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let log = LogFollower::from_now(log)?;
        Ok(Self { child: command.spawn().with_context(doing)?, log, left: false })
    }

    /// The process id.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits up to a minute for the next line of its log with this message.
    ///
    /// # Errors
    /// When it ends before that, or the minute is over.
    pub(super) async fn says(&mut self, message: &str) -> anyhow::Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait()?;
            if let Some(line) = self.log.next(message)? {
                return Ok(line);
            }
            self.fail_if(ended)?;
            ensure!(
                Instant::now() < until,
                "process {} did not say '{message}' within {PATIENCE:?}; its log is {}",
                self.pid(),
                self.log.path().display()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The last warning or error in its log, if there is one.
    #[must_use]
    pub(super) fn trouble(&self) -> Option<String> {
        self.log.trouble()
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// When it has ended, with the last line of its log.
    pub(super) fn runs(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        self.fail_if(ended)
    }

    fn fail_if(&self, ended: Option<ExitStatus>) -> anyhow::Result<()> {
        let Some(status) = ended else { return Ok(()) };
        let (pid, log) = (self.pid(), self.log.path().display());
        anyhow::bail!("process {pid} ended early ({status}); the end of {log}: {}", self.log.end())
    }

    /// `kill -9`, and waits until it is gone.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.runs()?;
        self.child.kill()?;
        let status = self.child.wait()?;
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        ensure!(killed, "process {} was to be killed, and ended with {status}", self.pid());
        Ok(())
    }

    /// Sends TERM and waits for the exit code: `128 + n` for signal `n`.
    ///
    /// # Errors
    /// When it was gone before, or has not stopped within a minute.
    pub(super) async fn stop(&mut self) -> anyhow::Result<i32> {
        self.runs()?;
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let signal = || 128 + status.signal().unwrap_or_default();
                return Ok(status.code().unwrap_or_else(signal));
            }
            ensure!(
                Instant::now() < until,
                "process {} did not stop within {PATIENCE:?} of TERM; its log is {}",
                self.pid(),
                self.log.path().display()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets it outlive the demonstration.
    pub(super) fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.left {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Ends the daemons and removes the folder if the demonstration is killed.
#[derive(Debug)]
pub(super) struct CleanupGuard(Child);

impl CleanupGuard {
    /// A guard over a folder.
    pub(super) fn over(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("starting sh")?))
    }

    /// Holds these daemons from here on, and no others.
    pub(super) fn hold(&mut self, daemons: &[&Daemon]) -> anyhow::Result<()> {
        let pids: Vec<String> = daemons.iter().map(|daemon| daemon.pid().to_string()).collect();
        self.order(&format!("hold {}\n", pids.join(" "))).context("the guard is gone")
    }

    fn order(&mut self, order: &str) -> std::io::Result<()> {
        self.0.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(order.as_bytes()))
    }
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        drop(self.order("leave\n"));
        drop(self.0.wait());
    }
}

/// This program, for starting it again.
pub(super) fn service_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

/// The endpoint's program, beside this one. `cargo run` builds only the program
/// it runs; where it started this one, the endpoint is built too, and `building`
/// is called before a build that takes a while.
pub(super) fn endpoint_program(building: impl FnOnce()) -> anyhow::Result<PathBuf> {
    let own = service_program()?;
    let program = own.with_file_name(ENDPOINT);
    let run_by_cargo = std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == PACKAGE);
    if let (true, Some(cargo), Some(manifest)) =
        (run_by_cargo, std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    {
        let there = program.is_file();
        if !there {
            building();
        }
        build(cargo, Path::new(&manifest), &own, there)?;
    }
    ensure!(
        program.is_file(),
        "there is no {}: the demonstration needs {ENDPOINT} beside {}; `cargo build --release` \
         builds both",
        program.display(),
        own.display()
    );
    Ok(program)
}

/// Where programs are looked for without a PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Looks for `sha256sum`, which every task runs.
pub(super) fn find_sha256sum() -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    ensure!(
        std::env::split_paths(&path).any(|folder| folder.join("sha256sum").is_file()),
        "there is no sha256sum in PATH, and every task runs it: install coreutils"
    );
    Ok(())
}

/// This program's package.
const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// Builds the endpoint into the folder that this program is in.
fn build(cargo: OsString, manifest: &Path, own: &Path, quietly: bool) -> anyhow::Result<()> {
    let folder = own.parent().unwrap_or(Path::new("."));
    let mut command = Command::new(cargo);
    command.args(["build", "--package", ENDPOINT, "--bin", ENDPOINT]);
    command.arg("--manifest-path").arg(manifest.join("Cargo.toml"));
    command.arg("--target-dir").arg(folder.parent().unwrap_or(folder));
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => (),
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    if quietly {
        command.arg("--quiet");
    }
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.context("running cargo to build the endpoint")?;
    ensure!(status.success(), "cargo could not build {ENDPOINT} ({status}): see its output above");
    Ok(())
}

/// The line that `sha256sum` prints for each of these files.
pub(super) fn sha256sum(files: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::with_capacity(files.len());
    for some in files.chunks(FILES_AT_ONCE) {
        let output = Command::new("sha256sum").arg("--").args(some).output();
        let output = output.context("running sha256sum directly")?;
        ensure!(
            output.status.success(),
            "sha256sum, run directly, failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        lines.extend(output.stdout.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    ensure!(lines.len() == files.len(), "sha256sum, run directly, printed {} lines", lines.len());
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> Daemon {
        let arguments = ["-c", script];
        Daemon::start(Path::new("/bin/sh"), &arguments, &[], &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_daemon_logs_and_stops_and_its_early_end_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let script =
            r#"trap 'exit 3' TERM; echo '{"message":"up","i":7}'; while :; do sleep 0.05; done"#;
        let mut daemon = shell(script, temp.path());
        assert_eq!(daemon.says("up").await.unwrap()["i"], 7);
        assert_eq!(daemon.stop().await.unwrap(), 3);
        let mut daemon = shell("echo broken; exit 4", temp.path());
        let words = daemon.says("up").await.unwrap_err().to_string();
        assert!(words.contains("ended early") && words.contains("broken"), "{words}");
        let mut daemon = shell("sleep 60", temp.path());
        daemon.kill().unwrap();
        assert!(daemon.kill().is_err());
    }

    #[tokio::test]
    async fn the_end_of_the_pipe_kills_the_daemons_and_removes_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let mut daemon = shell("sleep 60", temp.path());
        let mut guard = CleanupGuard::over(&folder).unwrap();
        guard.hold(&[&daemon]).unwrap();
        drop(guard.0.stdin.take());
        guard.0.wait().unwrap();
        assert_eq!(daemon.child.wait().unwrap().signal(), Some(9));
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_guard_that_is_dropped_does_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let mut daemon = shell("sleep 60", temp.path());
        let mut guard = CleanupGuard::over(temp.path()).unwrap();
        guard.hold(&[&daemon]).unwrap();
        drop(guard);
        daemon.runs().unwrap();
        assert!(temp.path().exists());
    }

    #[test]
    fn sums_are_lines_in_the_order_of_the_files() {
        let temp = tempfile::tempdir().unwrap();
        let files: Vec<String> = (0..FILES_AT_ONCE + 1)
            .map(|n| {
                let path = temp.path().join(n.to_string());
                std::fs::write(&path, n.to_string()).unwrap();
                path.display().to_string()
            })
            .collect();
        let lines = sha256sum(&files).unwrap();
        for (line, file) in lines.iter().zip(&files) {
            assert!(String::from_utf8_lossy(line).ends_with(&format!("  {file}\n")));
        }
        assert!(sha256sum(&[temp.path().join("none").display().to_string()]).is_err());
    }
}
