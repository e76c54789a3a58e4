//! The arguments of the commands about one endpoint.

use super::values::positive;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct EndpointsArgs {
    /// Show the list again every 2 s, or whenever it changes where stdout is no terminal
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    pub(crate) what: EndpointCommand,
}

/// The actions on one endpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Show everything known about it: its instances, and what waits for it
    Show(OneEndpoint),
    /// Have it finish what runs and start nothing more, until `resume`
    Drain(DrainArgs),
    /// Have it start tasks again after a `drain`
    Resume(OneEndpoint),
}

/// One endpoint.
#[derive(Debug, Args)]
pub(crate) struct OneEndpoint {
    /// The endpoint's name or id
    pub(crate) endpoint: String,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) which: OneEndpoint,
    /// Stop tasks that still run after this time: they run again after `resume`
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) deadline: Option<Duration>,
}
