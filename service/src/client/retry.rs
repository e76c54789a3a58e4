//! Has tasks run again, and says how many.

use crate::api::types::{RetryAnswer, RetryRequest};
use crate::cli::output;
use crate::cli::retry::RetryArgs;
use crate::client::Client;
use crate::failure::{Failure, GENERAL};
use clutch_common::text::counted::counted;

/// Has tasks run again, and prints how many these are.
///
/// # Errors
/// When the service cannot be asked, does not know the tasks, or some that were named cannot
/// be run again.
pub(crate) async fn run(client: &Client, args: &RetryArgs, json: bool) -> anyhow::Result<()> {
    let request = RetryRequest {
        tasks: args.selection.tasks.clone(),
        key: args.selection.key.clone(),
        states: args.status.iter().map(|outcome| outcome.as_str().to_owned()).collect(),
    };
    let answer: RetryAnswer = client.post("/v1/retry", &request).await?;
    if json {
        output::json(&answer)?;
    } else if answer.retried > 0 {
        output::line(&format!("run again: {}", counted(answer.retried, "task")))?;
    } else if answer == RetryAnswer::default() {
        output::line("nothing to run again: no such task has ended and did not succeed")?;
    }
    match refusal(&answer) {
        None => Ok(()),
        Some(words) => Err(Failure::new(GENERAL, words).into()),
    }
}

/// The words for tasks that cannot be run again.
fn refusal(answer: &RetryAnswer) -> Option<String> {
    let mut words = Vec::new();
    if answer.open > 0 {
        words.push(format!(
            "{} not run again: without an outcome, a task is still under way; `cancel` ends it, \
             `wait` waits for it",
            counted(answer.open, "task")
        ));
    }
    if answer.external > 0 {
        words.push(format!(
            "{} not run again: submitted by another program, so that what to run is not recorded \
             here",
            counted(answer.external, "task")
        ));
    }
    (!words.is_empty()).then(|| words.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_cannot_be_run_again_are_refused_in_words() {
        assert_eq!(refusal(&RetryAnswer { retried: 3, ..RetryAnswer::default() }), None);
        let words = refusal(&RetryAnswer { open: 1, ..RetryAnswer::default() }).unwrap();
        assert!(
            words.starts_with("1 task not run again") && words.contains("under way"),
            "{words}"
        );
        let words = refusal(&RetryAnswer { external: 2, ..RetryAnswer::default() }).unwrap();
        assert!(words.contains("another program"), "{words}");
    }
}
