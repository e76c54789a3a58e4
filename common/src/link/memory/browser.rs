//! Looks through one queue of a hub in memory. Leaves every decision to the hub.

use super::MemorySession;
use super::hub::ConsumerId;
use crate::link::{Fault, HeldMessage, InletOptions, QueueBrowser, Tag};
use async_trait::async_trait;
use std::sync::Arc;

/// A [`QueueBrowser`] of a hub's queue. It keeps nothing itself.
pub(super) struct MemoryBrowser {
    session: Arc<MemorySession>,
    consumer: ConsumerId,
}

impl MemoryBrowser {
    /// Takes the lease.
    pub(super) fn open(
        session: &Arc<MemorySession>,
        queue: &str,
        lease: &str,
    ) -> Result<Self, Fault> {
        let options = InletOptions {
            queue: queue.to_owned(),
            prefetch: 1,
            lease: Some(lease.to_owned()),
            one_by_one: false,
        };
        let mut hub = session.broker.hub();
        let consumer = hub.consume(session.id, &options)?;
        hub.unbound(consumer);
        drop(hub);
        Ok(Self { session: Arc::clone(session), consumer })
    }
}

impl Drop for MemoryBrowser {
    fn drop(&mut self) {
        self.session.broker.change(|hub| hub.cancel(self.consumer));
    }
}

#[async_trait]
impl QueueBrowser for MemoryBrowser {
    async fn next(&mut self) -> Result<Option<HeldMessage>, Fault> {
        let taken = self.session.broker.hub().take(self.consumer, 1)?.pop();
        Ok(taken.map(|delivery| HeldMessage {
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
