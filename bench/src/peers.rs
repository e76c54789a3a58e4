//! Programs that people use instead, installed from PyPI into folders of this run's build
//! and run on the same machine and the same broker. `hq`, HyperQueue's command
//! line, is not on PyPI: it is used where it is installed.
//!
//! Touches: the network once, Python environments, and processes.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::machine;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A peer, and the script that drives it.
pub(crate) struct Peer {
    /// The package to install; the figures are of this version.
    package: &'static str,
    /// Its environment: what it depends on may not suit the others.
    environment: &'static str,
    script: &'static str,
    text: &'static str,
}

/// Celery.
pub(crate) const CELERY: Peer = Peer {
    package: "celery==5.7.0",
    environment: "celery",
    script: "celery_peer.py",
    text: include_str!("../peers/celery_peer.py"),
};
/// HyperQueue by its Python API and, if that is installed, by its command line.
pub(crate) const HYPERQUEUE: Peer = Peer {
    package: "hyperqueue==0.27.0",
    environment: "hyperqueue",
    script: "hyperqueue_peer.py",
    text: include_str!("../peers/hyperqueue_peer.py"),
};
/// The endpoint of Globus Compute.
pub(crate) const GLOBUS_COMPUTE: Peer = Peer {
    package: "globus-compute-endpoint==4.19.0",
    environment: "globus-compute",
    script: "globus_compute_peer.py",
    text: include_str!("../peers/globus_compute_peer.py"),
};
const ALL: [&Peer; 3] = [&CELERY, &HYPERQUEUE, &GLOBUS_COMPUTE];

/// The peers, installed.
pub(crate) struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Installs them, unless they are there.
    pub(crate) fn install() -> Result<Self> {
        let here = std::env::current_exe()?;
        let folder = here.parent().context("this program is nowhere")?.join("peers");
        for peer in ALL {
            peer.install(&folder.join(peer.environment))?;
        }
        Ok(Self { folder })
    }

    /// Runs a peer's script, and reads the last line it prints.
    pub(crate) fn run<T: DeserializeOwned>(&self, peer: &Peer, arguments: &[&str]) -> Result<T> {
        let (script, folder) = (peer.script, self.folder.join(peer.environment));
        let output = Command::new(python(&folder))
            .arg(script)
            .args(arguments)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("starting {script}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script}: {}\n{errors}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().with_context(|| format!("{script} printed nothing"))?;
        serde_json::from_str(last).with_context(|| format!("{script} printed: {last}"))
    }
}

impl Peer {
    fn install(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(self.script), self.text)?;
        let python = python(folder);
        if !python.is_file() {
            succeed(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        }
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(python).args(install).arg(self.package))
    }
}

/// The names and versions of all.
pub(crate) fn versions() -> Vec<String> {
    let mut versions = ALL.map(|peer| peer.package.replace("==", " ")).to_vec();
    let told = hq().and_then(|hq| Command::new(hq).arg("--version").output().ok());
    versions.extend(told.map(|told| String::from_utf8_lossy(&told.stdout).trim().to_owned()));
    versions
}

/// HyperQueue's command line, if it is installed.
pub(crate) fn hq() -> Option<PathBuf> {
    machine::find("hq")
}

fn python(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
