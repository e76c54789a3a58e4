//! Looks through one queue on a channel of its own, by asking for one message after
//! another. What was not acknowledged is the queue's again when the channel ends.

use super::session::AmqpSession;
use super::short_name::short;
use super::{dead_letter, properties};
use crate::link::{Fault, HeldMessage, QueueBrowser, Tag};
use async_trait::async_trait;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A [`QueueBrowser`] of a broker's queue. It keeps the tags of what it holds, and the
/// broker the messages.
pub(super) struct AmqpBrowser {
    session: Arc<AmqpSession>,
    channel: Channel,
    queue: String,
    held: BTreeSet<u64>,
}

impl AmqpBrowser {
    /// Makes sure that the queue is there, and takes the lease.
    pub(super) async fn open(
        session: &Arc<AmqpSession>,
        queue: &str,
        lease: &str,
    ) -> Result<Self, Fault> {
        let channel = session.channel().await?;
        let (session, queue) = (Arc::clone(session), queue.to_owned());
        let mut browser = Self { session, channel, queue, held: BTreeSet::new() };
        // The lease would outlive a browser that is not to be had.
        browser.waiting().await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let lease = browser.channel.queue_declare(short(lease)?, exclusive, FieldTable::default());
        browser.session.answer(lease).await?;
        Ok(browser)
    }
}

#[async_trait]
impl QueueBrowser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<HeldMessage>, Fault> {
        let get = self.channel.basic_get(short(&self.queue)?, BasicGetOptions::default());
        let Some(found) = self.session.answer(get).await? else { return Ok(None) };
        let extra = dead_letter::extra(&found.delivery);
        let delivery = properties::incoming(found.delivery);
        self.held.insert(delivery.tag.0);
        Ok(Some(HeldMessage { tag: delivery.tag, message: delivery.message, extra }))
    }

    /// The acknowledgement has no answer; a request after it on the same channel
    /// has, and the broker has then processed both.
    async fn remove(&mut self, tag: Tag) -> Result<(), Fault> {
        if !self.held.remove(&tag.0) {
            return Ok(());
        }
        self.session.answer(self.channel.basic_ack(tag.0, BasicAckOptions::default())).await?;
        let barrier = self.channel.basic_qos(1, BasicQosOptions::default());
        self.session.answer(barrier).await
    }

    async fn waiting(&mut self) -> Result<u64, Fault> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(short(&self.queue)?, passive, FieldTable::default());
        Ok(self.session.answer(asked).await?.message_count().into())
    }
}
