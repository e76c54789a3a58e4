//! Which RabbitMQ a private broker is, and how its programs are run: the one of
//! the system, or another in a small Debian of its own, in a folder, where it
//! sees nothing but that folder and `/proc`.

use crate::leash::Leash;
use crate::machine;
use anyhow::{Context as _, Result, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Where the Debian with RabbitMQ 4.0 is, or is made.
pub const FOUR: &str = "CLUTCH_TEST_RABBITMQ_4";
const FOUR_DEFAULT: &str = "/var/cache/clutch/rabbitmq-4";
/// The Debian that has RabbitMQ 4.0.
const SUITE: &str = "trixie";
/// Where the server's own scripts are. Debian's wrappers in `/usr/sbin` would
/// switch to the system's user and its folders.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// Runs `chroot $@` where no other process sees what is mounted.
const ENTER: &str = r#"mount --bind /proc "$1/proc" && exec chroot "$@""#;

/// Which RabbitMQ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Release {
    /// The release that the system has, or installs: 3.10 on Debian 12.
    #[default]
    System,
    /// 4.0, as Debian 13 has it.
    Four,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::System => "3.10",
            Self::Four => "4.0",
        })
    }
}

impl Release {
    /// Whether one can be started here, if need be after installing it.
    #[must_use]
    pub fn available(self) -> bool {
        let server = Path::new(SCRIPTS).join("rabbitmq-server");
        match self {
            Self::System => server.exists() || machine::can_install(),
            // Entering another root is root's right.
            Self::Four => machine::is_root() && (has_server(&four()) || machine::can_install()),
        }
    }

    /// Its programs, installed if they are missing.
    pub(super) fn home(self) -> Result<Home> {
        match self {
            Self::System => {
                if !has_server(Path::new("/")) {
                    machine::install(&["rabbitmq-server"])?;
                }
                Ok(Home { root: None })
            }
            Self::Four => {
                let root = four();
                if !has_server(&root) {
                    bootstrap(&root)?;
                }
                Ok(Home { root: Some(root) })
            }
        }
    }
}

fn four() -> PathBuf {
    std::env::var_os(FOUR).map_or_else(|| FOUR_DEFAULT.into(), PathBuf::from)
}

fn has_server(root: &Path) -> bool {
    root.join(SCRIPTS.trim_start_matches('/')).join("rabbitmq-server").exists()
}

/// Makes a Debian with a RabbitMQ in it; it is there as a whole or not at all.
fn bootstrap(root: &Path) -> Result<()> {
    if machine::find("debootstrap").is_none() {
        machine::install(&["debootstrap"])?;
    }
    let parent = root.parent().context("the folder for RabbitMQ 4.0 has no parent")?;
    std::fs::create_dir_all(parent)?;
    let fresh = tempfile::Builder::new().prefix("debian-").tempdir_in(parent)?;
    let status = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=rabbitmq-server", SUITE])
        .arg(fresh.path())
        .stdout(std::process::Stdio::null())
        .status()
        .context("running debootstrap")?;
    ensure!(status.success(), "debootstrap {SUITE} failed: {status}");
    let hosts = fresh.path().join("etc/hosts");
    if !hosts.exists() {
        std::fs::write(&hosts, "127.0.0.1 localhost\n")?;
    }
    std::fs::rename(fresh.keep(), root)
        .with_context(|| format!("moving the new Debian to {}", root.display()))
}

/// The programs of one RabbitMQ and the root that they see.
#[derive(Clone, Debug)]
pub(super) struct Home {
    root: Option<PathBuf>,
}

impl Home {
    /// A folder that its programs can use.
    pub(super) fn folder(&self) -> Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("clutch-broker-");
        let made = match &self.root {
            None => builder.tempdir(),
            Some(root) => builder.tempdir_in(root.join("tmp")),
        };
        made.context("making a folder for the broker")
    }

    /// The path by which its programs know a file.
    pub(super) fn inside(&self, path: &Path) -> PathBuf {
        let below = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        below.map_or_else(|| path.to_owned(), |below| Path::new("/").join(below))
    }

    /// Starts one of its programs.
    pub(super) fn start(
        &self,
        program: &str,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Leash> {
        let (program, words) = self.words(program, arguments)?;
        Leash::start(&program, &words, environment, log)
    }

    /// Runs one of its programs to its end.
    pub(super) fn run(
        &self,
        program: &str,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<()> {
        let (path, words) = self.words(program, arguments)?;
        let variables = environment.iter().map(|(name, value)| (name, value));
        let output = Command::new(path).args(words).envs(variables).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?} failed: {said}");
        Ok(())
    }

    fn words(&self, program: &str, arguments: &[String]) -> Result<(PathBuf, Vec<String>)> {
        let script = Path::new(SCRIPTS).join(program);
        let root = self.root.as_deref();
        let at_home = root.unwrap_or(Path::new("/")).join(script.strip_prefix("/")?);
        let program = match (at_home.exists(), root) {
            (true, _) => script,
            // Erlang's own.
            (false, None) => machine::find(program)
                .with_context(|| format!("{program} is missing, it comes with Erlang"))?,
            (false, Some(_)) => Path::new("/usr/bin").join(program),
        };
        let Some(root) = root else { return Ok((program, arguments.to_vec())) };
        let mut words = ["--mount", "sh", "-c", ENTER, "enter"].map(str::to_owned).to_vec();
        words.push(root.display().to_string());
        words.push(program.display().to_string());
        words.extend(arguments.iter().cloned());
        Ok(("/usr/bin/unshare".into(), words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_another_name_inside_of_a_root_of_its_own() {
        let path = Path::new("/a/b/tmp/x");
        let home = |root: Option<&str>| Home { root: root.map(PathBuf::from) };
        assert_eq!(home(None).inside(path), path);
        assert_eq!(home(Some("/a/b")).inside(path), Path::new("/tmp/x"));
    }
}
