//! Cancels tasks, and says what became of them.

use crate::api::types::{AskedEndpoint, CancelAnswer, CancelRequest};
use crate::cli::cancel::CancelArgs;
use crate::cli::output;
use crate::client::Client;
use clutch_common::text::counted::counted;

/// How long to wait for endpoints that answer, in milliseconds.
const WAIT_MS: u64 = 10_000;

/// Cancels tasks, and prints what became of them.
///
/// # Errors
/// When the service cannot be asked or does not know the tasks.
pub(crate) async fn run(client: &Client, args: &CancelArgs, json: bool) -> anyhow::Result<()> {
    let request = CancelRequest {
        tasks: args.selected.tasks.clone(),
        key: args.selected.key.clone(),
        endpoint: args.selected.endpoint.clone(),
        topic: args.selected.topic.clone(),
        name: args.selected.name.clone(),
        states: args.status.clone(),
        with_children: args.with_children,
        wait_ms: if args.no_wait { 0 } else { WAIT_MS },
    };
    let answer: CancelAnswer = client.post("/v1/cancel", &request).await?;
    if json {
        return output::json(&answer);
    }
    for line in words(&answer) {
        output::line(&line)?;
    }
    Ok(())
}

/// The fates of the tasks, for people.
fn words(answer: &CancelAnswer) -> Vec<String> {
    let mut lines = Vec::new();
    if answer.cancelled > 0 {
        lines.push(format!("cancelled {}", counted(answer.cancelled, "task")));
    }
    let left = answer.endpoints.iter().filter(|one| one.asked > 0);
    lines.extend(left.map(|AskedEndpoint { name, asked, online, .. }| {
        let tasks = counted(*asked, "task");
        match online {
            Some(false) => format!(
                "{tasks} not cancelled yet: no instance of '{name}' is online. They will not start \
                 when one is back"
            ),
            Some(true) => format!(
                "{tasks} not cancelled yet: '{name}' is asked, and stops those that run. What has \
                 not started will not start"
            ),
            None => format!(
                "{tasks} not cancelled yet: '{name}' is asked. What has not started will not start, \
                 also if '{name}' is offline and comes back later"
            ),
        }
    }));
    if answer.too_late > 0 {
        let (tasks, own) = (counted(answer.too_late, "task"), answer.too_late == 1);
        let have = if own { "has its outcome" } else { "have their outcomes" };
        lines.push(format!("too late for {tasks}: {} {have}", if own { "it" } else { "they" }));
    }
    if lines.is_empty() {
        lines.push("nothing to cancel: no such task is without an outcome".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::EndpointId;

    #[test]
    fn the_answer_tells_what_is_left_where_and_what_came_too_late() {
        let said = |answer: &CancelAnswer| words(answer).join("\n");
        assert!(said(&CancelAnswer::default()).starts_with("nothing to cancel"));
        let mut answer = CancelAnswer { cancelled: 2, too_late: 1, ..CancelAnswer::default() };
        assert_eq!(said(&answer), "cancelled 2 tasks\ntoo late for 1 task: it has its outcome");
        let asked = |asked, online| AskedEndpoint {
            endpoint: EndpointId::new(),
            name: "lab".to_owned(),
            asked,
            online,
        };
        answer.endpoints = vec![asked(0, Some(true)), asked(5, Some(false))];
        let words = said(&answer);
        assert!(words.contains("5 tasks not cancelled yet: no instance of 'lab' is online"));
        assert!(words.contains("They will not start"), "{words}");
        answer.endpoints = vec![asked(1, None)];
        assert!(said(&answer).contains("1 task not cancelled yet: 'lab' is asked"));
    }
}
