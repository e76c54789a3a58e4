//! Encodes and decodes the messages of `design/0002-wire.md`. Pure.
//!
//! A body is a JSON envelope `{"version": 1, "type": …, …}` that carries one or
//! many tasks, one or many results, or what is about instances. Unknown fields are
//! tolerated, unknown versions refused. One bad task in a message does not spoil
//! the others: each is decoded by itself, and what cannot be read comes back with
//! a reason and, where it can be found, its id.

mod control;
mod disk;
mod each;
mod naming;

pub use control::{
    Call, PING_TYPE, PRESENCE_TYPE, Presence, ROLL_CALL_MAX, ROLL_CALL_TYPE, Role, RollCall,
    ToEndpoint, ToService, WELCOME_TYPE, Welcome, decode_call, decode_to_endpoint,
    decode_to_service, encode_ping, encode_presence, encode_roll_call, encode_welcome,
    session_name,
};

pub use disk::{Disk, pack_results_of};

use crate::id::{Attempt, EndpointId, StateId, TaskId};
use crate::task::Task;
use crate::task::reason::Reason;
use crate::task::result::TaskResult;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The version of the envelope this build speaks.
pub const VERSION: u32 = 1;
/// The AMQP `type` of a message that carries tasks.
pub const TASKS_TYPE: &str = "clutch.tasks";
/// The AMQP `type` of a message that carries results.
pub const RESULTS_TYPE: &str = "clutch.results";
/// The AMQP `content_type` of every message.
pub const CONTENT_TYPE: &str = "application/json";
/// The largest body either side sends or takes, in bytes: `RabbitMQ` 4's
/// default limit on a message.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// The most bytes of one encoded result: a body with it alone is within
/// [`MAX_BODY`].
pub const MAX_RESULT: usize = MAX_BODY - 1024;

/// Why a body, or one task in it, could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// Which task it was about, where that could be read.
    pub attempt: Option<Attempt>,
    /// What is wrong with it, for whoever submitted it.
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

#[derive(Deserialize)]
struct Head {
    version: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Serialize)]
struct TasksOut<'a> {
    version: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    tasks: &'a [&'a Task],
}

/// The results of a message, and why the rest of it could not be read.
#[derive(PartialEq, Debug, Default)]
pub struct Results {
    /// Whose they are: each says the same.
    pub endpoint: Option<EndpointId>,
    /// The disk that they come from, as it was then.
    pub disk: Option<Disk>,
    /// The results, in the order of the message.
    pub results: Vec<TaskResult>,
    /// Why the rest cannot be read: for each of the first ones.
    pub unreadable: Vec<Reason>,
}

/// Whose the results of a message are.
#[derive(Deserialize)]
struct Sender {
    endpoint: EndpointId,
    #[serde(default)]
    state: Option<StateId>,
    #[serde(default)]
    age: Option<u64>,
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

/// What a result takes besides what it brings, in bytes, roughly.
const FIXED_RESULT: usize = 384;

/// Encodes one result as it stands in an envelope. What [`pack_results`] takes.
#[must_use]
pub fn encode_result(result: &TaskResult) -> Vec<u8> {
    // As large as most get, where the end of a line takes two bytes: they may be kept
    // for long, a thousand of them, and one that has to grow takes twice its size.
    let output = result.output();
    let mut encoded = Vec::with_capacity(FIXED_RESULT + output + output / 16);
    write(&mut encoded, result);
    encoded
}

/// Packs results, each encoded by [`encode_result`], into one body.
#[must_use]
pub fn pack_results<R: AsRef<[u8]>>(endpoint: EndpointId, results: &[R]) -> Vec<u8> {
    let head = format!(
        r#"{{"version":{VERSION},"type":"{RESULTS_TYPE}","endpoint":"{endpoint}","results":["#
    );
    packed(&head, results)
}

/// An envelope, from its head to its end.
fn packed<P: AsRef<[u8]>>(head: &str, parts: &[P]) -> Vec<u8> {
    let size: usize = parts.iter().map(|part| part.as_ref().len() + 1).sum();
    let mut body = Vec::with_capacity(head.len() + size + 2);
    body.extend_from_slice(head.as_bytes());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(part.as_ref());
    }
    body.extend_from_slice(b"]}");
    body
}

/// Decodes one result as [`encode_result`] wrote it.
///
/// # Errors
/// What is wrong with it.
pub fn decode_result(bytes: &[u8]) -> Result<TaskResult, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The parts of an envelope, if all of it can be read, as nearly always.
#[derive(Deserialize)]
struct Sound<'a, T> {
    version: u32,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    endpoint: Option<EndpointId>,
    #[serde(default)]
    state: Option<StateId>,
    #[serde(default)]
    age: Option<u64>,
    #[serde(alias = "results", alias = "tasks")]
    parts: Vec<T>,
}

/// What an envelope carries, read in one pass. `None` if it is another envelope or
/// anything in it is odd: then it is to be read with care.
fn sound<'a, T: Deserialize<'a>>(body: &'a [u8], kind: &str) -> Option<Sound<'a, T>> {
    if body.len() > MAX_BODY {
        return None;
    }
    let sound: Sound<'_, T> = serde_json::from_slice(body).ok()?;
    let expected = sound.version == VERSION && sound.kind == kind && !sound.parts.is_empty();
    expected.then_some(sound)
}

/// The tasks of a body of which all can be read.
fn sound_tasks(body: &[u8]) -> Option<Tasks> {
    Some(Tasks { tasks: sound(body, TASKS_TYPE)?.parts, unreadable: Vec::new() })
}

/// The results of a body of which all can be read.
fn sound_results(body: &[u8]) -> Option<Results> {
    let Sound { endpoint, state, age, parts: results, .. } =
        sound::<TaskResult>(body, RESULTS_TYPE)?;
    let (endpoint, disk) = (endpoint?, Disk::of(state, age));
    let agree = results.iter().all(|result| result.endpoint_id == endpoint);
    agree.then_some(Results { endpoint: Some(endpoint), disk, results, unreadable: Vec::new() })
}

/// Decodes the body of a message that carries tasks. `correlation_id` is the
/// message's property of that name: where the body does not say whose a task is, it
/// may.
#[must_use]
pub fn decode_tasks(body: &[u8], correlation_id: Option<&str>) -> Tasks {
    sound_tasks(body).unwrap_or_else(|| tasks(head(body), body, correlation_id))
}

/// The tasks of a body whose head is read, or why it cannot be.
fn tasks(head: Result<Head, String>, body: &[u8], correlation_id: Option<&str>) -> Tasks {
    let correlated = correlation_id.and_then(|id| id.parse().ok());
    match head.and_then(|head| expect(&head, TASKS_TYPE)).and_then(|()| listed_tasks(body)) {
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

/// What is answered for a body of which nothing can be read.
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

/// Decodes the body of a message that carries results.
#[must_use]
pub fn decode_results(body: &[u8]) -> Results {
    sound_results(body).unwrap_or_else(|| results(head(body), body))
}

/// The results of a body whose head is read, or why it cannot be.
fn results(head: Result<Head, String>, body: &[u8]) -> Results {
    let whole = |reason: String| Results { unreadable: vec![reason.into()], ..Results::default() };
    if let Err(reason) = head.and_then(|head| expect(&head, RESULTS_TYPE)) {
        return whole(reason);
    }
    listed_results(body)
        .unwrap_or_else(|error| whole(format!("the list of results cannot be read: {error}")))
}

/// The results of a list, each read by itself.
fn listed_results(body: &[u8]) -> serde_json::Result<Results> {
    let Sender { endpoint, state, age } = serde_json::from_slice(body)?;
    let disk = Disk::of(state, age);
    let mut decoded = Results { endpoint: Some(endpoint), disk, ..Results::default() };
    let mut unreadable = 0_usize;
    let mut read = |raw: &RawValue| {
        let reason = match serde_json::from_str::<TaskResult>(raw.get()) {
            Ok(result) if result.endpoint_id == endpoint => return decoded.results.push(result),
            Ok(result) => format!(
                "a result says that it is of the endpoint {}, and its message that it is of \
                 {endpoint}",
                result.endpoint_id
            ),
            Err(error) => format!("a result cannot be read: {error}"),
        };
        unreadable += 1;
        if unreadable <= each::REASONS {
            decoded.unreadable.push(reason.into());
        }
    };
    each::each(body, "results", &mut read)?;
    if let Some(more) = unreadable.checked_sub(each::REASONS).filter(|more| *more > 0) {
        decoded.unreadable.push(each::and_more(more));
    }
    Ok(decoded)
}

/// What kind of envelope a body is, if it is one that this build reads.
fn head(body: &[u8]) -> Result<Head, String> {
    if body.len() > MAX_BODY {
        return Err(format!(
            "the message has {} bytes, more than the limit of {MAX_BODY}: pass large data by file",
            body.len()
        ));
    }
    let head: Head = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not a JSON envelope: {error}"))?;
    match head.version {
        None => Err("the envelope has no version".to_owned()),
        Some(VERSION) => Ok(head),
        Some(other) => {
            Err(format!("the envelope has version {other}, this build reads version {VERSION}"))
        }
    }
}

fn expect(head: &Head, expected: &str) -> Result<(), String> {
    match head.kind.as_deref() {
        Some(kind) if kind == expected => Ok(()),
        Some(other) => Err(format!("the envelope is of type '{other}', expected '{expected}'")),
        None => Err(format!("the envelope has no type, expected '{expected}'")),
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(128);
    write(&mut encoded, value);
    encoded
}

#[allow(clippy::expect_used, reason = "our own types: string keys, no failing serializer")]
fn write(to: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(to, value).expect("wire types always encode");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Process;
    use crate::task::result::Outcome;
    use proptest::prelude::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn task(argv: Vec<String>) -> Task {
        let argv = argv.into_iter().map(Into::into).collect();
        Task::new(TaskId::new(), Process { argv, ..Process::default() })
    }

    fn reason(body: &str) -> String {
        let decoded = decode_tasks(body.as_bytes(), None);
        assert!(decoded.tasks.is_empty());
        decoded.unreadable[0].reason.clone().into()
    }

    proptest! {
        #[test]
        fn tasks_survive_the_wire(
            argvs in prop::collection::vec(prop::collection::vec("\\PC{0,8}", 0..4), 1..4)
        ) {
            let tasks: Vec<Task> = argvs.into_iter().map(task).collect();
            let body = encode_tasks(&tasks.iter().collect::<Vec<_>>());
            let decoded = decode_tasks(&body, None);
            prop_assert_eq!(decoded, Tasks { tasks, unreadable: vec![] });
        }

        #[test]
        fn no_body_panics_and_every_body_gets_an_answer(body: Vec<u8>) {
            let decoded = decode_tasks(&body, None);
            prop_assert!(!decoded.tasks.is_empty() || !decoded.unreadable.is_empty());
            prop_assert!(!decode_results(&body).unreadable.is_empty());
        }
    }

    #[test]
    fn results_survive_the_wire() {
        let endpoint = EndpointId::new();
        let result = |n: u32| {
            let attempt = Attempt { task_id: TaskId::new(), attempt: n };
            TaskResult::not_run(attempt, Outcome::Expired, "late".into(), endpoint, 5)
        };
        let results = vec![result(1), result(2)];
        let encoded: Vec<Vec<u8>> = results.iter().map(encode_result).collect();
        let body = pack_results(endpoint, &encoded);
        let (endpoint_of_all, unreadable) = (Some(endpoint), vec![]);
        assert_eq!(
            decode_results(&body),
            Results { endpoint: endpoint_of_all, disk: None, results: results.clone(), unreadable }
        );
        let disk = Disk { state_id: StateId::new(), age: 7 };
        let of_disk = decode_results(&pack_results_of(endpoint, disk, &encoded));
        assert_eq!((of_disk.disk, of_disk.results), (Some(disk), results.clone()));
        let forged = decode_results(&pack_results(EndpointId::new(), &encoded));
        assert_eq!((forged.results, forged.unreadable.len()), (vec![], 2));

        let foreign = br#"{"task_id":"x"}"#.to_vec();
        let mixed = [encoded[0].clone(), foreign, encoded[1].clone()];
        let decoded = decode_results(&pack_results(endpoint, &mixed));
        assert_eq!((decoded.results, decoded.unreadable.len()), (results, 1));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_first_parts_and_counted() {
        let parts = vec!["{}"; 100_000];
        let tasks = decode_tasks(&pack_tasks(&parts), None);
        assert_eq!((tasks.tasks.len(), tasks.unreadable.len()), (0, 11));
        assert_eq!(&*tasks.unreadable[10].reason, "and 99990 more");
        let results = decode_results(&pack_results(EndpointId::new(), &parts));
        assert_eq!((results.results.len(), results.unreadable.len()), (0, 11));
        assert_eq!(&*results.unreadable[10], "and 99990 more");
    }

    #[test]
    fn unknown_fields_are_tolerated_and_unknown_versions_refused() {
        let body = format!(
            r#"{{"version":1,"type":"clutch.tasks","extra":[],"tasks":[
                {{"id":"{ID}","colour":"red","work":{{"process":{{"argv":["true"],"x":1}}}}}}]}}"#
        );
        assert_eq!(decode_tasks(body.as_bytes(), None).tasks.len(), 1);
        assert!(reason(r#"{"version":2,"type":"clutch.tasks"}"#).contains("version 2"));
        assert!(reason(r#"{"type":"clutch.tasks"}"#).contains("no version"));
        assert!(reason(r#"{"version":1,"type":"clutch.results"}"#).contains("clutch.results"));
        assert!(reason(r#"{"version":1,"type":"clutch.tasks","tasks":[]}"#).contains("no tasks"));
    }

    #[test]
    fn one_bad_task_does_not_spoil_the_others_and_keeps_its_id() {
        let good = task(vec!["true".into()]);
        let body = format!(
            r#"{{"version":1,"type":"clutch.tasks","tasks":[{{"id":"{ID}","attempt":3}},{},{{}}]}}"#,
            serde_json::to_string(&good).unwrap()
        );
        let decoded = decode_tasks(body.as_bytes(), None);
        assert_eq!(decoded.tasks, vec![good]);
        assert_eq!(
            decoded.unreadable[0].attempt,
            Some(Attempt { task_id: ID.parse().unwrap(), attempt: 3 })
        );
        assert_eq!(decoded.unreadable[1].attempt, None);
    }

    #[test]
    fn a_truncated_body_is_still_named_by_its_correlation_id() {
        let decoded = decode_tasks(br#"{"version":1,"ty"#, Some(ID));
        assert_eq!(decoded.unreadable[0].attempt.unwrap().task_id.to_string(), ID);
    }
}
