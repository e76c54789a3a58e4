//! The arguments of the commands about schedules.

use super::rule::{self, PolicyArgs, RuleArgs};
use super::task::{self, TaskArgs};
use crate::schedule::MomentText;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// How `add` is written: the group of a program or a call would be shown without its `--`.
const ADD_USAGE: &str = "\
clutch-service schedule add <NAME> <ENDPOINT> <RULE> [OPTIONS] -- <ARGV>...
       clutch-service schedule add <NAME> <ENDPOINT> <RULE> [OPTIONS] --call <FUNCTION>

RULE: --every <TIME>, --cron <FIELDS> or --calendar <EXPRESSION>";

/// How options of a file are written.
const APPLY_HELP: &str = "\
FILE is TOML. A schedule is a table [schedules.NAME] with `endpoint`, the options of `schedule add` \
under their long names (`_` for `-`), and `argv`, a list, or `call`:

    owner = \"site\"

    [schedules.nightly]
    endpoint = \"lab\"
    cron = \"0 3 * * 1-5\"
    tz = \"Europe/Berlin\"
    argv = [\"/opt/backup\", \"--all\"]
    walltime = \"1h\"
    env = { LEVEL = \"9\" }

All is done or nothing. A schedule that is there and the same stays as far as it was. One that \
differs is changed and keeps how far it is; one that another owner declares is never touched.
";

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) what: ScheduleCommand,
}

/// The actions on schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    #[command(flatten)]
    Service(ServiceCommand),
    /// Show the next instants of a rule; needs no running service, and adds nothing
    Preview(Box<PreviewArgs>),
}

/// The actions that the service is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Add a schedule; the same again changes nothing
    Add(Box<AddArgs>),
    /// List schedules by name: the rule, the next instant, the last occurrence, the state
    List(ListArgs),
    /// Show one: its rule in words, its next five instants, its last twenty occurrences
    Show(OneSchedule),
    /// Change a schedule: only what is given
    Edit(Box<EditArgs>),
    /// Pause a schedule: its instants are skipped until `resume`
    Pause(PauseArgs),
    /// Have a paused schedule go on
    Resume(OneSchedule),
    /// Have a schedule make a task now, beside its instants
    Run(OneSchedule),
    /// Remove a schedule; its tasks stay, and those without an outcome go on
    Remove(OneSchedule),
    /// Make the schedules so as a file declares them
    Apply(ApplyArgs),
}

/// One schedule.
#[derive(Debug, Args)]
pub(crate) struct OneSchedule {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    pub(crate) schedule: String,
}

/// The options that a schedule is made of.
#[derive(Debug, Args)]
pub(crate) struct ScheduleOptions {
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
}

/// Options of `submit` that mean nothing to a schedule. They are read to be refused in words.
#[derive(Debug, Args)]
pub(crate) struct RefusedArgs {
    #[arg(long, hide = true)]
    array: Option<String>,
    #[arg(long, hide = true)]
    each_line: Option<String>,
    #[arg(long, hide = true)]
    at: Option<String>,
    #[arg(long, hide = true)]
    r#in: Option<String>,
    #[arg(long, hide = true)]
    key: Option<String>,
    #[arg(long, hide = true)]
    wait: bool,
    #[arg(long, hide = true)]
    confirmed: bool,
}

impl RefusedArgs {
    /// Refuses the first of them that is given.
    pub(crate) fn check(&self) -> Result<(), String> {
        let many = "each instant of a schedule is one task: add a schedule for each, or have the \
                    task go through all";
        let when = "the rule says when: --from is the first moment. `clutch-service submit` has \
                    tasks that run once";
        for (given, option, words) in [
            (self.array.is_some(), "--array", many),
            (self.each_line.is_some(), "--each-line", many),
            (self.at.is_some(), "--at", when),
            (self.r#in.is_some(), "--in", when),
            (
                self.key.is_some(),
                "--key",
                "a schedule is known by its name, and each of its tasks by name and instant, so \
                 none runs twice",
            ),
            (
                self.wait,
                "--wait",
                "tasks come as long as the schedule is there; `schedule show NAME` has the last",
            ),
            (
                self.confirmed,
                "--confirmed",
                "a schedule goes on without the broker: its tasks are placed once there is a link",
            ),
        ] {
            if given {
                return Err(format!("{option}: {words}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
#[command(override_usage = ADD_USAGE, group(rule::recurrence()), group(task::work()))]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) which: OneSchedule,
    /// The endpoint's name or id
    pub(crate) endpoint: String,
    #[command(flatten)]
    pub(crate) options: ScheduleOptions,
    /// Replace the schedule of this name if it differs: it keeps its occurrences, how many tasks it
    /// made, and its pause
    #[arg(long)]
    pub(crate) replace: bool,
    /// The owner that declares it; only this owner's `add` and `apply` change it from then on
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
}

/// A schedule as far as it is given: what changes, or what a file declares.
#[derive(Debug, Args)]
pub(crate) struct GivenSchedule {
    /// The endpoint's name or id
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) options: ScheduleOptions,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) which: OneSchedule,
    #[command(flatten)]
    pub(crate) given: GivenSchedule,
    /// Take an option back, as if it had not been given; may be repeated
    #[arg(long, value_name = "OPTION", value_delimiter = ',')]
    pub(crate) unset: Vec<Unset>,
}

/// An option of a schedule that can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unset {
    From,
    Until,
    MaxRuns,
    Jitter,
    Window,
    PauseAfter,
    Name,
    Env,
    Cwd,
    Stdin,
    Walltime,
    Expires,
    NoRerun,
    Retries,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this owner
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) which: OneSchedule,
    /// The reason, which is shown while it is paused
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = APPLY_HELP)]
pub(crate) struct ApplyArgs {
    /// The file that declares schedules
    pub(crate) file: PathBuf,
    /// Remove schedules that the file's owner declared before, and does not any more
    #[arg(long)]
    pub(crate) prune: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group(rule::recurrence()))]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    /// The schedule's name, by which --jitter is known for each instant
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// So many instants
    #[arg(long, default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) count: usize,
    /// The instants after this moment [default: the present]
    #[arg(long, value_name = "TIME")]
    pub(crate) after: Option<MomentText>,
}
