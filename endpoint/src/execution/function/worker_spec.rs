//! How the workers of a function are started. Touches the folders of workers and of the
//! Python module that the endpoint owns: makes them again where they were removed.

use super::python::{self, Module};
use crate::execution::os::spawn_error::{self, SpawnError};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// How much of a command is shown, in characters.
const SHOWN: usize = 200;

/// How the workers of a function are started.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    /// The function.
    pub(crate) function: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Variables over the endpoint's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The Python module that they can import.
    pub(crate) module: Module,
    /// The folder they run in.
    pub(crate) cwd: PathBuf,
    /// The folders that are made again before one starts.
    pub(crate) owned: OwnedFolders,
    /// How long one may take to be ready.
    pub(crate) startup_timeout: Duration,
    /// The time between `SIGTERM` and `SIGKILL`.
    pub(crate) grace: Duration,
    /// How many bytes of a worker's standard error are kept for each call.
    pub(crate) capture_limit: usize,
}

/// The folders of workers that the endpoint keeps in its state folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedFolders {
    /// Whether the folder that they run in is one of them.
    pub(crate) cwd: bool,
    /// The folder of the Python module.
    pub(crate) python: Option<PathBuf>,
}

impl WorkerSpec {
    /// Makes folders that were removed again.
    pub(super) fn restore_folders(&self) -> Result<(), SpawnError> {
        let OwnedFolders { cwd, python } = &self.owned;
        if *cwd && !self.cwd.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.cwd)
                .map_err(|error| spawn_error::no_folder(&self.cwd, &error))?;
        }
        match python {
            Some(folder) => {
                python::install(folder).map_err(|error| spawn_error::no_folder(folder, &error))
            }
            None => Ok(()),
        }
    }

    /// The subject of the troubles with its workers.
    pub(super) fn trouble(&self) -> String {
        format!("function {}", self.function)
    }

    /// Names the worker in messages.
    pub(super) fn named(&self) -> String {
        let line = self.command.join(" ");
        let line = match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        };
        format!("the worker of '{}' ({line})", self.function)
    }
}
