//! A worker: a process that is started once and answers one call after the
//! other, over its standard input and output.
//!
//! Touches: its process, its pipes. Promises that a call costs no more than its
//! lines on the pipes and one wake-up for the answer, that memory for a worker's output
//! is bounded, and that no process of a stopped worker is left.

use super::protocol::{self, MAX_LINE};
use super::python;
use super::worker_spec::WorkerSpec;
use crate::execution::capture::Captured;
use crate::execution::events::Events;
use crate::execution::os::exit_watch::{self, ExitWatch};
use crate::execution::os::proc;
use crate::execution::os::process_tree::ProcessTree;
use crate::execution::os::spawn::{Leader, Spawner};
use crate::execution::os::spawn_error::{self, SpawnError};
use crate::execution::os::streams::{ChildEnds, Output};
use crate::execution::os::terminate::{Terminated, terminate};
use crate::messages::WorkerToken;
use crate::pending::stop::{StopReason, StopSignal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::OsStr;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use wait4::ResUse;

/// How long the notice of an exit may take once the process has closed its output.
const EXIT_NOTICE: Duration = Duration::from_secs(1);
/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// The capacity for lines that is kept between calls, in bytes.
const KEPT_ROOM: usize = 64 * 1024;

/// A worker that has written its hello.
#[derive(Debug)]
pub(super) struct Worker {
    leader: Leader,
    tree: ProcessTree,
    watch: ExitWatch,
    stdin: Sender,
    stdout: Receiver,
    /// The beginning of a line that is not complete.
    line: Vec<u8>,
    stderr: Output,
    stderr_open: bool,
    /// How much of the last request is written to its pipe, in bytes.
    written: usize,
    /// Whether it has written its hello. Output before that, by a library that is being
    /// loaded for example, is not part of the protocol.
    ready: bool,
    /// Whether it may tell progress before it answers.
    tells_progress: bool,
    /// Its token on the socket of tasks.
    token: Option<WorkerToken>,
    /// How many calls it was sent: the number of the last one.
    sent: u64,
    /// How many calls it has answered.
    pub(super) answered: u64,
}

/// The reason why a worker is not ready.
#[derive(Debug)]
pub(super) enum StartError {
    /// It could not be started, or does not keep to the protocol; in words, and
    /// what it wrote to its standard error.
    Failed(String, Captured),
    /// The host lacks what it takes for now; in words.
    Host(String),
    /// Its task was stopped meanwhile.
    Stopped(StopReason),
}

/// The result of waiting for a line of a worker.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// The line, without its end.
    Line(Vec<u8>),
    /// It wrote something that is not in the protocol; in words.
    Invalid(String),
    /// It has ended, or closed its standard input or output.
    Exited,
    /// It took too long.
    TimedOut,
    /// The task was stopped.
    Stopped(StopReason),
}

/// How a worker is stopped. Its standard input is closed in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StopMode {
    /// It has the grace to end by itself.
    Retire,
    /// It is ending already, by all appearances.
    Exited,
    /// It is sent `SIGTERM` at once.
    Terminate,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct WorkerEnd {
    /// The exit status and resources of its process, if they are known.
    pub(super) usage: Option<ResUse>,
    /// How the processes that it started ended.
    pub(super) tree: Terminated,
    /// Its standard error since the last call.
    pub(super) stderr: Captured,
    /// Whether it has certainly not read the last request: all of that was still in the
    /// pipe when no process was left.
    pub(super) unread: bool,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left of it then.
    pub(super) async fn start(
        spawner: &Arc<Spawner>,
        spec: &WorkerSpec,
        stop: &StopSignal,
    ) -> Result<Self, StartError> {
        let unstarted = |why: SpawnError| match why {
            SpawnError::Task(why) => {
                let named = spec.named();
                StartError::Failed(
                    format!("{named} could not be started: {why}"),
                    Captured::default(),
                )
            }
            SpawnError::Host(why) => StartError::Host(why),
        };
        let mut worker = Self::spawn(spawner, spec).await.map_err(unstarted)?;
        let until = Instant::now() + spec.startup_timeout;
        let (mode, why) = match worker.exchange(b"", Some(until), stop, &Events::ignored()).await {
            Reply::Line(line) => match protocol::hello(&line) {
                Ok(tells_progress) => {
                    (worker.ready, worker.tells_progress) = (true, tells_progress);
                    worker.stderr.take_recorded();
                    return Ok(worker);
                }
                Err(why) => (StopMode::Terminate, why),
            },
            Reply::Invalid(why) => (StopMode::Terminate, why),
            Reply::Exited => (StopMode::Exited, String::new()),
            Reply::TimedOut => {
                let waited = humantime::format_duration(spec.startup_timeout);
                let why = format!(
                    "it did not say hello within {waited}; a worker writes {{\"clutch\": 1}} to its \
                     standard output when it is ready. If it needs longer, raise startup_timeout of \
                     [functions.{}]",
                    spec.function
                );
                (StopMode::Terminate, why)
            }
            Reply::Stopped(reason) => {
                worker.stop(StopMode::Terminate, spec.grace).await;
                return Err(StartError::Stopped(reason));
            }
        };
        let end = worker.stop(mode, spec.grace).await;
        let why = match mode {
            StopMode::Exited => format!("it ended before it was ready: {}", describe_exit(&end)),
            StopMode::Terminate | StopMode::Retire => why,
        };
        Err(StartError::Failed(format!("{} is of no use: {why}", spec.named()), end.stderr))
    }

    async fn spawn(spawner: &Arc<Spawner>, spec: &WorkerSpec) -> Result<Self, SpawnError> {
        spec.restore_folders()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let no_pipes = |error: io::Error| spawn_error::no_pipes(&error);
        let (their_stdin, stdin) = pipe().map_err(no_pipes)?;
        let (stdout, their_stdout) = pipe().map_err(no_pipes)?;
        let (stderr, their_stderr) = Output::open_stderr(spec.capture_limit).map_err(no_pipes)?;
        let stdin = Sender::from_owned_fd(stdin).map_err(no_pipes)?;
        let stdout = Receiver::from_owned_fd(stdout).map_err(no_pipes)?;
        let reserve = exit_watch::reserve().map_err(no_pipes)?;
        let child_ends =
            ChildEnds { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        let (tags, tag) = spawner.tags.for_worker(&spec.function);
        let mut command = spawner.command(&spec.command, &spec.env, tags)?;
        let others = spec.env.get(python::VARIABLE).map(OsStr::new);
        command.env(python::VARIABLE, spec.module.path(others)).current_dir(&spec.cwd);
        let side = spawner.side.as_ref();
        let token = side.map(|side| {
            let token = side.messages.add_worker();
            side.tell(&mut command, token.token, others);
            token
        });
        let spawner = Arc::clone(spawner);
        let start = spawn_blocking(move || match spawner.start(&mut command, child_ends, &tag) {
            Ok(leader) => Ok((leader, tag)),
            Err(error) => Err(spawn_error::not_started(&command, &error)),
        });
        let (leader, tag) =
            start.await.map_err(|error| format!("the endpoint is going down: {error}"))??;
        drop(reserve);
        let watch = ExitWatch::over(leader.pid)
            .map_err(|error| format!("the process could not be watched: {error}"))?;
        let tree = ProcessTree::of(leader.pid, tag);
        let line = Vec::new();
        let (stderr_open, written, sent, answered) = (true, 0, 0, 0);
        let (ready, tells_progress) = (false, false);
        Ok(Self {
            leader,
            tree,
            watch,
            stdin,
            stdout,
            line,
            stderr,
            stderr_open,
            written,
            ready,
            tells_progress,
            token,
            sent,
            answered,
        })
    }

    /// Returns the worker's process.
    pub(super) fn pid(&self) -> rustix::process::Pid {
        self.leader.pid
    }

    /// Returns its token on the socket of tasks.
    pub(super) fn token(&self) -> Option<&WorkerToken> {
        self.token.as_ref()
    }

    /// Returns a number for the next call, which no other call of this worker has.
    pub(super) fn next_call(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Writes a request, and waits for an answer, at most until a moment or until `stop`.
    /// Progress and what is written meanwhile go to `events`.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        until: Option<Instant>,
        stop: &StopSignal,
        events: &Events,
    ) -> Reply {
        self.stderr.listen(events);
        let mut unwritten = request;
        self.written = 0;
        let late = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::pin!(late);
        loop {
            if let Err(error) = self.write(&mut unwritten) {
                tracing::debug!(%error, pid = %self.leader.pid, "a worker does not read its requests");
                return Reply::Exited;
            }
            tokio::select! {
                biased;
                _ = self.stdout.readable() => match self.read_line(Receiver::try_read, events) {
                    Some(reply) => return reply,
                    None => tokio::task::coop::consume_budget().await,
                },
                _ = self.stderr.pipe().readable(), if self.stderr_open => {
                    self.record_stderr();
                    tokio::task::coop::consume_budget().await;
                }
                asked = self.stderr.asked() => self.stderr.attach(asked),
                _ = self.stdin.writable(), if !unwritten.is_empty() => (),
                () = self.watch.ended() => return self.read_last_line(events),
                reason = stop.wait() => return Reply::Stopped(reason),
                () = &mut late => return Reply::TimedOut,
            }
        }
    }

    /// Returns what it has written to its standard error since the last call.
    pub(super) fn take_stderr(&mut self) -> Captured {
        self.stderr.take_recorded()
    }

    /// Writes as much of a request as the pipe takes.
    fn write(&mut self, unwritten: &mut &[u8]) -> io::Result<()> {
        while !unwritten.is_empty() {
            match self.stdin.try_write(unwritten) {
                Ok(count) => {
                    self.written += count;
                    *unwritten = &unwritten[count..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the last request is still unread in the pipe, all of it.
    pub(super) fn request_unread(&self) -> bool {
        is_unread(&self.stdin, self.written)
    }

    /// Reads what is in the pipe; returns `None` while no line is complete.
    fn read_line(
        &mut self,
        read: fn(&Receiver, &mut [u8]) -> io::Result<usize>,
        events: &Events,
    ) -> Option<Reply> {
        let mut chunk = [0; CHUNK];
        loop {
            let count = match read(&self.stdout, &mut chunk) {
                Ok(0) => return Some(Reply::Exited),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Some(Reply::Exited),
            };
            if let Some(reply) = self.append(&chunk[..count], events) {
                return Some(reply);
            }
        }
    }

    /// Appends what was read to the line; returns `None` while it is not complete.
    fn append(&mut self, mut piece: &[u8], events: &Events) -> Option<Reply> {
        loop {
            let end = piece.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if self.line.len() > MAX_LINE {
                let said = protocol::quoted(&self.line);
                let why = format!("it wrote a line of more than {MAX_LINE} bytes: {said}");
                return Some(Reply::Invalid(why));
            }
            let more = &piece[end? + 1..];
            let room = self.line.capacity().min(KEPT_ROOM);
            let mut line = std::mem::replace(&mut self.line, Vec::with_capacity(room));
            if !self.ready {
                let Some(hello) = protocol::find_hello(&line) else {
                    line.push(b'\n');
                    self.stderr.add(&line);
                    piece = more;
                    continue;
                };
                line = hello.to_vec();
            }
            if self.tells_progress
                && let Some(told) = protocol::progress(&line, self.sent)
            {
                events.progress(told);
                piece = more;
                continue;
            }
            if !more.is_empty() {
                let said = protocol::quoted(more);
                return Some(Reply::Invalid(format!("it wrote more than one line: {said}")));
            }
            return Some(Reply::Line(line));
        }
    }

    /// Reads the answer that a worker may have written before it ended. It reads the pipe
    /// itself, as the runtime may not know yet that it is readable.
    fn read_last_line(&mut self, events: &Events) -> Reply {
        let read = |pipe: &Receiver, chunk: &mut [u8]| Ok(rustix::io::read(pipe, chunk)?);
        self.read_line(read, events).unwrap_or(Reply::Exited)
    }

    fn record_stderr(&mut self) {
        match self.stderr.record() {
            Ok(0) => self.stderr_open = false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "the standard error of a worker could not be read to its end");
                self.stderr_open = false;
            }
        }
    }

    /// Whether it lives and has written nothing since its last answer. Its standard error
    /// between two calls belongs to no task, and is dropped.
    pub(super) fn is_idle(&mut self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut looked = [
            PollFd::new(&self.stdout, PollFlags::IN),
            PollFd::new(self.stderr.pipe(), PollFlags::IN),
        ];
        if poll(&mut looked, Some(&now)).is_err() {
            return false;
        }
        let [stdout, stderr] = looked.map(|looked| looked.revents());
        if !stdout.is_empty() || self.leader.has_ended() {
            return false;
        }
        if stderr.contains(PollFlags::IN) {
            let dropped = self.stderr.take_recorded();
            let bytes = dropped.bytes.len() as u64 + dropped.omitted;
            tracing::debug!(pid = %self.leader.pid, bytes, "a worker wrote between two calls");
        }
        true
    }

    /// Reads its resident memory, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        proc::resident_memory(self.leader.pid)
    }

    /// Stops the worker, and ends all processes that it started.
    pub(super) async fn stop(self, mode: StopMode, grace: Duration) -> WorkerEnd {
        let Self { leader, tree, watch, stdin, stdout, mut stderr, written, .. } = self;
        drop(stdout);
        // A worker that is terminated need not see the end of its input, and whether it
        // has read its request is known only when it is gone.
        let stdin = (mode == StopMode::Terminate && written > 0).then_some(stdin);
        let over = async {
            let limit = match mode {
                StopMode::Retire => grace,
                StopMode::Exited => EXIT_NOTICE,
                StopMode::Terminate => Duration::ZERO,
            };
            if !limit.is_zero() {
                let ended = timeout(limit, watch.ended()).await;
                tracing::trace!(ended = ended.is_ok(), "a worker was given time to end");
            }
            close(leader, tree, &watch, grace).await
        };
        tokio::pin!(over);
        let (usage, ended) = tokio::select! {
            over = &mut over => over,
            () = stderr.record_all() => over.await,
        };
        if !ended.survivors.is_empty() {
            tracing::error!(
                survivors = ?ended.survivors,
                "processes of a worker could not be ended even by SIGKILL: look at the host"
            );
        }
        let unread = stdin.is_some_and(|stdin| is_unread(&stdin, written));
        WorkerEnd { usage, tree: ended, stderr: stderr.take_recorded(), unread }
    }
}

/// Whether all that was written is still in the pipe.
fn is_unread(pipe: &Sender, written: usize) -> bool {
    ioctl_fionread(pipe).is_ok_and(|unread| unread >= written as u64)
}

/// Ends what is left of a tree, and reaps its leader.
async fn close(
    leader: Leader,
    tree: ProcessTree,
    watch: &ExitWatch,
    grace: Duration,
) -> (Option<ResUse>, Terminated) {
    let look = spawn_blocking(move || {
        let mut leader = leader;
        let alone = if leader.has_ended() { leader.reap_alone(&tree) } else { None };
        alone.ok_or((leader, tree))
    });
    let (mut leader, tree) = match look.await {
        Ok(Ok(usage)) => return (usage, Terminated::default()),
        Ok(Err(left)) => left,
        Err(_) => return (None, Terminated::default()), // going down
    };
    let ended = terminate(&tree, grace).await;
    // The exit of a leader that survives is never noticed.
    let exited = timeout(EXIT_NOTICE, watch.ended()).await.is_ok();
    let reaped =
        spawn_blocking(move || if exited { leader.reap_ended() } else { leader.reap() }).await;
    (reaped.unwrap_or(None), ended)
}

/// Describes how the process of a worker ended.
pub(super) fn describe_exit(end: &WorkerEnd) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let status = end.usage.map(|usage| usage.status);
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        Some((None, None)) | None => "in an unknown way".to_owned(),
    }
}
