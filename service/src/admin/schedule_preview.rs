//! `schedule preview`: the next instants of a rule, as the service would find them. Asks no
//! service, and reads the clock only for the present.

use crate::cli::output;
use crate::cli::schedule::PreviewArgs;
use crate::failure::{Failure, USAGE};
use crate::schedule::{Recurrence, Rule, ScheduleId, Shift};
use clutch_common::system::clock;
use serde::Serialize;
use std::time::Duration;

/// The instants of a rule.
#[derive(Debug, Serialize)]
struct Preview<'a> {
    rule: &'a Rule,
    instants: Vec<Instant>,
    /// Whether the rule ends with the last of them.
    over: bool,
}

/// An instant, as the zone's clocks show it and in UTC.
#[derive(Debug, Serialize)]
struct Instant {
    instant_ms: i64,
    local: String,
    utc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    clocks: Option<&'static str>,
    /// When its task starts, if the schedule's name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_ms: Option<i64>,
}

/// Prints the next instants of a rule.
pub(crate) fn run(args: &PreviewArgs, json: bool) -> anyhow::Result<()> {
    let usage = |wrong: String| Failure::new(USAGE, wrong);
    let rule = args.rule.rule(None).map_err(usage)?;
    let present = || i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
    let after = args.after.as_ref().map_or_else(|| Ok(present()), |after| after.ms(&rule.zone));
    let id = args.name.as_deref().map(ScheduleId::of);
    let preview = preview(&rule, id, after.map_err(usage)?, args.count);
    if json {
        return output::json(&preview);
    }
    for line in lines(&preview) {
        output::line(&line)?;
    }
    Ok(())
}

fn preview(rule: &Rule, id: Option<ScheduleId>, after_ms: i64, count: usize) -> Preview<'_> {
    let most =
        rule.max_runs.map_or(count, |most| count.min(usize::try_from(most).unwrap_or(count)));
    let mut all = std::iter::successors(rule.next_after(after_ms), |at| rule.next_after(*at));
    let instants: Vec<Instant> = all
        .by_ref()
        .take(most)
        .map(|instant_ms| Instant {
            instant_ms,
            local: rule.zone.shown(instant_ms, "%Y-%m-%dT%H:%M:%S%.f%:z"),
            utc: rule.zone.utc_shown(instant_ms),
            clocks: words(rule.shift(instant_ms)).map(|(name, _)| name),
            due_ms: id.map(|id| rule.due_at(id, instant_ms)),
        })
        .collect();
    let last = instants.last().map_or(after_ms, |instant| instant.instant_ms);
    let over = most < count || rule.next_after(last).is_none();
    Preview { rule, instants, over }
}

/// The name of a clock change at an instant, in JSON, and the words for people.
fn words(shift: Shift) -> Option<(&'static str, &'static str)> {
    Some(match shift {
        Shift::No => return None,
        Shift::AfterGap => {
            ("after_gap", "the clocks leave the time of the rule out: the first moment after it")
        }
        Shift::FirstOfTwo => ("first_of_two", "the clocks show this time twice: the first"),
        Shift::SecondOfTwo => ("second_of_two", "the clocks show this time twice: the second"),
    })
}

/// The instants for people: a line each.
fn lines(preview: &Preview<'_>) -> Vec<String> {
    let rule = preview.rule;
    let mut lines = vec![rule.words()];
    for instant in &preview.instants {
        let ms = instant.instant_ms;
        let local = rule.zone.shown(ms, "%a %Y-%m-%d %H:%M:%S%.f %:z");
        let told = words(rule.shift(ms)).map_or(String::new(), |(_, told)| format!("  {told}"));
        let due = instant.due_ms.filter(|due_ms| *due_ms > ms).map(|due_ms| {
            let late = Duration::from_millis(u64::try_from(due_ms - ms).unwrap_or(0));
            let at = rule.zone.shown(due_ms, "%H:%M:%S%.f");
            format!("  its task at {at}, {} later", humantime::format_duration(late))
        });
        lines.push(format!("{local}  {}{}{told}", instant.utc, due.unwrap_or_default()));
    }
    if matches!(rule.recurrence, Recurrence::AfterEndMs(_)) {
        lines.push("if each task ended at its instant".to_owned());
    }
    let named = preview.instants.iter().any(|instant| instant.due_ms.is_some());
    if rule.jitter_ms > 0 && !named {
        lines.push(
            "how much later each task starts depends on the schedule's name: --name NAME"
                .to_owned(),
        );
    }
    if preview.over {
        lines.push("no further instant".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::schedule::ScheduleCommand;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn previewed(arguments: &[&str]) -> Result<(Vec<String>, serde_json::Value), String> {
        let line = [&["c", "schedule", "preview", "--after", "2026-03-07"], arguments].concat();
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Schedule(args) = cli.command else { panic!("another command") };
        let ScheduleCommand::Preview(args) = args.what else { panic!("no preview") };
        let rule = args.rule.rule(None)?;
        let id = args.name.as_deref().map(ScheduleId::of);
        let preview = preview(&rule, id, args.after.unwrap().ms(&rule.zone)?, args.count);
        Ok((lines(&preview), serde_json::to_value(&preview).unwrap()))
    }

    #[test]
    fn instants_are_shown_with_their_offset_and_what_the_clocks_did() {
        let arguments = ["--cron", "30 2 * * *", "--tz", "America/New_York", "--count", "3"];
        let (lines, json) = previewed(&arguments).unwrap();
        assert_eq!(
            lines,
            [
                "cron 30 2 * * * in America/New_York",
                "Sat 2026-03-07 02:30:00 -05:00  2026-03-07T07:30:00Z",
                "Sun 2026-03-08 03:00:00 -04:00  2026-03-08T07:00:00Z  the clocks leave the time of the \
                 rule out: the first moment after it",
                "Mon 2026-03-09 02:30:00 -04:00  2026-03-09T06:30:00Z",
            ]
        );
        let moved = serde_json::json!({
            "instant_ms": 1_772_953_200_000_i64,
            "local": "2026-03-08T03:00:00-04:00",
            "utc": "2026-03-08T07:00:00Z",
            "clocks": "after_gap",
        });
        assert_eq!(json["instants"][1], moved);
        assert_eq!(json["over"], false);
        assert_eq!(json["rule"]["zone"], "America/New_York");
    }

    #[test]
    fn the_end_of_a_rule_is_told() {
        let (lines, json) = previewed(&["--every", "36h", "--until", "2026-03-10"]).unwrap();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[3], "no further instant");
        assert_eq!(json["over"], true);
        let (lines, _) = previewed(&["--calendar", "daily", "--max-runs", "2"]).unwrap();
        assert_eq!(
            lines[2..],
            ["Mon 2026-03-09 00:00:00 +00:00  2026-03-09T00:00:00Z", "no further instant"]
        );
    }

    #[test]
    fn jitter_is_shown_for_a_name_and_always_the_same() {
        let options = ["--cron", "0 3 * * *", "--jitter", "5m", "--count", "2"];
        let (lines, json) = previewed(&options).unwrap();
        assert!(lines[3].contains("--name NAME"), "{lines:?}");
        assert!(json["instants"][0].get("due_ms").is_none());
        let named = [&options[..], &["--name", "nightly"]].concat();
        let (lines, json) = previewed(&named).unwrap();
        assert_eq!((lines.len(), &lines), (3, &previewed(&named).unwrap().0));
        assert!(lines[1].contains("  its task at 03:0"), "{lines:?}");
        let instant = &json["instants"][0];
        let later = instant["due_ms"].as_i64().unwrap() - instant["instant_ms"].as_i64().unwrap();
        assert!((0..300_000).contains(&later), "{later}");
        let other = [&options[..], &["--name", "weekly"]].concat();
        assert_ne!(previewed(&other).unwrap().0, lines);
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_words() {
        for (arguments, told) in [
            (&["--tz", "UTC"][..], "--every <TIME>|--cron <FIELDS>|--calendar <EXPRESSION>"),
            (&["--cron", "@daily", "--every", "5m"], "cannot be used with"),
            (&["--cron", "61 * * * *"], "minute: '61' is not in 0 to 59"),
            (&["--cron", "@daily", "--tz", "berlin"], "such as Europe/Berlin"),
            (&["--cron", "@daily", "--after-end"], "cannot be used with"),
            (&["--after-end"], "--every <TIME>|"),
            (&["--every", "10ms"], "100ms"),
            (
                &["--every", "1h", "--tz", "Europe/Berlin", "--from", "2026-10-25T02:30"],
                "comes twice in Europe/Berlin",
            ),
            (&["--every", "5h", "--from", "2026-03-02", "--until", "2026-03-01"], "end before"),
        ] {
            let error = previewed(arguments).unwrap_err();
            assert!(error.contains(told), "{arguments:?}: {error}");
        }
    }
}
