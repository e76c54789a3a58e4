//! Ways out of a task, each a process that did everything to be no part of it any more:
//! a program that tries them, and the processes that are left of it. Reads `/proc`.

use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// The program, in Python.
const PROGRAM: &str = include_str!("escapes/escape.py");

/// The escapes that it can try.
pub const WAYS: [&str; 13] = [
    "fork",
    "session",
    "group",
    "double",
    "shed",
    "exec",
    "deaf",
    "reaper",
    "reaper-dies",
    "vfork",
    "user",
    "chain",
    "bomb",
];

/// Writes the program into a folder and returns where it is.
pub fn program(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("escape.py");
    fs::write(&path, PROGRAM)?;
    Ok(path)
}

/// The processes of that program that are alive.
#[must_use]
pub fn alive(program: &Path) -> Vec<u32> {
    let name = program.as_os_str().as_encoded_bytes();
    // One that has ended has no command line.
    let runs = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == name)
    };
    processes().filter(runs).collect()
}

/// The children of a process that have ended and were not reaped.
#[must_use]
pub fn zombies(of: u32) -> usize {
    let is_one = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        rest.starts_with(&format!("Z {of} "))
    };
    processes().filter(is_one).count()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
