//! `[functions.NAME]`: the functions of an endpoint and the settings of their workers.
//! Pure, but for the making of the folders that they run in.

use super::duration::duration;
use crate::execution::function::pool::FunctionConfig;
use crate::execution::function::python::{self, Module};
use crate::execution::function::worker_spec::{OwnedFolders, WorkerSpec};
use clutch_common::task::topic::MAX_VERSION;
use clutch_common::task::{BUILT_IN, check_function};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[functions.NAME]`
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionSection {
    /// The worker's program and its arguments.
    pub(crate) command: Vec<String>,
    /// Variables set over the endpoint's own.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The folder to run in; one in the state folder if absent.
    pub(crate) cwd: Option<PathBuf>,
    /// Its version, which tasks of topics can ask for.
    pub(crate) version: Option<String>,
    /// How many workers at most; as many as there are slots if absent.
    pub(crate) concurrency: Option<usize>,
    /// After how many calls a worker is replaced; never if absent.
    pub(crate) recycle_after: Option<u64>,
    /// Above how many bytes of resident memory a worker is replaced after a call;
    /// never if absent.
    pub(crate) memory_limit: Option<u64>,
    /// How long a worker may take to write its hello.
    #[serde(default = "startup_timeout", deserialize_with = "duration")]
    pub(crate) startup_timeout: Duration,
}

fn startup_timeout() -> Duration {
    Duration::from_secs(30)
}

/// The settings that workers take from other sections.
#[derive(Clone, Debug)]
pub(crate) struct WorkerDefaults {
    /// How many tasks run at once.
    pub(crate) slots: usize,
    /// The time between `SIGTERM` and `SIGKILL`.
    pub(crate) grace: Duration,
    /// How many bytes of a worker's standard error are kept for each call.
    pub(crate) capture_limit: usize,
    /// The folder that workers have child_ends in.
    pub(crate) folders: PathBuf,
    /// The folder that the Python module is in.
    pub(crate) python: PathBuf,
}

impl FunctionSection {
    /// Checks what can be checked without starting a worker.
    ///
    /// # Errors
    /// A defaults is wrong: which and why, in words.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        let key = |what: &str| format!("functions.{name}.{what}");
        check_function(name).map_err(|invalid| format!("functions.{name}: {invalid}"))?;
        if name.starts_with(BUILT_IN) {
            return Err(format!(
                "functions.{name}: names that begin with '{BUILT_IN}' are those of built-in \
                 functions: choose another"
            ));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(format!(
                "{} is empty: name a program, such as [\"python3\", \"/path/to/worker.py\"]",
                key("command")
            ));
        }
        if self.cwd.as_ref().is_some_and(|cwd| !cwd.is_absolute()) {
            return Err(format!("{} is not an absolute path", key("cwd")));
        }
        if let Some(version) = &self.version
            && !(1..=MAX_VERSION).contains(&version.chars().count())
        {
            return Err(format!("{} is not 1 to {MAX_VERSION} characters long", key("version")));
        }
        let positive = [
            ("concurrency", self.concurrency.map(|value| value as u64)),
            ("recycle_after", self.recycle_after),
            ("memory_limit", self.memory_limit),
            ("startup_timeout", Some(u64::try_from(self.startup_timeout.as_millis()).unwrap_or(1))),
        ];
        match positive.iter().find(|(_, value)| *value == Some(0)) {
            Some((what, _)) => Err(format!("{} is 0: leave it out or make it more", key(what))),
            None => Ok(()),
        }
    }

    /// Builds the settings of the function for the executor.
    fn config(&self, name: &str, defaults: &WorkerDefaults, module: &Module) -> FunctionConfig {
        FunctionConfig {
            spec: WorkerSpec {
                function: name.to_owned(),
                command: self.command.clone(),
                env: self.env.clone(),
                module: module.clone(),
                cwd: self.cwd.clone().unwrap_or_else(|| defaults.folders.join(name)),
                owned: OwnedFolders {
                    cwd: self.cwd.is_none(),
                    python: Some(defaults.python.clone()),
                },
                startup_timeout: self.startup_timeout,
                grace: defaults.grace,
                capture_limit: defaults.capture_limit,
            },
            concurrency: self.concurrency.unwrap_or(defaults.slots),
            recycle_after: self.recycle_after,
            memory_limit: self.memory_limit,
        }
    }
}

/// Makes the folders that workers of these functions run in, and the Python module.
///
/// # Errors
/// A folder could not be made: which and why, in words.
pub(crate) fn prepare(
    functions: &BTreeMap<String, FunctionSection>,
    defaults: &WorkerDefaults,
) -> Result<Vec<FunctionConfig>, String> {
    if functions.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |path: &Path, error: std::io::Error| {
        format!("making {}, for workers: {error}", path.display())
    };
    python::install(&defaults.python).map_err(|error| failed(&defaults.python, error))?;
    let module =
        Module::within(&defaults.python).map_err(|error| failed(&defaults.python, error))?;
    let own = functions.iter().filter(|(_, function)| function.cwd.is_none());
    for folder in own.map(|(name, _)| defaults.folders.join(name)) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failed(&folder, error))?;
    }
    Ok(functions.iter().map(|(name, function)| function.config(name, defaults, &module)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(text: &str) -> Result<FunctionSection, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    const COMMAND: &str = "command = [\"python3\", \"/w.py\"]\n";

    #[test]
    fn a_command_is_enough() {
        let function = function(COMMAND).unwrap();
        function.check("add").unwrap();
        let defaults = WorkerDefaults {
            slots: 3,
            grace: Duration::from_secs(5),
            capture_limit: 7,
            folders: "/s/workers".into(),
            python: "/s/python".into(),
        };
        let module = Module::within(&defaults.python).unwrap();
        let config = function.config("add", &defaults, &module);
        assert_eq!(
            (config.concurrency, config.recycle_after, config.memory_limit),
            (3, None, None)
        );
        assert_eq!(config.spec.cwd, Path::new("/s/workers/add"));
        assert_eq!(config.spec.startup_timeout, Duration::from_secs(30));
        let path = config.spec.module.path(None);
        assert!(path.to_str().unwrap().starts_with("/s/python"));
    }

    #[test]
    fn every_mistake_is_named() {
        let error = |name: &str, extra: &str| {
            let text = if extra.starts_with("command") {
                extra.into()
            } else {
                format!("{COMMAND}{extra}")
            };
            function(&text).and_then(|function| function.check(name)).unwrap_err()
        };
        assert!(error("add", "command = []").contains("functions.add.command"));
        assert!(error("add", "comand = 1").contains("comand"));
        assert!(error("a b", "").contains("'a b'"));
        assert!(error("clutch.echo", "").contains("built-in"));
        assert!(error("add", "cwd = \"here\"").contains("functions.add.cwd"));
        assert!(error("add", "version = \"\"").contains("functions.add.version"));
        let long = format!("version = \"{}\"", "1".repeat(MAX_VERSION + 1));
        assert!(error("add", &long).contains("1 to 64 characters"));
        assert!(error("add", "concurrency = 0").contains("functions.add.concurrency"));
        assert!(error("add", "recycle_after = 0").contains("functions.add.recycle_after"));
        assert!(error("add", "memory_limit = 0").contains("functions.add.memory_limit"));
        assert!(error("add", "startup_timeout = \"0s\"").contains("functions.add.startup_timeout"));
        assert!(error("add", "startup_timeout = \"soon\"").contains("soon"));
    }
}
