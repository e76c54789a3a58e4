//! One worker: a process that is started once and answers one call after the
//! other, over its standard input and output.
//!
//! Touches: its process, its pipes. Promises that a call costs no more than its
//! lines on the pipes and one wake-up for the answer, that what is held of a
//! worker's output is bounded, and that a worker that is seen off leaves nobody.

use super::protocol::{self, MAX_LINE};
use super::python;
use super::recipe::Recipe;
use crate::execution::capture::Captured;
use crate::execution::os::family::Family;
use crate::execution::os::proc;
use crate::execution::os::refusal::{self, Unstarted};
use crate::execution::os::spawn::{Leader, Spawner};
use crate::execution::os::streams::{Output, TheirEnds};
use crate::execution::os::tree::{self, Ending};
use crate::execution::os::watch::{self, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, pipe_with};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wait4::ResUse;

/// How long the end of a process may take to be told that has closed its output.
const TOLD_LIMIT: Duration = Duration::from_secs(1);
/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// The room for lines that a worker keeps, in bytes.
const KEPT_ROOM: usize = 64 * 1024;

/// A worker that has said hello.
#[derive(Debug)]
pub(super) struct Worker {
    leader: Leader,
    family: Family,
    watch: Watch,
    stdin: Sender,
    stdout: Receiver,
    /// What came of a line that is not complete.
    line: Vec<u8>,
    stderr: Output,
    stderr_open: bool,
    /// How much it was told since the last line, in bytes.
    told: usize,
    /// Whether it has said hello. What is printed before, by a library that is being
    /// loaded for example, is none of the protocol's.
    greeted: bool,
    /// How many calls it was asked: the number of the last one.
    asked: u64,
    /// How many calls it has answered.
    pub(super) served: u64,
}

/// Why there is no worker.
#[derive(Debug)]
pub(super) enum Unready {
    /// It could not be started, or does not do what a worker does; in words, and
    /// what it wrote to its standard error.
    Failed(String, Captured),
    /// The host lacks what it takes for now; in words.
    Host(String),
    /// Nobody wants it any more.
    Stopped,
}

/// What came of waiting for a line.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// The line, without its end.
    Line(Vec<u8>),
    /// It said what no worker says; in words.
    Noise(String),
    /// It has ended, or closed what it is spoken to by.
    Gone,
    /// It took too long.
    Late,
    /// Nobody wants to hear it any more.
    Stopped,
}

/// How a worker is seen off. Its standard input is closed, in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    /// It may end by itself for as long as the grace.
    Retire,
    /// It is ending, by all appearances.
    Gone,
    /// It is told to end at once.
    Stop,
}

/// What is left of a worker.
#[derive(Debug)]
pub(super) struct Remains {
    /// How its process ended, if that is known.
    pub(super) usage: Option<ResUse>,
    /// What became of the others.
    pub(super) ending: Ending,
    /// What it wrote to its standard error since the last call.
    pub(super) stderr: Captured,
    /// Whether it has certainly not begun with what it was told last: all of that
    /// was still in the pipe when nobody was left.
    pub(super) unread: bool,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    ///
    /// # Errors
    /// See [`Unready`]; nothing is left of it then.
    pub(super) async fn start(
        spawner: &Arc<Spawner>,
        recipe: &Recipe,
        stop: &CancellationToken,
    ) -> Result<Self, Unready> {
        let unstarted = |why: Unstarted| match why {
            Unstarted::Refused(why) => {
                let named = recipe.named();
                Unready::Failed(format!("{named} could not be started: {why}"), Captured::default())
            }
            Unstarted::Host(why) => Unready::Host(why),
        };
        let mut worker = Self::spawn(spawner, recipe).await.map_err(unstarted)?;
        let until = Instant::now() + recipe.startup_timeout;
        let (farewell, why) = match worker.exchange(b"", Some(until), stop).await {
            Heard::Line(line) => match protocol::hello(&line) {
                Ok(()) => {
                    worker.greeted = true;
                    worker.stderr.cut();
                    return Ok(worker);
                }
                Err(why) => (Farewell::Stop, why),
            },
            Heard::Noise(why) => (Farewell::Stop, why),
            Heard::Gone => (Farewell::Gone, String::new()),
            Heard::Late => {
                let waited = humantime::format_duration(recipe.startup_timeout);
                let why = format!(
                    "it did not say hello within {waited}; a worker writes {{\"clutch\": 1}} to its \
                     standard output when it is ready. If it needs longer, raise startup_timeout of \
                     [functions.{}]",
                    recipe.function
                );
                (Farewell::Stop, why)
            }
            Heard::Stopped => {
                worker.end(Farewell::Stop, recipe.grace).await;
                return Err(Unready::Stopped);
            }
        };
        let remains = worker.end(farewell, recipe.grace).await;
        let why = match farewell {
            Farewell::Gone => format!("it ended before it was ready: {}", how(&remains)),
            Farewell::Stop | Farewell::Retire => why,
        };
        Err(Unready::Failed(format!("{} is of no use: {why}", recipe.named()), remains.stderr))
    }

    async fn spawn(spawner: &Arc<Spawner>, recipe: &Recipe) -> Result<Self, Unstarted> {
        recipe.look_after()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let no_pipes = |error: io::Error| refusal::no_pipes(&error);
        let (their_stdin, stdin) = pipe().map_err(no_pipes)?;
        let (stdout, their_stdout) = pipe().map_err(no_pipes)?;
        let (stderr, their_stderr) = Output::open(recipe.capture_limit).map_err(no_pipes)?;
        let stdin = Sender::from_owned_fd(stdin).map_err(no_pipes)?;
        let stdout = Receiver::from_owned_fd(stdout).map_err(no_pipes)?;
        let spare = watch::spare().map_err(no_pipes)?;
        let theirs = TheirEnds { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        let (marks, mark) = spawner.marks.for_worker(&recipe.function);
        let mut command = spawner.command(&recipe.command, &recipe.env, marks)?;
        let others = recipe.env.get(python::VARIABLE).map(String::as_str);
        command.env(python::VARIABLE, recipe.module.path(others)).current_dir(&recipe.cwd);
        let spawner = Arc::clone(spawner);
        let start = spawn_blocking(move || match spawner.start(&mut command, theirs, &mark) {
            Ok(leader) => Ok((leader, mark)),
            Err(error) => Err(refusal::not_started(&command, &error)),
        });
        let (leader, mark) =
            start.await.map_err(|error| format!("the endpoint is going down: {error}"))??;
        drop(spare);
        let watch = Watch::over(leader.pid)
            .map_err(|error| format!("the process could not be watched: {error}"))?;
        let family = Family::of(leader.pid, mark);
        let line = Vec::new();
        let (stderr_open, told, greeted, asked, served) = (true, 0, false, 0, 0);
        Ok(Self {
            leader,
            family,
            watch,
            stdin,
            stdout,
            line,
            stderr,
            stderr_open,
            told,
            greeted,
            asked,
            served,
        })
    }

    /// The worker's process.
    pub(super) fn pid(&self) -> rustix::process::Pid {
        self.leader.pid
    }

    /// A number for the next call, which no other of this worker has.
    pub(super) fn next_call(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Says something, and waits for a line, until a moment or until `stop`.
    pub(super) async fn exchange(
        &mut self,
        say: &[u8],
        until: Option<Instant>,
        stop: &CancellationToken,
    ) -> Heard {
        let mut unsaid = say;
        self.told = 0;
        let late = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::pin!(late);
        loop {
            if let Err(error) = self.say(&mut unsaid) {
                tracing::debug!(%error, pid = %self.leader.pid, "a worker does not listen");
                return Heard::Gone;
            }
            tokio::select! {
                biased;
                _ = self.stdout.readable() => match self.hear(Receiver::try_read) {
                    Some(heard) => return heard,
                    None => tokio::task::coop::consume_budget().await,
                },
                _ = self.stderr.pipe().readable(), if self.stderr_open => {
                    self.take_stderr();
                    tokio::task::coop::consume_budget().await;
                }
                _ = self.stdin.writable(), if !unsaid.is_empty() => (),
                () = self.watch.ended() => return self.last_words(),
                () = stop.cancelled() => return Heard::Stopped,
                () = &mut late => return Heard::Late,
            }
        }
    }

    /// What it wrote to its standard error up to now.
    pub(super) fn cut_stderr(&mut self) -> Captured {
        self.stderr.cut()
    }

    /// Says as much as the pipe takes.
    fn say(&mut self, unsaid: &mut &[u8]) -> io::Result<()> {
        while !unsaid.is_empty() {
            match self.stdin.try_write(unsaid) {
                Ok(count) => {
                    self.told += count;
                    *unsaid = &unsaid[count..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether it has taken nothing of what it was told last: all is in the pipe.
    pub(super) fn is_deaf(&self) -> bool {
        is_unread(&self.stdin, self.told)
    }

    /// Reads what there is; nothing while no line is complete.
    fn hear(&mut self, read: fn(&Receiver, &mut [u8]) -> io::Result<usize>) -> Option<Heard> {
        let mut chunk = [0; CHUNK];
        loop {
            let count = match read(&self.stdout, &mut chunk) {
                Ok(0) => return Some(Heard::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Some(Heard::Gone),
            };
            if let Some(heard) = self.take_in(&chunk[..count]) {
                return Some(heard);
            }
        }
    }

    /// Takes in what was read; nothing while no line is complete.
    fn take_in(&mut self, mut piece: &[u8]) -> Option<Heard> {
        loop {
            let end = piece.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if self.line.len() > MAX_LINE {
                let said = protocol::quoted(&self.line);
                let why = format!("it wrote a line of more than {MAX_LINE} bytes: {said}");
                return Some(Heard::Noise(why));
            }
            let more = &piece[end? + 1..];
            let room = self.line.capacity().min(KEPT_ROOM);
            let mut line = std::mem::replace(&mut self.line, Vec::with_capacity(room));
            if !self.greeted {
                let Some(hello) = protocol::greeting(&line) else {
                    line.push(b'\n');
                    self.stderr.add(&line);
                    piece = more;
                    continue;
                };
                line = hello.to_vec();
            }
            if !more.is_empty() {
                let said = protocol::quoted(more);
                return Some(Heard::Noise(format!("it wrote more than one line: {said}")));
            }
            return Some(Heard::Line(line));
        }
    }

    /// A worker that has ended may have answered before. Asks the pipe itself, as
    /// the runtime may not know yet what is in it.
    fn last_words(&mut self) -> Heard {
        let read = |pipe: &Receiver, chunk: &mut [u8]| Ok(rustix::io::read(pipe, chunk)?);
        self.hear(read).unwrap_or(Heard::Gone)
    }

    fn take_stderr(&mut self) {
        match self.stderr.take() {
            Ok(0) => self.stderr_open = false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "the standard error of a worker could not be read on");
                self.stderr_open = false;
            }
        }
    }

    /// Whether it lives and has said nothing that nobody asked for. What it wrote
    /// to its standard error between two calls is nobody's.
    pub(super) fn is_quiet(&mut self) -> bool {
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
            let dropped = self.stderr.cut();
            let bytes = dropped.bytes.len() as u64 + dropped.omitted;
            tracing::debug!(pid = %self.leader.pid, bytes, "a worker wrote between two calls");
        }
        true
    }

    /// Its resident memory, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        proc::resident_memory(self.leader.pid)
    }

    /// Sees it off, and everybody who came from it.
    pub(super) async fn end(self, farewell: Farewell, grace: Duration) -> Remains {
        let Self { leader, family, watch, stdin, stdout, mut stderr, told, .. } = self;
        drop(stdout);
        // One that is told to end at once need not see the end of its input, and
        // whether it has read what it was told is known only when it is gone.
        let stdin = (farewell == Farewell::Stop && told > 0).then_some(stdin);
        let over = async {
            let patience = match farewell {
                Farewell::Retire => grace,
                Farewell::Gone => TOLD_LIMIT,
                Farewell::Stop => Duration::ZERO,
            };
            if !patience.is_zero() {
                let ended = timeout(patience, watch.ended()).await;
                tracing::trace!(ended = ended.is_ok(), "a worker was given time to end");
            }
            close(leader, family, &watch, grace).await
        };
        tokio::pin!(over);
        let (usage, ending) = tokio::select! {
            over = &mut over => over,
            () = stderr.take_all() => over.await,
        };
        if !ending.survivors.is_empty() {
            tracing::error!(
                survivors = ?ending.survivors,
                "processes of a worker could not be ended even by SIGKILL: look at the host"
            );
        }
        let unread = stdin.is_some_and(|stdin| is_unread(&stdin, told));
        Remains { usage, ending, stderr: stderr.cut(), unread }
    }
}

/// Whether all of what was told is still in the pipe.
fn is_unread(pipe: &Sender, told: usize) -> bool {
    ioctl_fionread(pipe).is_ok_and(|unread| unread >= told as u64)
}

/// Ends whoever is left of a family, and reaps its leader.
async fn close(
    leader: Leader,
    family: Family,
    watch: &Watch,
    grace: Duration,
) -> (Option<ResUse>, Ending) {
    let look = spawn_blocking(move || {
        let mut leader = leader;
        let alone = if leader.has_ended() { leader.reap_alone(&family) } else { None };
        alone.ok_or((leader, family))
    });
    let (mut leader, family) = match look.await {
        Ok(Ok(usage)) => return (usage, Ending::default()),
        Ok(Err(left)) => left,
        Err(_) => return (None, Ending::default()), // going down
    };
    let ending = tree::end(&family, grace).await;
    // A leader that survives will never be told.
    let told = timeout(TOLD_LIMIT, watch.ended()).await.is_ok();
    let reaped =
        spawn_blocking(move || if told { leader.reap_ended() } else { leader.reap() }).await;
    (reaped.unwrap_or(None), ending)
}

/// In words, how the process of a worker ended.
pub(super) fn how(remains: &Remains) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let status = remains.usage.map(|usage| usage.status);
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("signal {signal}"),
        Some((None, None)) | None => "nobody knows how".to_owned(),
    }
}
