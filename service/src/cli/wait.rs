//! The arguments of `wait`, and those of every command that waits.

use super::{Selection, values};
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

/// How long a command that waits for tasks waits for the service.
#[derive(Debug, Args)]
pub(crate) struct ReconnectArgs {
    /// While waiting: how long the service may be away, as for a restart, before this command gives
    /// up [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) give_up_after: Option<Duration>,
}
