//! When tasks are due, as a command line says it. Pure.

use crate::cli::due::DueArgs;
use crate::failure::usage;
use crate::model::{DueTime, moment as moment_words};
use crate::schedule::MomentText;
use std::time::Duration;

/// When the tasks are due, if they are to be scheduled.
pub(super) fn due_time(args: &DueArgs, now_ms: u64) -> anyhow::Result<Option<DueTime>> {
    let (option, due) = match (&args.at, args.r#in) {
        (Some(at), _) => ("--at", DueTime::AtMs(moment(args, at)?)),
        (None, Some(after)) => {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            ("--in", DueTime::InMs(after))
        }
        (None, None) => return Ok(None),
    };
    due.check(now_ms).map_err(|reason| usage(format!("{option}: {reason}")))?;
    Ok(Some(due))
}

fn moment(args: &DueArgs, text: &MomentText) -> anyhow::Result<u64> {
    let ms = match (text, &args.zone) {
        (MomentText::Wall(wall), None) => Err(format!(
            "{wall} is a time of which zone? Write --tz with it, or an offset: {wall}Z is UTC"
        )),
        (MomentText::Instant(ms), _) => Ok(*ms),
        (MomentText::Wall(_), Some(zone)) => text.ms(zone),
    };
    let ms = ms.map_err(|reason| usage(format!("--at: {reason}")))?;
    Ok(u64::try_from(ms).unwrap_or(0))
}

/// A clause about when tasks that were scheduled are due.
pub(super) fn due_words(due_at_ms: Option<u64>, now_ms: u64) -> String {
    let Some(due) = due_at_ms else { return String::new() };
    match due.checked_sub(now_ms) {
        Some(left) if left > 0 => {
            let left = Duration::from_secs(left.div_ceil(1000));
            format!(", due {}, in {}", moment_words(due), humantime::format_duration(left))
        }
        _ => format!(", due at once, as {} is past", moment_words(due)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn args(line: &[&str]) -> DueArgs {
        let submit = [&["clutch-service", "submit", "lab"], line, &["--", "true"]].concat();
        let Command::Submit(args) = Cli::try_parse_from(submit).unwrap().command else {
            panic!("another command than submit");
        };
        args.due
    }

    #[test]
    fn a_moment_or_a_delay_is_read_and_anything_unclear_refused_in_words() {
        let due = |line: &[&str]| due_time(&args(line), 0);
        let at = |ms| Some(DueTime::AtMs(ms));
        assert_eq!(due(&[]).unwrap(), None);
        assert_eq!(due(&["--in", "7s"]).unwrap(), Some(DueTime::InMs(7000)));
        assert_eq!(due(&["--at", "1970-01-01T00:00:09Z"]).unwrap(), at(9000));
        let berlin = |time| due(&["--at", time, "--tz", "Europe/Berlin"]);
        assert_eq!(berlin("1970-01-01T01:00:09").unwrap(), at(9000));
        for (told, words) in [
            (due(&["--at", "2026-12-24T18:00"]), "of which zone"),
            (due(&["--at", "2999-01-01T00:00:00Z"]), "100 years"),
            (berlin("2026-10-25T02:30"), "comes twice in Europe/Berlin"),
            (berlin("2026-03-29T02:30"), "does not exist in Europe/Berlin"),
        ] {
            let told = told.unwrap_err().to_string();
            assert!(told.contains("--at: ") && told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_moment_that_is_past_is_told_as_such() {
        assert_eq!(due_words(None, 5), "");
        assert_eq!(due_words(Some(90_000), 1000), ", due 1970-01-01T00:01:30Z, in 1m 29s");
        assert_eq!(due_words(Some(1000), 1000), ", due at once, as 1970-01-01T00:00:01Z is past");
    }
}
