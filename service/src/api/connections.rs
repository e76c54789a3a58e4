//! Serves the API's connections, bounded by number and by time.
//!
//! A connection that says nothing is closed, so that no one holds what others need:
//! what waits for an answer, as a long poll does, is not idle. Past the bound, further
//! connections wait to be accepted.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The bounds of the API's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many may be open at once.
    pub(crate) connections: usize,
    /// How long the head of a request may take to arrive, counted from when it can be
    /// sent.
    pub(crate) head: Duration,
    /// How long one may be open; longer than any request takes.
    pub(crate) lifetime: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = open.map_or(usize::MAX, |open| usize::try_from(open / 2).unwrap_or(usize::MAX));
        Self {
            connections: half.clamp(8, 1024),
            head: Duration::from_secs(10),
            lifetime: Duration::from_secs(1200),
        }
    }
}

/// How long to wait when no connection can be accepted: no descriptor may be left.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers at a socket until told to stop, and then what is under way.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), Ok(permit)) => {
                let answering = answer(stream, router.clone(), bounds, stop.clone());
                open.spawn(async move {
                    answering.await;
                    drop(permit);
                });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "the API cannot accept a connection; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            (_, Err(_)) => break,
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
    Ok(())
}

/// Answers one connection until it ends, or its time is over.
async fn answer(stream: UnixStream, router: Router, bounds: Bounds, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let mut stopping = false;
    let over = tokio::time::sleep(bounds.lifetime);
    tokio::pin!(over);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of the API ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut over => {
                tracing::debug!("a connection of the API was open for too long");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Answers after a while, which is longer than a head may take.
    fn served(folder: &std::path::Path, bounds: Bounds) -> JoinSet<io::Result<()>> {
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        let router = Router::new().route(
            "/",
            get(async move || {
                tokio::time::sleep(bounds.head * 2).await;
                "here"
            }),
        );
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, bounds, CancellationToken::new()));
        serving
    }

    /// The bytes that arrive until the connection is closed.
    async fn rest(stream: &mut UnixStream) -> String {
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn who_says_nothing_is_closed_and_who_waits_for_an_answer_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let head = Duration::from_millis(300);
        let bounds = Bounds { connections: 3, head, ..Bounds::default() };
        let _serving = served(folder.path(), bounds);
        let connect = || UnixStream::connect(folder.path().join("s"));
        let mut silent = connect().await.unwrap();
        let mut slow = connect().await.unwrap();
        slow.write_all(&QUESTION[..5]).await.unwrap();
        let mut asking = connect().await.unwrap();
        asking.write_all(QUESTION).await.unwrap();
        // A fourth one is answered once there is room.
        let mut fourth = connect().await.unwrap();
        fourth.write_all(QUESTION).await.unwrap();
        assert!(!rest(&mut silent).await.contains("here"));
        assert!(!rest(&mut slow).await.contains("here"));
        assert!(rest(&mut asking).await.contains("here"));
        assert!(rest(&mut fourth).await.contains("here"));
    }
}
