//! When tasks are due, as a command line says it. Pure.

use crate::cli::due::DueArgs;
use crate::failure::usage;
use crate::model::{DueTime, moment as moment_words};
use std::time::Duration;

/// When the tasks are due, if they are to be scheduled.
pub(super) fn due_time(args: &DueArgs, now_ms: u64) -> anyhow::Result<Option<DueTime>> {
    let (option, due) = match (&args.at, args.r#in) {
        (Some(at), _) => ("--at", DueTime::AtMs(moment(at)?)),
        (None, Some(after)) => {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            ("--in", DueTime::InMs(after))
        }
        (None, None) => return Ok(None),
    };
    due.check(now_ms).map_err(|reason| usage(format!("{option}: {reason}")))?;
    Ok(Some(due))
}

fn moment(text: &str) -> anyhow::Result<u64> {
    let at = humantime::parse_rfc3339(text).map_err(|_| {
        usage(format!("--at: '{text}' is no moment: write 2026-12-24T18:00:00Z, with its offset"))
    })?;
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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

    fn args(at: Option<&str>, after: Option<u64>) -> DueArgs {
        DueArgs { at: at.map(str::to_owned), r#in: after.map(Duration::from_secs) }
    }

    #[test]
    fn a_moment_or_a_delay_is_read_and_anything_else_refused_in_words() {
        let due = |at, after| due_time(&args(at, after), 0);
        assert_eq!(due(None, None).unwrap(), None);
        assert_eq!(due(None, Some(7)).unwrap(), Some(DueTime::InMs(7000)));
        assert_eq!(due(Some("1970-01-01T00:00:09Z"), None).unwrap(), Some(DueTime::AtMs(9000)));
        for (wrong, words) in
            [("tomorrow", "--at: 'tomorrow'"), ("2999-01-01T00:00:00Z", "100 years")]
        {
            let told = due(Some(wrong), None).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_moment_that_is_past_is_told_as_such() {
        assert_eq!(due_words(None, 5), "");
        assert_eq!(due_words(Some(90_000), 1000), ", due 1970-01-01T00:01:30Z, in 1m 29s");
        assert_eq!(due_words(Some(1000), 1000), ", due at once, as 1970-01-01T00:00:01Z is past");
    }
}
