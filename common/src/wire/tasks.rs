//! Tasks in an envelope: encoding, and decoding each task by itself. Pure.
//!
//! A task that cannot be read does not spoil the others of its message: it comes back with
//! a reason and, where it can be found, its id.

use super::envelope::{Head, encode, head, packed, sound};
use super::{MAX_BODY, TASKS_TYPE, VERSION, each, naming};
use crate::id::{Attempt, TaskId};
use crate::task::Task;
use crate::task::reason::Reason;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// Why a body, or one task in it, could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// Which task it was about, where that could be read.
    pub attempt: Option<Attempt>,
    /// The reason to tell the submitter.
    pub reason: Reason,
}

/// The tasks of a message, and what in it could not be read.
#[derive(PartialEq, Debug, Default)]
pub struct Tasks {
    /// The tasks, in the order of the message.
    pub tasks: Vec<Task>,
    /// The rest; of those that cannot be named, the first ones.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Serialize)]
struct TasksOut<'a> {
    version: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    tasks: &'a [&'a Task],
}

/// Encodes one task as it stands in an envelope. What [`pack_tasks`] takes.
#[must_use]
pub fn encode_task(task: &Task) -> Vec<u8> {
    encode(task)
}

/// Packs tasks, each encoded by [`encode_task`], into one body.
#[must_use]
pub fn pack_tasks<T: AsRef<[u8]>>(tasks: &[T]) -> Vec<u8> {
    let head = format!(r#"{{"version":{VERSION},"type":"{TASKS_TYPE}","tasks":["#);
    packed(&head, tasks)
}

/// Encodes tasks into one body.
#[must_use]
pub fn encode_tasks(tasks: &[&Task]) -> Vec<u8> {
    encode(&TasksOut { version: VERSION, kind: TASKS_TYPE, tasks })
}

/// The tasks of a body of which all can be read.
pub(super) fn sound_tasks(body: &[u8]) -> Option<Tasks> {
    Some(Tasks { tasks: sound(body, TASKS_TYPE)?.parts, unreadable: Vec::new() })
}

/// Decodes the body of a message that carries tasks. `correlation_id` is the
/// message's property of that name: where the body does not give the id of a task, it
/// may.
#[must_use]
pub fn decode_tasks(body: &[u8], correlation_id: Option<&str>) -> Tasks {
    sound_tasks(body).unwrap_or_else(|| tasks(head(body), body, correlation_id))
}

/// The tasks of a body; `head` is its head, or why that cannot be read.
pub(super) fn tasks(
    head: Result<Head, String>,
    body: &[u8],
    correlation_id: Option<&str>,
) -> Tasks {
    let correlated = correlation_id.and_then(|id| id.parse().ok());
    match head.and_then(|head| head.expect(TASKS_TYPE)).and_then(|()| listed_tasks(body)) {
        Ok(mut decoded) => {
            decoded.name(correlated);
            decoded
        }
        Err(reason) => none_of(body, correlated, &reason),
    }
}

/// The tasks of a list, each read by itself.
fn listed_tasks(body: &[u8]) -> Result<Tasks, String> {
    let (mut decoded, mut nameless) = (Tasks::default(), 0_usize);
    let mut read = |raw: &RawValue| match serde_json::from_str::<Task>(raw.get()) {
        Ok(task) => decoded.tasks.push(task),
        Err(error) => {
            let named = naming::of_task(raw.get());
            nameless += usize::from(named.is_empty());
            if !named.is_empty() || nameless <= each::REASONS {
                let reason = format!("the task cannot be read: {error}");
                decoded.unreadable.extend(answers(named, &reason));
            }
        }
    };
    match each::each(body, "tasks", &mut read) {
        Ok(0) => return Err("the message carries no tasks".to_owned()),
        Ok(_) => {}
        Err(error) => return Err(format!("the list of tasks cannot be read: {error}")),
    }
    if let Some(more) = nameless.checked_sub(each::REASONS).filter(|more| *more > 0) {
        decoded.unreadable.push(Unreadable { attempt: None, reason: each::and_more(more) });
    }
    Ok(decoded)
}

/// The answers for a body of which nothing can be read.
fn none_of(body: &[u8], correlated: Option<TaskId>, reason: &str) -> Tasks {
    let named = if body.len() <= MAX_BODY { naming::of_body(body) } else { Vec::new() };
    let mut none = Tasks { tasks: Vec::new(), unreadable: answers(named, reason) };
    let known = none.has(correlated);
    if let Some(task_id) = correlated
        && !known
        && none.unreadable.iter().all(|one| one.attempt.is_some())
    {
        // Another task than those that could be found: the rest may be cut off.
        none.unreadable.extend(answers(vec![Attempt { task_id, attempt: 1 }], reason));
    }
    none.name(correlated);
    none
}

/// An answer for each of these, or for one that cannot be named.
fn answers(named: Vec<Attempt>, reason: &str) -> Vec<Unreadable> {
    let answer = |attempt| Unreadable { attempt, reason: Reason::from(reason.to_owned()) };
    if named.is_empty() {
        return vec![answer(None)];
    }
    named.into_iter().map(Some).map(answer).collect()
}

impl Tasks {
    /// Gives the first answer that has no name that of the message, unless another task
    /// has it. One for an attempt that can be read as well is none: that runs.
    fn name(&mut self, correlated: Option<TaskId>) {
        let runs: BTreeSet<Attempt> = self.tasks.iter().map(Task::attempt).collect();
        for one in &mut self.unreadable {
            one.attempt = one.attempt.filter(|attempt| !runs.contains(attempt));
        }
        if self.has(correlated) {
            return;
        }
        let nameless = self.unreadable.iter_mut().find(|one| one.attempt.is_none());
        if let (Some(nameless), Some(task_id)) = (nameless, correlated) {
            nameless.attempt = Some(Attempt { task_id, attempt: 1 });
        }
    }

    /// Whether one of the tasks has this id.
    fn has(&self, id: Option<TaskId>) -> bool {
        let mut unreadable = self.unreadable.iter().filter_map(|one| one.attempt);
        id.is_some_and(|id| {
            self.tasks.iter().any(|task| task.id == id)
                || unreadable.any(|attempt| attempt.task_id == id)
        })
    }
}
