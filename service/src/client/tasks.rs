//! Lists tasks.

use super::moment;
use crate::api::types::{MAX_PAGE, TaskPage};
use crate::cli::TasksArgs;
use crate::cli::output;
use crate::client::Client;
use crate::model::{TaskSummary, progress_words};
use clutch_common::system::clock::now_ms;

/// Prints the newest tasks: a table, or one JSON object per line.
pub(crate) async fn run(client: &Client, args: &TasksArgs, json: bool) -> anyhow::Result<()> {
    let mut left = args.limit;
    let mut before = None;
    if !json {
        output::line(&row("TASK", "STATE", "ENDPOINT", "RECORDED", "COMMAND"))?;
    }
    while left > 0 {
        let page: TaskPage = client.get("/v1/tasks", &parameters(args, left, before)).await?;
        for task in &page.tasks {
            if json { output::json(task)? } else { output::line(&shown(task))? }
        }
        left = left.saturating_sub(page.tasks.len() as u64);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn parameters(args: &TasksArgs, left: u64, before: Option<u64>) -> Vec<(&'static str, String)> {
    let now_ms = now_ms();
    let optional = [
        ("endpoint", args.endpoint.clone()),
        ("topic", args.topic.clone()),
        ("state", (!args.status.is_empty()).then(|| args.status.join(","))),
        ("key", args.key.clone()),
        ("name", args.name.clone()),
        ("priority", args.priority.map(|level| level.to_string())),
        ("since_ms", args.since.map(|moment| moment.ms(now_ms).to_string())),
        ("until_ms", args.until.map(|moment| moment.ms(now_ms).to_string())),
        ("before", before.map(|before| before.to_string())),
    ];
    let mut parameters = vec![("limit", left.min(MAX_PAGE).to_string())];
    parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    parameters
}

fn shown(task: &TaskSummary) -> String {
    let recipient = match (&task.endpoint_name, &task.topic) {
        (Some(name), _) => name.clone(),
        (None, Some(topic)) => format!("topic {topic}"),
        (None, None) => task.endpoint.to_string(),
    };
    let name = task.name.as_ref().map(|name| format!("[{name}] ")).unwrap_or_default();
    let progress =
        task.progress.as_ref().map(|progress| format!("({}) ", progress_words(progress)));
    let progress = progress.unwrap_or_default();
    let terms = terms(task);
    row(
        &task.id.to_string(),
        task.state.as_str(),
        &recipient,
        &moment(task.created_at_ms),
        &output::one_line(&format!(
            "{progress}{terms}{name}{}",
            task.command.as_deref().unwrap_or_default()
        )),
    )
}

/// The priority of a task and its cores, where they are not those of most tasks.
fn terms(task: &TaskSummary) -> String {
    let priority = (!task.priority.is_normal()).then(|| task.priority.to_string());
    let cores = (task.cores != 1).then(|| format!("{} cores", task.cores));
    let terms: Vec<String> = priority.into_iter().chain(cores).collect();
    if terms.is_empty() { String::new() } else { format!("({}) ", terms.join(", ")) }
}

fn row(id: &str, state: &str, endpoint: &str, created: &str, command: &str) -> String {
    format!("{id:<36}  {state:<12}  {endpoint:<16}  {created:<20}  {command}").trim_end().to_owned()
}
