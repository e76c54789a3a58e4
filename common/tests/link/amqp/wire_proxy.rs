//! A TCP proxy before the broker that can stop forwarding, as a cut network
//! does (nothing is closed, nothing arrives), and can flip a bit of what it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is in the bodies that may be damaged.
pub(crate) const FRAGILE: &[u8] = b"fragile";

/// A proxy; it ends when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    stalled: watch::Sender<bool>,
    gone: watch::Receiver<usize>,
    to_damage: Arc<AtomicUsize>,
    rate: Arc<AtomicUsize>,
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
        let to_damage = Arc::new(AtomicUsize::new(0));
        let damage = Arc::clone(&to_damage);
        let rate = Arc::new(AtomicUsize::new(0));
        let slow = Arc::clone(&rate);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pumps = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (there, back) = (stall.subscribe(), stall.subscribe());
                let went = Arc::clone(&went);
                let (damage_there, damage_back) = (Arc::clone(&damage), Arc::clone(&damage));
                let (slow_there, slow_back) = (Arc::clone(&slow), Arc::clone(&slow));
                pumps.spawn(async move {
                    pump(from_client, to_server, there, &damage_there, &slow_there).await;
                    went.send_modify(|count| *count += 1);
                });
                pumps.spawn(async move {
                    pump(from_server, to_client, back, &damage_back, &slow_back).await;
                });
            }
        });
        Self { port, stalled, gone, to_damage, rate, _tasks: tasks }
    }

    /// Flips a bit in each of the next messages with [`FRAGILE`] in them.
    pub(crate) fn damage(&self, messages: usize) {
        self.to_damage.store(messages, Ordering::SeqCst);
    }

    /// Whether all that was to be damaged is.
    pub(crate) fn has_damaged(&self) -> bool {
        self.to_damage.load(Ordering::SeqCst) == 0
    }

    /// Stops or resumes forwarding.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Forwards so many bytes a second, in each direction of each connection.
    pub(crate) fn slow(&self, rate: usize) {
        self.rate.store(rate, Ordering::SeqCst);
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
    to_damage: &AtomicUsize,
    rate: &AtomicUsize,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let slow = rate.load(Ordering::SeqCst);
        let most = if slow == 0 { buffer.len() } else { slow / 20 };
        let count = from.read(&mut buffer[..most]).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        if slow != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        if let Some(at) =
            buffer[..count].windows(FRAGILE.len()).position(|window| window == FRAGILE)
            && to_damage
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
        {
            buffer[at] ^= 1;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
