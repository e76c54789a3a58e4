//! A TCP proxy on the loopback interface that can be cut: then every connection through it
//! ends, and new ones are refused.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A proxy to a host and port; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    target: (String, u16),
    /// The port it listens on, on 127.0.0.1.
    pub(super) port: u16,
    /// Empty while it is cut.
    serving: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy.
    pub(super) async fn start(host: String, port: u16) -> anyhow::Result<Self> {
        let mut proxy = Self { target: (host, port), port: 0, serving: JoinSet::new() };
        proxy.mend().await?;
        Ok(proxy)
    }

    /// Closes every connection and the listener; both are closed when this returns.
    pub(super) async fn cut(&mut self) {
        self.serving.shutdown().await;
    }

    /// Listens again, on the port it had before.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await;
        let listener = listener.context("opening a proxy to the broker")?;
        self.port = listener.local_addr()?.port();
        let (host, port) = self.target.clone();
        self.serving.spawn(async move {
            // In one task, so that its end closes all of them.
            let mut carried = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((near, _)) = accepted {
                        carried.push(carry(near, &host, port));
                    },
                    Some(()) = carried.next() => (),
                }
            }
        });
        Ok(())
    }
}

/// Carries bytes both ways until either side ends or fails, and closes both.
async fn carry(mut near: TcpStream, host: &str, port: u16) {
    if let Ok(mut far) = TcpStream::connect((host, port)).await {
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
    async fn a_cut_closes_open_connections_and_refuses_new_ones_until_it_is_mended() {
        let (port, _serving) = echo().await;
        let mut proxy = Proxy::start("127.0.0.1".to_owned(), port).await.unwrap();
        let address = ("127.0.0.1", proxy.port);
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(answers(&mut first).await);
        proxy.cut().await;
        assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(address).await.is_err());
        proxy.mend().await.unwrap();
        assert!(answers(&mut TcpStream::connect(address).await.unwrap()).await);
    }
}
