//! The arguments of the commands about one endpoint.

use super::values::positive;
use clap::{Args, Subcommand};
use clutch_common::id::StateId;
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
    /// Remove its queues and its name; what its tasks came to stays recorded
    Remove(RemoveArgs),
    /// Declare that its state folder is lost: when another instance of it is active, tasks that it
    /// does not know are submitted again, or end as interrupted where they must not rerun
    Lost(LostArgs),
}

/// One endpoint.
#[derive(Debug, Args)]
pub(crate) struct OneEndpoint {
    /// The endpoint's name or id
    pub(crate) endpoint: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) which: OneEndpoint,
    /// Remove it although tasks have no outcome or messages wait in its queue: where the endpoint is
    /// online, its tasks are cancelled first. The others end as cancelled, or as interrupted where
    /// an instance may have had them
    #[arg(long)]
    pub(crate) end_tasks: bool,
    /// How long to wait for an endpoint that is online to end its tasks
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "end_tasks",
          value_parser = positive)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LostArgs {
    #[command(flatten)]
    pub(crate) which: OneEndpoint,
    /// Only this state folder, as `endpoint show` lists it
    #[arg(long, value_name = "ID")]
    pub(crate) state_folder: Option<StateId>,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) which: OneEndpoint,
    /// Stop tasks that still run after this time: they run again after `resume`
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) deadline: Option<Duration>,
}
