//! A second handle of a connection's socket, to cut it by.
//!
//! lapin runs a connection on a thread of its own, which ends when the socket
//! does and not before: a peer that accepts and then says nothing would keep
//! that thread and its buffers for ever. Cutting the [`SocketHandle`] ends it, whatever
//! the peer does.

use super::classify::Stage;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Holds on to a connection's socket while lapin uses it.
#[derive(Clone, Default)]
pub(super) struct SocketHandle(Arc<Mutex<Hold>>);

#[derive(Default)]
struct Hold {
    socket: Option<TcpStream>,
    stage: Stage,
    cut: bool,
}

impl SocketHandle {
    /// How far connecting has come.
    pub(super) fn stage(&self) -> Stage {
        self.hold().stage
    }

    /// Says how far connecting has come.
    pub(super) fn reached(&self, stage: Stage) {
        self.hold().stage = stage;
    }

    /// Takes a handle of the socket.
    ///
    /// # Errors
    /// When the socket was cut before, or the handle cannot be had.
    pub(super) fn attach(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = TcpStream::from(socket.as_fd().try_clone_to_owned()?);
        let mut hold = self.hold();
        if hold.cut {
            return Err(io::ErrorKind::TimedOut.into());
        }
        hold.socket = Some(socket);
        Ok(())
    }

    /// Cuts the connection, both ways and at once, or keeps it from coming
    /// about.
    pub(super) fn cut(&self) {
        let mut hold = self.hold();
        hold.cut = true;
        if let Some(socket) = hold.socket.take()
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            tracing::trace!(%error, "the socket was closed already");
        }
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
