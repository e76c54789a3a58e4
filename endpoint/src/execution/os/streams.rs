//! Carries a process's input and output through pipes, without blocking the runtime.
//!
//! Touches only the pipes. Promises that memory is bounded by the capture limit, that a
//! process may leave its input unread, and that a process which keeps an output open
//! after the run is over holds up nothing.

use crate::execution::capture::{Capture, Captured};
use crate::execution::events::{Event, Events};
use clutch_common::wire::StreamName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

/// How much is read at once, in bytes.
const CHUNK: usize = 32 * 1024;

/// This side's ends of the pipes, not registered with the runtime yet.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Pipe,
    stderr: Pipe,
}

/// This side's end of an output's pipe, and its recording.
#[derive(Debug)]
struct Pipe {
    end: OwnedFd,
    recording: Recording,
}

/// This side's ends of the pipes, registered with the runtime.
#[derive(Debug)]
pub(crate) struct Streams {
    stdin: Option<Sender>,
    stdout: Output,
    stderr: Output,
}

/// The process's ends, to be passed to it and closed here.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// An output's pipe, registered with the runtime, and its recording.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Receiver,
    recording: Recording,
}

/// The kept part of an output; the whole output goes to the event sink as it comes, and to
/// its followers.
#[derive(Debug)]
struct Recording {
    capture: Capture,
    limit: usize,
    stream: StreamName,
    events: Events,
    /// Whether it is followed.
    followed: bool,
    /// The state of what is to be followed that is obeyed.
    asked: u64,
}

impl Recording {
    fn new(limit: usize, stream: StreamName, events: Events) -> Self {
        let capture = Capture::new(limit);
        Self { capture, limit, stream, events, followed: false, asked: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.followed {
            self.followed = self.events.follow(self.stream, self.capture.total(), bytes);
        }
        self.capture.push(bytes);
        if !bytes.is_empty() {
            self.events.emit(Event::Output { stream: self.stream, bytes });
        }
    }

    /// Hands over what it keeps, if that was asked for up to this state.
    fn attach(&mut self, asked: u64) {
        self.asked = asked;
        self.followed = self.events.attach(self.stream, |from| self.capture.kept(from));
    }

    /// Records what is still in a pipe: no more than a full pipe, even if a process goes
    /// on writing.
    fn drain(&mut self, pipe: impl AsFd) {
        let mut chunk = [0; CHUNK];
        let mut left = fcntl_getpipe_size(&pipe).unwrap_or(CHUNK);
        while left > 0 {
            let want = left.min(CHUNK);
            match rustix::io::read(&pipe, &mut chunk[..want]) {
                Ok(0) => return,
                Ok(count) => {
                    self.push(&chunk[..count]);
                    left -= count;
                }
                Err(Errno::INTR) => {}
                Err(_) => return, // empty, though a process has it open
            }
        }
    }
}

impl Pipes {
    /// Opens the pipes; standard input is empty unless `with_input`. Up to
    /// `limit` bytes of each output are kept.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn open(
        with_input: bool,
        limit: usize,
        events: &Events,
    ) -> io::Result<(Self, ChildEnds)> {
        let (stdin, child_stdin) = if with_input {
            let (child_end, end) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(end), child_end)
        } else {
            (None, File::open("/dev/null")?.into())
        };
        let recording = |stream| Recording::new(limit, stream, events.clone());
        let (stdout, child_stdout) = Pipe::open(recording(StreamName::Stdout))?;
        let (stderr, child_stderr) = Pipe::open(recording(StreamName::Stderr))?;
        let child_ends =
            ChildEnds { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr };
        Ok((Self { stdin, stdout, stderr }, child_ends))
    }

    /// Records the outputs until the process ends; `process` is its handle. Returns
    /// whether it ended within `limit`. Blocks. Not for a process with input.
    pub(crate) fn carry_briefly(&mut self, process: &OwnedFd, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut open = [true, true];
        while self.stdin.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { return false };
            let mut waiting = vec![PollFd::new(process, PollFlags::IN)];
            let outputs = [&self.stdout, &self.stderr];
            waiting.extend(
                outputs
                    .iter()
                    .zip(open)
                    .filter(|(_, open)| *open)
                    .map(|(output, _)| PollFd::new(&output.end, PollFlags::IN)),
            );
            match poll(&mut waiting, Some(&left)) {
                Ok(0) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
            let ready: Vec<bool> =
                waiting.iter().map(|waiting| !waiting.revents().is_empty()).collect();
            if ready.first() == Some(&true) {
                return true;
            }
            let mut ready = ready.into_iter().skip(1);
            for (output, open) in [&mut self.stdout, &mut self.stderr].into_iter().zip(&mut open) {
                if *open && ready.next() == Some(true) {
                    *open = output.read();
                }
            }
        }
        false
    }

    /// Registers the pipes with the runtime.
    ///
    /// # Errors
    /// The system refuses to watch a pipe.
    pub(crate) fn watched(self) -> io::Result<Streams> {
        let stdin = self.stdin.map(Sender::from_owned_fd).transpose()?;
        Ok(Streams { stdin, stdout: self.stdout.watched()?, stderr: self.stderr.watched()? })
    }

    /// Records what is still in the pipes when their writers are gone, and
    /// returns standard output and standard error.
    pub(crate) fn finish(self) -> (Captured, Captured) {
        let finish = |mut output: Pipe| {
            output.recording.drain(&output.end);
            output.recording.capture.finish()
        };
        (finish(self.stdout), finish(self.stderr))
    }
}

impl Pipe {
    fn open(recording: Recording) -> io::Result<(Self, OwnedFd)> {
        let (end, child_end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok((Self { end, recording }, child_end))
    }

    /// Reads a chunk; returns whether there may be more.
    fn read(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.end, &mut chunk) {
            Ok(count) => {
                self.recording.push(&chunk[..count]);
                count > 0
            }
            Err(error) => matches!(error, Errno::INTR | Errno::AGAIN),
        }
    }

    fn watched(self) -> io::Result<Output> {
        Ok(Output { pipe: Receiver::from_owned_fd(self.end)?, recording: self.recording })
    }
}

impl Streams {
    /// Writes all of `input` and closes it, and records the outputs until they
    /// are closed, or for ever where they can be followed. It may be dropped at any time: what was recorded is kept.
    pub(crate) async fn carry(&mut self, input: &[u8]) {
        let stdin = self.stdin.take();
        let feed = async move {
            if let Some(mut pipe) = stdin
                && let Err(error) = pipe.write_all(input).await
            {
                tracing::debug!(%error, "a process did not read all of its input");
            }
        };
        tokio::join!(feed, self.stdout.record_all(), self.stderr.record_all());
    }

    /// Records what is still in the pipes when their writers are gone, and
    /// returns standard output and standard error.
    pub(crate) fn finish(mut self) -> (Captured, Captured) {
        self.stdout.drain();
        self.stderr.drain();
        (self.stdout.recording.capture.finish(), self.stderr.recording.capture.finish())
    }
}

impl Output {
    /// Opens the pipe of a standard error of which up to `limit` bytes are kept. Its
    /// output belongs to one call after the other.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn open_stderr(limit: usize) -> io::Result<(Self, OwnedFd)> {
        let recording = Recording::new(limit, StreamName::Stderr, Events::ignored());
        let (pipe, child_end) = Pipe::open(recording)?;
        Ok((pipe.watched()?, child_end))
    }

    /// Returns the pipe, to be polled.
    pub(crate) fn pipe(&self) -> &Receiver {
        &self.pipe
    }

    /// Records what is in the pipe, and returns what was recorded since the last call.
    pub(crate) fn take_recorded(&mut self) -> Captured {
        self.drain();
        let limit = self.recording.limit;
        let recording = Recording::new(limit, self.recording.stream, Events::ignored());
        std::mem::replace(&mut self.recording, recording).capture.finish()
    }

    /// Has the output go to its followers, until it is taken.
    pub(crate) fn listen(&mut self, events: &Events) {
        self.recording.events = events.without_sink();
    }

    /// Waits until more is to be followed, and returns the state of that.
    pub(crate) async fn asked(&self) -> u64 {
        self.recording.events.asked(self.recording.asked).await
    }

    /// Hands over what was recorded before this state of what is to be followed.
    pub(crate) fn attach(&mut self, asked: u64) {
        self.recording.attach(asked);
    }

    /// Records bytes that came another way as if they had been written here.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.recording.push(bytes);
    }

    /// Records the output until it is closed, and while it can be followed.
    pub(crate) async fn record_all(&mut self) {
        self.record_to_its_end().await;
        while self.recording.events.can_be_followed() {
            let asked = self.asked().await;
            self.attach(asked);
        }
    }

    async fn record_to_its_end(&mut self) {
        loop {
            tokio::select! {
                biased;
                readable = self.pipe.readable() => if readable.is_err() {
                    return;
                },
                asked = self.asked() => {
                    self.attach(asked);
                    continue;
                }
            }
            match self.record() {
                Ok(0) => return,
                Ok(_) => tokio::task::coop::consume_budget().await,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "an output of a process could not be read to its end");
                    return;
                }
            }
        }
    }

    /// Reads and records one chunk, as far as the runtime knows of one; returns its
    /// length, 0 at the end of the output.
    ///
    /// # Errors
    /// The pipe cannot be read; `WouldBlock` while it is empty.
    pub(crate) fn record(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let count = self.pipe.try_read(&mut chunk)?;
        self.recording.push(&chunk[..count]);
        Ok(count)
    }

    /// Reads the pipe itself, as the runtime may not know yet that it is readable.
    fn drain(&mut self) {
        self.recording.drain(&self.pipe);
    }
}
