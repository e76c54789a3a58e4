//! Publishes to the control queues of endpoints, in order, and takes note of the broker's answers.
//!
//! Touches control queues. Promises: what is published to one queue comes in the order in which
//! it was given; a message of the collector is done once the broker has confirmed what follows
//! from it, or after [`PATIENCE`].

use super::PATIENCE;
use super::posts::DoneSignal;
use crate::publishing::{PublishError, PublishOutcome, Publisher, control_message};
use clutch_common::id::EndpointId;
use clutch_common::topology;
use clutch_common::wire::{PostToEndpoint, Reply, RequestAnswer};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc;

/// How many messages may wait for the broker's confirm.
const WAITING: usize = 256;

/// The task that asked, as it is answered.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// Its endpoint.
    pub(super) endpoint: EndpointId,
    /// The answer, where the message that it waits for cannot be published.
    pub(super) answer: RequestAnswer,
}

/// A message that the broker has not answered for.
pub(super) struct Unconfirmed {
    outcome: Pin<Box<dyn Future<Output = PublishOutcome> + Send>>,
    asker: Option<Asker>,
    done: Option<DoneSignal>,
}

/// The way to the control queues. Clones share it.
#[derive(Clone)]
pub(super) struct Outbox {
    publisher: Publisher,
    unconfirmed: mpsc::Sender<Unconfirmed>,
}

impl Outbox {
    /// A way over a link, and the messages to [confirm](Outbox::confirm).
    pub(super) fn new(publisher: Publisher) -> (Self, mpsc::Receiver<Unconfirmed>) {
        let (unconfirmed, receiver) = mpsc::channel(WAITING);
        (Self { publisher, unconfirmed }, receiver)
    }

    /// The handle to publish by.
    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Answers a task.
    pub(super) async fn answer(
        &self,
        to: EndpointId,
        answer: RequestAnswer,
        done: Option<DoneSignal>,
    ) {
        let refusable = matches!(answer.answer, Reply::Ended(_));
        let asker = refusable.then(|| Asker {
            endpoint: to,
            answer: RequestAnswer { answer: Reply::NotEnded, ..answer.clone() },
        });
        self.publish(to, &PostToEndpoint::Answer(answer), asker, done).await;
    }

    /// Publishes a message to an endpoint; `asker` is told where that cannot be.
    pub(super) async fn publish(
        &self,
        to: EndpointId,
        post: &PostToEndpoint,
        asker: Option<Asker>,
        done: Option<DoneSignal>,
    ) {
        self.publish_encoded(to, (post.kind(), post.encode()), asker, done).await;
    }

    /// Publishes a message of a kind, which is encoded already.
    pub(super) async fn publish_encoded(
        &self,
        to: EndpointId,
        (kind, body): (&'static str, Vec<u8>),
        asker: Option<Asker>,
        done: Option<DoneSignal>,
    ) {
        let queue = topology::control_queue(to);
        let outcome = self.publisher.begin(queue, control_message(kind, body)).await;
        let unconfirmed = Unconfirmed { outcome: Box::pin(outcome), asker, done };
        // The receiver is gone only with the session.
        drop(self.unconfirmed.send(unconfirmed).await);
    }

    /// Waits for the broker's answers, one after the other, until the session ends.
    pub(super) async fn confirm(&self, mut all: mpsc::Receiver<Unconfirmed>) {
        while let Some(Unconfirmed { outcome, asker, done }) = all.recv().await {
            let Ok(outcome) = tokio::time::timeout(PATIENCE, outcome).await else { continue };
            drop(done);
            let Err(error) = outcome else { continue };
            tracing::debug!(%error, "a message between tasks was not published");
            let Some(Asker { endpoint, answer }) = asker else { continue };
            let answer = match error {
                PublishError::Returned(_) => answer,
                PublishError::TooLarge(_) => {
                    RequestAnswer { answer: Reply::Refused(error.to_string().into()), ..answer }
                }
                PublishError::Refused | PublishError::Unknown(_) => continue,
            };
            let post = PostToEndpoint::Answer(answer);
            let message = control_message(post.kind(), post.encode());
            // Where it is lost, a further copy asks again.
            drop(self.publisher.begin(topology::control_queue(endpoint), message).await);
        }
    }
}
