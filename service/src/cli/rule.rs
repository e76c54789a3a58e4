//! The arguments that say when a schedule has instants, and what becomes of those that are missed
//! or meet an earlier task. Each is left out unless it is given, so that they also say what to
//! change.

use super::values::{duration, positive};
use crate::schedule::{
    Calendar, CatchUp, Cron, MomentText, Overlap, Policy, Recurrence, Rule, Zone,
};
use clap::{ArgGroup, Args};
use std::time::Duration;

/// The heading of the options that say when a schedule has instants.
const WHEN: &str = "When";
/// The heading of those about instants that are missed, or meet an earlier task.
const LATE: &str = "Missed and overlapping instants";

/// The group of a command that needs a recurrence.
pub(super) fn recurrence() -> ArgGroup {
    ArgGroup::new("recurrence").args(["every", "cron", "calendar"]).required(true)
}

/// When a schedule has instants.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    /// At a fixed rate: 90s, 5m, 1h 30m
    #[arg(help_heading = WHEN, long, value_name = "TIME", value_parser = positive,
          conflicts_with_all = ["cron", "calendar"])]
    every: Option<Duration>,
    /// By the five fields of cron: minute, hour, day of the month, month, day of the week
    #[arg(help_heading = WHEN, long, value_name = "FIELDS", conflicts_with = "calendar")]
    cron: Option<Cron>,
    /// By a calendar expression of systemd: "Mon..Fri 08:30", "*-*~01 23:00", "*:0/15"
    #[arg(help_heading = WHEN, long, value_name = "EXPRESSION")]
    calendar: Option<Calendar>,
    /// Count --every from the end of each task, not from the instant before
    #[arg(help_heading = WHEN, long, requires = "every", conflicts_with_all = ["cron", "calendar"])]
    after_end: bool,
    /// The zone of --cron, --calendar, and of times without an offset, such as Europe/Berlin
    /// [default: UTC]
    #[arg(help_heading = WHEN, long = "tz", value_name = "ZONE")]
    zone: Option<Zone>,
    /// No instant before this moment: 2026-11-30, 2026-11-30T08:00, or 2026-11-30T08:00:00Z.
    /// --every counts from it, else from the first moment of 1970 (UTC)
    #[arg(help_heading = WHEN, long, value_name = "TIME")]
    from: Option<MomentText>,
    /// No instant after this moment
    #[arg(help_heading = WHEN, long, value_name = "TIME")]
    until: Option<MomentText>,
    /// At most this many tasks; instants that are skipped do not count
    #[arg(help_heading = WHEN, long, value_name = "N")]
    max_runs: Option<u64>,
    /// Start each task up to this much after its instant, always the same for an instant, and
    /// before the next one
    #[arg(help_heading = WHEN, long, value_name = "TIME", value_parser = duration)]
    jitter: Option<Duration>,
}

impl RuleArgs {
    /// Whether they say how often.
    pub(crate) fn recurs(&self) -> bool {
        self.recurrence().is_some()
    }

    /// The rule that they say; or a known one, with what they change.
    pub(crate) fn rule(&self, known: Option<&Rule>) -> Result<Rule, String> {
        let zone = self.zone.clone().or_else(|| known.map(|rule| rule.zone.clone()));
        let zone = zone.unwrap_or_default();
        let base = match (self.recurrence(), known) {
            (Some(recurrence), None) => Rule::new(recurrence, zone.clone()),
            (Some(recurrence), Some(known)) => Rule { recurrence, ..known.clone() },
            (None, Some(known)) => known.clone(),
            (None, None) => return Err("write --every, --cron or --calendar".to_owned()),
        };
        let moment = |option, text: &Option<MomentText>| {
            let ms = text.as_ref().map(|moment| moment.ms(&zone)).transpose();
            ms.map_err(|reason| format!("{option}: {reason}"))
        };
        let (from, until) = (moment("--from", &self.from)?, moment("--until", &self.until)?);
        let rule = Rule {
            from_ms: from.or(base.from_ms),
            until_ms: until.or(base.until_ms),
            max_runs: self.max_runs.or(base.max_runs),
            jitter_ms: self.jitter.map_or(base.jitter_ms, millis),
            zone,
            ..base
        };
        rule.check().map(|()| rule)
    }

    fn recurrence(&self) -> Option<Recurrence> {
        match (self.every, &self.cron, &self.calendar) {
            (Some(every), ..) if self.after_end => Some(Recurrence::after_end(every)),
            (Some(every), ..) => Some(Recurrence::every(every)),
            (_, Some(cron), _) => Some(Recurrence::Cron(cron.clone())),
            (.., Some(calendar)) => Some(Recurrence::Calendar(calendar.clone())),
            (None, None, None) => None,
        }
    }
}

/// The treatment of instants that are missed, or meet an earlier task.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Which of the instants that were missed get a task all the same [default: last]
    #[arg(help_heading = LATE, long, value_name = "WHICH")]
    catch_up: Option<CatchUp>,
    /// How late an instant that was missed may get one [default: 366days]
    #[arg(help_heading = LATE, long, value_name = "TIME", value_parser = positive)]
    window: Option<Duration>,
    /// The treatment of an instant while an earlier task has no outcome [default: skip]
    #[arg(help_heading = LATE, long, value_name = "HOW")]
    overlap: Option<Overlap>,
    /// Pause the schedule after so many failures in a row [default: never]
    #[arg(help_heading = LATE, long, value_name = "N")]
    pause_after: Option<u32>,
}

impl PolicyArgs {
    /// A known policy, with what they change.
    pub(crate) fn policy(&self, known: &Policy) -> Result<Policy, String> {
        let policy = Policy {
            catch_up: self.catch_up.unwrap_or(known.catch_up),
            window_ms: self.window.map_or(known.window_ms, millis),
            overlap: self.overlap.unwrap_or(known.overlap),
            pause_after: self.pause_after.or(known.pause_after),
        };
        policy.check().map(|()| policy)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
