//! Waits until a topic has so many workers, by long poll.

use super::wait::HELD;
use crate::api::types::TopicAnswer;
use crate::cli::output;
use crate::cli::topic::WaitForWorkersArgs;
use crate::client::Client;
use crate::failure::{Failure, TIMEOUT};
use clutch_common::text::counted::counted;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// How long after the end of the time the service may take to answer.
const GRACE: Duration = Duration::from_secs(15);

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct WorkersReport {
    topic: String,
    /// How many workers are waited for.
    wanted: u64,
    /// How many there are.
    workers: u64,
    /// How many of those that are waited for there are not.
    missing: u64,
    /// Their names.
    names: Vec<String>,
}

impl WorkersReport {
    fn of(answer: &TopicAnswer, wanted: u64) -> Self {
        let workers = answer.topic.members.iter().filter(|member| member.is_worker());
        Self {
            topic: answer.topic.name.clone(),
            wanted,
            workers: answer.topic.workers,
            missing: wanted.saturating_sub(answer.topic.workers),
            names: workers.map(|member| member.name.clone()).collect(),
        }
    }

    fn words(&self) -> String {
        let workers = counted(self.workers, "worker");
        let names = self.names.join(", ");
        let names = if names.is_empty() { names } else { format!(": {names}") };
        if self.missing == 0 {
            return format!("the topic {} has {workers}{names}", self.topic);
        }
        format!(
            "the time is over: {} of {} missing of the topic {}, which has {workers}{names}",
            self.missing,
            counted(self.wanted, "worker"),
            self.topic
        )
    }
}

/// Waits for workers, and prints them.
///
/// # Errors
/// When the service cannot be asked; and, after the workers have been printed as JSON, when the time
/// is over.
pub(crate) async fn run(
    client: Client,
    args: &WaitForWorkersArgs,
    json: bool,
) -> anyhow::Result<()> {
    let client = client.reconnecting(args.reconnect.give_up_after);
    let answer = wait(&client, args).await?;
    let report = WorkersReport::of(&answer, args.workers);
    if json {
        output::json(&report)?;
    }
    if report.missing > 0 {
        return Err(Failure::new(TIMEOUT, report.words()).into());
    }
    if !json {
        output::line(&report.words())?;
    }
    Ok(())
}

/// The topic when it has enough workers, or when the time is over.
async fn wait(client: &Client, args: &WaitForWorkersArgs) -> anyhow::Result<TopicAnswer> {
    let path = format!("/v1/topics/{}", args.which.topic);
    // A moment that no clock comes to is none.
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = until.map_or(HELD, |until| until.saturating_duration_since(Instant::now()));
        let held_ms = left.min(HELD).as_millis();
        let parameters = [("workers", args.workers.to_string()), ("wait_ms", held_ms.to_string())];
        let asking = client.get(&path, &parameters);
        let answer: TopicAnswer = match until {
            // While the service is away, no answer comes when the time is over.
            Some(until) => {
                tokio::time::timeout_at(until + GRACE, asking).await.map_err(|_| away())??
            }
            None => asking.await?,
        };
        let over = until.is_some_and(|until| Instant::now() >= until);
        if answer.topic.workers >= args.workers || over {
            return Ok(answer);
        }
    }
}

/// The error for a time that is over while the service is away.
fn away() -> Failure {
    Failure::new(
        TIMEOUT,
        "the time is over, and the service is away: how many workers there are is not known",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_who_is_there() {
        let report = |workers: u64, names: &[&str]| WorkersReport {
            topic: "cloud".to_owned(),
            wanted: 2,
            workers,
            missing: 2u64.saturating_sub(workers),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let words = report(1, &["a"]).words();
        assert_eq!(
            words,
            "the time is over: 1 of 2 workers missing of the topic cloud, which has 1 worker: a"
        );
        assert!(report(0, &[]).words().ends_with("which has 0 workers"));
        assert_eq!(report(3, &["a", "b", "c"]).words(), "the topic cloud has 3 workers: a, b, c");
    }
}
