//! The arguments of `cancel`.

use super::values::{task_id, topic_name};
use clap::Args;
use clutch_common::id::TaskId;

/// How cancelling goes.
const HELP: &str = "\
Tasks that wait never start, also where their endpoint is offline and comes back later. Tasks that \
run are stopped with all their processes: TERM, and KILL after the endpoint's grace. A task that \
has its outcome, or comes to it before it is stopped, keeps it.

The command waits up to 10 s for endpoints that answer, and says what is left. Cancelling again \
does no harm.
";

/// The tasks to cancel.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[group(id = "cancelled", required = true, multiple = true)]
pub(crate) struct CancelledTasks {
    /// The tasks
    #[arg(value_name = "TASK", value_parser = task_id, conflicts_with_all = ["key", "endpoint", "topic", "name"])]
    pub(crate) tasks: Vec<TaskId>,
    /// All tasks submitted under this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// All tasks that were submitted to this endpoint (name or id)
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// All tasks that were submitted to this topic
    #[arg(long, conflicts_with = "endpoint", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// All tasks with this name; `*` stands for any characters
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) selected: CancelledTasks,
    /// Only those in one of these states: waiting, submitted, accepted, running
    #[arg(long, value_name = "STATE", value_delimiter = ',', num_args = 1..)]
    pub(crate) status: Vec<String>,
    /// Also cancel the tasks that these submitted, and those that they did
    #[arg(long)]
    pub(crate) with_children: bool,
    /// Do not wait for endpoints
    #[arg(long)]
    pub(crate) no_wait: bool,
}
