//! The arguments of `forget`.

use super::values::positive;
use clap::Args;
use std::time::Duration;

/// The meaning of forgetting.
const HELP: &str = "\
Only tasks with an outcome are forgotten, with all that is recorded of them; a task without one stays
however old it is. A submission goes with the last of its tasks: then its key is free again, and
submitting with it runs its tasks anew. While a part of a submission is forgotten, submitting again
with its key is refused where that would run a forgotten task a second time.

With --older-than, the records of schedules' times go as well, each with its task; a schedule keeps
its last twenty. A time that is forgotten does not come again, however the clock is set.

The service works meanwhile: tasks are forgotten a few hundred at a time. Ended early, the command can
be repeated. `serve --keep TIME` forgets by itself.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) which: Forgotten,
    /// Forget nothing, and say how many tasks it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which ended tasks.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Forgotten {
    /// Those with an outcome that was recorded longer ago than this: 30days, 12h
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) older_than: Option<Duration>,
    /// Those submitted under this key
    #[arg(long)]
    pub(crate) key: Option<String>,
}
