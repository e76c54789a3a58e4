//! Accepts the connections of a socket of the daemon's. Promises that there are only so many at
//! once, and that one that is open costs an idle daemon nothing until it speaks.

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The pause where no connection can be accepted.
const PAUSE: Duration = Duration::from_secs(1);

/// Has each connection answered until this is dropped, at most `most` at once; further ones
/// wait.
pub(super) async fn answer_all<F>(
    listener: UnixListener,
    most: usize,
    mut answer: impl FnMut(UnixStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        while open.len() >= most {
            open.join_next().await;
        }
        while open.try_join_next().is_some() {}
        match accept(&listener, &mut open).await {
            Some(Ok(stream)) => drop(open.spawn(answer(stream))),
            Some(Err(error)) => {
                tracing::warn!(%error, "a local socket cannot accept a connection; trying again");
                sleep(PAUSE).await;
            }
            None => (),
        }
    }
}

/// Reads what is left of a body, if that is no more than so much: a sender sees the answer only once
/// it has sent all that it has.
pub(super) async fn read_rest(body: &mut Incoming, most: u64, within: Duration) {
    if body.is_end_stream() || body.size_hint().lower() > most {
        return;
    }
    let read = async {
        let mut seen = 0;
        while seen <= most
            && let Some(Ok(frame)) = body.frame().await
        {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    drop(timeout(within, read).await);
}

/// Waits for a connection; `None` once one of those that are open has ended.
async fn accept(
    listener: &UnixListener,
    open: &mut JoinSet<()>,
) -> Option<std::io::Result<UnixStream>> {
    tokio::select! {
        accepted = listener.accept() => Some(accepted.map(|(stream, _)| stream)),
        Some(_) = open.join_next() => None,
    }
}
