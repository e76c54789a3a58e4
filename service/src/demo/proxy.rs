//! A TCP proxy that lets through or closes and refuses. Listens on the loopback
//! interface for as long as it exists; knows nothing of what it carries.

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    open: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// A proxy to a host that lets through.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub(super) async fn start(host: String, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a proxy")?;
        let local = listener.local_addr()?.port();
        let (open, is_open) = watch::channel(true);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, host, port, is_open));
        Ok(Self { port: local, open, _serving: serving })
    }

    /// The port it listens on, on 127.0.0.1.
    #[must_use]
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets through from here on, or closes what is open and refuses the rest.
    pub(super) fn let_through(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn serve(listener: TcpListener, host: String, port: u16, mut open: watch::Receiver<bool>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            changed = open.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*open.borrow_and_update() {
                    carried.shutdown().await;
                }
            }
            accepted = listener.accept() => {
                if let (Ok((near, _)), true) = (accepted, *open.borrow()) {
                    carried.spawn(carry(near, host.clone(), port));
                }
            }
            Some(_) = carried.join_next() => (),
        }
    }
}

/// Carries bytes both ways until either side ends or fails: each side sees that
/// by its connection, so there is nobody else to tell.
async fn carry(mut near: TcpStream, host: String, port: u16) {
    if let Ok(mut far) = TcpStream::connect((host.as_str(), port)).await {
        drop(copy_bidirectional(&mut near, &mut far).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that sends back what it gets.
    async fn echo() -> (u16, JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    stream.write_all(&byte).await.unwrap();
                }
            }
        });
        (port, serving)
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
    }

    #[tokio::test]
    async fn a_cut_closes_what_is_open_and_refuses_until_it_is_mended() {
        let (port, _serving) = echo().await;
        let proxy = Proxy::start("127.0.0.1".to_owned(), port).await.unwrap();
        let dial = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut first = dial().await.unwrap();
        assert!(answers(&mut first).await);
        proxy.let_through(false);
        assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(!answers(&mut dial().await.unwrap()).await);
        proxy.let_through(true);
        assert!(answers(&mut dial().await.unwrap()).await);
    }
}
