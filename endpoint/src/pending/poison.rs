//! Poisoned tasks: decides from the deaths of the daemon when a task may start, and when it
//! has had its chances. Pure.
//!
//! A death is counted against every task with a process or call that ran, as it cannot be told which one caused
//! it. The next death tells: a task for which it would be the last runs apart from all
//! others that a death was counted against, so that a culprit and its former neighbours are
//! not counted together again.

use crate::storage::journal::Deaths;
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::{Task, Work};
use std::time::{Duration, UNIX_EPOCH};

/// How much of a command a reason shows, in characters.
const SHOWN: usize = 200;

/// The standing of a task after deaths of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// The daemon never died while it ran.
    Clear,
    /// It did, and may do so again.
    Suspect,
    /// It did, and the next time is the last.
    LastChance,
    /// It did too often.
    Poisoned,
}

impl Standing {
    /// The standing of a task after `deaths`, where `limit` are too many; 0 for no limit.
    pub(crate) fn after(deaths: Deaths, limit: u64) -> Self {
        match deaths.count {
            0 => Self::Clear,
            _ if limit == 0 => Self::Suspect,
            count if count >= limit => Self::Poisoned,
            count if count + 1 == limit => Self::LastChance,
            _ => Self::Suspect,
        }
    }

    /// Whether a task may start beside `suspects` and `last_chances` that run.
    pub(crate) fn may_start(self, suspects: usize, last_chances: usize) -> bool {
        match self {
            // One that is poisoned ends without a process.
            Self::Clear | Self::Poisoned => true,
            Self::Suspect => last_chances == 0,
            Self::LastChance => suspects + last_chances == 0,
        }
    }
}

/// Why a task is not started any more.
pub(crate) fn reason(task: &Task, deaths: Deaths) -> String {
    let started = UNIX_EPOCH + Duration::from_millis(deaths.last_started_at_ms);
    let times = if deaths.count == 1 { "once".into() } else { format!("{} times", deaths.count) };
    format!(
        "the endpoint's daemon died {times} while this task ran, the last time after it was \
         started at {}: it is not started again. Its command: {}. See whether it kills its parent \
         or takes all memory, mend it and submit it anew; engine.poison_after in the endpoint's \
         configuration sets how often is too often",
        humantime::format_rfc3339_seconds(started),
        command(task)
    )
}

/// The beginning of what a task does, in words.
pub(crate) fn command(task: &Task) -> String {
    let line = match &task.work {
        Work::Process(process) => {
            process.argv.iter().map(ByteString::shown).collect::<Vec<_>>().join(" ")
        }
        Work::Call(call) => call.to_string(),
    };
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::Process;

    fn deaths(count: u64) -> Deaths {
        Deaths { count, last_started_at_ms: 1_767_225_600_000 }
    }

    #[test]
    fn a_task_loses_its_standing_death_by_death() {
        use Standing::{Clear, LastChance, Poisoned, Suspect};
        for (limit, expected) in [
            (3, [Clear, Suspect, LastChance, Poisoned, Poisoned]),
            (4, [Clear, Suspect, Suspect, LastChance, Poisoned]),
            (2, [Clear, LastChance, Poisoned, Poisoned, Poisoned]),
            (1, [Clear, Poisoned, Poisoned, Poisoned, Poisoned]),
            (0, [Clear, Suspect, Suspect, Suspect, Suspect]),
        ] {
            let found = [0, 1, 2, 3, 4].map(|count| Standing::after(deaths(count), limit));
            assert_eq!(found, expected, "limit {limit}");
        }
    }

    #[test]
    fn a_last_chance_is_taken_apart_from_all_others_under_suspicion() {
        let table = [
            // standing, suspects and last chances that run, whether it may start
            (Standing::Clear, 3, 1, true),
            (Standing::Poisoned, 3, 1, true),
            (Standing::Suspect, 3, 0, true),
            (Standing::Suspect, 0, 1, false),
            (Standing::LastChance, 0, 0, true),
            (Standing::LastChance, 1, 0, false),
            (Standing::LastChance, 0, 1, false),
        ];
        for (standing, suspects, last_chances, may) in table {
            let found = standing.may_start(suspects, last_chances);
            assert_eq!(found, may, "{standing:?} beside {suspects} and {last_chances}");
        }
    }

    #[test]
    fn the_reason_says_how_often_and_when_and_what() {
        let argv = vec!["sh".to_owned(), "-c".to_owned(), "kill -9 $PPID".to_owned()];
        let task = Task::new(
            TaskId::new(),
            Process { argv: argv.into_iter().map(Into::into).collect(), ..Process::default() },
        );
        let reason = reason(&task, deaths(3));
        assert!(reason.contains("died 3 times"), "{reason}");
        assert!(reason.contains("2026-01-01T00:00:00Z"), "{reason}");
        assert!(reason.contains("sh -c kill -9 $PPID."), "{reason}");
    }

    #[test]
    fn a_long_command_is_cut_between_characters() {
        let process = Process { argv: vec!["é".repeat(1000).into()], ..Process::default() };
        let shown = command(&Task::new(TaskId::new(), process));
        assert_eq!(shown.chars().count(), SHOWN + 1);
    }
}
