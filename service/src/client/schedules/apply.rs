//! Makes the schedules so as a file declares them, and says what that changed.

use super::file::{self, DeclaredSet};
use super::show;
use crate::api::schedules::{SchedulesAnswer, SchedulesRequest};
use crate::cli::output;
use crate::cli::schedule::ApplyArgs;
use crate::client::Client;
use crate::failure::{CONFIG, Failure, exit_code, kind_of};
use crate::model::{ChangedSchedule, ScheduleChange};
use clutch_common::text::counted::counted;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The kinds of errors that are about schedules of the file, each on a line.
const OF_SCHEDULES: [&str; 2] = ["bad_request", "not_found"];

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct ApplyReport<'a> {
    dry_run: bool,
    schedules: &'a [ChangedSchedule],
    /// The schedules of the owner that the file does not declare, and that stay.
    undeclared: &'a [String],
}

/// Applies a file.
pub(super) async fn run(client: &Client, args: &ApplyArgs, json: bool) -> anyhow::Result<()> {
    let shown = args.file.display();
    let text = std::fs::read_to_string(&args.file).map_err(|error| {
        Failure::new(CONFIG, format!("the schedules of {shown} cannot be read: {error}"))
    })?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let faulty = |faults: &[String]| {
        let count = counted(faults.len() as u64, "fault");
        let words = format!("{shown} has {count}; nothing was changed:\n  {}", faults.join("\n  "));
        Failure::new(CONFIG, words)
    };
    let set = file::read(&text, folder).map_err(|faults| faulty(&faults))?;
    if args.prune && set.owner.is_none() {
        let words = "--prune removes what the owner of a file declared before: write `owner = \
                     \"NAME\"` as the first line"
            .to_owned();
        return Err(faulty(&[words]).into());
    }
    let request = SchedulesRequest {
        owner: set.owner.clone(),
        schedules: set.schedules.clone(),
        replace: true,
        prune: args.prune,
        dry_run: args.dry_run,
    };
    let answer: Result<SchedulesAnswer, _> = client.post("/v1/schedules", &request).await;
    let answer = answer.map_err(|error| located(&set, &text, error, faulty))?;
    let undeclared = undeclared(client, &set, args.prune).await?;
    let (dry_run, schedules) = (args.dry_run, &answer.schedules[..]);
    if json {
        return output::json(&ApplyReport { dry_run, schedules, undeclared: &undeclared });
    }
    for line in lines(schedules) {
        output::line(&line)?;
    }
    if dry_run {
        output::line("a dry run: nothing was changed")?;
    }
    if let (Some(owner), false) = (&set.owner, undeclared.is_empty()) {
        output::note(&format!(
            "the owner '{owner}' declared before, and the file does not: {}; --prune removes what \
             is not declared",
            undeclared.join(", ")
        ));
    }
    Ok(())
}

/// The error of the service, with the places of the schedules that it names.
fn located(
    set: &DeclaredSet,
    text: &str,
    error: anyhow::Error,
    faulty: impl Fn(&[String]) -> Failure,
) -> anyhow::Error {
    if !OF_SCHEDULES.contains(&kind_of(&error)) || exit_code(&error) == CONFIG {
        return error;
    }
    let words = format!("{error:#}");
    let faults: Vec<String> = words.lines().map(|line| set.located(text, line)).collect();
    faulty(&faults).of_kind(kind_of(&error).to_owned()).into()
}

/// The schedules of the owner that the file does not declare and that stay.
async fn undeclared(
    client: &Client,
    set: &DeclaredSet,
    prune: bool,
) -> anyhow::Result<Vec<String>> {
    let Some(owner) = set.owner.as_deref().filter(|_| !prune) else { return Ok(Vec::new()) };
    let declared: BTreeSet<&str> = set.schedules.iter().map(|one| one.name.as_str()).collect();
    let all = show::all(client, Some(owner)).await?.into_iter().map(|one| one.name);
    Ok(all.filter(|name| !declared.contains(name.as_str())).collect())
}

/// A line for each schedule: the change, its name, and in what it differed.
fn lines(schedules: &[ChangedSchedule]) -> Vec<String> {
    let line = |ChangedSchedule { name, change, differences }: &ChangedSchedule| {
        let change = match change {
            ScheduleChange::Added => "added",
            ScheduleChange::Unchanged => "unchanged",
            ScheduleChange::Replaced => "changed",
            ScheduleChange::Removed => "removed",
        };
        let differences = differences.join("; ");
        let line = format!("{change:<10} {name:<24} {}", output::one_line(&differences));
        line.trim_end().to_owned()
    };
    if schedules.is_empty() {
        return vec!["the file declares no schedule: nothing was changed".to_owned()];
    }
    schedules.iter().map(line).collect()
}
