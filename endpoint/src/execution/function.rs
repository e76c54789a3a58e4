//! Runs calls of functions. Those that are built in are answered here and now, those
//! of the configuration by workers, and one that the endpoint does not have is
//! refused in words. Touches what its workers do.

pub(crate) mod pool;
mod protocol;
pub(crate) mod python;
mod worker;
pub(crate) mod worker_spec;

use super::capture::Captured;
use super::executor::{Ended, Report};
use super::os::spawn::Spawner;
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::task::result::Outcome;
use clutch_common::task::{BUILT_IN, Call, ECHO, Task};
use futures_util::future::join_all;
use pool::{FunctionConfig, Pool};
use protocol::MAX_LINE;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often workers that wait are looked after at most.
const TEND_PAUSE: Duration = Duration::from_secs(1);

/// The functions of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct FunctionExecutor {
    pools: Arc<BTreeMap<String, Pool>>,
    tending: Mutex<JoinSet<()>>,
}

impl FunctionExecutor {
    /// The functions that the configuration names. To be called within a tokio
    /// runtime.
    pub(crate) fn new(functions: Vec<FunctionConfig>, spawner: &Arc<Spawner>) -> Self {
        let pool = |config: FunctionConfig| {
            (config.spec.function.clone(), Pool::new(config, Arc::clone(spawner)))
        };
        let pools: Arc<BTreeMap<String, Pool>> =
            Arc::new(functions.into_iter().map(pool).collect());
        let mut tending = JoinSet::new();
        if !pools.is_empty() {
            tending.spawn(tend(Arc::clone(&pools)));
        }
        Self { pools, tending: Mutex::new(tending) }
    }

    /// Runs one call to its end.
    pub(crate) async fn run(&self, task: &Task, call: &Call, stop: CancellationToken) -> Ended {
        if call.function == ECHO {
            return Ended::Finished(echo(call));
        }
        match self.pools.get(&call.function) {
            Some(pool) => pool.run(task, call, stop).await,
            None => {
                let known = self.pools.keys().map(String::as_str);
                Ended::Finished(Report::rejected(unknown(&call.function, known)))
            }
        }
    }

    /// How many calls of a function run at once, for each.
    pub(crate) fn limits(&self) -> BTreeMap<String, usize> {
        self.pools.iter().map(|(name, pool)| (name.clone(), pool.concurrency())).collect()
    }

    /// Starts a worker of each function and sees it off; what is wrong with it, and
    /// what it wrote, by function.
    pub(crate) async fn try_out(&self) -> Vec<(String, Result<(), (String, Captured)>)> {
        let tried =
            self.pools.iter().map(async |(name, pool)| (name.clone(), pool.try_out().await));
        join_all(tried).await
    }

    /// Sees all workers off. Nothing is called any more.
    pub(crate) async fn close(&self) {
        let mut tending =
            std::mem::take(&mut *self.tending.lock().unwrap_or_else(PoisonError::into_inner));
        tending.shutdown().await;
        join_all(self.pools.values().map(Pool::close)).await;
    }
}

/// Looks after the workers that wait, whenever a child of this process has ended.
async fn tend(pools: Arc<BTreeMap<String, Pool>>) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(%error, "workers that die while they wait are noticed at the next call");
            return;
        }
    };
    while ended.recv().await.is_some() {
        pools.values().for_each(Pool::tend);
        sleep(TEND_PAUSE).await;
    }
}

/// Answers with what was asked, if that may be as long as an answer.
fn echo(call: &Call) -> Report {
    let length = call.args.text().len();
    if length > MAX_LINE {
        let reason = format!("its arguments have {length} bytes; a value may have {MAX_LINE}");
        return Report { reason: Some(reason), ..Report::blank(Outcome::Failed) };
    }
    Report::returned(call.args.clone())
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
    pub(crate) fn blank(outcome: Outcome) -> Self {
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
        match FunctionExecutor::default().run(&task, &call, CancellationToken::new()).await {
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
        let report = call(ECHO, &format!("[\"{}\"]", "x".repeat(MAX_LINE))).await;
        assert_eq!(report.outcome, Outcome::Failed, "its result would not fit a message");
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
