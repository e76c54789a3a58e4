//! Starts processes, and holds them until they are reaped; the only file that
//! starts any.
//!
//! Touches: processes. Promises that no shell is involved, that every process has
//! a group of its own and a mark, that none sees what the endpoint's own
//! environment keeps secret, and that one that is abandoned is killed.

use super::mark::{Mark, Marks};
use super::patience::Patience;
use super::streams::TheirEnds;
use crate::descriptors;
use clutch_common::clock::now_ms;
use clutch_common::id::{EndpointId, StateId};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, set_child_subreaper, waitid,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use wait4::ResUse;

/// The system refuses what keeping hold of processes needs.
#[derive(Debug, thiserror::Error)]
#[error("the system does not let this endpoint keep hold of its tasks' processes ({what})")]
pub(crate) struct SystemError {
    what: &'static str,
    source: io::Error,
}

/// What all processes of an endpoint are started with.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// What marks them.
    pub(super) marks: Marks,
    /// Variables of the endpoint's environment that they must not see.
    pub(super) hidden: Vec<OsString>,
    /// Those that wait for the host.
    pub(super) patience: Patience,
}

impl Spawner {
    /// Makes this process the one that inherits its processes' orphans, for the
    /// rest of its life. To be called within a tokio runtime.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn new(endpoint_id: EndpointId, state_id: StateId) -> Result<Self, SystemError> {
        let system = |what| move |source| SystemError { what, source };
        set_child_subreaper(super::proc::own_pid())
            .map_err(|error| system("PR_SET_CHILD_SUBREAPER")(error.into()))?;
        // Also undoes an inherited "ignore", which would discard exit codes.
        drop(signal(SignalKind::child()).map_err(system("a handler for SIGCHLD"))?);
        #[allow(clippy::cast_possible_truncation, reason = "only the changing part matters")]
        let seed = now_ms() as u32;
        Ok(Self {
            marks: Marks::new(endpoint_id, state_id, seed),
            hidden: std::env::vars_os().map(|(name, _)| name).filter(|name| hides(name)).collect(),
            patience: Patience::default(),
        })
    }

    /// The command of a program with its arguments, `env` over the endpoint's
    /// environment, and `marks` over that.
    ///
    /// # Errors
    /// There is no program.
    pub(super) fn command(
        &self,
        argv: &[impl AsRef<OsStr>],
        env: &BTreeMap<String, impl AsRef<OsStr>>,
        marks: impl IntoIterator<Item = (&'static str, String)>,
        theirs: TheirEnds,
    ) -> Result<Command, String> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err("argv is empty: name a program to run".into());
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(theirs.stdin).stdout(theirs.stdout).stderr(theirs.stderr);
        // A group of its own. Nothing may be added that needs code to run in
        // the new process: that would double the cost of a start.
        command.process_group(0);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command.envs(env).envs(marks);
        Ok(command)
    }
}

/// Starts a command whose process bears `mark`. Blocks.
///
/// # Errors
/// What the system says.
pub(super) fn start(command: &mut Command, mark: &Mark) -> io::Result<Leader> {
    let child = mark.put_on(|| command.spawn())?;
    let pid = Pid::from_child(&child);
    descriptors::give_back(pid);
    Ok(Leader { pid, reaped: false })
}

/// The first process of a run, until it is reaped. If it is dropped before,
/// its group is killed: a run that is abandoned does not run on.
#[derive(Debug)]
pub(super) struct Leader {
    /// The process.
    pub(super) pid: Pid,
    reaped: bool,
}

impl Leader {
    /// Reaps a process that has ended. Whoever traces it, such as strace, is told
    /// first; it is ours when that one has let it go.
    pub(super) fn reap_ended(&mut self) -> Option<ResUse> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = waitid(WaitId::Pid(self.pid), options) {}
        self.reap()
    }

    /// Whether it has ended and waits to be reaped.
    pub(super) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Reaps it if it has ended.
    pub(super) fn reap(&mut self) -> Option<ResUse> {
        match wait4::try_wait4_pid(self.pid.as_raw_nonzero().get().unsigned_abs()) {
            Ok(usage) => {
                self.reaped = usage.is_some();
                usage
            }
            Err(error) => {
                tracing::error!(pid = %self.pid, %error, "how a process ended could not be learned");
                self.reaped = true;
                None
            }
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.reaped
            && let Err(error) = kill_process_group(self.pid, Signal::KILL)
        {
            tracing::warn!(pid = %self.pid, %error, "an abandoned process could not be killed");
        }
    }
}

/// Whether a variable of the endpoint's environment is none of a task's
/// business: its own settings, the broker's password among them, what a
/// service manager tells it alone, and where it was started.
pub(super) fn hides(name: &OsStr) -> bool {
    const OURS: [&str; 12] = [
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "MANAGERPID",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    ];
    name.as_encoded_bytes().starts_with(b"CLUTCH_") || OURS.iter().any(|hidden| name == *hidden)
}
