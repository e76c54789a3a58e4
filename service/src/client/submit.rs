//! Submits tasks, in chunks, and waits for them if asked to.

use super::due_time::{due_time, due_words};
use super::interrupt::unless_interrupted;
use super::recipient::{self, Recipient};
use super::results::how;
use super::task_options::{self, is_stdin, read, with};
use super::wait::{HELD, exit_code, summary, until_done};
use crate::api::types::{
    MAX_TASKS_PER_REQUEST, MAX_TASKS_PER_SUBMISSION, ResultPage, SubmitAnswer, SubmitRequest,
    WaitRequest,
};
use crate::cli::SubmitArgs;
use crate::cli::output;
use crate::client::Client;
use crate::client::expand::Items;
use crate::failure::{Failure, GENERAL, exit_code as code_of, is_in_doubt, usage};
use crate::model::{DueTime, Progress, RetryPolicy, TaskSpec};
use anyhow::Context as _;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::text::counted::counted;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::time::Duration;

/// The size, in bytes, that a request with several tasks does not exceed.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct SubmitReport<'a> {
    endpoint: Option<EndpointId>,
    key: &'a str,
    ids: &'a [TaskId],
    /// How many of them had not been submitted before.
    recorded: u64,
    /// When they are due, in milliseconds since the Unix epoch, if they are scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at_ms: Option<u64>,
    /// Why some wait, if the service has no link to the broker, or the broker confirms nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<&'a str>,
    /// The reasons for which they do not run for now.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a Progress>,
    /// How the one task ended; not of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    /// The exit code of the one task's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// The value that the function of the only task returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Json>,
}

/// The tasks that were submitted.
#[derive(Default)]
pub(crate) struct Submitted {
    /// The endpoint's id, once anything was submitted.
    pub(crate) endpoint: Option<EndpointId>,
    /// The tasks' ids, in the order they were given.
    pub(crate) ids: Vec<TaskId>,
    /// How many of them had not been submitted before.
    recorded: u64,
    /// Why some wait, if the service has no link to the broker, or the broker confirms nothing.
    waiting: Option<String>,
    /// When they are to be due, and when they are.
    due: (Option<DueTime>, Option<u64>),
    /// The reasons for which they do not run for now.
    warnings: Vec<String>,
    /// How long to wait for the outcome of a task that is submitted alone.
    wait: Duration,
    /// Whether the broker's confirms are waited for.
    confirmed: bool,
    /// When the service runs the tasks again by itself.
    retry: Option<RetryPolicy>,
    /// How far it is, if that was waited for.
    progress: Option<Progress>,
}

impl Submitted {
    fn take(&mut self, answer: SubmitAnswer) {
        self.endpoint = Some(answer.endpoint);
        self.progress = answer.progress;
        self.recorded += answer.recorded;
        self.waiting = answer.waiting.or_else(|| self.waiting.take());
        self.warnings = answer.warnings;
        self.ids.extend(answer.ids);
        self.due.1 = answer.due_at_ms;
    }
}

/// Submits, prints what was submitted and, with `--wait`, how it ended. Returns
/// the exit code.
///
/// # Errors
/// When the arguments or a task cannot be used, or not every task was taken; the
/// error then holds the key to submit again with.
pub(crate) async fn run(client: Client, args: &SubmitArgs, json: bool) -> anyhow::Result<u8> {
    // A task is known by key and index: what was not answered may be submitted again.
    let client =
        &(if args.wait { client.reconnecting(args.reconnect.give_up_after) } else { client });
    let to = recipient::of(args)?;
    let items = items(args)?;
    let pattern = task_options::pattern(&args.task)?;
    let base = task_options::changed(TaskSpec::plain(), &args.task)?;
    let specs = || items.expand(&pattern).map(|made| with(&base, made));
    let total = check(&items, specs())?;
    let key = args.key.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let wait_for = if args.wait && total == 1 { HELD } else { Duration::ZERO };
    let confirmed = args.confirmed;
    let retry = task_options::retry(None, &args.task.retry)?;
    let due = (due_time(&args.due, now_ms())?, None);
    let mut submitted = Submitted { wait: wait_for, confirmed, retry, due, ..Submitted::default() };
    let sending = send(client, &to, &key, total, specs(), &mut submitted);
    let sent = if args.wait {
        unless_interrupted(sending, &format!("--key {key}")).await
    } else {
        sending.await
    };
    sent.map_err(|error| {
        if submitted.ids.is_empty() && !is_in_doubt(&error) {
            return error;
        }
        let again = format!(
            "{error:#}\nThe key of this submission is {key}: submitting again with --key {key} does \
             not run anything twice"
        );
        anyhow::Error::from(Failure::new(code_of(&error), again))
    })?;
    if let Some(why) = &submitted.waiting {
        output::note(&format!(
            "{why}; the tasks are recorded, and placed once the broker takes them"
        ));
    }
    submitted.warnings.iter().for_each(|warning| output::note(warning));
    if args.wait {
        return wait(client, args, &key, &submitted, json).await;
    }
    if json {
        let Submitted { endpoint, ids, recorded, waiting, warnings, .. } = &submitted;
        output::json(&SubmitReport {
            endpoint: *endpoint,
            key: &key,
            ids,
            recorded: *recorded,
            due_at_ms: submitted.due.1,
            waiting: waiting.as_deref(),
            warnings,
            progress: None,
            outcome: None,
            exit_code: None,
            value: None,
        })?;
    } else {
        output::line(&told(&submitted, &key))?;
    }
    Ok(0)
}

/// A sentence about the submission for people: a key that was used before may leave nothing to
/// do.
fn told(submitted: &Submitted, key: &str) -> String {
    let Submitted { ids, recorded, waiting, due, .. } = submitted;
    let done = if waiting.is_some() { "recorded" } else { "submitted" };
    let total = ids.len() as u64;
    let tasks = |count| counted(count, "task");
    let words = match (ids.as_slice(), total.saturating_sub(*recorded)) {
        ([id], 0) => format!("{done} {id} under the key {key}"),
        ([id], _) => format!("{id} was submitted before, under the key {key}: nothing was done"),
        (_, 0) => format!("{done} {} under the key {key}", tasks(total)),
        (_, before) if before == total => {
            format!(
                "all {} were submitted before, under the key {key}: nothing was done",
                tasks(total)
            )
        }
        (_, before) => format!(
            "{done} {} under the key {key}; {} had been submitted before",
            tasks(*recorded),
            tasks(before)
        ),
    };
    words + &due_words(due.1, now_ms())
}

fn items(args: &SubmitArgs) -> anyhow::Result<Items> {
    if let Some(range) = &args.array {
        return Items::range(range).map_err(|reason| usage(format!("--array: {reason}")));
    }
    let Some(path) = &args.each_line else { return Ok(Items::One) };
    if is_stdin(path) && args.task.stdin.as_deref().is_some_and(is_stdin) {
        return Err(usage("--each-line and --stdin cannot both read this command's stdin"));
    }
    let bytes = read(path, "--each-line")?;
    let wrong = |reason| usage(format!("--each-line: {reason}"));
    let items = Items::lines(bytes).map_err(wrong)?;
    if args.task.call.is_some() {
        items.check_text().map_err(wrong)?;
    }
    Ok(items)
}

/// Checks every task before any is sent; returns how many there are.
fn check(items: &Items, specs: impl Iterator<Item = TaskSpec>) -> anyhow::Result<u64> {
    let too_many = || {
        let words = format!("a submission has at most {MAX_TASKS_PER_SUBMISSION} tasks");
        usage(format!("{words}: submit in parts; nothing was submitted"))
    };
    if items.count().is_some_and(|count| count > MAX_TASKS_PER_SUBMISSION) {
        return Err(too_many());
    }
    let mut total = 0;
    for spec in specs {
        if total == MAX_TASKS_PER_SUBMISSION {
            return Err(too_many());
        }
        spec.check().map_err(|reason| {
            usage(format!("{}: {reason}; nothing was submitted", items.label(total)))
        })?;
        total += 1;
    }
    if total == 0 {
        return Err(usage("--each-line: the file has no lines, so there is nothing to submit"));
    }
    Ok(total)
}

/// Submits tasks in chunks; `submitted` says how far it came. The next chunk is on
/// its way while the one before is answered, once the first was taken.
pub(crate) async fn send(
    client: &Client,
    to: &Recipient,
    key: &str,
    total: u64,
    specs: impl Iterator<Item = TaskSpec>,
    submitted: &mut Submitted,
) -> anyhow::Result<()> {
    let wait_ms = u64::try_from(submitted.wait.as_millis()).unwrap_or(u64::MAX);
    let (confirmed, retry, due) = (submitted.confirmed, submitted.retry.clone(), submitted.due.0);
    let request = |first, tasks| {
        let (key, retry) = (key.to_owned(), retry.clone());
        let request = SubmitRequest {
            tasks,
            retry,
            due,
            wait_ms,
            confirmed,
            ..to.request(key, total, first)
        };
        async move { client.post::<SubmitAnswer>("/v1/tasks", &request).await }
    };
    let mut open = FuturesOrdered::new();
    let (mut chunk, mut bytes, mut first): (Vec<Box<RawValue>>, _, _) = (Vec::new(), 0, 0);
    for spec in specs {
        let task = to_raw_value(&spec)?;
        let size = task.get().len();
        let full = chunk.len() == MAX_TASKS_PER_REQUEST || bytes + size > CHUNK_BYTES;
        if full && !chunk.is_empty() {
            let tasks = std::mem::take(&mut chunk);
            let ahead = if first == 0 { 0 } else { 1 };
            let count = tasks.len() as u64;
            open.push_back(request(first, tasks));
            first += count;
            while open.len() > ahead
                && let Some(answer) = open.next().await
            {
                submitted.take(answer?);
            }
            bytes = 0;
        }
        bytes += size;
        chunk.push(task);
    }
    open.push_back(request(first, chunk));
    while let Some(answer) = open.next().await {
        submitted.take(answer?);
    }
    Ok(())
}

async fn wait(
    client: &Client,
    args: &SubmitArgs,
    key: &str,
    submitted: &Submitted,
    json: bool,
) -> anyhow::Result<u8> {
    let Submitted { endpoint, ids, .. } = submitted;
    if !json && ids.len() > 1 {
        output::note(&told(submitted, key));
    }
    let progress = match submitted.progress.clone().filter(Progress::complete) {
        Some(progress) => progress,
        None => unless_interrupted(rest(client, key, !json), &format!("--key {key}")).await?,
    };
    let one = match ids.as_slice() {
        [id] if args.each_line.is_none() && args.array.is_none() => {
            Some(outcome(client, *id).await?)
        }
        _ => None,
    };
    let code = match &one {
        Some(result) => code_of_task(result),
        None => exit_code(progress.succeeded == progress.total),
    };
    if json {
        output::json(&SubmitReport {
            endpoint: *endpoint,
            key,
            ids,
            recorded: submitted.recorded,
            due_at_ms: submitted.due.1,
            waiting: submitted.waiting.as_deref(),
            warnings: &submitted.warnings,
            progress: Some(&progress),
            outcome: one.as_ref().map(|result| result.outcome),
            exit_code: one.as_ref().and_then(|result| result.exit_code),
            value: one.as_ref().and_then(|result| result.value.as_ref()),
        })?;
        return Ok(code);
    }
    if let Some(result) = &one {
        mirror(result)?;
        return Ok(code);
    }
    output::line(&format!("{} (key {key})", summary(&progress)))?;
    Ok(code)
}

/// Waits for what is not done, with a bar on a terminal if `bar`.
async fn rest(client: &Client, key: &str, bar: bool) -> anyhow::Result<Progress> {
    let request = WaitRequest { key: Some(key.to_owned()), ..WaitRequest::default() };
    until_done(client, request, None, bar).await.map_err(|error| {
        let message = format!("{error:#}\nThe tasks are submitted, under the key {key}");
        anyhow::Error::from(Failure::new(code_of(&error), message))
    })
}

/// The recorded result of a task that is done.
async fn outcome(client: &Client, id: TaskId) -> anyhow::Result<TaskResult> {
    let page: ResultPage = client.get("/v1/results", &[("task", id.to_string())]).await?;
    let task = page.results.into_iter().next().context("the service's answer is empty")?;
    Ok(task.result.context("the service's answer has no result")?.result)
}

/// Makes this command look like the task's process by its output. What a function
/// returned is one line.
fn mirror(result: &TaskResult) -> std::io::Result<()> {
    output::raw(&result.stdout.0)?;
    if let Some(value) = &result.value {
        output::raw_line(value.text())?;
    }
    output::raw_to_stderr(&result.stderr.0);
    if code_of_task(result) != 0 && result.exit_code.is_none() {
        let how = how(result).map(|how| format!(" ({how})")).unwrap_or_default();
        output::note(&format!("task {}: {}{how}", result.task_id, result.outcome));
    }
    Ok(())
}

fn code_of_task(result: &TaskResult) -> u8 {
    mirrored(result.outcome, result.exit_code, result.signal)
}

/// The exit code a shell would give to a process that ended like this.
pub(super) fn mirrored(outcome: Outcome, exit_code: Option<i32>, signal: Option<i32>) -> u8 {
    let failed = |code: i32| u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(GENERAL);
    match (outcome, exit_code, signal) {
        (Outcome::Succeeded, _, _) => 0,
        (Outcome::Failed, Some(code), _) => failed(code),
        (Outcome::Failed, None, Some(signal)) => failed(signal.saturating_add(128)),
        _ => GENERAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::expand::{Pattern, Template};
    use crate::stub_broker::result;

    #[test]
    fn a_failed_process_is_mirrored_and_everything_else_is_1() {
        let code = |outcome, exit_code, signal| {
            code_of_task(&TaskResult { exit_code, signal, ..result(outcome) })
        };
        assert_eq!(code(Outcome::Succeeded, Some(0), None), 0);
        assert_eq!(code(Outcome::Failed, Some(3), None), 3);
        assert_eq!(code(Outcome::Failed, None, Some(9)), 137);
        assert_eq!(code(Outcome::Failed, None, None), 1);
        assert_eq!(code(Outcome::TimedOut, None, Some(15)), 1);
    }

    #[test]
    fn what_was_submitted_before_is_not_called_submitted() {
        let words = |count: usize, recorded| {
            let ids = (0..count).map(|_| TaskId::new()).collect();
            told(&Submitted { ids, recorded, ..Submitted::default() }, "k")
        };
        assert!(words(1, 1).starts_with("submitted "));
        assert!(words(1, 0).contains("nothing was done"));
        assert_eq!(words(5000, 5000), "submitted 5000 tasks under the key k");
        assert!(words(5000, 0).starts_with("all 5000 tasks were submitted before"));
        assert_eq!(
            words(5, 1),
            "submitted 1 task under the key k; 4 tasks had been submitted before"
        );
    }

    #[test]
    fn a_bad_task_is_named_before_anything_is_sent() {
        let items = Items::lines(b"a\n\nb\0\n".to_vec()).unwrap();
        let pattern = Pattern::Program(Template::new(vec!["echo".into()], false));
        let base = TaskSpec::plain();
        let specs = items.expand(&pattern).map(|made| with(&base, made));
        let words = check(&items, specs).unwrap_err().to_string();
        assert!(words.contains("line 3: argv[1] contains a NUL byte"), "{words}");
        let all = Items::range("0-18446744073709551615").unwrap();
        let specs = all.expand(&pattern).map(|_| panic!("a task was made"));
        let words = check(&all, specs).unwrap_err().to_string();
        assert!(words.contains("at most"), "{words}");
        let none = check(&items, std::iter::empty()).unwrap_err().to_string();
        assert!(none.contains("nothing to submit"), "{none}");
    }
}
