//! Prints results, in the order of submission, a page at a time.

use super::output_folder::OutputFolder;
use super::show::{error, stream, value};
use crate::api::types::{MAX_PAGE, ResultPage};
use crate::cli::output;
use crate::cli::{ResultsArgs, Selection};
use crate::client::Client;
use crate::failure::{Failure, GENERAL};
use crate::model::TaskOutcome;
use clutch_common::task::result::TaskResult;
use clutch_common::text::counted::counted;

/// How results are written.
#[derive(Debug)]
enum Form {
    /// One JSON object per line.
    Json,
    /// The standard output's bytes and nothing else.
    StdoutOnly,
    /// The values that calls returned, one JSON value per line.
    Values,
    /// A file for each stream.
    Files(OutputFolder),
    /// For people.
    Text,
}

/// How many tasks there are to be, how many of them are recorded, how many of those
/// have no result, and how many are forgotten.
#[derive(Default)]
struct Seen {
    total: u64,
    recorded: u64,
    open: u64,
    forgotten: u64,
    /// How many that have a result have no value.
    without_value: u64,
}

/// Prints the results of the selected tasks.
///
/// # Errors
/// When the service cannot be asked or does not know the tasks, and, after all
/// has been printed, when some were never submitted or have no result yet.
pub(crate) async fn run(client: &Client, args: &ResultsArgs, json: bool) -> anyhow::Result<()> {
    let mut form = match &args.to {
        Some(folder) => Form::Files(OutputFolder::open(folder)?),
        None if args.values => Form::Values,
        None if args.stdout_only => Form::StdoutOnly,
        None if json => Form::Json,
        None => Form::Text,
    };
    let mut seen = Seen::default();
    let Selection { tasks, key } = &args.selection;
    for task in tasks {
        let page: ResultPage = client.get("/v1/results", &[("task", task.to_string())]).await?;
        print(&page, &mut form, &mut seen)?;
        seen.total += page.total;
    }
    if let Some(key) = key {
        let mut from = Some(0);
        while let Some(index) = from {
            let parameters = [
                ("key", key.clone()),
                ("from", index.to_string()),
                ("limit", MAX_PAGE.to_string()),
            ];
            let page: ResultPage = client.get("/v1/results", &parameters).await?;
            print(&page, &mut form, &mut seen)?;
            seen.total = page.total;
            seen.forgotten = page.forgotten;
            from = page.next;
        }
    }
    if let Form::Files(folder) = &form {
        if json {
            output::json(&folder.report())?;
        } else {
            output::line(&folder.words())?;
        }
        folder.check()?;
    }
    complete(&seen, key.as_deref(), matches!(form, Form::Values))
}

/// An error if results are missing, or values that were asked for.
fn complete(seen: &Seen, key: Option<&str>, values: bool) -> anyhow::Result<()> {
    let Seen { total, recorded, open, forgotten, without_value } = *seen;
    let mut words = Vec::new();
    if values && without_value > 0 {
        words.push(format!("{without_value} of {}: no value (null)", counted(total, "task")));
    }
    if open > 0 {
        words.push(format!("{open} of {}: no result yet", counted(total, "task")));
    }
    if forgotten > 0 {
        words.push(format!("{forgotten} of {}: forgotten", counted(total, "task")));
    }
    if recorded + forgotten < total {
        words.push(never_submitted(total - recorded - forgotten, total, key));
    }
    if words.is_empty() { Ok(()) } else { Err(Failure::new(GENERAL, words.join("\n")).into()) }
}

/// The words for tasks of a submission that are not recorded: it was cut off.
pub(super) fn never_submitted(missing: u64, total: u64, key: Option<&str>) -> String {
    let again = key.map(|key| format!(": submit again with --key {key}")).unwrap_or_default();
    format!("{missing} of {} never submitted{again}", counted(total, "task"))
}

fn print(page: &ResultPage, form: &mut Form, seen: &mut Seen) -> anyhow::Result<()> {
    for task in &page.results {
        seen.recorded += 1;
        seen.open += u64::from(task.result.is_none());
        match (&mut *form, &task.result) {
            (Form::Json, _) => output::json(task)?,
            (Form::Files(folder), _) => folder.write(task, page.total)?,
            (Form::Values, recorded) => {
                let result = recorded.as_ref().map(|recorded| &recorded.result);
                let value = result.and_then(|result| result.value.as_ref());
                seen.without_value += u64::from(result.is_some() && value.is_none());
                // A line break in JSON is only ever space between its parts.
                let line = value.map(|value| value.text().replace(['\n', '\r'], " "));
                output::raw_line(line.as_deref().unwrap_or("null"))?;
            }
            (Form::StdoutOnly, Some(recorded)) => output::raw(&recorded.result.stdout.0)?,
            (Form::StdoutOnly, None) => (),
            (Form::Text, recorded) => {
                text(task, recorded.as_ref().map(|recorded| &recorded.result))?;
            }
        }
    }
    Ok(())
}

fn text(task: &TaskOutcome, result: Option<&TaskResult>) -> std::io::Result<()> {
    let summary = &task.summary;
    let command = output::one_line(summary.command.as_deref().unwrap_or_default());
    let mut head = format!("{} {} {command}", summary.id, summary.state);
    if let Some(how) = result.and_then(how) {
        head.push_str(&format!(" ({})", output::one_line(&how)));
    }
    output::line(head.trim_end())?;
    let Some(result) = result else { return Ok(()) };
    error(result)?;
    value(result)?;
    stream("stdout", &result.stdout.0, result.stdout_omitted)?;
    stream("stderr", &result.stderr.0, result.stderr_omitted)
}

/// How a process ended, where that is worth a word.
pub(super) fn how(result: &TaskResult) -> Option<String> {
    let code = result.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}"));
    let signal = result.signal.map(|signal| format!("signal {signal}"));
    let words: Vec<String> =
        [code, signal, result.reason.clone().map(Into::into)].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}
