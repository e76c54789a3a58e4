//! How workers of a function are made, and what is looked after before one starts.
//! Touches the folders of workers and of the Python module, where they are the
//! endpoint's.

use super::python::{self, Module};
use crate::execution::os::spawn_error::{self, SpawnError};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// How much of a command is shown, in characters.
const SHOWN: usize = 200;

/// How workers of a function are made.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    /// The function.
    pub(crate) function: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Variables over the endpoint's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Where they find the Python module.
    pub(crate) module: Module,
    /// The folder they run in.
    pub(crate) cwd: PathBuf,
    /// What is looked after before one starts.
    pub(crate) owned: OwnedFolders,
    /// How long one may take to be ready.
    pub(crate) startup_timeout: Duration,
    /// From TERM to KILL.
    pub(crate) grace: Duration,
    /// How many bytes of what it writes during a task are kept.
    pub(crate) capture_limit: usize,
}

/// What workers need that is the endpoint's to keep in its state folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedFolders {
    /// Whether the folder that they run in is the endpoint's.
    pub(crate) cwd: bool,
    /// The folder of the Python module.
    pub(crate) python: Option<PathBuf>,
}

impl WorkerSpec {
    /// Makes what was removed again.
    ///
    /// # Errors
    /// What the host lacks.
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

    /// The worker, as it is named in messages.
    pub(super) fn named(&self) -> String {
        let line = self.command.join(" ");
        let line = match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        };
        format!("the worker of '{}' ({line})", self.function)
    }
}
