//! The arguments about topics: of `submit`, of the commands that show topics, and of the one that
//! waits for workers.

use super::ReconnectArgs;
use super::values::{duration, positive, topic_name};
use clap::{Args, Subcommand};
use std::time::Duration;

/// The arguments of a submission to a topic.
#[derive(Debug, Args)]
pub(crate) struct ToTopicArgs {
    /// Submit to a topic instead of an endpoint: each task waits at the service until it is given to
    /// a member of the topic that can do it and has room
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// Only at members that name the function in this version in their endpoint.toml
    #[arg(
        long,
        value_name = "VERSION",
        requires = "topic",
        requires = "call",
        conflicts_with = "argv"
    )]
    pub(crate) function_version: Option<String>,
    /// How long a member may take to start a task that it was given; one that has not started then
    /// never starts there, and is given to another [default: 60s]
    #[arg(long, value_name = "TIME", requires = "topic", value_parser = positive)]
    pub(crate) start_within: Option<Duration>,
    /// How long a task may wait until it is given to a member: after that it ends as expired, with the
    /// reason [default: for ever]
    #[arg(long, value_name = "TIME", requires = "topic", value_parser = positive)]
    pub(crate) place_within: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    /// Show the list again every 2 s, or whenever it changes where stdout is no terminal
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    pub(crate) what: TopicCommand,
}

/// The actions on one topic.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Show its members, with their functions and what they hold, and what waits and why
    Show(OneTopic),
}

/// One topic.
#[derive(Debug, Args)]
pub(crate) struct OneTopic {
    /// The topic
    #[arg(value_parser = topic_name)]
    pub(crate) topic: String,
}

/// The rule of which members count as workers.
const WAIT_HELP: &str = "\
A worker is a member of the topic that is connected and takes work, busy or not. One that drains, \
that is away, or whose clock is off is none. Two instances of one endpoint are one worker: one of \
them stands by.
";

#[derive(Debug, Args)]
#[command(after_help = [WAIT_HELP, "\n", super::EXIT_CODES].concat())]
pub(crate) struct WaitForWorkersArgs {
    #[command(flatten)]
    pub(crate) which: OneTopic,
    /// How many workers there have to be
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) workers: u64,
    /// How long to wait at most [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}
