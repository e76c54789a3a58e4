//! The commands about schedules that ask the service: each says what it did, and what follows.

mod apply;
mod file;
mod options;
mod show;
mod words;

use crate::api::schedules::{Changed, PauseRequest, SchedulesAnswer, SchedulesRequest};
use crate::cli::output;
use crate::cli::schedule::{AddArgs, EditArgs, ServiceCommand};
use crate::client::Client;
use crate::failure::{Failure, GENERAL};
use crate::model::{
    ChangedSchedule, NamedSchedule, Occurrence, RemovedSchedule, ScheduleChange, ScheduleDetail,
};
use anyhow::Context as _;
use clutch_common::id::TaskId;
use clutch_common::text::counted::counted;
use serde::Serialize;
use serde_json::json;
use url::form_urlencoded::byte_serialize;
use words::local;

/// How many tasks of a removed schedule a sentence names.
const NAMED: usize = 5;

/// Does what was asked for, and says what holds from then on.
pub(crate) async fn run(client: &Client, asked: &ServiceCommand, json: bool) -> anyhow::Result<()> {
    match asked {
        ServiceCommand::Add(args) => add(client, args, json).await,
        ServiceCommand::Edit(args) => edit(client, args, json).await,
        ServiceCommand::List(args) => show::list(client, args.owner.as_deref(), json).await,
        ServiceCommand::Show(which) => show::show(client, &which.schedule, json).await,
        ServiceCommand::Apply(args) => apply::run(client, args, json).await,
        ServiceCommand::Pause(args) => {
            let name = &args.which.schedule;
            let request = PauseRequest { reason: args.reason.clone() };
            let answer: Changed = client.post(&path(name, "/pause"), &request).await?;
            say(&answer, pause_words(name, answer), json)
        }
        ServiceCommand::Resume(which) => {
            let name = &which.schedule;
            let answer: Changed = client.post(&path(name, "/resume"), &json!({})).await?;
            let words = match answer.changed {
                true => format!("{name} goes on{}", next_words(client, name).await?),
                false => format!("{name} was not paused: nothing was done"),
            };
            say(&answer, words, json)
        }
        ServiceCommand::Run(which) => {
            let name = &which.schedule;
            let answer: Occurrence = client.post(&path(name, "/run"), &json!({})).await?;
            let task = answer.task.map_or_else(String::new, |task| format!(": task {task}"));
            say(&answer, format!("{name} is run by hand{task}; its instants stay"), json)
        }
        ServiceCommand::Remove(which) => {
            let path = path(&which.schedule, "/remove");
            let removed: RemovedSchedule = client.post(&path, &json!({})).await?;
            say(&removed, removed_words(&removed), json)
        }
    }
}

fn say(answer: &impl Serialize, words: String, json: bool) -> anyhow::Result<()> {
    if json { output::json(answer) } else { Ok(output::line(&words)?) }
}

/// The path of a schedule in the API.
fn path(name: &str, rest: &str) -> String {
    let name: String = byte_serialize(name.as_bytes()).collect();
    format!("/v1/schedules/{name}{rest}")
}

async fn add(client: &Client, args: &AddArgs, json: bool) -> anyhow::Result<()> {
    let schedule = options::named(&args.which.schedule, &args.endpoint, &args.options)?;
    let request = SchedulesRequest {
        owner: args.owner.clone(),
        schedules: vec![schedule],
        replace: args.replace,
        prune: false,
        dry_run: false,
    };
    let changed = one(client, &request).await?;
    let words = change_words(client, &changed).await?;
    say(&changed, words, json)
}

async fn edit(client: &Client, args: &EditArgs, json: bool) -> anyhow::Result<()> {
    let name = &args.which.schedule;
    let detail: ScheduleDetail = client.get(&path(name, ""), &[]).await?;
    let Some(known) = detail.summary.spec else {
        let reason = detail.summary.broken.unwrap_or_default();
        let words = format!("the record of '{name}' cannot be read ({reason})");
        return Err(Failure::new(GENERAL, words)
            .with_help("`clutch-service schedule add --replace` takes its place")
            .into());
    };
    let spec = options::edited(known, args)?;
    let request = SchedulesRequest {
        owner: detail.summary.owner,
        schedules: vec![NamedSchedule { name: name.clone(), spec }],
        replace: true,
        prune: false,
        dry_run: false,
    };
    let changed = one(client, &request).await?;
    let words = change_words(client, &changed).await?;
    say(&changed, words, json)
}

/// Applies a set of one schedule.
async fn one(client: &Client, request: &SchedulesRequest) -> anyhow::Result<ChangedSchedule> {
    let answer: SchedulesAnswer = client.post("/v1/schedules", request).await?;
    answer.schedules.into_iter().next().context("the service's answer is empty")
}

/// The change of a schedule in words, with what comes next.
async fn change_words(client: &Client, changed: &ChangedSchedule) -> anyhow::Result<String> {
    let ChangedSchedule { name, change, differences } = changed;
    let next = next_words(client, name).await?;
    Ok(match change {
        ScheduleChange::Added => format!("added {name}{next}"),
        ScheduleChange::Unchanged => {
            format!("{name} is there already, and the same: nothing was changed{next}")
        }
        ScheduleChange::Replaced => {
            format!("changed {name}{next}\n  {}", differences.join("\n  "))
        }
        ScheduleChange::Removed => format!("removed {name}"),
    })
}

/// A clause about a schedule's rule and its next instant.
async fn next_words(client: &Client, name: &str) -> anyhow::Result<String> {
    let detail: ScheduleDetail = client.get(&path(name, ""), &[]).await?;
    let Some(spec) = &detail.summary.spec else { return Ok(String::new()) };
    let next = match detail.next_ms.first() {
        Some(next) => format!("next {}", local(&spec.rule.zone, *next)),
        None => words::state(&detail.summary),
    };
    Ok(format!(": {}; {next}", spec.rule.words()))
}

fn pause_words(name: &str, answer: Changed) -> String {
    if !answer.changed {
        return format!("{name} is paused already: nothing was done");
    }
    format!(
        "{name} is paused: its instants are skipped until `clutch-service schedule resume {name}`; \
         tasks that are under way go on"
    )
}

fn removed_words(removed: &RemovedSchedule) -> String {
    let RemovedSchedule { name, open, tasks } = removed;
    if *open == 0 {
        return format!("removed {name}; all its tasks have their outcomes, and stay recorded");
    }
    let named: Vec<String> = tasks.iter().take(NAMED).map(TaskId::to_string).collect();
    let (count, more) = (counted(*open, "task"), *open > NAMED as u64);
    let (goes, dots) = (if *open == 1 { "goes" } else { "go" }, if more { " …" } else { "" });
    format!(
        "removed {name}; {count} without an outcome {goes} on, all others stay recorded. \
         `clutch-service cancel {}{dots}` ends what goes on",
        named.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_the_tasks_of_a_removed_schedule_is_told() {
        let ids: Vec<TaskId> = (0..7).map(|_| TaskId::new()).collect();
        let words = |open: u64| {
            let tasks = ids.iter().copied().take(usize::try_from(open).unwrap()).collect();
            removed_words(&RemovedSchedule { name: "a".to_owned(), open, tasks })
        };
        assert!(words(0).contains("all its tasks have their outcomes"));
        let one = words(1);
        assert!(
            one.contains("1 task without an outcome goes on") && one.contains(&ids[0].to_string())
        );
        let many = words(7);
        assert!(many.contains("7 tasks") && many.contains(&format!("{} …`", ids[4])), "{many}");
    }
}
