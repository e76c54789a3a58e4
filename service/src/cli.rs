//! The command line, as data: clap only.

pub(crate) mod cancel;
pub(crate) mod due;
pub(crate) mod endpoint;
mod forget;
mod logs;
mod lookahead;
mod messages;
mod order;
pub(crate) mod output;
mod results;
pub(crate) mod retry;
pub(crate) mod rule;
pub(crate) mod schedule;
pub(crate) mod submit;
pub(crate) mod task;
mod tasks;
#[cfg(test)]
mod tests;
pub(crate) mod topic;
mod values;
mod wait;

use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::text::secret::{self, SecretUrl};
use clutch_common::topology::QueueKind;
pub(crate) use forget::ForgetArgs;
pub(crate) use logs::LogsArgs;
pub(crate) use lookahead::LookaheadArgs;
pub(crate) use messages::MessageArgs;
pub(crate) use results::ResultsArgs;
use std::path::PathBuf;
use std::time::Duration;
pub(crate) use submit::SubmitArgs;
pub(crate) use tasks::TasksArgs;
use values::{
    ask_after, blocked_timeout, endpoint_name, heartbeat, lost_after, positive, task_id, topic_name,
};
pub(crate) use wait::{ReconnectArgs, WaitArgs};

/// The meaning of the exit codes.
const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  some task did not succeed, or another error
  64  wrong usage
  69  no service or no broker is there
  73  the state folder cannot be used
  75  the time is over
  77  refused: credentials, permissions, or another service is collecting
  78  the configuration is wrong, or what exists at the broker or in a file differs";

/// The steps of the demonstration, and the meaning of its exit codes.
const DEMO_HELP: &str = "\
It submits a task per file, cuts the endpoint's link on the way, ends the endpoint with kill -9,
starts it again, mends the link, and compares every result with what sha256sum prints when it is
run directly. Its files are in a temporary folder, which is removed at the end; --broker, --state
and --config are not used. With --json, one object has the result of the proof, each count, and the
times in milliseconds.

Exit codes:
   0  the proof holds
   1  it does not, or something failed: stderr says what, and where the logs are
  64  wrong usage
  69  no broker is there
  73  the temporary folder cannot be used
  77  the broker refuses the user, or another service collects from the vhost
 130  interrupted";

/// Provisions endpoints, submits tasks to them, and records every result.
#[derive(Debug, Parser)]
#[command(name = "clutch-service", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The error in a command line, in words, and without its passwords.
pub(crate) fn mistake(error: &clap::Error) -> String {
    let words = error.render().to_string();
    let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let of_the_service = error.kind() == ErrorKind::UnknownArgument
        && unknown.is_some_and(|argument| argument.starts_with("--broker"));
    let words = secret::redacted(words.trim_end());
    if of_the_service {
        let first = words.lines().next().unwrap_or_default();
        return format!(
            "{first}\n\n  tip: this command asks the service; only provision, deprovision, serve, doctor and \
             dead-letters use the broker and take --broker"
        );
    }
    words.into_owned()
}

/// The arguments of the commands that use the broker themselves; the others ask the service.
#[derive(Debug, Default, Args)]
pub(crate) struct BrokerArgs {
    /// The broker: amqp://user:password@host:5672/vhost (or amqps://…), or file:///folder. In user
    /// and password, write : / ? # [ ] @ % with a percent sign and their code: @ is %40
    #[arg(long, global = true, env = "CLUTCH_BROKER", hide_env_values = true, value_name = "URL")]
    pub(crate) broker: Option<SecretUrl>,
}

/// The arguments of every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// The folder of the database and the API's socket
    /// [default: $XDG_STATE_HOME/clutch/service or ~/.local/state/clutch/service]
    #[arg(long, global = true, env = "CLUTCH_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// The file of the database, on a disk of this host: absolute, or from the state folder on;
    /// for serve, provision, deprovision and doctor [default: clutch.db]
    #[arg(long, global = true, env = "CLUTCH_DATABASE", value_name = "PATH")]
    pub(crate) database: Option<PathBuf>,
    /// A TOML file with the keys `broker`, `state` and `database`; options and variables win over it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write JSON to stdout, and nothing else; an error is one JSON object, the last line of stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what Clutch does: a real job, a cut link, a killed endpoint, and the proof that nothing
    /// was lost; needs no broker
    Demo(DemoArgs),
    /// Declare an endpoint's queues and write its endpoint.toml; needs no running service
    Provision(ProvisionArgs),
    /// Remove an endpoint's queues and name, as `endpoint remove` does; needs no running service
    Deprovision(DeprovisionArgs),
    /// Collect results, keep records and answer the API, until told to stop
    Serve(ServeArgs),
    /// Check the state folder and the broker, and say what is wrong; changes nothing
    Doctor(DoctorArgs),
    /// Submit one task, or one per line of a file, or one per number of a range
    Submit(Box<SubmitArgs>),
    /// List tasks, newest first
    Tasks(TasksArgs),
    /// Show everything known about one task
    Show(ShowArgs),
    /// Print the output of one task, also while it runs
    Logs(LogsArgs),
    /// Wait until tasks are done
    Wait(WaitArgs),
    /// Cancel tasks: those that wait never start, those that run are stopped
    Cancel(cancel::CancelArgs),
    /// Run tasks again that have ended, as their next attempts
    Retry(retry::RetryArgs),
    /// Print the results of tasks, in the order of their submission
    Results(ResultsArgs),
    /// Add schedules, which submit a task again and again; list, show, change, pause and remove them
    Schedule(schedule::ScheduleArgs),
    /// List endpoints: how each is, what it runs, and what waits for it
    Endpoints(endpoint::EndpointsArgs),
    /// Show one endpoint, drain it, remove it, or declare it lost
    Endpoint(endpoint::EndpointArgs),
    /// List topics: how many workers each has, and what waits for them
    Topics(topic::TopicsArgs),
    /// Show one topic: its members, and what waits and why
    Topic(topic::TopicArgs),
    /// Wait until a topic has so many workers
    WaitForWorkers(topic::WaitForWorkersArgs),
    /// Forget ended tasks with their results, and give their room on the disk back
    Forget(ForgetArgs),
    /// List, put back or drop messages that could not be read or delivered; needs no running
    /// service
    DeadLetters(DeadLettersArgs),
}

impl Command {
    /// The broker that was given, to a command that speaks to it.
    pub(crate) fn broker(&self) -> Option<&SecretUrl> {
        let args = match self {
            Self::Provision(args) => &args.broker,
            Self::Deprovision(args) => &args.broker,
            Self::Serve(args) => &args.broker,
            Self::Doctor(args) => &args.broker,
            Self::DeadLetters(args) => &args.broker,
            Self::Demo(_)
            | Self::Submit(_)
            | Self::Tasks(_)
            | Self::Show(_)
            | Self::Logs(_)
            | Self::Wait(_)
            | Self::Endpoints(_)
            | Self::Endpoint(_)
            | Self::Topics(_)
            | Self::Topic(_)
            | Self::WaitForWorkers(_)
            | Self::Cancel(_)
            | Self::Retry(_)
            | Self::Results(_)
            | Self::Schedule(_)
            | Self::Forget(_) => return None,
        };
        args.broker.as_ref()
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(subcommand)]
    pub(crate) what: DeadLetters,
}

/// The actions on dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them, each with its handle, its age, its reason and its content; removes none
    List(LettersListArgs),
    /// Show everything known about one, and its payload; removes none
    Show(LetterShowArgs),
    /// Put some back into the queues they came from; one that still cannot be read returns
    Requeue(Letters),
    /// Remove some for good. Their tasks end as cancelled, unless they have a result
    Drop(LettersDropArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LettersListArgs {
    /// At most this many, the oldest first
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct LetterShowArgs {
    /// The handle of the letter, as `list` shows it
    pub(crate) handle: String,
    /// Write the payload to stdout and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

/// Which letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Letters {
    /// The handles of the letters, as `list` shows them
    #[arg(value_name = "HANDLE")]
    pub(crate) handles: Vec<String>,
    /// All letters that are there now
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LettersDropArgs {
    #[command(flatten)]
    pub(crate) letters: Letters,
    /// Also drop letters with tasks without an outcome, or with results that may not be recorded
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The arguments of the demonstration.
#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// How many files to sum, one task each
    #[arg(long, value_name = "N", default_value_t = 2000,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) files: usize,
    /// Where to look for files, of up to 1 MiB each [default: folders below /usr]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Go over a RabbitMQ instead of a folder: amqp://user:password@host:5672/vhost. A vhost that
    /// another service collects from is refused; the queues are removed at the end
    #[arg(long, value_name = "URL")]
    pub(crate) amqp: Option<SecretUrl>,
    /// Leave the service, the endpoint, their folder and their queues, and say what to try with them
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How the broker keeps an endpoint's queue.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(crate) enum QueueArg {
    /// On one node's disk
    Classic,
    /// Replicated over the nodes of a cluster
    Quorum,
}

impl From<QueueArg> for QueueKind {
    fn from(queue: QueueArg) -> Self {
        match queue {
            QueueArg::Classic => Self::Classic,
            QueueArg::Quorum => Self::Quorum,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The broker's management API: http://user:password@host:15672. By it the service closes the
    /// connection of an endpoint that does not answer while a standby waits. User and password
    /// may be left out if they are those of --broker [default: port 15672 of the broker's host]
    #[arg(long, env = "CLUTCH_MANAGEMENT", hide_env_values = true, value_name = "URL")]
    pub(crate) management: Option<SecretUrl>,
    /// How long a task may have no result before its endpoint is asked whether it still has it. A
    /// lost task runs again, or ends as interrupted: 1s to 30days
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = ask_after)]
    pub(crate) ask_after: Duration,
    /// Forget ended tasks with their results, and what became of schedules' times, once that is this
    /// old: 30days, 12h. What has no outcome stays [default: never]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) keep: Option<Duration>,
    /// Take over the results from another clutch-service, if its state folder is lost or out of
    /// use. That service is refused from then on, and the results of its tasks are recorded here
    #[arg(long)]
    pub(crate) take_over: bool,
    #[command(flatten)]
    pub(crate) messages: MessageArgs,
    #[command(flatten)]
    pub(crate) topics: LookaheadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The broker's management API, as in `serve --management`: it lists policies that take
    /// messages from the queues
    #[arg(long, env = "CLUTCH_MANAGEMENT", hide_env_values = true, value_name = "URL")]
    pub(crate) management: Option<SecretUrl>,
}

#[derive(Debug, Args)]
pub(crate) struct ProvisionArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The endpoint's name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit; not a UUID,
    /// as endpoints go by their ids, too
    #[arg(value_parser = endpoint_name)]
    pub(crate) name: String,
    /// The endpoint's id, instead of a new one
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<EndpointId>,
    /// Where to write the endpoint's configuration
    #[arg(long, value_name = "FILE", default_value = "endpoint.toml")]
    pub(crate) out: PathBuf,
    /// How the broker keeps the task queue [default: classic]
    #[arg(long, value_name = "KIND")]
    pub(crate) queue: Option<QueueArg>,
    /// The AMQP heartbeat of the endpoint's connection: 1s to 65535s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = heartbeat)]
    pub(crate) heartbeat: Duration,
    /// How long the broker may block the endpoint's connection before the endpoint reconnects: 1s to
    /// 1day
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = blocked_timeout)]
    pub(crate) blocked_timeout: Duration,
    /// How long an instance may be silent after another one took over from it; then its tasks are
    /// submitted again: 10s to 30days [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = lost_after)]
    pub(crate) lost_after: Option<Duration>,
    /// A topic that the endpoint is a member of, so that tasks submitted to the topic may be given to
    /// it: 1 to 128 of A-Z a-z 0-9 . _ -; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Vec<String>,
    /// The broker's URL as the endpoint reaches it, if it differs from --broker
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_broker: Option<SecretUrl>,
}

#[derive(Debug, Args)]
pub(crate) struct DeprovisionArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The endpoint's name or id; no instance of it may be running
    pub(crate) endpoint: String,
    /// Remove it although tasks have no outcome or messages wait in its queue: the tasks end as
    /// cancelled, or as interrupted where an instance may have had them
    #[arg(long, alias = "yes")]
    pub(crate) end_tasks: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The task
    #[arg(value_parser = task_id)]
    pub(crate) task: TaskId,
}

/// Which tasks: by id, or all of a submission.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// The tasks
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) tasks: Vec<TaskId>,
    /// All tasks submitted under this key
    #[arg(long)]
    pub(crate) key: Option<String>,
}
