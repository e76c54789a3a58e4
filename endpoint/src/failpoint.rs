//! Failure points: places, each between two effects, where a test can have the
//! daemon die as `kill -9` would have it.
//!
//! Only the feature `failpoints` builds them in; without it [`reach`] does nothing, and
//! the variable is not read. With it,
//! `CLUTCH_FAILPOINT=accept:17` ends the process the 17th time that it gets to
//! that step.
//!
//! | step | done before | not done yet | reached once for each |
//! |---|---|---|---|
//! | `accept` | tasks are in the inbox in memory and handed to the journal, and perhaps committed | the acknowledgement | group of deliveries |
//! | `ack` | the commit is durable | `basic.ack` or dead-lettering | group of deliveries |
//! | `start` | the start is noted, durably for a task that must not run again | the process is started | start of a task |
//! | `finish` | the task's processes are gone | the result is handed to the journal | end of a run |
//! | `publish` | results are handed to the journal, and perhaps committed | `basic.publish` | message of results |
//! | `release` | the broker's confirms have come | their results are released on disk | set of confirms read together |

/// A step at which the daemon can be made to die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Accept,
    Ack,
    Start,
    Finish,
    Publish,
    Release,
}

#[cfg(not(feature = "failpoints"))]
mod points {
    use super::Step;
    use crate::exit::Failure;

    /// Does nothing: this build has no failure points.
    #[expect(clippy::unnecessary_wraps, reason = "a build with failure points may refuse")]
    pub(crate) const fn arm() -> Result<(), Failure> {
        Ok(())
    }

    /// Does nothing: this build has no failure points.
    #[inline]
    pub(crate) const fn reach(_step: Step) {}
}

#[cfg(feature = "failpoints")]
mod points {
    use super::Step;
    use crate::exit::{Exit, Failure};
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The variable that a test sets.
    const VARIABLE: &str = "CLUTCH_FAILPOINT";

    const STEPS: [(&str, Step); 6] = [
        ("accept", Step::Accept),
        ("ack", Step::Ack),
        ("start", Step::Start),
        ("finish", Step::Finish),
        ("publish", Step::Publish),
        ("release", Step::Release),
    ];

    struct Armed {
        step: Step,
        times: u64,
        reached: AtomicU64,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// Reads the variable.
    ///
    /// # Errors
    /// With [`Exit::Config`] when its value is not a step and a count.
    pub(crate) fn arm() -> Result<(), Failure> {
        let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
        let value = value.to_string_lossy();
        let Some((step, times)) = parse(&value) else {
            let steps = STEPS.map(|(name, _)| name).join(", ");
            let message = format!(
                "reading {VARIABLE}: '{value}' is not a step and a count such as accept:17; the \
                 steps are {steps}, and counts begin at 1"
            );
            return Err(Failure::new(Exit::Config, message));
        };
        tracing::warn!(?step, times, "this start will be killed at a failure point");
        ARMED.get_or_init(|| Armed { step, times, reached: AtomicU64::new(0) });
        Ok(())
    }

    pub(super) fn parse(value: &str) -> Option<(Step, u64)> {
        let (name, times) = value.split_once(':')?;
        let (_, step) = STEPS.into_iter().find(|(known, _)| *known == name)?;
        let times = times.parse().ok().filter(|times| *times > 0)?;
        Some((step, times))
    }

    /// Kills the process if the variable says so.
    pub(crate) fn reach(step: Step) {
        let Some(armed) = ARMED.get().filter(|armed| armed.step == step) else { return };
        let reached = armed.reached.fetch_add(1, Ordering::Relaxed) + 1;
        if reached == armed.times
            && let Err(error) = kill_process(getpid(), Signal::KILL)
        {
            tracing::error!(%error, "this process could not kill itself");
        }
    }
}

pub(crate) use points::{arm, reach};

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    const CHILD: &str = "CLUTCH_TEST_REACHES_A_STEP";

    /// Alone, nothing; as the child of the test below, a daemon in small.
    #[test]
    fn reaches_the_same_step_twice() {
        if std::env::var_os(CHILD).is_some() {
            arm().unwrap();
            reach(Step::Start);
            reach(Step::Finish);
            println!("once");
            reach(Step::Start);
            println!("twice");
        }
    }

    #[test]
    fn only_a_build_with_failure_points_heeds_the_variable() {
        let own = std::env::current_exe().unwrap();
        let child = Command::new(own)
            .args(["--exact", "--nocapture", "failpoint::tests::reaches_the_same_step_twice"])
            .env(CHILD, "1")
            .env("CLUTCH_FAILPOINT", "start:2")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stdout);
        assert!(told.contains("once"), "{told}");
        if cfg!(feature = "failpoints") {
            assert_eq!(child.status.signal(), Some(9), "{told}");
        } else {
            assert!(child.status.success() && told.contains("twice"), "{told}");
        }
    }

    #[test]
    #[cfg(feature = "failpoints")]
    fn a_value_that_makes_no_sense_is_refused() {
        assert_eq!(points::parse("accept:17"), Some((Step::Accept, 17)));
        assert_eq!(points::parse("release:1"), Some((Step::Release, 1)));
        for bad in ["", "accept", "accept:", "accept:0", "accept:-1", "akzept:1", "ack:1:2"] {
            assert_eq!(points::parse(bad), None, "{bad}");
        }
    }
}
