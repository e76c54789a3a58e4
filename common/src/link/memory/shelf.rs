//! Looks through one queue of a hub in memory. Leaves every decision to the hub.

use super::Session;
use super::hub::ConsumerId;
use crate::link::{Fault, Held, InletOptions, Shelf, Tag};
use async_trait::async_trait;
use std::sync::Arc;

/// A [`Shelf`] of a hub's queue. It keeps nothing itself.
pub(super) struct MemoryShelf {
    session: Arc<Session>,
    consumer: ConsumerId,
}

impl MemoryShelf {
    /// Takes the lease.
    pub(super) fn open(session: &Arc<Session>, queue: &str, lease: &str) -> Result<Self, Fault> {
        let options =
            InletOptions { queue: queue.to_owned(), prefetch: 1, lease: Some(lease.to_owned()) };
        let mut hub = session.broker.hub();
        let consumer = hub.consume(session.id, &options)?;
        hub.unbound(consumer);
        drop(hub);
        Ok(Self { session: Arc::clone(session), consumer })
    }
}

impl Drop for MemoryShelf {
    fn drop(&mut self) {
        self.session.broker.change(|hub| hub.cancel(self.consumer));
    }
}

#[async_trait]
impl Shelf for MemoryShelf {
    async fn next(&mut self) -> Result<Option<Held>, Fault> {
        let taken = self.session.broker.hub().take(self.consumer, 1)?.pop();
        Ok(taken.map(|delivery| Held {
            tag: delivery.tag,
            message: delivery.message,
            extra: serde_json::Map::new(),
        }))
    }

    async fn remove(&mut self, tag: Tag) -> Result<(), Fault> {
        self.session.broker.hub().remove(self.consumer, tag)
    }

    async fn waiting(&mut self) -> Result<u64, Fault> {
        self.session.broker.hub().waiting(self.consumer)
    }
}
