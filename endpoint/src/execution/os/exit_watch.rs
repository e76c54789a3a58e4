//! Watches for the exit of a child, without reaping it and without polling.
//!
//! Touches one pidfd, or where there is none (an old kernel, no descriptor
//! left) one thread that lives as long as the child.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// Opens a handle of `child` that is ready once it has ended.
///
/// # Errors
/// An old kernel, or no descriptor left.
pub(crate) fn handle(child: Pid) -> io::Result<OwnedFd> {
    Ok(pidfd_open(child, PidfdFlags::empty())?)
}

/// Opens a descriptor to be closed just before a [`handle`] is opened, so that there is
/// one for it.
///
/// # Errors
/// No descriptor left.
pub(crate) fn reserve() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// A watch for the exit of one child.
#[derive(Debug)]
pub(crate) enum ExitWatch {
    /// By its handle.
    Pidfd(AsyncFd<OwnedFd>),
    /// By a thread that waits for it.
    Thread(CancellationToken),
}

impl ExitWatch {
    /// Watches `child`, which must not be reaped before it has ended.
    ///
    /// # Errors
    /// There is neither a descriptor nor a thread left.
    pub(crate) fn over(child: Pid) -> io::Result<Self> {
        Self::with(handle(child).ok(), child)
    }

    /// Watches `child` by its handle, if there is one.
    ///
    /// # Errors
    /// There is neither a descriptor nor a thread left.
    pub(crate) fn with(handle: Option<OwnedFd>, child: Pid) -> io::Result<Self> {
        let by_pidfd = handle.and_then(|handle| Self::by_pidfd(handle).ok());
        by_pidfd.map_or_else(|| Self::by_thread(child), Ok)
    }

    #[allow(
        deprecated,
        reason = "its successor is unsafe; what that guards against, a descriptor closed or replaced meanwhile, an OwnedFd never does"
    )]
    fn by_pidfd(pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self::Pidfd(AsyncFd::with_interest(pidfd, Interest::READABLE)?))
    }

    fn by_thread(child: Pid) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let notify = ended.clone();
        std::thread::Builder::new().name("wait".into()).spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(Errno::INTR) = waitid(WaitId::Pid(child), options) {}
            notify.cancel();
        })?;
        Ok(Self::Thread(ended))
    }

    /// Waits until the child has ended; returns at once after that.
    pub(crate) async fn ended(&self) {
        match self {
            Self::Pidfd(pidfd) => {
                if let Err(error) = pidfd.readable().await {
                    tracing::debug!(%error, "the runtime is going down");
                }
            }
            Self::Thread(ended) => ended.cancelled().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::os::run_tag::SpawnLock;
    use std::process::{Command, Stdio};
    use std::time::Duration;
    use tokio::time::timeout;

    async fn tells_the_end(watch_over: fn(Pid) -> io::Result<ExitWatch>) {
        let turn = SpawnLock::take();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(turn);
        let pid = Pid::from_child(&child);
        let watch = watch_over(pid).unwrap();
        let early = timeout(Duration::from_millis(50), watch.ended()).await;
        assert!(early.is_err(), "told the end of a running process");
        drop(child.stdin.take());
        timeout(Duration::from_secs(60), watch.ended()).await.unwrap();
        watch.ended().await;
        assert!(child.try_wait().unwrap().is_some(), "it was reaped by the watch");
    }

    #[tokio::test]
    async fn a_pidfd_tells_the_end_and_leaves_the_reaping() {
        tells_the_end(|child| ExitWatch::by_pidfd(handle(child)?)).await;
    }

    #[tokio::test]
    async fn a_thread_tells_the_end_and_leaves_the_reaping() {
        tells_the_end(ExitWatch::by_thread).await;
    }
}
