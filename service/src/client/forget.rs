//! Forgets ended tasks, request by request, until none is left.

use crate::api::types::{ForgetAnswer, ForgetRequest};
use crate::cli::ForgetArgs;
use crate::cli::output;
use crate::client::Client;
use clutch_common::text::counted::counted;
use serde::Serialize;
use std::time::Duration;

/// The output of `--json`.
#[derive(Debug, Default, Serialize)]
struct ForgetReport {
    /// How many tasks were forgotten, or would be.
    tasks: u64,
    /// How many submissions went with the last of their tasks.
    submissions: u64,
    /// How many records of schedules' instants went with their tasks.
    occurrences: u64,
    /// How many tasks without an outcome stay.
    unfinished: u64,
    dry_run: bool,
}

/// Forgets the tasks that the arguments select, and prints how many they were.
pub(crate) async fn run(client: &Client, args: &ForgetArgs, json: bool) -> anyhow::Result<()> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut request = ForgetRequest {
        key: args.which.key.clone(),
        older_than_ms: args.which.older_than.map(ms),
        dry_run: args.dry_run,
        from: 0,
    };
    let mut report = ForgetReport { dry_run: args.dry_run, ..ForgetReport::default() };
    loop {
        let answer: ForgetAnswer = client.post("/v1/forget", &request).await?;
        report.tasks += answer.tasks;
        report.submissions += answer.submissions;
        report.occurrences += answer.occurrences;
        report.unfinished += answer.unfinished;
        let Some(next) = answer.next else { break };
        request.from = next;
    }
    if json { output::json(&report) } else { Ok(output::line(&words(&report))?) }
}

fn words(report: &ForgetReport) -> String {
    let tasks = counted(report.tasks, "task");
    let mut words = if report.dry_run {
        format!("would forget {tasks}")
    } else {
        format!("forgot {tasks} and {}", counted(report.submissions, "submission"))
    };
    if report.occurrences > 0 {
        let records = counted(report.occurrences, "record");
        words.push_str(&format!(", and {records} of schedules"));
    }
    if report.unfinished > 0 {
        words
            .push_str(&format!("; {} without an outcome stay", counted(report.unfinished, "task")));
    }
    words
}
