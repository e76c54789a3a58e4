//! What people use instead, installed from PyPI into a folder of this run's build
//! and run on the same machine and the same broker.
//!
//! Touches: the network once, a Python environment, and processes.

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What is installed; the figures are of these versions.
pub(crate) const PACKAGES: [&str; 2] = ["celery==5.7.0", "hyperqueue==0.27.0"];
/// The scripts that drive them, by name.
const SCRIPTS: [(&str, &str); 2] = [
    ("celery_peer.py", include_str!("../peers/celery_peer.py")),
    ("hyperqueue_peer.py", include_str!("../peers/hyperqueue_peer.py")),
];

/// The peers, installed.
pub(crate) struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Installs them, unless they are there.
    ///
    /// # Errors
    /// When there is no Python, or PyPI does not give them.
    pub(crate) fn install() -> Result<Self> {
        let here = std::env::current_exe()?;
        let folder = here.parent().context("this program is nowhere")?.join("peers");
        let peers = Self { folder };
        std::fs::create_dir_all(&peers.folder)?;
        for (name, text) in SCRIPTS {
            std::fs::write(peers.folder.join(name), text)?;
        }
        if !peers.python().is_file() {
            succeed(Command::new("python3").args(["-m", "venv"]).arg(&peers.folder))?;
        }
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(peers.python()).args(install).args(PACKAGES))?;
        Ok(peers)
    }

    /// Runs a script, and reads the last line it prints.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn run<T: DeserializeOwned>(&self, script: &str, arguments: &[&str]) -> Result<T> {
        let output = Command::new(self.python())
            .arg(script)
            .args(arguments)
            .current_dir(&self.folder)
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

    fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
