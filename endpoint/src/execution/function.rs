//! Runs calls of functions. A built-in function is answered here, one of the
//! configuration by a worker of its [`pool`], and one that the endpoint does not have is
//! rejected with a reason. Touches its workers only.

mod busy;
pub(crate) mod pool;
mod protocol;
pub(crate) mod python;
mod worker;
pub(crate) mod worker_spec;

use super::capture::Captured;
use super::executor::{Ended, Report, RunContext};
use super::os::spawn::Spawner;
use clutch_common::id::Attempt;
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

/// The pause between two searches for workers that died.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// Runs the function calls of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct FunctionExecutor {
    pools: Arc<BTreeMap<String, Pool>>,
    watching: Mutex<JoinSet<()>>,
}

impl FunctionExecutor {
    /// Creates an executor of these functions. To be called within a tokio runtime.
    pub(crate) fn new(functions: Vec<FunctionConfig>, spawner: &Arc<Spawner>) -> Self {
        let pool = |config: FunctionConfig| {
            (config.spec.function.clone(), Pool::new(config, Arc::clone(spawner)))
        };
        let pools: Arc<BTreeMap<String, Pool>> =
            Arc::new(functions.into_iter().map(pool).collect());
        let mut watching = JoinSet::new();
        if !pools.is_empty() {
            watching.spawn(stop_dead_workers(Arc::clone(&pools)));
        }
        Self { pools, watching: Mutex::new(watching) }
    }

    /// Runs one call to its end.
    pub(crate) async fn run(&self, task: &Task, call: &Call, context: &RunContext) -> Ended {
        if call.function == ECHO {
            return Ended::Finished(echo(call));
        }
        match self.pools.get(&call.function) {
            Some(pool) => pool.run(task, call, context).await,
            None => {
                let known = self.pools.keys().map(String::as_str);
                Ended::Finished(Report::rejected(unknown(&call.function, known)))
            }
        }
    }

    /// Returns how many calls of each function run at once.
    pub(crate) fn limits(&self) -> BTreeMap<String, usize> {
        self.pools.iter().map(|(name, pool)| (name.clone(), pool.concurrency())).collect()
    }

    /// Returns each function with how many workers it may have, and how many are idle and
    /// busy.
    pub(crate) fn workers(&self) -> Vec<(String, usize, usize, usize)> {
        let workers = |(name, pool): (&String, &Pool)| {
            let (idle, busy) = pool.idle_and_busy();
            (name.clone(), pool.concurrency(), idle, busy)
        };
        self.pools.iter().map(workers).collect()
    }

    /// Returns the calls that workers have, each with the worker's process.
    pub(crate) fn calls(&self) -> Vec<(Attempt, u32)> {
        self.pools.values().flat_map(Pool::calls).collect()
    }

    /// Starts and stops a worker of each function. Returns, by function, what is wrong with
    /// the worker and what it wrote.
    pub(crate) async fn try_out(&self) -> Vec<(String, Result<(), (String, Captured)>)> {
        let tried =
            self.pools.iter().map(async |(name, pool)| (name.clone(), pool.try_out().await));
        join_all(tried).await
    }

    /// Stops all workers. No call is made after it.
    pub(crate) async fn close(&self) {
        let mut watching =
            std::mem::take(&mut *self.watching.lock().unwrap_or_else(PoisonError::into_inner));
        watching.shutdown().await;
        join_all(self.pools.values().map(Pool::close)).await;
    }
}

/// Stops workers that died while they waited, whenever a child of this process ends.
async fn stop_dead_workers(pools: Arc<BTreeMap<String, Pool>>) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(%error, "workers that die while they wait are noticed at the next call");
            return;
        }
    };
    while ended.recv().await.is_some() {
        pools.values().for_each(Pool::stop_dead_workers);
        sleep(SEARCH_PAUSE).await;
    }
}

/// Returns the arguments of a call, if they are no longer than an answer may be.
fn echo(call: &Call) -> Report {
    let length = call.args.text().len();
    if length > MAX_LINE {
        let reason = format!("its arguments have {length} bytes; a value may have {MAX_LINE}");
        return Report { reason: Some(reason), ..Report::blank(Outcome::Failed) };
    }
    Report::returned(call.args.clone())
}

/// Explains why a function is not called, and what to do about it.
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
    /// Creates the report of a call that was answered at once.
    fn returned(value: Json) -> Self {
        let now = now_ms();
        Self {
            value: Some(value),
            started_at_ms: Some(now),
            ended_at_ms: now,
            ..Self::blank(Outcome::Succeeded)
        }
    }

    /// Creates the report of a call that this endpoint cannot make.
    fn rejected(reason: String) -> Self {
        Self { reason: Some(reason), ..Self::blank(Outcome::Rejected) }
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
        match FunctionExecutor::default().run(&task, &call, &RunContext::default()).await {
            Ended::Finished(report) => report,
            Ended::Stopped(_) => panic!("stopped without a request"),
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
