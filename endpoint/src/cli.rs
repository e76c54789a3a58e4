//! The command line, and nothing else.

mod task;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use task::{Contents, TaskCommand};

/// Runs tasks on this machine for a Clutch service, reached outward only.
#[derive(Parser, Debug)]
#[command(name = "clutch-endpoint", version, about)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Runs the daemon: takes tasks, runs them, delivers every result.
    ///
    /// The first TERM, INT or QUIT lets running tasks finish, the second stops them, the third
    /// exits at once; to close the terminal that it was started in counts as one. Tasks that
    /// have not finished, and results that are not delivered, stay on disk for the next start.
    /// HUP has it read its configuration again.
    Run {
        #[command(flatten)]
        place: PlaceArgs,
        /// Reads a worker's file beside the configuration, with `url`, `exchange`, `topic`, `tasks`,
        /// `transport` and `transport_options`, as TOML or JSON: its topic is one of the
        /// endpoint, and its tasks (`module:Class`) are functions (`module.Class`).
        #[arg(long, value_name = "FILE")]
        worker: Option<PathBuf>,
        /// How many tasks run at once, over the file's `engine.slots`.
        #[arg(long, value_name = "N")]
        slots: Option<usize>,
        /// Shares the endpoint with other instances, each with a state folder of
        /// its own: waits for as long as another one is active, and takes over
        /// when that ends. Give it to every instance.
        #[arg(long)]
        standby: bool,
        /// Says that the state folder of the instance before this one is lost. This
        /// instance then replaces that one, also where this state folder is a copy of
        /// its; it waits for the lease while that instance, or a dead connection of it,
        /// holds it. Tasks that the other had accepted run again, or end as interrupted.
        /// Without this, they stay the other's until it has been silent for
        /// `provision --lost-after`.
        #[arg(long, conflicts_with = "standby")]
        replace: bool,
    },
    /// Checks the configuration, the state folder, a worker of each function and the
    /// broker, and tells what is wrong.
    ///
    /// Takes no task and no lease: a daemon that is running goes on. Exits with 0 if `run`
    /// could work and the workers start, else as `run` would: 69 if the broker cannot be
    /// reached or lacks a queue or an exchange, 73 if the state folder cannot be used, 77
    /// if the broker refuses the endpoint or another instance is active, 78 if the
    /// configuration is wrong.
    Check {
        #[command(flatten)]
        place: PlaceArgs,
        /// As for `run --worker`.
        #[arg(long, value_name = "FILE")]
        worker: Option<PathBuf>,
        /// As for `run --standby`: another instance may be active.
        #[arg(long)]
        standby: bool,
        /// Write JSON to stdout, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Shows how the daemon that runs here is: its link, tasks, functions and disk. Works
    /// without the broker.
    Status {
        #[command(flatten)]
        place: PlaceArgs,
        /// Write JSON to stdout, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Lists the tasks that the daemon here has accepted and not finished: how long each runs,
    /// or why it waits. Works without the broker.
    Tasks {
        #[command(flatten)]
        place: PlaceArgs,
        /// How many tasks are listed at most.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        /// Write JSON to stdout, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Has the daemon here start and read no further tasks, until `resume`.
    ///
    /// Tasks that run go on, and results are delivered; tasks that were accepted stay here.
    /// Works without the broker, and stays in force when the daemon is started again. The
    /// service's `endpoint drain` is another drain, ended by its own `resume`.
    Drain {
        #[command(flatten)]
        place: PlaceArgs,
        /// Stops tasks that still run after this time, such as 10m. They run again after
        /// `resume`, but for those submitted with --no-rerun, which end as interrupted.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
        /// Waits until no task runs here.
        #[arg(long)]
        wait: bool,
        /// Write JSON to stdout, and nothing else: the status afterwards.
        #[arg(long)]
        json: bool,
    },
    /// Speaks for the running task that calls it: tells what it is, sends and receives
    /// messages, tells progress.
    ///
    /// Works in a task's process and in what that starts. Exits with 65 where the request is
    /// not right or too large, with 67 where the other task is unknown or has ended, with 69
    /// outside of a task, with 75 where there was no answer in time or no room, and with 77
    /// where it is not allowed; the error begins with its type.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Ends the drain that `drain` began here.
    Resume {
        #[command(flatten)]
        place: PlaceArgs,
        /// Write JSON to stdout, and nothing else: the status afterwards.
        #[arg(long)]
        json: bool,
    },
}

/// The endpoint's files.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// The file that `clutch-service provision` wrote.
    #[arg(long, env = "CLUTCH_ENDPOINT_CONFIG", default_value = "endpoint.toml")]
    pub(crate) config: PathBuf,
    /// The state folder, over the file's `state.path`.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
