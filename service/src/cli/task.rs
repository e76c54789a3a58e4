//! The arguments that describe a task: those of `submit` that a schedule has as well.
//!
//! Each is left out unless it is given, so that a command which changes a task knows what to
//! change. A command that needs a program or a call says so by the group [`work`].

use super::values::{json_kwarg, positive, variable};
use super::{order, retry};
use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser as _};
use clap::{ArgGroup, Args};
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::json::Json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// Call a function of the endpoint instead of running a program: one that its endpoint.toml
    /// names, or clutch.echo, which returns its arguments
    #[arg(long, value_name = "NAME", conflicts_with_all = ["argv", "shell", "stdin", "env", "cwd"])]
    pub(crate) call: Option<String>,
    /// An argument of the function, as JSON; may be repeated
    #[arg(
        long,
        value_name = "JSON",
        requires = "call",
        conflicts_with = "argv",
        allow_hyphen_values = true
    )]
    pub(crate) json_arg: Vec<Json>,
    /// An argument of the function by its name; may be repeated
    #[arg(long, value_name = "NAME=JSON", requires = "call", conflicts_with = "argv",
          value_parser = json_kwarg)]
    pub(crate) json_kwarg: Vec<(String, Json)>,
    /// The standard input of every task (`-`: this command's own)
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// An environment variable of the tasks; may be repeated
    #[arg(long, value_name = "K=V", value_parser = OsStringValueParser::new().try_map(variable))]
    pub(crate) env: Vec<(String, ByteString)>,
    /// An absolute folder to run in, instead of a sandbox of the task's own
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<ByteString>,
    /// How long each task may run: 90s, 1h 30m, or hours:minutes:seconds such as 1:30:00
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) walltime: Option<Duration>,
    /// How long a task may wait for its start: after that it ends as expired, once its endpoint is
    /// connected
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) expires: Option<Duration>,
    /// Never run a task again after a crash of the endpoint
    #[arg(long)]
    pub(crate) no_rerun: bool,
    #[command(flatten)]
    pub(crate) order: order::OrderArgs,
    #[command(flatten)]
    pub(crate) retry: retry::RetryPolicyArgs,
    /// A name for people
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,
    /// ARGV is a script: run it with `sh -c`. Where a task has a line or a number, it is `$1`, and
    /// `{}` becomes "$1" (inside double quotes write $1 instead of {})
    #[arg(long, requires = "argv")]
    pub(crate) shell: bool,
    /// The program and its arguments
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<ByteString>,
}

/// The group of a command that needs a program or a call.
pub(super) fn work() -> ArgGroup {
    ArgGroup::new("work").args(["call", "argv"]).required(true)
}
