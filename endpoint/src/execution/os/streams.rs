//! Carries a process's input and output through pipes, without blocking.
//!
//! Touches only the pipes. Promises that memory is bounded by the capture
//! limit, that a process may leave its input unread, and that whoever holds
//! an output open when the process is over holds up nothing.

use crate::execution::capture::{Capture, Captured};
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

/// This side's ends of the pipes, not known to the runtime yet.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Pipe,
    stderr: Pipe,
}

/// An output, and what is kept of it.
#[derive(Debug)]
struct Pipe {
    end: OwnedFd,
    capture: Capture,
    limit: usize,
}

/// This side's ends of the pipes.
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

/// An output that the runtime watches, and what is kept of it.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Receiver,
    capture: Capture,
    limit: usize,
}

impl Pipes {
    /// Opens the pipes; standard input is empty unless `with_input`. Up to
    /// `limit` bytes of each output are kept.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn open(with_input: bool, limit: usize) -> io::Result<(Self, ChildEnds)> {
        let (stdin, their_stdin) = if with_input {
            let (child_ends, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(ours), child_ends)
        } else {
            (None, File::open("/dev/null")?.into())
        };
        let (stdout, their_stdout) = Pipe::open(limit)?;
        let (stderr, their_stderr) = Pipe::open(limit)?;
        let child_ends =
            ChildEnds { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        Ok((Self { stdin, stdout, stderr }, child_ends))
    }

    /// Takes the outputs until the process ends whose handle is `process`; tells
    /// whether it did within `limit`. Blocks. Not for a process with input.
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
                    *open = output.take();
                }
            }
        }
        false
    }

    /// Has the runtime watch them.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn watched(self) -> io::Result<Streams> {
        let stdin = self.stdin.map(Sender::from_owned_fd).transpose()?;
        Ok(Streams { stdin, stdout: self.stdout.watched()?, stderr: self.stderr.watched()? })
    }

    /// Takes what is still in the pipes when their writers are gone, and
    /// returns standard output and standard error.
    pub(crate) fn finish(self) -> (Captured, Captured) {
        let finish = |mut output: Pipe| {
            drain(&output.end, &mut output.capture);
            output.capture.finish()
        };
        (finish(self.stdout), finish(self.stderr))
    }
}

impl Pipe {
    fn open(limit: usize) -> io::Result<(Self, OwnedFd)> {
        let (ours, child_ends) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { end: ours, capture: Capture::new(limit), limit }, child_ends))
    }

    /// Takes a piece; tells whether there may be more.
    fn take(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.end, &mut chunk) {
            Ok(count) => {
                self.capture.push(&chunk[..count]);
                count > 0
            }
            Err(error) => matches!(error, Errno::INTR | Errno::AGAIN),
        }
    }

    fn watched(self) -> io::Result<Output> {
        let Self { end, capture, limit } = self;
        Ok(Output { pipe: Receiver::from_owned_fd(end)?, capture, limit })
    }
}

impl Streams {
    /// Writes all of `input` and closes it, and takes the outputs until they
    /// are closed. It may be dropped at any time: what was taken is kept.
    pub(crate) async fn carry(&mut self, input: &[u8]) {
        let stdin = self.stdin.take();
        let feed = async move {
            if let Some(mut pipe) = stdin
                && let Err(error) = pipe.write_all(input).await
            {
                tracing::debug!(%error, "a process did not read all of its input");
            }
        };
        tokio::join!(feed, self.stdout.take_all(), self.stderr.take_all());
    }

    /// Takes what is still in the pipes when their writers are gone, and
    /// returns standard output and standard error.
    pub(crate) fn finish(mut self) -> (Captured, Captured) {
        self.stdout.drain();
        self.stderr.drain();
        (self.stdout.capture.finish(), self.stderr.capture.finish())
    }
}

impl Output {
    /// Opens the pipe of an output of which up to `limit` bytes are kept.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn open(limit: usize) -> io::Result<(Self, OwnedFd)> {
        let (pipe, child_ends) = Pipe::open(limit)?;
        Ok((pipe.watched()?, child_ends))
    }

    /// The pipe, to be asked whether there is something in it.
    pub(crate) fn pipe(&self) -> &Receiver {
        &self.pipe
    }

    /// Takes what is in the pipe, and returns what was kept since the last time.
    pub(crate) fn cut(&mut self) -> Captured {
        self.drain();
        std::mem::replace(&mut self.capture, Capture::new(self.limit)).finish()
    }

    /// Keeps something that was said elsewhere as if it had been written here.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
    }

    /// Takes the output until it is closed.
    pub(crate) async fn take_all(&mut self) {
        while self.pipe.readable().await.is_ok() {
            match self.take() {
                Ok(0) => return,
                Ok(_) => tokio::task::coop::consume_budget().await,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "an output of a process could not be read on");
                    return;
                }
            }
        }
    }

    /// Takes a piece, as far as the runtime knows of one; none is the end.
    ///
    /// # Errors
    /// What the system says, `WouldBlock` among it.
    pub(crate) fn take(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let count = self.pipe.try_read(&mut chunk)?;
        self.capture.push(&chunk[..count]);
        Ok(count)
    }

    /// Asks the pipe itself, as the runtime may not know yet what is in it.
    fn drain(&mut self) {
        drain(&self.pipe, &mut self.capture);
    }
}

/// Takes what is in a pipe: no more than a full one, even if somebody is still
/// writing.
fn drain(pipe: impl AsFd, capture: &mut Capture) {
    let mut chunk = [0; CHUNK];
    let mut left = fcntl_getpipe_size(&pipe).unwrap_or(CHUNK);
    while left > 0 {
        let want = left.min(CHUNK);
        match rustix::io::read(&pipe, &mut chunk[..want]) {
            Ok(0) => return,
            Ok(count) => {
                capture.push(&chunk[..count]);
                left -= count;
            }
            Err(Errno::INTR) => {}
            Err(_) => return, // empty, though somebody has it open
        }
    }
}
