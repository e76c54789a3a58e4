//! A small file system of its own, in memory, that can be filled.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system; it is gone when this is dropped.
#[derive(Debug)]
pub struct Tmpfs {
    folder: PathBuf,
}

impl Tmpfs {
    /// Mounts one of so many KiB over a folder.
    pub fn over(folder: &Path, kilobytes: u32) -> Result<Self> {
        Self::mount(folder, &format!("size={kilobytes}k,mode=700"))
    }

    /// Mounts one of so many KiB and for so many files over a folder.
    pub fn of_files(folder: &Path, kilobytes: u32, files: u32) -> Result<Self> {
        Self::mount(folder, &format!("size={kilobytes}k,nr_inodes={files},mode=700"))
    }

    fn mount(folder: &Path, size: &str) -> Result<Self> {
        let mount = ["-t", "tmpfs", "-o", size, "none"];
        let output = Command::new("mount").args(mount).arg(folder).output().context("mounting")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mounting a tmpfs is not permitted: {words}");
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes all the room there is, to the last byte.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        for size in [4096, 1] {
            loop {
                match filler.write_all(&vec![b'x'; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling the file system"),
                }
            }
        }
        Ok(())
    }

    /// Gives back what [`Tmpfs::fill`] took.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("freeing the file system")
    }

    /// Makes files until there can be no more.
    pub fn take_files(&self) -> Result<()> {
        let folder = self.folder.join(".files");
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).context("making room for files");
            }
            _ => {}
        }
        for number in std::fs::read_dir(&folder)?.count().. {
            match File::create_new(folder.join(number.to_string())) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("taking all inodes"),
            }
        }
        Ok(())
    }

    /// Gives back what [`Tmpfs::take_files`] took.
    pub fn free_files(&self) -> Result<()> {
        std::fs::remove_dir_all(self.folder.join(".files")).context("freeing the inodes")
    }

    fn filler(&self) -> PathBuf {
        self.folder.join(".filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A process that still has a file open there keeps it, and no other sees it.
        let mut unmount = Command::new("umount");
        drop(unmount.arg("--lazy").arg(&self.folder).stderr(Stdio::null()).status());
    }
}
