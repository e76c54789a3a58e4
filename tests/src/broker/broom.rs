//! Removes a broker's folder however the test process ends: a broker that all tests of a
//! process share is in a `static`, which is never dropped.

use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of the pipe, then for the end of the process, then removes the folder.
const SHELL: &str = r#"
read -r _
while kill -0 "$2"; do sleep 0.1; done
rm -rf "$1"
"#;

/// A shell that waits for the end of this process.
#[derive(Debug)]
pub(super) struct Broom(Child);

impl Broom {
    /// Removes `folder` once this value or this process is gone, and process `pid` too.
    pub(super) fn for_folder(folder: &Path, pid: u32) -> Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", SHELL, "broom"])
            .arg(folder)
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .context("starting a shell to remove the broker's folder")
    }
}

impl Drop for Broom {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_once_its_owner_and_its_process_are_gone() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut process = Command::new("sleep").arg("600").spawn().unwrap();
        let broom = Broom::for_folder(&folder, process.id()).unwrap();
        assert!(folder.exists());
        process.kill().unwrap();
        process.wait().unwrap();
        drop(broom);
        assert!(!folder.exists());
    }
}
