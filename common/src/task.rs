//! A task as it is submitted, and the rules that make one acceptable; below it, what a
//! task and its result are made of. Pure.

pub mod blob;
pub mod byte_string;
pub mod call_error;
pub mod json;
pub mod kinship;
pub mod priority;
pub mod reason;
pub mod removed_files;
pub mod result;
#[cfg(feature = "schema")]
mod schema;
mod text_or_base64;
pub mod topic;
pub mod turns;

use crate::id::{Attempt, TaskId};
use crate::task::blob::Blob;
use crate::task::byte_string::ByteString;
use crate::task::json::Json;
use crate::task::priority::Priority;
use crate::task::topic::{MAX_TOPIC, TopicTerms, check_topic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One task as it travels and as it is kept on disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Task {
    /// The task's id; the submitter chooses it.
    pub id: TaskId,
    /// Which attempt at the task this is; counts from 1.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The work.
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
    /// How early it starts among tasks that wait.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// How many of the endpoint's slots it takes while it runs.
    #[serde(default = "one_core", skip_serializing_if = "is_one")]
    pub cores: u32,
    /// The number that the tasks of one submission share; 0 where there are no others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub group: u64,
    /// The task that submitted it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// The terms of its placement, if it was submitted to a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicTerms>,
}

/// The work of a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Run an external process.
    Process(Process),
    /// Call a function that the endpoint has.
    Call(Call),
}

impl Work {
    /// About how many bytes it takes, in memory or as JSON.
    #[must_use]
    pub fn size(&self) -> usize {
        let process = match self {
            Self::Process(process) => process,
            Self::Call(call) => return call.size(),
        };
        let argv: usize = process.argv.iter().map(|argument| argument.len() + 32).sum();
        let env = process.env.iter().map(|(name, value)| name.len() + value.len() + 64);
        argv + env.sum::<usize>() + process.stdin.0.len()
    }
}

/// An external process to run, without a shell.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Process {
    /// Program and arguments. The program is looked up in `PATH`.
    pub argv: Vec<ByteString>,
    /// Environment variables set on top of the endpoint's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, ByteString>,
    /// An absolute folder to run in; a sandbox of the task's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteString>,
    /// The standard input of the process.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub stdin: Blob,
}

/// A call of a function that the endpoint's configuration names, or that it has
/// built in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Call {
    /// The function's name.
    #[cfg_attr(feature = "schema", schema(pattern = "^[A-Za-z0-9._-]+$", max_length = 128))]
    pub function: String,
    /// Arguments by position: a JSON array.
    #[serde(default = "no_args")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Json>))]
    pub args: Json,
    /// Arguments by name: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<BTreeMap<String, Json>>))]
    pub kwargs: Option<Json>,
}

/// The prefix of the names of built-in functions.
pub const BUILT_IN: &str = "clutch.";
/// The built-in function that returns its arguments, without any process.
pub const ECHO: &str = "clutch.echo";
/// The longest name of a function, in bytes.
pub const MAX_FUNCTION: usize = 128;

fn no_args() -> Json {
    Json::empty_array()
}

fn first_attempt() -> u32 {
    1
}

fn may_rerun() -> bool {
    true
}

/// The number of slots of a task that names none.
#[must_use]
pub const fn one_core() -> u32 {
    1
}

/// Whether it is the number of slots of a task that names none.
#[must_use]
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub const fn is_one(cores: &u32) -> bool {
    *cores == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(group: &u64) -> bool {
    *group == 0
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
        cwd: ByteString,
    },
    /// A call names no function.
    #[error("the function has no name: name one that the endpoint has")]
    NoFunction,
    /// A function's name is too long.
    #[error("the function's name has {length} bytes, more than {MAX_FUNCTION}")]
    LongFunction {
        /// Its length.
        length: usize,
    },
    /// A function's name holds other characters.
    #[error("'{name}' cannot be the name of a function: use A-Z a-z 0-9 . _ -")]
    FunctionName {
        /// The name.
        name: String,
    },
    /// A topic's name is empty, too long or holds other characters.
    #[error("'{name}' cannot be the name of a topic: use 1 to {MAX_TOPIC} of A-Z a-z 0-9 . _ -")]
    TopicName {
        /// The name.
        name: String,
    },
    /// The arguments by position are no array.
    #[error("the arguments of a call have to be a JSON array")]
    ArgsNoArray,
    /// The arguments by name are no object.
    #[error("the arguments by name of a call have to be a JSON object")]
    KwargsNoObject,
    /// The walltime is zero.
    #[error("a walltime of 0 leaves no time to run: leave it out or make it longer")]
    ZeroWalltime,
    /// The task takes no slot.
    #[error("a task with 0 cores could not run: leave them out, or name 1 or more")]
    ZeroCores,
    /// Attempts count from 1.
    #[error("attempt 0 does not exist: attempts count from 1")]
    ZeroAttempt,
}

impl Task {
    /// A task with default terms: first attempt, no walltime, may rerun.
    #[must_use]
    pub fn new(id: TaskId, process: Process) -> Self {
        Self::of(id, Work::Process(process))
    }

    /// A task with default terms that does this work.
    #[must_use]
    pub fn of(id: TaskId, work: Work) -> Self {
        Self {
            id,
            attempt: 1,
            name: None,
            work,
            walltime_ms: None,
            expires_at_ms: None,
            rerun: true,
            priority: Priority::Normal,
            cores: 1,
            group: 0,
            parent: None,
            topic: None,
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

    /// Whether the endpoint does it by itself, without any process.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        matches!(&self.work, Work::Call(call) if call.function.starts_with(BUILT_IN))
    }

    /// Checks that the task can be run at all.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.attempt == 0 {
            return Err(Invalid::ZeroAttempt);
        }
        if self.walltime_ms == Some(0) {
            return Err(Invalid::ZeroWalltime);
        }
        if self.cores == 0 {
            return Err(Invalid::ZeroCores);
        }
        match &self.work {
            Work::Process(process) => process.validate(),
            Work::Call(call) => call.validate(),
        }?;
        match &self.topic {
            Some(terms) => check_topic(&terms.name),
            None => Ok(()),
        }
    }
}

impl Call {
    /// A call with arguments by position.
    #[must_use]
    pub fn new(function: &str, args: Json) -> Self {
        Self { function: function.to_owned(), args, kwargs: None }
    }

    /// How much text there is in it, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let kwargs = self.kwargs.as_ref().map_or(0, |kwargs| kwargs.text().len());
        self.function.len() + self.args.text().len() + kwargs
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_function(&self.function)?;
        if !self.args.is_array() {
            return Err(Invalid::ArgsNoArray);
        }
        match &self.kwargs {
            Some(kwargs) if !kwargs.is_object() => Err(Invalid::KwargsNoObject),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Display for Call {
    /// As people write calls: `add(1,2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = |json: &Json| json.text().get(1..json.text().len() - 1).map(str::to_owned);
        let by_name = self.kwargs.as_ref().map(|kwargs| format!("**{kwargs}"));
        let args: Vec<String> = [inside(&self.args), by_name]
            .into_iter()
            .flatten()
            .filter(|args| !args.is_empty())
            .collect();
        write!(f, "{}({})", self.function, args.join(","))
    }
}

/// Checks that a function can have this name.
pub fn check_function(name: &str) -> Result<(), Invalid> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() {
        return Err(Invalid::NoFunction);
    }
    if name.len() > MAX_FUNCTION {
        return Err(Invalid::LongFunction { length: name.len() });
    }
    if !name.bytes().all(good) {
        return Err(Invalid::FunctionName { name: name.to_owned() });
    }
    Ok(())
}

impl Process {
    fn validate(&self) -> Result<(), Invalid> {
        if self.argv.first().is_none_or(ByteString::is_empty) {
            return Err(Invalid::EmptyArgv);
        }
        for (index, argument) in self.argv.iter().enumerate() {
            no_nul(argument.as_bytes(), || format!("argv[{index}]"))?;
        }
        for (name, value) in &self.env {
            no_nul(name.as_bytes(), || "the name of an environment variable".to_owned())?;
            no_nul(value.as_bytes(), || format!("the environment variable '{name}'"))?;
            if name.is_empty() || name.contains('=') {
                return Err(Invalid::EnvName { name: name.clone() });
            }
        }
        if let Some(cwd) = &self.cwd {
            no_nul(cwd.as_bytes(), || "the working folder".to_owned())?;
            if !cwd.as_bytes().starts_with(b"/") {
                return Err(Invalid::RelativeCwd { cwd: cwd.clone() });
            }
        }
        Ok(())
    }
}

fn no_nul(bytes: &[u8], what: impl FnOnce() -> String) -> Result<(), Invalid> {
    if bytes.contains(&0) { Err(Invalid::Nul { what: what() }) } else { Ok(()) }
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
            task(|_, p| drop(p.env.insert(key.to_owned(), value.into()))).validate()
        };
        assert_eq!(task(|_, _| ()).validate(), Ok(()));
        assert_eq!(task(|_, p| p.argv.clear()).validate(), Err(Invalid::EmptyArgv));
        assert_eq!(task(|_, p| p.argv = vec!["".into()]).validate(), Err(Invalid::EmptyArgv));
        assert_eq!(task(|_, p| p.argv.push("a\0b".into())).validate(), nul("argv[1]"));
        assert_eq!(env("A", "\0"), nul("the environment variable 'A'"));
        assert_eq!(env("A=B", ""), Err(Invalid::EnvName { name: "A=B".into() }));
        assert_eq!(env("", ""), Err(Invalid::EnvName { name: String::new() }));
        assert_eq!(
            task(|_, p| p.cwd = Some("tmp".into())).validate(),
            Err(Invalid::RelativeCwd { cwd: "tmp".into() })
        );
        assert_eq!(task(|t, _| t.walltime_ms = Some(0)).validate(), Err(Invalid::ZeroWalltime));
        assert_eq!(task(|t, _| t.cores = 0).validate(), Err(Invalid::ZeroCores));
        assert_eq!(task(|t, _| t.attempt = 0).validate(), Err(Invalid::ZeroAttempt));
    }

    #[test]
    fn every_rule_of_a_call_has_its_own_words() {
        let json = |text: &str| text.parse::<Json>().unwrap();
        let call = |function: &str, args: &str, kwargs: Option<&str>| {
            let call = Call { kwargs: kwargs.map(json), ..Call::new(function, json(args)) };
            Task::of(TaskId::new(), Work::Call(call)).validate()
        };
        assert_eq!(call("a.b_C-9", "[1]", Some("{}")), Ok(()));
        assert_eq!(call("", "[]", None), Err(Invalid::NoFunction));
        assert_eq!(call(&"a".repeat(129), "[]", None), Err(Invalid::LongFunction { length: 129 }));
        for name in ["a b", "a/b", "é", "a\n"] {
            assert_eq!(call(name, "[]", None), Err(Invalid::FunctionName { name: name.into() }));
        }
        assert_eq!(call("a", "{}", None), Err(Invalid::ArgsNoArray));
        assert_eq!(call("a", "[]", Some("[]")), Err(Invalid::KwargsNoObject));
    }

    #[test]
    fn a_call_travels_as_it_was_written_and_its_arguments_may_be_left_out() {
        let id = r#""id":"01890a5d-ac96-774b-bcce-b302099a8057""#;
        let json = format!(r#"{{{id},"work":{{"call":{{"function":"f","args":[1.0, "é"]}}}}}}"#);
        let task: Task = serde_json::from_str(&json).unwrap();
        let Work::Call(call) = &task.work else { panic!("not a call") };
        assert_eq!(
            (call.args.text(), call.to_string().as_str()),
            ("[1.0, \"é\"]", "f(1.0, \"é\")")
        );
        assert!(serde_json::to_string(&task).unwrap().contains(r#""args":[1.0, "é"]"#));
        let bare = format!(r#"{{{id},"work":{{"call":{{"function":"f","kwargs":{{"a":1}}}}}}}}"#);
        let task: Task = serde_json::from_str(&bare).unwrap();
        let Work::Call(call) = &task.work else { panic!("not a call") };
        assert_eq!((call.args.text(), call.to_string().as_str()), ("[]", r#"f(**{"a":1})"#));
        let unknown = format!(r#"{{{id},"work":{{"dance":{{}}}}}}"#);
        let error = serde_json::from_str::<Task>(&unknown).unwrap_err().to_string();
        assert!(error.contains("unknown variant `dance`"), "{error}");
    }

    #[test]
    fn terms_left_out_take_their_defaults() {
        let json =
            r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","work":{"process":{"argv":["true"]}}}"#;
        let task: Task = serde_json::from_str(json).unwrap();
        assert_eq!((task.attempt, task.rerun, task.walltime_ms), (1, true, None));
        assert_eq!((task.priority, task.cores), (Priority::Normal, 1));
        let written = serde_json::to_string(&task).unwrap();
        for term in ["priority", "cores", "group", "parent"] {
            assert!(!written.contains(term), "{written}");
        }
        let other = Task { priority: Priority::Low, cores: 4, group: 7, ..task };
        let written = serde_json::to_string(&other).unwrap();
        assert!(written.ends_with(r#""priority":"low","cores":4,"group":7}"#), "{written}");
        assert_eq!(serde_json::from_str::<Task>(&written).unwrap(), other);
        let other = Task { parent: Some(TaskId::new()), ..other };
        let written = serde_json::to_string(&other).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&written).unwrap(), other);
    }

    #[test]
    fn a_task_expires_at_its_moment_and_not_before() {
        let task = task(|t, _| t.expires_at_ms = Some(1000));
        assert!(!task.expired(999));
        assert!(task.expired(1000));
    }
}
