//! A task as it is asked for. Pure.

use clutch_common::id::TaskId;
use clutch_common::task::blob::Blob;
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::priority::Priority;
use clutch_common::task::{Call, Process, Task, Work, is_one, one_core};
use clutch_common::wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A task as it is asked for: no id yet, and an expiry that counts from the
/// moment the service first records it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskSpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Program and arguments; none where `call` is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) argv: Vec<ByteString>,
    /// The function to call, instead of a program to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<Call>,
    /// Environment variables on top of the endpoint's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, ByteString>,
    /// An absolute folder to run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<ByteString>,
    /// Standard input.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub(crate) stdin: Blob,
    /// How long it may run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) walltime_ms: Option<u64>,
    /// When it is no longer worth starting, in milliseconds from its recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in_ms: Option<u64>,
    /// Whether it may run again after a crash of the endpoint.
    #[serde(default = "may_rerun")]
    pub(crate) rerun: bool,
    /// How early it starts among tasks that wait.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub(crate) priority: Priority,
    /// How many of the endpoint's slots it takes while it runs.
    #[serde(default = "one_core", skip_serializing_if = "is_one")]
    #[schema(minimum = 1)]
    pub(crate) cores: u32,
}

fn may_rerun() -> bool {
    true
}

impl TaskSpec {
    /// A task without work, for which no option was given.
    pub(crate) fn plain() -> Self {
        Self {
            name: None,
            argv: Vec::new(),
            call: None,
            env: BTreeMap::new(),
            cwd: None,
            stdin: Blob::default(),
            walltime_ms: None,
            expires_in_ms: None,
            rerun: true,
            priority: Priority::default(),
            cores: 1,
        }
    }

    /// The task, recorded under `id` at `created_at_ms`.
    #[must_use]
    pub(crate) fn task(&self, id: TaskId, created_at_ms: u64) -> Task {
        Task {
            name: self.name.clone(),
            work: match &self.call {
                Some(call) => Work::Call(call.clone()),
                None => Work::Process(Process {
                    argv: self.argv.clone(),
                    env: self.env.clone(),
                    cwd: self.cwd.clone(),
                    stdin: self.stdin.clone(),
                }),
            },
            walltime_ms: self.walltime_ms,
            expires_at_ms: self.expires_in_ms.map(|after| created_at_ms.saturating_add(after)),
            rerun: self.rerun,
            priority: self.priority,
            cores: self.cores,
            ..Task::new(id, Process::default())
        }
    }

    /// Checks that the task could be run and fits a message.
    ///
    /// # Errors
    /// The first rule that is broken, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let of_a_process = [
            ("argv", !self.argv.is_empty()),
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("stdin", !self.stdin.is_empty()),
        ];
        if self.call.is_some()
            && let Some((name, _)) = of_a_process.iter().find(|(_, given)| *given)
        {
            return Err(format!("a call takes no {name}: that is for a program"));
        }
        let task = self.task(TaskId::new(), 0);
        task.validate().map_err(|invalid| invalid.to_string())?;
        let size = wire::encode_tasks(&[&task]).len();
        if size > wire::MAX_BODY {
            return Err(format!(
                "the task takes {size} bytes, more than the limit of {}: pass large data by file",
                wire::MAX_BODY
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_cannot_run_or_fit_is_refused_in_words() {
        let spec = |json: &str| serde_json::from_str::<TaskSpec>(json).unwrap();
        assert_eq!(spec(r#"{"argv":["true"]}"#).check(), Ok(()));
        assert!(spec(r#"{"argv":[]}"#).check().unwrap_err().contains("argv is empty"));
        assert!(spec(r#"{"argv":["a\u0000"]}"#).check().unwrap_err().contains("NUL"));
        let large =
            TaskSpec { stdin: vec![b'x'; wire::MAX_BODY].into(), ..spec(r#"{"argv":["a"]}"#) };
        assert!(large.check().unwrap_err().contains("more than the limit"));
        assert!(serde_json::from_str::<TaskSpec>(r#"{"argv":["a"],"wall":1}"#).is_err());
    }

    #[test]
    fn a_call_is_a_task_and_takes_nothing_of_a_process() {
        let spec = |json: &str| serde_json::from_str::<TaskSpec>(json).unwrap();
        let call = spec(r#"{"call":{"function":"f","args":[1]}}"#);
        assert_eq!(call.check(), Ok(()));
        let Work::Call(made) = call.task(TaskId::new(), 0).work else { panic!("not a call") };
        assert_eq!(made.to_string(), "f(1)");
        assert!(spec("{}").check().unwrap_err().contains("argv is empty"));
        assert!(spec(r#"{"call":{"function":"a b"}}"#).check().unwrap_err().contains("'a b'"));
        for (name, given) in
            [("argv", r#""argv":["a"]"#), ("cwd", r#""cwd":"/""#), ("stdin", r#""stdin":"x""#)]
        {
            let both = spec(&format!(r#"{{"call":{{"function":"f"}},{given}}}"#));
            assert!(both.check().unwrap_err().contains(&format!("no {name}")), "{name}");
        }
    }
}
