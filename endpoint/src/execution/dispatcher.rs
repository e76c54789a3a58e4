//! Gives each task to whoever does its kind of work. Touches nothing itself.

use super::function::FunctionExecutor;
use super::process::ProcessExecutor;
use crate::execution::executor::{Ended, Executor};
use async_trait::async_trait;
use clutch_common::task::{Task, Work};
use tokio_util::sync::CancellationToken;

/// All that runs tasks at this endpoint.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    processes: ProcessExecutor,
    calls: FunctionExecutor,
}

impl Dispatcher {
    /// Of these.
    pub(crate) fn new(processes: ProcessExecutor, calls: FunctionExecutor) -> Self {
        Self { processes, calls }
    }
}

#[async_trait]
impl Executor for Dispatcher {
    async fn run(&self, task: &Task, stop: CancellationToken) -> Ended {
        match &task.work {
            Work::Process(process) => self.processes.run(task, process, stop).await,
            Work::Call(call) => self.calls.run(task, call, stop).await,
        }
    }

    async fn close(&self) {
        self.calls.close().await;
    }
}
