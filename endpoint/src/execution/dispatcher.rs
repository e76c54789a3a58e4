//! The executor of an endpoint: gives each task to the executor for its kind of work.

use super::executor::{Ended, Executor, RunContext};
use super::function::FunctionExecutor;
use super::process::ProcessExecutor;
use async_trait::async_trait;
use clutch_common::id::Attempt;
use clutch_common::task::{Task, Work};

/// Runs processes and function calls.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    processes: ProcessExecutor,
    functions: FunctionExecutor,
}

impl Dispatcher {
    /// Creates a dispatcher to these two executors.
    pub(crate) fn new(processes: ProcessExecutor, functions: FunctionExecutor) -> Self {
        Self { processes, functions }
    }

    /// Returns each function with how many workers it may have, and how many are idle and
    /// busy.
    pub(crate) fn workers(&self) -> Vec<(String, usize, usize, usize)> {
        self.functions.workers()
    }

    /// Returns the calls that workers have, each with the worker's process.
    pub(crate) fn calls(&self) -> Vec<(Attempt, u32)> {
        self.functions.calls()
    }
}

#[async_trait]
impl Executor for Dispatcher {
    async fn run(&self, task: &Task, context: &RunContext) -> Ended {
        match &task.work {
            Work::Process(process) => self.processes.run(task, process, context).await,
            Work::Call(call) => self.functions.run(task, call, context).await,
        }
    }

    async fn close(&self) {
        self.functions.close().await;
    }
}
