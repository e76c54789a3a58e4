//! Tells endpoints which tasks to cancel, and marks that in their task queues once the broker
//! has it, so that it is no longer in force when all that was there before has been read
//! (`design/0017`). Each step can be repeated, and is until the broker has it.

use crate::publishing::{PublishError, Publisher, control_message};
use crate::store::{Error, PendingCancel, Store};
use clutch_common::id::EndpointId;
use clutch_common::link::Fault;
use clutch_common::topology;
use clutch_common::wire::{self, Cancel, CancelMark, Steering};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The pause before what the broker or the database did not take is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Sends cancellations until told to stop; looks whenever there is news.
///
/// # Errors
/// Never: what it cannot do it tries again. The session ends it.
pub(crate) async fn cancel(
    store: &Store,
    publisher: Publisher,
    mut news: watch::Receiver<u64>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut sender = Sender { store, publisher, at_once: wire::CANCEL_MAX, told: false };
    let sending = async {
        loop {
            news.mark_unchanged();
            let sent = sender.round().await;
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if !sent => (),
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = sending => stop.cancelled().await,
    }
    Ok(())
}

struct Sender<'a> {
    store: &'a Store,
    publisher: Publisher,
    /// How many attempts a message names.
    at_once: usize,
    /// It was told that something cannot be sent.
    told: bool,
}

impl Sender<'_> {
    /// Sends what is to be sent; returns whether all of it was.
    async fn round(&mut self) -> bool {
        match self.try_round().await {
            Ok(failing) => {
                if failing.is_empty() {
                    self.told = false;
                }
                failing.is_empty()
            }
            Err(error) => {
                self.tell(&format!("{:#}", anyhow::Error::from(error)));
                false
            }
        }
    }

    fn tell(&mut self, reason: &str) {
        if self.told {
            tracing::debug!(reason, "cancellations still cannot be sent");
        } else {
            self.told = true;
            tracing::warn!(reason, "cancellations cannot be sent; trying until they can");
        }
    }

    /// Sends all; returns the endpoints with queues that do not take it. They do not delay others.
    async fn try_round(&mut self) -> Result<BTreeSet<EndpointId>, Error> {
        let mut failing = BTreeSet::new();
        loop {
            let except: Vec<EndpointId> = failing.iter().copied().collect();
            let pending = self.store.pending_cancels(&except).await?;
            if pending.is_empty() {
                break;
            }
            for one in pending {
                // In the order of their numbers.
                if failing.contains(&one.endpoint) {
                    continue;
                }
                match self.send(&one).await {
                    Ok(()) => self.store.cancel_confirmed(one.endpoint, one.number).await?,
                    Err(why) => {
                        self.tell(&why.to_string());
                        failing.insert(one.endpoint);
                    }
                }
            }
        }
        for (endpoint, up_to) in self.store.marks_to_send().await? {
            let mark = wire::encode_mark(&CancelMark { up_to });
            let message = control_message(wire::MARK_TYPE, mark);
            match self.publisher.message(topology::tasks_queue(endpoint), message).await {
                Ok(()) => self.store.mark_confirmed(endpoint, up_to).await?,
                Err(why) => {
                    self.tell(&why.to_string());
                    failing.insert(endpoint);
                }
            }
        }
        Ok(failing)
    }

    /// Sends a message; in parts of the same number where the broker takes no message that
    /// large. One that names no task any more may have been sent before, and needs no more
    /// than its mark.
    async fn send(&mut self, one: &PendingCancel) -> Result<(), PublishError> {
        let PendingCancel { endpoint, number, attempts } = one;
        let mut left = attempts.as_slice();
        while !left.is_empty() {
            let (part, rest) = left.split_at(self.at_once.min(left.len()));
            let steering = Steering::Cancel(Cancel { number: *number, attempts: part.to_vec() });
            let message = control_message(steering.kind(), steering.encode());
            match self.publisher.message(topology::control_queue(*endpoint), message).await {
                Ok(()) => {
                    tracing::info!(%endpoint, tasks = part.len(), "asked to cancel tasks");
                    left = rest;
                }
                Err(PublishError::TooLarge(_)) if self.at_once > 1 => self.at_once /= 2,
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}
