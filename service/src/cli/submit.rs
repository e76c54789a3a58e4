//! The arguments of `submit`.

use super::task::{self, TaskArgs};
use super::{EXIT_CODES, ReconnectArgs, due, topic};
use clap::Args;
use std::path::PathBuf;

/// The exit codes of a submission.
const SUBMIT_EXIT_CODES: &str = "\
With --wait, one task without --each-line or --array gives its own exit code (128 and more: a \
signal).

";

/// How the command is written: the group of a program or a call would be shown without its `--`.
const USAGE: &str = "\
clutch-service submit [OPTIONS] <ENDPOINT> -- <ARGV>...
       clutch-service submit [OPTIONS] <ENDPOINT> --call <NAME>
       clutch-service submit [OPTIONS] --topic <TOPIC> -- <ARGV>...
       clutch-service submit [OPTIONS] --topic <TOPIC> --call <NAME>";

#[derive(Debug, Args)]
#[command(
    override_usage = USAGE,
    after_help = [SUBMIT_EXIT_CODES, EXIT_CODES].concat(),
    group(task::work())
)]
pub(crate) struct SubmitArgs {
    /// The endpoint's name or id; none with --topic
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) to: topic::ToTopicArgs,
    /// One task per line of FILE (`-`: stdin), empty lines included; a byte order mark and carriage
    /// returns are left out. `{}` in ARGV is replaced by the line; without a `{}`, the line is
    /// appended (not with --shell). With --call the line is the last argument, a string
    #[arg(long, value_name = "FILE", conflicts_with = "array")]
    pub(crate) each_line: Option<PathBuf>,
    /// One task per number of a range such as 1-100. `{}` in ARGV is replaced by the number; without
    /// a `{}`, the number is appended (not with --shell). With --call the number is the last
    /// argument
    #[arg(long, value_name = "RANGE")]
    pub(crate) array: Option<String>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) due: due::DueArgs,
    /// Names this submission: submitting again with the same key runs nothing twice
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Wait until all tasks are done
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
    /// Succeed only once the broker has confirmed the tasks; without this they are recorded, and
    /// placed at the broker as soon as there is a link to it
    #[arg(long)]
    pub(crate) confirmed: bool,
}
