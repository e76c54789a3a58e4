//! Runs calls of functions. Those that are built in are answered here and now; a
//! function that the endpoint does not have is refused in words. Touches nothing.

use super::{Captured, Ended, Report};
use clutch_common::clock::now_ms;
use clutch_common::json::Json;
use clutch_common::result::Outcome;
use clutch_common::task::{BUILT_IN, Call, ECHO, Task};
use tokio_util::sync::CancellationToken;

/// The functions of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Calls {}

impl Calls {
    /// Runs one call to its end.
    pub(super) async fn run(&self, _task: &Task, call: &Call, _stop: CancellationToken) -> Ended {
        Ended::Finished(match call.function.as_str() {
            ECHO => Report::returned(call.args.clone()),
            name => Report::rejected(unknown(name, std::iter::empty())),
        })
    }
}

/// Why a function is not called, and what to do about it.
fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    if name.starts_with(BUILT_IN) {
        return format!("no function '{name}' is built in: there is {ECHO}");
    }
    let known: Vec<String> = known.map(|name| format!("'{name}'")).collect();
    let has = if known.is_empty() { "no function".to_owned() } else { known.join(", ") };
    format!(
        "this endpoint has no function '{name}'; it has {has}. To have it, put into endpoint.toml: \
         [functions.{name}] and command = [\"python3\", \"/path/to/worker.py\"], and start the \
         endpoint again"
    )
}

impl Report {
    /// On a call that was answered in no time.
    fn returned(value: Json) -> Self {
        let now = now_ms();
        Self {
            value: Some(value),
            started_at_ms: Some(now),
            ended_at_ms: now,
            ..Self::blank(Outcome::Succeeded)
        }
    }

    /// On a call that cannot be made here.
    fn rejected(reason: String) -> Self {
        Self { reason: Some(reason), ..Self::blank(Outcome::Rejected) }
    }

    /// Of nothing but an outcome, now.
    pub(super) fn blank(outcome: Outcome) -> Self {
        Self {
            outcome,
            value: None,
            exit_code: None,
            signal: None,
            reason: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            started_at_ms: None,
            ended_at_ms: now_ms(),
            cpu_ms: None,
            peak_memory_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::Work;

    async fn call(function: &str, args: &str) -> Report {
        let call = Call::new(function, args.parse().unwrap());
        let task = Task::of(TaskId::new(), Work::Call(call.clone()));
        match Calls::default().run(&task, &call, CancellationToken::new()).await {
            Ended::Finished(report) => report,
            Ended::Stopped => panic!("stopped, though nobody asked for it"),
        }
    }

    #[tokio::test]
    async fn an_echo_returns_its_arguments_as_they_were_written() {
        let report = call(ECHO, "[1.0, {\"b\":1, \"a\":null}]").await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert_eq!(report.value.unwrap().text(), "[1.0, {\"b\":1, \"a\":null}]");
        assert!(report.started_at_ms.is_some());
    }

    #[tokio::test]
    async fn a_function_that_is_not_there_is_refused_in_words() {
        let report = call("add", "[]").await;
        assert_eq!((report.outcome, report.started_at_ms), (Outcome::Rejected, None));
        let reason = report.reason.unwrap();
        assert!(
            reason.contains("no function 'add'") && reason.contains("[functions.add]"),
            "{reason}"
        );
        let reason = call("clutch.exit", "[]").await.reason.unwrap();
        assert!(reason.contains("clutch.echo"), "{reason}");
        let reason = unknown("add", ["mul", "sub"].into_iter());
        assert!(reason.contains("it has 'mul', 'sub'"), "{reason}");
    }
}
