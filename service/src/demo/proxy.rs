//! A TCP proxy that lets through or closes and refuses. Listens on the loopback
//! interface for as long as it exists; knows nothing of what it carries.

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    orders: mpsc::Sender<Order>,
    _serving: JoinSet<()>,
}

/// Whether to let through, and whom to tell when that is so.
type Order = (bool, oneshot::Sender<()>);

impl Proxy {
    /// A proxy to a host that lets through.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub(super) async fn start(host: String, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a proxy")?;
        let local = listener.local_addr()?.port();
        let (orders, given) = mpsc::channel(1);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, host, port, given));
        Ok(Self { port: local, orders, _serving: serving })
    }

    /// The port it listens on, on 127.0.0.1.
    #[must_use]
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Lets through from here on, or closes what is open and refuses the rest;
    /// that is so when this returns.
    ///
    /// # Errors
    /// When the proxy has ended.
    pub(super) async fn let_through(&self, open: bool) -> anyhow::Result<()> {
        let (done, is_done) = oneshot::channel();
        self.orders.send((open, done)).await.context("the proxy has ended")?;
        is_done.await.context("the proxy has ended")
    }
}

async fn serve(listener: TcpListener, host: String, port: u16, mut orders: mpsc::Receiver<Order>) {
    let mut open = true;
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((wanted, done)) = order else { return };
                open = wanted;
                if !open {
                    carried.shutdown().await;
                }
                done.send(()).unwrap_or(());
            }
            accepted = listener.accept() => {
                if let (Ok((near, _)), true) = (accepted, open) {
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
        proxy.let_through(false).await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(!answers(&mut dial().await.unwrap()).await);
        proxy.let_through(true).await.unwrap();
        assert!(answers(&mut dial().await.unwrap()).await);
    }
}
