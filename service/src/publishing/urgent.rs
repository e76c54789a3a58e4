//! Sends copies of urgent tasks ahead: through the endpoint's control queue, which is read before
//! its task queue. The task is in the task queue as any other, so that no promise rests on the
//! copy; an endpoint runs an attempt once.
//!
//! Touches control queues. Promises: a task is sent ahead only once the broker has it; a control
//! queue has at most [`WAITING_MAX`] messages when a copy is added; nothing waits for a copy, and
//! one that does not fit is left out.

use super::packing::{MAX_BYTES, MAX_TASKS};
use super::{Publisher, control_message};
use clutch_common::id::EndpointId;
use clutch_common::link::{Connection, Fault};
use clutch_common::task::priority::Priority;
use clutch_common::{topology, wire};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many messages may wait in a control queue for a copy to be added.
const WAITING_MAX: u64 = 16;
/// How many messages with copies may wait to be sent.
const UNSENT_MAX: usize = 64;
/// How long the broker may take to tell about a queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// Copies of urgent tasks, for one message.
#[derive(Debug)]
pub(crate) struct Copies {
    endpoint: EndpointId,
    bodies: Vec<String>,
}

/// The way of copies to [`send_urgent`]. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct UrgentSender(mpsc::Sender<Copies>);

impl UrgentSender {
    /// A way, and its end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Copies>) {
        let (sender, receiver) = mpsc::channel(UNSENT_MAX);
        (Self(sender), receiver)
    }

    /// Has copies of tasks sent ahead, as far as there is room.
    pub(super) fn send<'a>(&self, endpoint: EndpointId, tasks: impl Iterator<Item = &'a str>) {
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        for body in tasks {
            let full = bodies.len() == MAX_TASKS || bytes + body.len() > MAX_BYTES;
            if full && !bodies.is_empty() {
                let bodies = std::mem::take(&mut bodies);
                bytes = 0;
                if self.0.try_send(Copies { endpoint, bodies }).is_err() {
                    return;
                }
            }
            bytes += body.len();
            bodies.push(body.to_owned());
        }
        if !bodies.is_empty() {
            drop(self.0.try_send(Copies { endpoint, bodies }));
        }
    }
}

/// Whether tasks of a priority are sent ahead.
pub(super) fn is_urgent(priority: Priority) -> bool {
    priority > Priority::Normal
}

/// Sends copies until told to stop.
///
/// # Errors
/// Never: a copy that cannot be sent is left out.
pub(crate) async fn send_urgent(
    connection: &dyn Connection,
    publisher: Publisher,
    mut copies: mpsc::Receiver<Copies>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            next = copies.recv() => next,
        };
        match next {
            Some(copies) => send(connection, &publisher, copies).await,
            None => {
                stop.cancelled().await;
                return Ok(());
            }
        }
    }
}

async fn send(connection: &dyn Connection, publisher: &Publisher, copies: Copies) {
    let Copies { endpoint, bodies } = copies;
    let (queue, lease) = (topology::control_queue(endpoint), topology::lease_queue(endpoint));
    let look = tokio::time::timeout(PATIENCE, connection.look(&queue, &lease));
    let room = match look.await {
        Ok(Ok(sight)) => sight.waiting < WAITING_MAX,
        Ok(Err(fault)) => {
            tracing::debug!(%endpoint, %fault, "urgent tasks are not sent ahead");
            false
        }
        Err(_) => false,
    };
    if !room {
        return;
    }
    let message = control_message(wire::URGENT_TYPE, wire::pack_urgent(&bodies));
    if let Err(error) = publisher.message(queue, message).await {
        tracing::debug!(%endpoint, %error, "urgent tasks were not sent ahead");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn copies_go_in_messages_of_a_bounded_size_and_what_is_too_many_is_left_out() {
        let (sender, mut copies) = UrgentSender::new();
        let (endpoint, body) = (EndpointId::new(), "x".repeat(MAX_BYTES / 4));
        sender.send(endpoint, std::iter::empty());
        sender.send(endpoint, std::iter::repeat_n("{}", MAX_TASKS + 1));
        sender.send(endpoint, std::iter::repeat_n(body.as_str(), 5));
        for expected in [MAX_TASKS, 1, 4, 1] {
            assert_eq!(copies.recv().await.unwrap().bodies.len(), expected);
        }
        sender.send(endpoint, std::iter::repeat_n("{}", MAX_TASKS * (UNSENT_MAX + 9)));
        assert_eq!(copies.len(), UNSENT_MAX);
    }

    #[test]
    fn tasks_above_normal_are_urgent() {
        let urgent = Priority::ALL.into_iter().filter(|level| is_urgent(*level));
        assert!(urgent.eq([Priority::High, Priority::Highest]));
    }
}
