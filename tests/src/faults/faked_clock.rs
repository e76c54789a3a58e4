//! A clock on the wall that is not the machine's, for one daemon (libfaketime). Other clocks stay
//! as they are, as when an operator sets the time.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The file that says how far the clock is off.
pub(super) struct FakedClock(PathBuf);

impl FakedClock {
    /// A clock that is right for now, with its file in a folder.
    pub(super) fn within(folder: &Path) -> Result<Self> {
        let clock = Self(folder.join("clock"));
        clock.set("+0s")?;
        Ok(clock)
    }

    /// The program, and its arguments, that start a daemon under this clock.
    pub(super) fn wrapper(&self) -> Result<Vec<String>> {
        Ok(vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library()?.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ])
    }

    /// Sets it off by so much, such as `-3600s`. The daemon is shown that within a second.
    pub(super) fn set(&self, shift: &str) -> Result<()> {
        // The library ends a program that reads half of the file.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{shift}\n")).context("setting the faked clock")?;
        fs::rename(new, &self.0).context("setting the faked clock")
    }
}

/// The library that gives a program another clock.
fn library() -> Result<PathBuf> {
    let triplets = fs::read_dir("/usr/lib")?.flatten();
    let libraries = triplets.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|path| path.exists()).context("there is no libfaketimeMT.so.1")
}
