//! A TCP proxy before the broker that can stop forwarding, as a cut network
//! does: nothing is closed, nothing arrives.

use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy; it ends when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    stalled: watch::Sender<bool>,
    gone: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Forwards to a port of this machine.
    pub(crate) async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stalled, _) = watch::channel(false);
        let (went, gone) = watch::channel(0);
        let (stall, went) = (stalled.clone(), Arc::new(went));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pumps = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (there, back) = (stall.subscribe(), stall.subscribe());
                let went = Arc::clone(&went);
                pumps.spawn(async move {
                    pump(from_client, to_server, there).await;
                    went.send_modify(|count| *count += 1);
                });
                pumps.spawn(pump(from_server, to_client, back));
            }
        });
        Self { port, stalled, gone, _tasks: tasks }
    }

    /// Stops or resumes forwarding.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Waits until the client has closed a connection.
    pub(crate) async fn client_gone(&mut self) {
        self.gone.wait_for(|count| *count > 0).await.unwrap();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut stalled: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
