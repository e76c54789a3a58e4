//! Publishes to a hub in memory. A message is settled as it is published, and its
//! settlement kept until it is asked for.

use super::MemorySession;
use crate::link::{self, Destination, Fault, Message, Outlet, Settlement, Ticket};
use async_trait::async_trait;
use std::sync::Arc;

/// An [`Outlet`] to a hub. What it keeps is bounded by the messages that are
/// open.
pub(super) struct MemoryOutlet {
    session: Arc<MemorySession>,
    last: u64,
    settled: Vec<(Ticket, Settlement)>,
    /// Messages that have no settlement, since the outlet ended with them.
    unsettled: usize,
    end: Option<Fault>,
}

impl MemoryOutlet {
    /// Opens an outlet.
    pub(super) fn open(session: &Arc<MemorySession>) -> Result<Self, Fault> {
        session.broker.hub().alive(session.id)?;
        let session = Arc::clone(session);
        Ok(Self { session, last: 0, settled: Vec::new(), unsettled: 0, end: None })
    }

    /// The fault that ended this outlet, if one has.
    fn ended(&self) -> Result<(), Fault> {
        match &self.end {
            Some(fault) => Err(fault.clone()),
            None => self.session.broker.hub().alive(self.session.id),
        }
    }
}

#[async_trait]
impl Outlet for MemoryOutlet {
    async fn publish(
        &mut self,
        destination: &Destination,
        message: Message,
    ) -> Result<Ticket, Fault> {
        self.ended()?;
        link::fits(&message)?;
        self.last += 1;
        let ticket = Ticket(self.last);
        match self.session.broker.change(|hub| hub.publish(destination, message)) {
            Ok(settlement) => self.settled.push((ticket, settlement)),
            Err(fault) => {
                self.unsettled += 1;
                self.end = Some(fault);
            }
        }
        Ok(ticket)
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        if !self.settled.is_empty() {
            return Ok(std::mem::take(&mut self.settled));
        }
        self.ended()?;
        let id = self.session.id;
        Err(self.session.broker.until(|hub| hub.alive(id).err()).await)
    }

    fn open(&self) -> usize {
        self.settled.len() + self.unsettled
    }
}
