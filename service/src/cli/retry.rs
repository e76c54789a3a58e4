//! The arguments of `retry`, and those of `submit` that are about running again.

use super::Selection;
use super::values::backoff;
use clap::Args;
use clutch_common::task::result::Outcome;
use std::time::Duration;

/// How running again goes.
const HELP: &str = "\
Each task is submitted again as its next attempt, and has no outcome until that has its result. \
`show` has the results of all attempts. Of a key, all tasks that ended and did not succeed are run \
again unless --status says otherwise. This is a person's wish: it runs tasks again that were \
submitted with --no-rerun, too.
";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Only those with one of these outcomes: failed, timed_out, …
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',', num_args = 1..)]
    pub(crate) status: Vec<Outcome>,
}

/// How tasks are run again by the service.
#[derive(Debug, Args)]
pub(crate) struct RetryPolicyArgs {
    /// Run a task again, up to N times, if it did not succeed; also with --no-rerun, which is
    /// about crashes. Every attempt stays visible
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// The pause before that: FIRST..LONGEST, doubled from time to time [default: 1s..1m]
    #[arg(long, value_name = "FIRST..LONGEST", value_parser = backoff)]
    pub(crate) backoff: Option<(Duration, Duration)>,
    /// After which outcomes [default: failed,timed_out]
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',', num_args = 1..)]
    pub(crate) retry_on: Vec<Outcome>,
}
