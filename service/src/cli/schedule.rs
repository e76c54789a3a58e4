//! The arguments of the commands about schedules.

use super::values::{duration, positive};
use crate::schedule::{Calendar, Cron, MomentText, Recurrence, Rule, Zone};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) what: ScheduleCommand,
}

/// The actions on schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Show the next instants of a rule; needs no running service, and adds nothing
    Preview(PreviewArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    /// So many instants
    #[arg(long, default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) count: usize,
    /// The instants after this moment [default: the present]
    #[arg(long, value_name = "TIME")]
    pub(crate) after: Option<MomentText>,
}

/// When a schedule has instants.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    #[command(flatten)]
    recurrence: RecurrenceArgs,
    /// Count --every from the end of each task, not from the instant before
    #[arg(long, conflicts_with_all = ["cron", "calendar"])]
    after_end: bool,
    /// The zone of --cron, --calendar, and of times without an offset, such as Europe/Berlin
    #[arg(long = "tz", value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: Zone,
    /// No instant before this moment: 2026-11-30, 2026-11-30T08:00, or 2026-11-30T08:00:00Z.
    /// --every counts from it, else from the first moment of 1970 (UTC)
    #[arg(long, value_name = "TIME")]
    from: Option<MomentText>,
    /// No instant after this moment
    #[arg(long, value_name = "TIME")]
    until: Option<MomentText>,
    /// At most this many tasks; instants that are skipped do not count
    #[arg(long, value_name = "N")]
    max_runs: Option<u64>,
    /// Start each task up to this much after its instant, always the same for an instant, and
    /// before the next one
    #[arg(long, value_name = "TIME", value_parser = duration)]
    jitter: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RecurrenceArgs {
    /// At a fixed rate: 90s, 5m, 1h 30m
    #[arg(long, value_name = "TIME", value_parser = positive)]
    every: Option<Duration>,
    /// By the five fields of cron: minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "FIELDS")]
    cron: Option<Cron>,
    /// By a calendar expression of systemd: "Mon..Fri 08:30", "*-*~01 23:00", "*:0/15"
    #[arg(long, value_name = "EXPRESSION")]
    calendar: Option<Calendar>,
}

impl RuleArgs {
    /// The rule that they say.
    pub(crate) fn rule(&self) -> Result<Rule, String> {
        let RecurrenceArgs { every, cron, calendar } = &self.recurrence;
        let recurrence = match (every, cron, calendar) {
            (Some(every), ..) if self.after_end => Recurrence::after_end(*every),
            (Some(every), ..) => Recurrence::every(*every),
            (_, Some(cron), _) => Recurrence::Cron(cron.clone()),
            (.., Some(calendar)) => Recurrence::Calendar(calendar.clone()),
            (None, None, None) => return Err("write --every, --cron or --calendar".to_owned()),
        };
        let ms = |moment: &Option<MomentText>| {
            moment.as_ref().map(|moment| moment.ms(&self.zone)).transpose()
        };
        let jitter = self.jitter.unwrap_or_default().as_millis();
        let rule = Rule {
            from_ms: ms(&self.from)?,
            until_ms: ms(&self.until)?,
            max_runs: self.max_runs,
            jitter_ms: i64::try_from(jitter).unwrap_or(i64::MAX),
            ..Rule::new(recurrence, self.zone.clone())
        };
        rule.check().map(|()| rule)
    }
}
