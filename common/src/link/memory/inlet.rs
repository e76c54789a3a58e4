//! Consumes one queue of a hub in memory. Waits, and leaves every decision to the
//! hub.

use super::MemorySession;
use super::hub::ConsumerId;
use crate::link::{Delivery, Fault, Inlet, InletOptions, Tag};
use async_trait::async_trait;
use std::sync::Arc;

/// An [`Inlet`] of a hub's queue. It keeps nothing itself.
pub(super) struct MemoryInlet {
    session: Arc<MemorySession>,
    consumer: ConsumerId,
}

impl MemoryInlet {
    /// Takes the lease and starts consuming.
    pub(super) fn open(
        session: &Arc<MemorySession>,
        options: &InletOptions,
    ) -> Result<Self, Fault> {
        let consumer = session.broker.hub().consume(session.id, options)?;
        Ok(Self { session: Arc::clone(session), consumer })
    }
}

impl Drop for MemoryInlet {
    fn drop(&mut self) {
        self.session.broker.change(|hub| hub.cancel(self.consumer));
    }
}

#[async_trait]
impl Inlet for MemoryInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let consumer = self.consumer;
        let look = |hub: &mut super::Hub| match hub.take(consumer, max) {
            Ok(deliveries) if deliveries.is_empty() => None,
            found => Some(found),
        };
        self.session.broker.until(look).await
    }

    async fn lost(&mut self) -> Fault {
        let id = self.session.id;
        self.session.broker.until(|hub| hub.alive(id).err()).await
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.session.broker.hub().acknowledge(self.consumer, up_to)
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        self.session.broker.hub().remove(self.consumer, tag)
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        self.session.broker.change(|hub| hub.dead_letter(self.consumer, tag))
    }
}
