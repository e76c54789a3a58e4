//! The bytes of a connection between the socket, or TLS, and lapin: counted, so that a
//! slow link is told from one that is stuck, and put through the [`Sanitizer`]. What is kept
//! here is one frame.

use super::sanitizer::Sanitizer;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The smallest frame that every peer of AMQP takes, in bytes.
const SMALLEST_FRAME: usize = 4096;
/// How much is read at once while a frame is held.
const CHUNK: usize = 16 * 1024;

/// A socket as tokio has it.
pub(super) type Socket = <Tokio as Reactor>::TcpStream;

/// Counts the bytes of a connection, below lapin.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    frame_max: AtomicUsize,
}

impl Default for Traffic {
    fn default() -> Self {
        let frame_max = AtomicUsize::new(SMALLEST_FRAME);
        Self(Arc::new(Counts { sent: 0.into(), received: 0.into(), frame_max }))
    }
}

impl Traffic {
    /// How many bytes the system has taken so far.
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// How many bytes have moved so far, both ways.
    pub(super) fn moved(&self) -> u64 {
        self.sent() + self.0.received.load(Ordering::Relaxed)
    }

    /// Says how large a frame lapin takes; until then it is the smallest.
    pub(super) fn agreed(&self, frame_max: u32) {
        let frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
        self.0.frame_max.store(frame_max.max(SMALLEST_FRAME), Ordering::Relaxed);
    }

    fn frame_max(&self) -> usize {
        self.0.frame_max.load(Ordering::Relaxed)
    }
}

/// A connection's bytes as lapin gets them.
pub(super) struct SanitizedStream {
    inner: AsyncTcpStream<Socket>,
    sanitizer: Sanitizer,
    /// The bytes to be given out before any others, and how many of them were.
    ready: Vec<u8>,
    given: usize,
    traffic: Traffic,
}

impl SanitizedStream {
    /// Over a socket, or over TLS.
    pub(super) fn new(inner: AsyncTcpStream<Socket>, traffic: Traffic) -> Self {
        Self { inner, sanitizer: Sanitizer::default(), ready: Vec::new(), given: 0, traffic }
    }

    /// Gives out what is ready.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.ready[self.given..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        if self.given == self.ready.len() {
            self.ready = Vec::new();
            self.given = 0;
        }
        count
    }

    /// Reads on after what is held.
    fn read_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = self.sanitizer.held();
        let before = held.len();
        held.resize(before + CHUNK, 0);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut held[before..]);
        held.truncate(before + if let Poll::Ready(Ok(count)) = &read { *count } else { 0 });
        read
    }
}

impl AsyncRead for SanitizedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() || out.is_empty() {
                return Poll::Ready(Ok(this.give(out)));
            }
            let holds = this.sanitizer.holds();
            let count = if holds {
                ready!(this.read_on(cx))?
            } else {
                ready!(Pin::new(&mut this.inner).poll_read(cx, out))?
            };
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            this.traffic.0.received.fetch_add(count as u64, Ordering::Relaxed);
            let most = this.traffic.frame_max();
            let passed = if holds { 0 } else { this.sanitizer.pass(&mut out[..count], most) };
            this.ready = this.sanitizer.release(most);
            if passed > 0 {
                return Poll::Ready(Ok(passed));
            }
        }
    }
}

impl SanitizedStream {
    fn count(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &sent {
            self.traffic.0.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        sent
    }
}

impl AsyncWrite for SanitizedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.count(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.count(sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Tokio with sanitized connections. lapin is given those that were opened for it,
/// and opens none by itself.
#[derive(Clone, Debug)]
pub(super) struct SanitizingReactor(Tokio);

/// Makes the runtime of lapin's connections.
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, SanitizingReactor>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), SanitizingReactor(tokio)))
}

impl Reactor for SanitizingReactor {
    type TcpStream = SanitizedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let dialled = self.0.tcp_connect_addr(address);
        async move {
            Ok(SanitizedStream::new(AsyncTcpStream::Plain(dialled.await?), Traffic::default()))
        }
    }
}
