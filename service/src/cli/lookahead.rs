//! The arguments of `serve` about tasks of topics.

use super::values::duration;
use clap::Args;
use std::time::Duration;

/// How far ahead members of topics have work, and how far their clocks may be apart.
#[derive(Debug, Args)]
pub(crate) struct LookaheadArgs {
    /// For how long members of topics have short calls ahead, so that their slots do not wait for
    /// the service: each may hold as many tasks as it has slots, and as many as it ends within
    /// this time. 0s: no more than its slots
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub(crate) topic_lookahead: Duration,
    /// How long after its moment an attempt that was not claimed counts as one that never starts.
    /// Less than the default is safe only where all clocks are one
    #[arg(long, hide = true, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) clock_margin: Duration,
}
