//! The arguments of `logs`.

use super::values::task_id;
use clap::Args;
use clutch_common::id::TaskId;

/// The text below the help.
const AFTER: &str = "\
Where bytes are missing, a line says how many: an endpoint publishes at most 1 MiB a second of a \
task, keeps only the end of what was written before it is asked, and records head and tail of a \
long output. On a terminal, what it would act on is escaped; on a pipe, bytes are as they are.

With --follow the exit code is the task's own, as of `submit --wait`.

";

#[derive(Debug, Args)]
#[command(after_help = [AFTER, super::EXIT_CODES].concat())]
pub(crate) struct LogsArgs {
    /// The task
    #[arg(value_parser = task_id)]
    pub(crate) task: TaskId,
    /// Go on with what the task writes until it ends; without it, what there is
    #[arg(long)]
    pub(crate) follow: bool,
    /// Its standard error instead of its standard output
    #[arg(long)]
    pub(crate) stderr: bool,
}
