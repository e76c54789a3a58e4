//! The way of messages from the collector to the router, and the word back that one is done.
//!
//! Touches nothing.

use clutch_common::wire::PostToService;
use tokio::sync::{mpsc, oneshot};

/// How many groups of messages may be on the way.
const WAITING: usize = 64;

/// A message for the router.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The message.
    pub(crate) post: PostToService,
    /// Tells that it is done, when it is dropped.
    pub(crate) done: DoneSignal,
}

/// The end of a [`PostSettled`] that the router has.
#[derive(Debug)]
pub(crate) struct DoneSignal(#[expect(dead_code, reason = "its drop tells")] oneshot::Sender<()>);

/// Tells the collector that a message may be acknowledged; nothing is left of it after that.
#[derive(Debug)]
pub(crate) struct PostSettled(Option<oneshot::Receiver<()>>);

impl Incoming {
    /// A message, and the word that it is done.
    pub(crate) fn new(post: PostToService) -> (Self, PostSettled) {
        let (done, settled) = oneshot::channel();
        (Self { post, done: DoneSignal(done) }, PostSettled(Some(settled)))
    }
}

impl PostSettled {
    /// Whether the message is done.
    pub(crate) fn is_done(&mut self) -> bool {
        let waits = |settled: &mut oneshot::Receiver<()>| {
            matches!(settled.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        self.0.take_if(|settled| !waits(settled));
        self.0.is_none()
    }

    /// Waits until the message is done. Cancelling the wait loses nothing.
    pub(crate) async fn done(&mut self) {
        if let Some(settled) = &mut self.0 {
            // The sender is dropped, never used.
            drop(settled.await);
            self.0 = None;
        }
    }
}

/// The collector's end of the way.
#[derive(Clone, Debug)]
pub(crate) struct Posts(mpsc::Sender<Vec<Incoming>>);

/// The way, and the router's end of it.
pub(crate) fn posts() -> (Posts, mpsc::Receiver<Vec<Incoming>>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Posts(sender), receiver)
}

impl Posts {
    /// Hands over messages, in their order. Those for which there is no room count as done: the
    /// endpoints send further copies.
    pub(crate) fn hand_over(&self, posts: Vec<Incoming>) {
        if posts.is_empty() {
            return;
        }
        if let Err(error) = self.0.try_send(posts) {
            tracing::debug!(%error, "messages between tasks are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
    use clutch_common::wire::{Ask, TaskRequest};
    use uuid::Uuid;

    fn incoming() -> (Incoming, PostSettled) {
        let task = TaskId::new();
        Incoming::new(PostToService::Request(TaskRequest {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            request: Uuid::nil(),
            copy: 1,
            source: Attempt { task_id: task, attempt: 1 },
            ask: Ask::Outcome { task, wait_ms: 0 },
        }))
    }

    #[tokio::test]
    async fn a_message_is_done_once_it_is_dropped_and_what_is_too_much_at_once() {
        let (posts, mut router) = posts();
        let mut all = Vec::new();
        for _ in 0..=WAITING {
            let (one, settled) = incoming();
            posts.hand_over(vec![one]);
            all.push(settled);
        }
        assert!(all.pop().unwrap().is_done(), "there was no room for the last one");
        assert!(all.iter_mut().all(|settled| !settled.is_done()));
        let first = router.recv().await.unwrap();
        drop(first);
        all[0].done().await;
        assert!(all[0].is_done() && !all[1].is_done());
        drop(router);
        assert!(all.iter_mut().all(PostSettled::is_done));
    }
}
