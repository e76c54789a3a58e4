//! Judges the outcome of a task from the facts about its process, with a reason in words
//! where exit code and signal do not say it all. Pure.

use clutch_common::task::result::Outcome;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

/// The facts when a run is over.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Facts {
    /// How the process ended; `None` if it could not be ended.
    pub(crate) status: Option<ExitStatus>,
    /// The walltime, if the process was ended because of it.
    pub(crate) exceeded: Option<Duration>,
    /// Whether the process was ended because the task is cancelled.
    pub(crate) cancelled: bool,
    /// How many processes were still there after the end of the first.
    pub(crate) left_behind: usize,
    /// How many processes are still there although they were killed.
    pub(crate) survivors: usize,
    /// How many processes the out-of-memory killer ended meanwhile; `None`
    /// if that is not known.
    pub(crate) oom_kills: Option<u64>,
}

/// The outcome of a task, and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: Option<String>,
}

impl Facts {
    /// Judges these facts.
    pub(crate) fn verdict(&self) -> Verdict {
        let outcome = match (self.exceeded, self.status) {
            _ if self.cancelled => Outcome::Cancelled,
            (Some(_), _) => Outcome::TimedOut,
            (None, Some(status)) if status.success() => Outcome::Succeeded,
            (None, _) => Outcome::Failed,
        };
        let reasons: Vec<String> =
            [self.end(), self.memory(outcome), self.leftovers()].into_iter().flatten().collect();
        Verdict {
            outcome,
            exit_code: self.status.and_then(|status| status.code()),
            signal: self.status.and_then(|status| status.signal()),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        }
    }

    fn end(&self) -> Option<String> {
        if self.cancelled {
            return Some(CANCELLED.to_owned());
        }
        if let Some(walltime) = self.exceeded {
            return Some(format!(
                "stopped at its walltime of {}",
                humantime::format_duration(walltime)
            ));
        }
        let Some(status) = self.status else {
            return Some("how the process ended is not known".into());
        };
        let signal = status.signal()?;
        let core = if status.core_dumped() { ", core dumped" } else { "" };
        Some(format!("killed by {} ({signal}){core}", signal_name(signal)))
    }

    fn memory(&self, outcome: Outcome) -> Option<String> {
        if outcome != Outcome::Failed {
            return None;
        }
        let killed = self.status.and_then(|status| status.signal()) == Some(SIGKILL);
        match self.oom_kills {
            Some(1..) if killed => Some(
                "the kernel's out-of-memory killer ended it: give it more memory, or run fewer tasks at once"
                    .into(),
            ),
            Some(1..) => Some(
                "the kernel's out-of-memory killer ended a process of this endpoint meanwhile, maybe one of this task's"
                    .into(),
            ),
            _ if killed => Some(
                "not by this endpoint: possibly out of memory, or killed by another process on the host"
                    .into(),
            ),
            _ => None,
        }
    }

    fn leftovers(&self) -> Option<String> {
        let processes =
            |count| if count == 1 { "1 process".into() } else { format!("{count} processes") };
        match (self.survivors, self.left_behind) {
            (0, 0) => None,
            (0, count) => Some(format!("{} it left running ended with it", processes(count))),
            (count, _) => Some(format!(
                "{} could not be ended even by SIGKILL: look at the host",
                processes(count)
            )),
        }
    }
}

/// Why a task that was cancelled while it ran has ended.
pub(crate) const CANCELLED: &str = "it was cancelled while it ran, and stopped";

const SIGKILL: i32 = 9;

/// Names a signal as Linux numbers them on most machines.
fn signal_name(signal: i32) -> &'static str {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal)
        .ok()
        .and_then(|signal| NAMES.get(signal.checked_sub(1)?))
        .copied()
        .unwrap_or("a real-time signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    fn signal(signal: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(signal))
    }

    fn verdict(facts: Facts) -> (Outcome, Option<i32>, Option<i32>, Option<String>) {
        let verdict = facts.verdict();
        (verdict.outcome, verdict.exit_code, verdict.signal, verdict.reason)
    }

    #[test]
    fn an_exit_code_speaks_for_itself() {
        let of = |status| verdict(Facts { status, oom_kills: Some(0), ..Facts::default() });
        assert_eq!(of(exit(0)), (Outcome::Succeeded, Some(0), None, None));
        assert_eq!(of(exit(3)), (Outcome::Failed, Some(3), None, None));
    }

    #[test]
    fn signals_are_named() {
        let of = |status| verdict(Facts { status, ..Facts::default() });
        let reason = |text: &str| Some(text.to_owned());
        assert_eq!(of(signal(15)).3, reason("killed by SIGTERM (15)"));
        assert_eq!(of(signal(11 | 0x80)).3, reason("killed by SIGSEGV (11), core dumped"));
        assert_eq!(of(signal(40)).3, reason("killed by a real-time signal (40)"));
        assert_eq!(of(signal(40)).0, Outcome::Failed);
        assert_eq!(of(signal(40)).2, Some(40));
    }

    #[test]
    fn memory_is_blamed_as_far_as_is_known() {
        let reason = |status, oom_kills| {
            verdict(Facts { status, oom_kills, ..Facts::default() }).3.unwrap_or_default()
        };
        let certain = "the kernel's out-of-memory killer ended it";
        let maybe = "possibly out of memory";
        assert!(reason(signal(9), Some(1)).contains(certain));
        assert!(reason(signal(9), Some(0)).contains(maybe));
        assert!(reason(signal(9), None).contains(maybe));
        assert!(reason(exit(137), Some(1)).contains("out-of-memory killer ended a process"));
        assert_eq!(reason(exit(137), Some(0)), "");
        assert_eq!(reason(exit(0), Some(1)), "");
    }

    #[test]
    fn a_walltime_is_the_reason_whatever_the_process_made_of_it() {
        let of = |status| {
            let exceeded = Some(Duration::from_millis(1500));
            verdict(Facts { status, exceeded, oom_kills: Some(1), ..Facts::default() })
        };
        let reason = Some("stopped at its walltime of 1s 500ms".to_owned());
        assert_eq!(of(signal(9)), (Outcome::TimedOut, None, Some(9), reason.clone()));
        assert_eq!(of(exit(0)), (Outcome::TimedOut, Some(0), None, reason));
    }

    #[test]
    fn a_cancel_is_the_reason_whatever_the_process_made_of_it() {
        for (status, code, number) in [(signal(15), None, Some(15)), (exit(0), Some(0), None)] {
            let facts = Facts { status, cancelled: true, oom_kills: Some(1), ..Facts::default() };
            let reason = Some(CANCELLED.to_owned());
            assert_eq!(verdict(facts), (Outcome::Cancelled, code, number, reason));
        }
    }

    #[test]
    fn what_was_left_running_is_told() {
        let facts = Facts { status: exit(0), left_behind: 1, ..Facts::default() };
        let reason = |facts| verdict(facts).3.unwrap_or_default();
        assert_eq!(reason(facts), "1 process it left running ended with it");
        assert_eq!(verdict(facts).0, Outcome::Succeeded);
        let stuck = Facts { left_behind: 3, survivors: 2, ..facts };
        assert_eq!(
            reason(stuck),
            "2 processes could not be ended even by SIGKILL: look at the host"
        );
        let hung = Facts { survivors: 1, ..Facts::default() };
        assert!(reason(hung).starts_with("how the process ended is not known"));
    }
}
