//! The command line of `clutch-endpoint task`, and nothing else.

use clap::{Args, Subcommand};
use clutch_common::id::TaskId;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// The commands for a running task.
#[derive(Subcommand, Debug)]
pub(crate) enum TaskCommand {
    /// Tells which task this is: its id, attempt, endpoint, name, parent and cores, as JSON.
    Whoami,
    /// Sends a message to a running task, and waits until a process of it has taken the message.
    Send {
        /// The task.
        to: TaskId,
        /// The name that it receives by.
        addressee: String,
        #[command(flatten)]
        contents: Contents,
        /// How long to wait for it to be taken, such as 5m.
        #[arg(long, value_name = "TIME", default_value = "90s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// Lets this attempt at the task alone take it.
        #[arg(long, value_name = "N")]
        attempt: Option<u32>,
        /// The message's id: what is sent again with the same id is taken once.
        #[arg(long, value_name = "UUID")]
        id: Option<Uuid>,
        /// Has the service keep it until the task takes it, and does not wait for that.
        #[arg(long)]
        mailbox: bool,
    },
    /// Receives a message: writes its bytes to stdout, and takes it once they are written.
    Receive {
        /// The names to receive by.
        #[arg(required = true)]
        addressees: Vec<String>,
        /// How long to wait for one; without it, until the task ends.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        /// Takes messages of this task alone.
        #[arg(long, value_name = "TASK")]
        from: Option<TaskId>,
        /// Writes JSON: the sender, the addressee, the message's id, and its body as a string,
        /// or as {"base64": …} where it is no UTF-8.
        #[arg(long)]
        json: bool,
    },
    /// Tells how far the task is: `0.5 half way`, `50% half way`, words, or JSON.
    Progress {
        /// The words.
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Writes a line to the task's standard error.
    Log {
        /// The words.
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Waits until the task is to end, and tells why.
    Cancelled {
        /// How long to wait; without it, until that comes.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Submits tasks as children of this one, and writes their ids.
    ///
    /// Reads the request as the service's API takes it, `{"tasks": [{"argv": ["…"]}]}`.
    Submit {
        #[command(flatten)]
        contents: Contents,
        /// The submission's key: what is submitted again with the same one is one submission.
        #[arg(long, value_name = "UUID")]
        id: Option<Uuid>,
    },
    /// Waits for the outcome of a task, and tells it as JSON.
    Outcome {
        /// The task.
        task: TaskId,
        /// How long to wait for it.
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
}

/// Where the bytes of a request come from: standard input, unless it is named.
#[derive(Args, Debug)]
pub(crate) struct Contents {
    /// The text, instead of standard input.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A file, instead of standard input.
    #[arg(long, conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
}
