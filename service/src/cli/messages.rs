//! The arguments of `serve` about messages between tasks, and about the tasks of tasks.

use clap::Args;
use clutch_common::task::kinship::MessageRule;

/// The rules for messages between tasks.
#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// Which tasks may send messages to which: those of one submission, and parents and children
    /// (family), any to any, or none. Endpoints have a rule of their own for tasks that run on one
    #[arg(long = "messages", value_name = "family|any|none", default_value = "family")]
    pub(crate) rule: MessageRule,
    /// An endpoint, by name or id, that tasks which run at others may submit tasks to; may be
    /// repeated. To its own endpoint, a task may submit in any case
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) children_at: Vec<String>,
}
