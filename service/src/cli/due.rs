//! The arguments of `submit` that say when tasks are due.

use super::values::positive;
use crate::schedule::{MomentText, Zone};
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct DueArgs {
    /// Schedule the tasks: they wait at the service until this moment, and are placed at the broker
    /// then, never earlier: 2026-12-24T18:00:00Z, or 2026-12-24T18:00 with --tz. --expires counts
    /// from it. A moment that is past is now
    #[arg(long, value_name = "TIME", conflicts_with_all = ["in", "confirmed"])]
    pub(crate) at: Option<MomentText>,
    /// The same, from now on: 2h, 90s, 2days
    #[arg(long, value_name = "TIME", value_parser = positive, conflicts_with = "confirmed")]
    pub(crate) r#in: Option<Duration>,
    /// The zone of --at, where that has no offset, such as Europe/Berlin
    #[arg(long = "tz", value_name = "ZONE", requires = "at")]
    pub(crate) zone: Option<Zone>,
}
