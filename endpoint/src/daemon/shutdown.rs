//! The order in which the daemon stops. Signals ([`clutch_common::system::signals`]) come
//! in; out go two tokens, a stop signal and a deadline.
//!
//! | event | effect |
//! |---|---|
//! | first TERM, INT, QUIT or HUP | no more tasks are read or started; running ones may finish |
//! | second, or the deadline | running tasks are stopped, and stay in the inbox |
//! | engine ended | results go out for as long as [`FLUSH`] |
//! | third | exit at once, as `kill -9` would |

use crate::exit::Exit;
use crate::pending::stop::{StopReason, StopSignal};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long results may still be delivered once no task runs. Others are delivered
/// after the next start.
const FLUSH: Duration = Duration::from_secs(10);

/// How far stopping has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    Finishing,
    Killing,
    Flushing,
}

/// The tokens that the parts of the daemon obey, and the state behind them.
pub(crate) struct Shutdown {
    /// Cancelled: read and start no more tasks.
    pub(crate) intake: CancellationToken,
    /// Given: stop running tasks.
    pub(crate) kill: StopSignal,
    /// Cancelled: end the link once all is delivered.
    pub(crate) drain: CancellationToken,
    stage: Stage,
    signals: u32,
    deadline: Duration,
    grace: Duration,
    due_at: Option<Instant>,
}

impl Shutdown {
    /// Creates the tokens of a daemon that runs. Running tasks will have `deadline` to
    /// finish, and `grace` from `SIGTERM` to `SIGKILL` after it.
    pub(crate) fn new(deadline: Duration, grace: Duration) -> Self {
        Self {
            intake: CancellationToken::new(),
            kill: StopSignal::new(),
            drain: CancellationToken::new(),
            stage: Stage::Running,
            signals: 0,
            deadline,
            grace,
            due_at: None,
        }
    }

    /// Changes how long running tasks will have to finish.
    pub(crate) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Takes a signal.
    pub(crate) fn signalled(&mut self) {
        self.signals += 1;
        match self.signals {
            1 => {
                tracing::info!(
                    deadline = %humantime::format_duration(self.deadline),
                    "stopping: running tasks may finish; a second signal stops them"
                );
                self.begin();
            }
            2 => {
                tracing::info!("stopping running tasks; a third signal exits at once");
                if self.stage == Stage::Finishing {
                    self.escalate();
                }
            }
            _ => {
                tracing::warn!(
                    "exiting at once: what is pending stays on disk, and the next start ends \
                     the processes of tasks that are left running"
                );
                clutch_common::log::finish();
                std::process::exit(Exit::Forced as i32);
            }
        }
    }

    /// Stops intake, and gives running tasks until the deadline.
    pub(crate) fn begin(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Finishing;
            self.intake.cancel();
            self.due_at = Some(Instant::now() + self.deadline);
        }
    }

    /// Notes that no task runs: results are delivered.
    pub(crate) fn engine_ended(&mut self) {
        self.begin();
        self.stage = Stage::Flushing;
        self.drain.cancel();
        self.due_at = Some(Instant::now() + FLUSH);
    }

    /// Waits for the current deadline; for ever when there is none.
    pub(crate) async fn due(&self) {
        match self.due_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Notes that the deadline has passed. Returns true when there is nothing left to wait
    /// for.
    pub(crate) fn escalate(&mut self) -> bool {
        match self.stage {
            Stage::Running => false,
            Stage::Finishing => {
                self.stage = Stage::Killing;
                self.kill.request(StopReason::Shutdown);
                self.due_at = Some(Instant::now() + self.grace + FLUSH);
                false
            }
            Stage::Killing | Stage::Flushing => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shutdown() -> Shutdown {
        Shutdown::new(Duration::from_secs(30), Duration::from_secs(5))
    }

    fn state(shutdown: &Shutdown) -> (bool, bool, bool) {
        (
            shutdown.intake.is_cancelled(),
            shutdown.kill.requested().is_some(),
            shutdown.drain.is_cancelled(),
        )
    }

    #[test]
    fn the_first_signal_stops_intake_and_the_second_the_tasks() {
        let mut shutdown = shutdown();
        assert_eq!(state(&shutdown), (false, false, false));
        shutdown.signalled();
        assert_eq!(state(&shutdown), (true, false, false));
        shutdown.signalled();
        assert_eq!(state(&shutdown), (true, true, false));
        shutdown.engine_ended();
        assert_eq!(state(&shutdown), (true, true, true));
    }

    /// Asserts that the deadline was set to `expected` from now, a moment ago.
    fn assert_due_in(shutdown: &Shutdown, expected: Duration) {
        let left = shutdown.due_at.unwrap().duration_since(Instant::now());
        assert!(left <= expected && left + Duration::from_secs(4) > expected, "{left:?}");
    }

    #[test]
    fn the_deadline_does_what_a_second_signal_does() {
        let mut shutdown = shutdown();
        shutdown.signalled();
        assert_due_in(&shutdown, Duration::from_secs(30));
        assert!(!shutdown.escalate());
        assert_eq!(state(&shutdown), (true, true, false));
    }

    #[test]
    fn tasks_that_will_not_end_do_not_hold_up_the_exit_for_ever() {
        let mut shutdown = shutdown();
        shutdown.signalled();
        shutdown.signalled();
        assert_due_in(&shutdown, Duration::from_secs(5) + FLUSH);
        assert!(shutdown.escalate());
    }

    #[test]
    fn a_second_signal_does_not_cut_delivery_short() {
        let mut shutdown = shutdown();
        shutdown.signalled();
        shutdown.engine_ended();
        shutdown.signalled();
        assert_due_in(&shutdown, FLUSH);
    }

    #[test]
    fn delivering_what_is_left_ends_after_a_while() {
        let mut shutdown = shutdown();
        shutdown.engine_ended();
        assert_due_in(&shutdown, FLUSH);
        assert!(shutdown.escalate());
    }
}
