//! A task as it is submitted, and the rules that make one acceptable. Pure.

use crate::blob::Blob;
use crate::id::{Attempt, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// One task as it travels and as it is kept on disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The task's id; chosen by whoever submits it.
    pub id: TaskId,
    /// Which attempt at the task this is; counts from 1.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What to do.
    pub work: Work,
    /// How long the work may take, in milliseconds, from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walltime_ms: Option<u64>,
    /// When the task is no longer worth starting, in milliseconds since the
    /// Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Whether the task may run again after a crash of the endpoint. If not,
    /// it ends as `interrupted` instead.
    #[serde(default = "may_rerun", skip_serializing_if = "is_true")]
    pub rerun: bool,
}

/// What a task does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Run an external process.
    Process(Process),
}

/// An external process to run, without a shell.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. The program is looked up in `PATH`.
    pub argv: Vec<String>,
    /// Environment variables set on top of the endpoint's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// An absolute folder to run in; a sandbox of the task's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What the process reads from its standard input.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub stdin: Blob,
}

fn first_attempt() -> u32 {
    1
}

fn may_rerun() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(value: &bool) -> bool {
    *value
}

/// Why a task cannot be run as it stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// There is no program to run.
    #[error("argv is empty: name a program to run")]
    EmptyArgv,
    /// A string holds a NUL byte, which no process can be given.
    #[error("{what} contains a NUL byte, which cannot be passed to a process")]
    Nul {
        /// Where it was found.
        what: String,
    },
    /// An environment variable's name is empty or holds `=`.
    #[error("'{name}' cannot be the name of an environment variable")]
    EnvName {
        /// The name.
        name: String,
    },
    /// The working folder is relative.
    #[error("the working folder '{cwd}' is not an absolute path")]
    RelativeCwd {
        /// The folder.
        cwd: String,
    },
    /// The walltime is zero.
    #[error("a walltime of 0 leaves no time to run: leave it out or make it longer")]
    ZeroWalltime,
    /// Attempts count from 1.
    #[error("attempt 0 does not exist: attempts count from 1")]
    ZeroAttempt,
}

impl Task {
    /// A task with default terms: first attempt, no walltime, may rerun.
    #[must_use]
    pub fn new(id: TaskId, process: Process) -> Self {
        Self {
            id,
            attempt: 1,
            name: None,
            work: Work::Process(process),
            walltime_ms: None,
            expires_at_ms: None,
            rerun: true,
        }
    }

    /// The attempt this is.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt { task_id: self.id, attempt: self.attempt }
    }

    /// The walltime as a duration.
    #[must_use]
    pub fn walltime(&self) -> Option<Duration> {
        self.walltime_ms.map(Duration::from_millis)
    }

    /// Whether the task is past its expiry at `now_ms`.
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Checks that the task can be run at all.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.attempt == 0 {
            return Err(Invalid::ZeroAttempt);
        }
        if self.walltime_ms == Some(0) {
            return Err(Invalid::ZeroWalltime);
        }
        let Work::Process(process) = &self.work;
        process.validate()
    }
}

impl Process {
    fn validate(&self) -> Result<(), Invalid> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Invalid::EmptyArgv);
        }
        for (index, argument) in self.argv.iter().enumerate() {
            no_nul(argument, || format!("argv[{index}]"))?;
        }
        for (name, value) in &self.env {
            no_nul(name, || "the name of an environment variable".to_owned())?;
            no_nul(value, || format!("the environment variable '{name}'"))?;
            if name.is_empty() || name.contains('=') {
                return Err(Invalid::EnvName { name: name.clone() });
            }
        }
        if let Some(cwd) = &self.cwd {
            no_nul(cwd, || "the working folder".to_owned())?;
            if !cwd.starts_with('/') {
                return Err(Invalid::RelativeCwd { cwd: cwd.clone() });
            }
        }
        Ok(())
    }
}

fn no_nul(text: &str, what: impl FnOnce() -> String) -> Result<(), Invalid> {
    if text.contains('\0') { Err(Invalid::Nul { what: what() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(edit: impl FnOnce(&mut Task, &mut Process)) -> Task {
        let mut process = Process { argv: vec!["true".into()], ..Process::default() };
        let mut task = Task::new(TaskId::new(), Process::default());
        edit(&mut task, &mut process);
        task.work = Work::Process(process);
        task
    }

    #[test]
    fn every_rule_has_its_own_words() {
        let nul = |what: &str| Err(Invalid::Nul { what: what.into() });
        let env = |key: &str, value: &str| {
            task(|_, p| drop(p.env.insert(key.to_owned(), value.to_owned()))).validate()
        };
        assert_eq!(task(|_, _| ()).validate(), Ok(()));
        assert_eq!(task(|_, p| p.argv.clear()).validate(), Err(Invalid::EmptyArgv));
        assert_eq!(task(|_, p| p.argv = vec![String::new()]).validate(), Err(Invalid::EmptyArgv));
        assert_eq!(task(|_, p| p.argv.push("a\0b".into())).validate(), nul("argv[1]"));
        assert_eq!(env("A", "\0"), nul("the environment variable 'A'"));
        assert_eq!(env("A=B", ""), Err(Invalid::EnvName { name: "A=B".into() }));
        assert_eq!(env("", ""), Err(Invalid::EnvName { name: String::new() }));
        assert_eq!(
            task(|_, p| p.cwd = Some("tmp".into())).validate(),
            Err(Invalid::RelativeCwd { cwd: "tmp".into() })
        );
        assert_eq!(task(|t, _| t.walltime_ms = Some(0)).validate(), Err(Invalid::ZeroWalltime));
        assert_eq!(task(|t, _| t.attempt = 0).validate(), Err(Invalid::ZeroAttempt));
    }

    #[test]
    fn terms_left_out_take_their_defaults() {
        let json =
            r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","work":{"process":{"argv":["true"]}}}"#;
        let task: Task = serde_json::from_str(json).unwrap();
        assert_eq!((task.attempt, task.rerun, task.walltime_ms), (1, true, None));
    }

    #[test]
    fn a_task_expires_at_its_moment_and_not_before() {
        let task = task(|t, _| t.expires_at_ms = Some(1000));
        assert!(!task.expired(999));
        assert!(task.expired(1000));
    }
}
