//! Looks at the endpoints' queues at the broker when the API asks: how many messages wait, and
//! whether an instance is there. Opens a connection for it where it changes something there.
//!
//! Promises: looks go over a connection of their own, which is opened for the first request and
//! closed when none came for a while, so that they never hold up results; a request is answered
//! within [`PATIENCE`], with what is known by then; nothing is asked while no request comes.

use crate::model::QueueState;
use clutch_common::id::EndpointId;
use clutch_common::link::{Connection, Fault, Transport};
use clutch_common::topology;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The longest that a request is worked on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the connection is kept without a request.
const KEPT: Duration = Duration::from_secs(30);
/// How many requests may wait.
const WAITING: usize = 4;
/// How many queues are looked at at once: a look is a round trip.
const AT_ONCE: usize = 8;

/// An endpoint to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// Whether it is to drain: then it may read its control queue only.
    pub(crate) drains: bool,
}

/// A request, and where the answer goes.
enum Request {
    /// Looks at queues.
    Look { sought: Vec<Sought>, until: Instant, answer: oneshot::Sender<Vec<QueueState>> },
    /// Opens a connection for the caller.
    Connect { name: &'static str, answer: oneshot::Sender<Result<Box<dyn Connection>, Fault>> },
}

/// The handle to ask by. Clones share it; it outlives sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer(Arc<Mutex<Option<mpsc::Sender<Request>>>>);

impl Observer {
    /// Looks at the queues of endpoints, in their order. Those that could not be looked at in
    /// time are unknown; all are while the link is down.
    pub(crate) async fn look(&self, sought: Vec<Sought>) -> Vec<QueueState> {
        let unknown = vec![QueueState::Unknown; sought.len()];
        let session = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(session) = session.filter(|_| !sought.is_empty()) else { return unknown };
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + PATIENCE;
        let asking = async {
            session.send(Request::Look { sought, until, answer }).await.ok()?;
            answered.await.ok()
        };
        // A moment more than the request itself has.
        let patience = until + Duration::from_millis(500);
        timeout_at(patience, asking).await.ok().flatten().unwrap_or(unknown)
    }

    /// Opens a connection to the broker for a caller that changes something there, if the link
    /// is up.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(&self, name: &'static str) -> Result<Box<dyn Connection>, Fault> {
        let down = || Fault::Closed("the service has no link to the broker".to_owned());
        let session = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let asked = session.ok_or_else(down)?.send(Request::Connect { name, answer }).await;
        asked.map_err(|_| down())?;
        answered.await.map_err(|_| down())?
    }

    /// Takes the requests from now on, instead of an earlier session.
    fn attach(&self) -> mpsc::Receiver<Request> {
        let (session, requests) = mpsc::channel(WAITING);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        requests
    }
}

/// Answers requests until told to stop.
///
/// # Errors
/// Never: what cannot be looked at is unknown. The session ends it.
pub(crate) async fn observe(
    observer: &Observer,
    transport: &dyn Transport,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut requests = observer.attach();
    let mut kept: Option<Box<dyn Connection>> = None;
    loop {
        let request = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            request = requests.recv() => request,
            () = tokio::time::sleep(KEPT), if kept.is_some() => {
                close(kept.take()).await;
                continue;
            }
        };
        // The sender is replaced by the next session only.
        let (sought, until, answer) = match request {
            Some(Request::Look { sought, until, answer }) => (sought, until, answer),
            Some(Request::Connect { name, answer }) => {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    connected = transport.connect(name) => drop(answer.send(connected)),
                }
                continue;
            }
            None => break,
        };
        let mut states = vec![QueueState::Unknown; sought.len()];
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            connection = answered(kept.take(), transport, &sought, until, &mut states) => {
                kept = connection;
            }
        }
        drop(answer.send(states));
    }
    close(kept).await;
    Ok(())
}

/// Looks at queues over the connection that was kept, or over a new one where there is none or it
/// fails: each queue that is missing costs a channel of it. Returns the connection to keep.
async fn answered(
    kept: Option<Box<dyn Connection>>,
    transport: &dyn Transport,
    sought: &[Sought],
    until: Instant,
    states: &mut [QueueState],
) -> Option<Box<dyn Connection>> {
    let mut is_new = kept.is_none();
    let mut next = kept;
    loop {
        let connection = match next.take() {
            Some(connection) => connection,
            None => connect(transport, until).await?,
        };
        match look_at(connection.as_ref(), sought, until, states).await {
            Ok(()) => return Some(connection),
            Err(fault) => {
                tracing::debug!(%fault, "the endpoints' queues cannot be looked at");
                connection.close().await;
            }
        }
        if std::mem::replace(&mut is_new, true) {
            return None;
        }
    }
}

async fn connect(transport: &dyn Transport, until: Instant) -> Option<Box<dyn Connection>> {
    match timeout_at(until, transport.connect("clutch/service/look")).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(fault)) => {
            tracing::debug!(%fault, "no connection to look at the endpoints' queues by");
            None
        }
        Err(_) => None,
    }
}

async fn close(connection: Option<Box<dyn Connection>>) {
    if let Some(connection) = connection {
        connection.close().await;
    }
}

/// Looks at queues, several at once, until all are known or the time is over.
async fn look_at(
    connection: &dyn Connection,
    sought: &[Sought],
    until: Instant,
    states: &mut [QueueState],
) -> Result<(), Fault> {
    let mut looks = FuturesUnordered::new();
    let mut waiting = sought.iter().copied().enumerate();
    let all = async {
        loop {
            let room = AT_ONCE.saturating_sub(looks.len());
            for (index, sought) in waiting.by_ref().take(room) {
                looks.push(numbered(connection, index, sought));
            }
            let Some(looked) = looks.next().await else { return Ok(()) };
            let (index, seen) = looked?;
            states.get_mut(index).into_iter().for_each(|state| *state = seen);
        }
    };
    let late = |_| Fault::Closed("the broker took too long to answer".to_owned());
    timeout_at(until, all).await.map_err(late)?
}

async fn numbered(
    connection: &dyn Connection,
    index: usize,
    sought: Sought,
) -> Result<(usize, QueueState), Fault> {
    Ok((index, look(connection, sought).await?))
}

async fn look(connection: &dyn Connection, sought: Sought) -> Result<QueueState, Fault> {
    let (endpoint, lease) = (sought.endpoint, topology::lease_queue(sought.endpoint));
    let seen = match connection.look(&topology::tasks_queue(endpoint), &lease).await {
        Err(Fault::Missing(_)) => return Ok(QueueState::Missing),
        seen => seen?,
    };
    let mut consumed = seen.consumed;
    if sought.drains && consumed == Some(false) {
        consumed = match connection.look(&topology::control_queue(endpoint), &lease).await {
            Err(Fault::Missing(_)) => Some(false),
            control => control?.consumed,
        };
    }
    Ok(QueueState::There { waiting: seen.waiting, consumed })
}
