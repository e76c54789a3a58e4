//! A control group that limits how many processes there can be.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// Where groups that count processes are, in the first version and in the second.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

/// A control group; what is in it when this is dropped goes back to the root.
#[derive(Debug)]
pub struct Pids {
    folder: PathBuf,
    root: PathBuf,
}

impl Pids {
    /// Makes one that limits nothing yet.
    pub fn make() -> Result<Self> {
        let name = format!("clutch-test-{}", uuid::Uuid::now_v7());
        for root in ROOTS.map(PathBuf::from) {
            let made = Self { folder: root.join(&name), root };
            // One that is none is removed with the value.
            if fs::create_dir(&made.folder).is_ok() && made.folder.join("pids.max").exists() {
                return Ok(made);
            }
        }
        anyhow::bail!("no control group that counts processes can be made")
    }

    /// Puts a process into it, with all that it starts from then on.
    pub fn put(&self, process: u32) -> Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Lets there be no more processes and threads than there are.
    pub fn close(&self) -> Result<()> {
        self.write("pids.max", "1")
    }

    /// Lets there be any number of them.
    pub fn open(&self) -> Result<()> {
        self.write("pids.max", "max")
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.folder.join(file), value).with_context(|| format!("writing {file}"))
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for process in left.lines() {
            // It may have ended.
            drop(fs::write(self.root.join("cgroup.procs"), process));
        }
        drop(fs::remove_dir(&self.folder));
    }
}
