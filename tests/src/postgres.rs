//! A PostgreSQL of our own: a new cluster in a temporary folder, reachable through a Unix
//! socket in it only, gone with this value.
//!
//! PostgreSQL refuses to run as root; started by root, it runs as the user that Debian's
//! package makes for it.

use crate::leash::Leash;
use crate::{machine, poll};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The folder below which Debian keeps the programs of each release.
const RELEASES: &str = "/usr/lib/postgresql";
/// The user that PostgreSQL runs as when root starts it.
const USER: &str = "postgres";
/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    server: Leash,
    folder: TempDir,
}

impl Postgres {
    /// Whether one can be started, if need be after installing it.
    #[must_use]
    pub fn available() -> bool {
        programs().is_some() || machine::can_install()
    }

    /// Makes a cluster, starts it, and waits until it answers.
    ///
    /// # Errors
    /// When the server cannot be installed or does not come up.
    pub fn start() -> Result<Self> {
        if programs().is_none() {
            machine::install(&["postgresql"])?;
        }
        let programs = programs().context("PostgreSQL is installed, and its programs are not")?;
        let folder = tempfile::Builder::new().prefix("clutch-postgres-").tempdir()?;
        if machine::is_root() {
            run(Command::new("chown").arg(USER).arg(folder.path()))?;
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let make = ["-D", &at("data"), "-U", "clutch", "--auth=trust", "--no-sync"];
        let (program, arguments) =
            unprivileged(&programs.join("initdb"), &[&make[..], &["-E", "UTF8"]].concat());
        run(Command::new(program).args(arguments).current_dir(folder.path()))?;
        let sockets = format!("unix_socket_directories={}", folder.path().display());
        let settings = ["-D", &at("data"), "-c", &sockets, "-c", "listen_addresses="];
        let (program, arguments) = unprivileged(
            &programs.join("postgres"),
            &[&settings[..], &["-c", "fsync=off"]].concat(),
        );
        let log = folder.path().join("log");
        let mut server = Leash::start(&program, &arguments, &[], &log)?;
        poll::until("PostgreSQL to start", PATIENCE, || {
            if let Some(code) = server.exited()? {
                bail!("PostgreSQL ended with code {code}: {}", std::fs::read_to_string(&log)?);
            }
            let mut asked = Command::new(programs.join("pg_isready"));
            let answer = asked.arg("-q").arg("-h").arg(folder.path()).status()?;
            Ok(answer.success().then_some(()))
        })?;
        Ok(Self { server, folder })
    }

    /// How a client connects, as `name=value` pairs.
    #[must_use]
    pub fn settings(&self) -> String {
        format!("host={} user=clutch dbname=postgres", self.folder.path().display())
    }
}

impl Drop for Postgres {
    /// Stops the server in order: its processes are in groups of their own, and would
    /// outlive the leash for a moment.
    fn drop(&mut self) {
        if self.server.signal("INT").is_ok() {
            drop(self.server.wait(PATIENCE));
        }
    }
}

/// The folder of the newest release's programs, or of those in `PATH`.
fn programs() -> Option<PathBuf> {
    let release = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let found = std::fs::read_dir(RELEASES).into_iter().flatten().flatten();
    let newest = found.map(|entry| entry.path()).max_by_key(release);
    let debian = newest.map(|folder| folder.join("bin"));
    debian
        .filter(|folder| folder.join("initdb").is_file())
        .or_else(|| Some(machine::find("initdb")?.parent()?.to_owned()))
}

/// The command that runs a program as an unprivileged user.
fn unprivileged(program: &Path, arguments: &[&str]) -> (PathBuf, Vec<String>) {
    let arguments = arguments.iter().map(|word| (*word).to_owned());
    if !machine::is_root() {
        return (program.to_owned(), arguments.collect());
    }
    let become_user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let rest = ["--clear-groups".to_owned(), program.display().to_string()];
    ("setpriv".into(), become_user.into_iter().chain(rest).chain(arguments).collect())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_answers_and_is_gone_with_its_folder() {
        if !Postgres::available() {
            return skip::because("postgres", "there is no PostgreSQL, and none can be installed");
        }
        let postgres = Postgres::start().unwrap();
        let folder = postgres.folder.path().to_owned();
        assert!(postgres.settings().contains(&folder.display().to_string()));
        UnixStream::connect(folder.join(".s.PGSQL.5432")).unwrap();
        drop(postgres);
        assert!(!folder.exists());
    }
}
