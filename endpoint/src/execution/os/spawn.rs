//! Starts processes, and holds them until they are reaped; the only file that
//! starts any.
//!
//! Touches: processes, and the working folder of this process, which is `/` except while
//! a process is being started. Promises that no shell is involved; that every process
//! has a session of its own, no terminal, no signal blocked or ignored, and the
//! [tag](super::run_tag) of its run; that none sees the secrets of the endpoint's
//! environment; and that a process which is abandoned is killed.

use super::process_tree::ProcessTree;
use super::reaper::Reaper;
use super::run_tag::{RunTag, RunTags};
use super::shortage::HostShortage;
use super::spawn_error;
use super::streams::ChildEnds;
use crate::execution::task_side::TaskSide;
use crate::system::descriptors;
use crate::system::troubles::Troubles;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::system::clock::now_ms;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, chdir, kill_process_group, set_child_subreaper, waitid,
};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::iter::once;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use wait4::ResUse;

/// The system refuses what the endpoint needs to keep hold of processes.
#[derive(Debug, thiserror::Error)]
#[error("the system does not let this endpoint keep hold of its tasks' processes ({what})")]
pub(crate) struct SystemError {
    what: &'static str,
    source: io::Error,
}

/// Starts the processes of an endpoint, all with the same settings.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// Their tags.
    pub(crate) tags: RunTags,
    /// Variables of the endpoint's environment that they must not see.
    pub(crate) hidden: Vec<OsString>,
    /// The tasks that wait because the host lacks something.
    pub(crate) shortage: HostShortage,
    /// Where it is told that they do not start.
    pub(crate) troubles: Troubles,
    /// Their own side of the endpoint, where they have one.
    pub(crate) side: Option<Arc<TaskSide>>,
    /// Whether the kernel is told to spare the endpoint when memory is short. Its tasks
    /// are not to be spared.
    spared: bool,
}

impl Spawner {
    /// Makes this process the one that inherits its processes' orphans, for the
    /// rest of its life. To be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SystemError`].
    pub(crate) fn new(endpoint_id: EndpointId, state_id: StateId) -> Result<Self, SystemError> {
        let system = |what| move |source| SystemError { what, source };
        set_child_subreaper(super::proc::own_pid())
            .map_err(|error| system("PR_SET_CHILD_SUBREAPER")(error.into()))?;
        // Also undoes an inherited "ignore", which would discard exit codes.
        drop(signal(SignalKind::child()).map_err(system("a handler for SIGCHLD"))?);
        #[allow(clippy::cast_possible_truncation, reason = "only the changing part matters")]
        let seed = now_ms() as u32;
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        Ok(Self {
            tags: RunTags::new(endpoint_id, state_id, seed),
            hidden: std::env::vars_os().map(|(name, _)| name).filter(|name| hides(name)).collect(),
            shortage: HostShortage::default(),
            troubles: Troubles::default(),
            side: None,
            spared: score.starts_with('-'),
        })
    }

    /// Tells troubles there.
    pub(crate) fn telling(self, troubles: Troubles) -> Self {
        Self { troubles, ..self }
    }

    /// Tells processes of their own side of the endpoint.
    pub(crate) fn with_side(self, side: Option<Arc<TaskSide>>) -> Self {
        Self { side, ..self }
    }

    /// Builds the command of a program with its arguments, `env` over the endpoint's
    /// environment, and `tags` over that.
    ///
    /// # Errors
    /// `argv` is empty, or a word has a nul byte.
    pub(crate) fn command(
        &self,
        argv: &[impl AsRef<OsStr>],
        env: &BTreeMap<String, impl AsRef<OsStr>>,
        tags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Command, String> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err("argv is empty: name a program to run".into());
        };
        let values = env.iter().flat_map(|(name, value)| [OsStr::new(name), value.as_ref()]);
        let mut words = argv.iter().map(AsRef::as_ref).chain(values);
        if words.any(|word| word.as_bytes().contains(&0)) {
            return Err(format!(
                "'{}' could not be started: its arguments or its environment contain a nul byte, \
                 which no process can be given",
                program.as_ref().display()
            ));
        }
        let mut command = Command::new(program);
        command.args(arguments);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command.envs(env).envs(tags);
        Ok(command)
    }

    /// Starts a command; its process bears `tag` and has these ends of pipes. Blocks.
    pub(crate) fn start(
        &self,
        command: &mut Command,
        child_ends: ChildEnds,
        tag: &RunTag,
    ) -> io::Result<Leader> {
        let leader = tag.while_inherited(|alone| {
            let pid = if alone {
                in_session(command, &child_ends)
            } else {
                in_group(command, child_ends)
            }?;
            // First of all: it runs already.
            descriptors::restore_for(pid);
            Reaper::lock().add(pid);
            Ok::<_, io::Error>(Leader { pid, reaped: false })
        })?;
        if self.spared
            && let Err(error) = std::fs::write(format!("/proc/{}/oom_score_adj", leader.pid), "0")
        {
            tracing::debug!(pid = %leader.pid, %error, "a process is spared when memory is short");
        }
        Ok(leader)
    }
}

/// Starts a command in a session of its own, with no signal blocked or ignored. Only
/// where no other process is started at the same time: this process is in the command's
/// folder meanwhile.
///
/// `Command` can do neither without code of the endpoint's in the new process, which
/// doubles the cost of a start.
fn in_session(command: &Command, child_ends: &ChildEnds) -> io::Result<Pid> {
    let mut attributes = PosixSpawnAttr::init()?;
    let session = PosixSpawnFlags::from_bits_retain(SETSID);
    attributes.set_flags(
        session | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut files = PosixSpawnFileActions::init()?;
    for (number, end) in
        [&child_ends.stdin, &child_ends.stdout, &child_ends.stderr].into_iter().enumerate()
    {
        files.add_dup2(end.as_raw_fd(), i32::try_from(number).unwrap_or_default())?;
    }
    let arguments = once(command.get_program()).chain(command.get_args()).map(text);
    let arguments: Vec<CString> = arguments.collect::<io::Result<_>>()?;
    let environment: Vec<CString> = environment(command)?;
    let program = program(command);
    if let Some(folder) = command.get_current_dir() {
        chdir(folder)?;
    }
    let started = posix_spawn(program.as_path(), &files, &attributes, &arguments, &environment);
    if let Err(error) = chdir("/") {
        tracing::debug!(%error, "this process stays in a task's folder");
    }
    let pid = started?.as_raw();
    Pid::from_raw(pid).ok_or_else(|| io::Error::other(format!("{pid} is no process id")))
}

/// `POSIX_SPAWN_SETSID`, which no name in nix stands for; the same with glibc and musl.
const SETSID: i32 = 0x80;

/// Starts a command in a group of its own, whatever else is started meanwhile.
fn in_group(command: &mut Command, child_ends: ChildEnds) -> io::Result<Pid> {
    command
        .stdin(child_ends.stdin)
        .stdout(child_ends.stdout)
        .stderr(child_ends.stderr)
        .process_group(0);
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

fn text(part: &OsStr) -> io::Result<CString> {
    Ok(CString::new(part.as_bytes())?)
}

/// Builds the environment of a command: this process's own, as the command changes it.
fn environment(command: &Command) -> io::Result<Vec<CString>> {
    let changes: HashMap<&OsStr, Option<&OsStr>> = command.get_envs().collect();
    let own = std::env::vars_os().filter(|(name, _)| !changes.contains_key(name.as_os_str()));
    let entry = |name: &OsStr, value: &OsStr| {
        let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        Ok(CString::new(entry)?)
    };
    let own = own.map(|(name, value)| entry(&name, &value));
    let set = changes.iter().filter_map(|(name, value)| Some(entry(name, (*value)?)));
    own.chain(set).collect()
}

/// Finds the program of a command: as it says, or in its `PATH`.
fn program(command: &Command) -> PathBuf {
    let name = command.get_program();
    if name.as_bytes().contains(&b'/') {
        return name.into();
    }
    let path = spawn_error::search_path(command).unwrap_or_else(|| "/bin:/usr/bin".into());
    let folder = command.get_current_dir().unwrap_or(Path::new("/"));
    let found = std::env::split_paths(&path).map(|place| folder.join(place).join(name));
    let usable = |path: &PathBuf| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let mut first = None;
    for place in found {
        if usable(&place) {
            return place;
        }
        if first.is_none() && place.exists() {
            first = Some(place); // it may not be executed, and the error says so
        }
    }
    // With a slash, so that it is not looked for in this process's own `PATH`.
    first.unwrap_or_else(|| Path::new("/nonexistent").join(name))
}

/// The first process of a run, until it is reaped. If it is dropped before, its group
/// is killed: an abandoned run does not run on.
#[derive(Debug)]
pub(crate) struct Leader {
    /// The process.
    pub(crate) pid: Pid,
    reaped: bool,
}

impl Leader {
    /// Reaps a process that has ended.
    pub(crate) fn reap_ended(&mut self) -> Option<ResUse> {
        self.wait_for_end();
        self.reap()
    }

    /// Reaps a process that has ended, if no orphan of its tree is left. It lists the
    /// orphans in the same step, so that of two trees that end at once one has to end an
    /// orphan that may belong to both.
    pub(crate) fn reap_alone(&mut self, tree: &ProcessTree) -> Option<Option<ResUse>> {
        self.wait_for_end();
        let mut reaper = Reaper::lock();
        let alone = tree.orphans(&reaper).is_ok_and(|orphans| orphans.is_empty());
        alone.then(|| self.reap_by(&mut reaper))
    }

    /// Waits until a process that has ended can be reaped: a tracer, such as strace, is
    /// told of its end first.
    fn wait_for_end(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = waitid(WaitId::Pid(self.pid), options) {}
    }

    /// Whether the process has ended and waits to be reaped.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Reaps the process if it has ended.
    pub(crate) fn reap(&mut self) -> Option<ResUse> {
        self.reap_by(&mut Reaper::lock())
    }

    fn reap_by(&mut self, reaper: &mut Reaper) -> Option<ResUse> {
        match reaper.reap(self.pid) {
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
        if self.reaped {
            return;
        }
        if let Err(error) = kill_process_group(self.pid, Signal::KILL) {
            tracing::warn!(pid = %self.pid, %error, "an abandoned process could not be killed");
        }
        Reaper::lock().abandon(self.pid);
    }
}

/// Whether a variable of the endpoint's environment is hidden from tasks: its own
/// settings, the broker's password among them, those that a service manager sets for it
/// alone, and the folder it was started in.
pub(crate) fn hides(name: &OsStr) -> bool {
    const HIDDEN: [&str; 12] = [
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
    name.as_encoded_bytes().starts_with(b"CLUTCH_") || HIDDEN.iter().any(|hidden| name == *hidden)
}
