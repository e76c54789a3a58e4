//! A file system of its own in a file, ext4 on a loop device, that can fail as
//! a bad disk makes it fail: it turns read-only, and wants to be checked.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; it is gone when this is dropped.
#[derive(Debug)]
pub struct Image {
    folder: PathBuf,
    file: PathBuf,
}

impl Image {
    /// Makes one of so many MiB in a file, and mounts it over a folder.
    pub fn over(folder: &Path, file: &Path, megabytes: u64) -> Result<Self> {
        std::fs::File::create(file)?.set_len(megabytes << 20)?;
        run("mkfs.ext4", &["-q", "-F", &file.display().to_string()])?;
        let image = Self { folder: folder.to_owned(), file: file.to_owned() };
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<()> {
        let (file, folder) = (self.file.display().to_string(), self.folder.display().to_string());
        run("mount", &["-t", "ext4", "-o", "loop,errors=remount-ro", &file, &folder])
    }

    /// Makes the file system find an error in itself, and turn read-only.
    pub fn fail(&mut self) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let folder = self.folder.display().to_string();
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let device = words.next()?;
            (words.next()? == folder).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.context("the file system is not mounted")?;
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(&trigger, "1").with_context(|| format!("writing to {trigger}"))?;
        let probe = std::fs::write(self.folder.join(".probe"), "");
        ensure!(probe.is_err(), "the file system did not turn read-only");
        Ok(())
    }

    /// Checks and mends the file system, and mounts it again. No process may use it.
    pub fn mend(&mut self) -> Result<()> {
        run("umount", &[&self.folder.display().to_string()])?;
        // 1 says that errors were found and corrected.
        let mut check = Command::new("e2fsck");
        let status = check.args(["-f", "-y"]).arg(&self.file).output()?.status;
        ensure!(matches!(status.code(), Some(0 | 1)), "e2fsck failed: {status}");
        self.mount()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A process that still has a file open there keeps it, and no other sees it.
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).output());
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("running {program}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} failed: {words}");
    Ok(())
}
