//! Exit codes, after sysexits(3), so that systemd and scripts can tell whether a restart
//! helps. Pure.

/// The reason why the program fails; to stop in order is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Told to exit before it had stopped in order.
    Forced = 1,
    /// The request of a task is not right, or too large.
    Data = 65,
    /// The task that is asked for is unknown, or has ended.
    Gone = 67,
    /// The broker lacks what the endpoint needs; or no daemon answers here.
    Unavailable = 69,
    /// A fault of the endpoint itself.
    Internal = 70,
    /// The state folder cannot be used.
    State = 73,
    /// A task's request has had no answer in time, or there was no room: it may be tried again.
    Retry = 75,
    /// The broker refuses the endpoint, or another instance holds the lease.
    Refused = 77,
    /// The configuration cannot be used.
    Config = 78,
}

/// An error with the exit code that goes with it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The code to exit with.
    pub(crate) exit: Exit,
    /// The message: what was being done, what went wrong, what to do next.
    pub(crate) message: String,
}

impl Failure {
    /// Creates a failure that exits with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}
