//! Consumes one queue on a channel of its own, holding the lease if it has one.
//!
//! How many deliveries are under way follows their size ([`DeliveryBudget`]). A running consumer
//! keeps the prefetch it began with, so another one takes its place: it is asked for
//! once the last one has ended, and all that came to that was received.

use super::budget::DeliveryBudget;
use super::classify;
use super::properties;
use super::session::{AmqpSession, REASON_PATIENCE};
use super::short_name::short;
use crate::link::{Calls, Delivery, Fault, Inlet, InletOptions, Tag};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, ErrorKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::timeout;

/// An [`Inlet`] of a broker's queue. What waits in it is bounded by the
/// prefetch, and by bytes.
pub(super) struct AmqpInlet {
    session: Arc<AmqpSession>,
    channel: Channel,
    consumer: Consumer,
    budget: DeliveryBudget,
    change: Change,
    /// The messages published to the lease that it holds, until a caller takes them.
    calls: Option<Consumer>,
    queue: String,
    exclusive: bool,
    unsettled: BTreeSet<u64>,
    /// Those that arrived damaged, and are to come again.
    damaged: Vec<u64>,
    end: Option<ConsumerEnd>,
}

/// Whether another consumer is taking the place of the last one, and how far that is.
enum Change {
    None,
    /// The last one is being ended, for one with so many deliveries under way.
    Leaving(Option<Pending<()>>, u16),
    /// All that came to the last one is received.
    Left(Option<Pending<()>>, u16),
    /// The next one is being asked for.
    Joining(Pending<Consumer>),
}

type Pending<T> = BoxFuture<'static, Result<T, Fault>>;

/// Why there is nothing more to receive.
enum ConsumerEnd {
    Cancelled,
    Failed(lapin::Error),
    Refused(Fault),
}

impl AmqpInlet {
    /// Takes the lease, bounds what is under way, and starts consuming.
    pub(super) async fn open(
        session: &Arc<AmqpSession>,
        options: &InletOptions,
    ) -> Result<Self, Fault> {
        let channel = session.channel().await?;
        let calls = match &options.lease {
            Some(lease) => Some(hold(session, &channel, lease).await?),
            None => None,
        };
        let exclusive = options.lease.is_some();
        // Where several drain a queue, another consumer would change the order of turns.
        let budget = if exclusive {
            DeliveryBudget::new(options.prefetch)
        } else {
            DeliveryBudget::fixed(options.prefetch)
        };
        let consumer =
            consume(session, &channel, &options.queue, exclusive, budget.granted()).await?;
        Ok(Self {
            session: Arc::clone(session),
            channel,
            consumer,
            budget,
            change: Change::None,
            exclusive,
            calls,
            queue: options.queue.clone(),
            unsettled: BTreeSet::new(),
            damaged: Vec::new(),
            end: None,
        })
    }

    /// Waits for the next step of the consumer, and has another one take its place where
    /// that is due. Cancelling it loses nothing.
    async fn step(&mut self) -> Result<Option<lapin::Result<lapin::message::Delivery>>, Fault> {
        loop {
            let done = match &mut self.change {
                Change::None => match self.budget.change(self.unsettled.len()) {
                    None => return Ok(self.consumer.next().await),
                    Some(wanted) => Ok(Change::Leaving(Some(self.leave()), wanted)),
                },
                Change::Leaving(None, _) => return Ok(self.consumer.next().await),
                Change::Leaving(Some(cancel), wanted) => tokio::select! {
                    biased;
                    item = self.consumer.next() => return Ok(item),
                    done = cancel => done.map(|()| Change::Leaving(None, *wanted)),
                },
                Change::Left(Some(cancel), wanted) => {
                    cancel.await.map(|()| Change::Left(None, *wanted))
                }
                Change::Left(None, wanted) => {
                    let prefetch = self.budget.grant(*wanted, self.unsettled.len());
                    Ok(Change::Joining(self.join(prefetch)))
                }
                Change::Joining(consumer) => consumer.await.map(|consumer| {
                    self.consumer = consumer;
                    Change::None
                }),
            };
            self.change =
                done.inspect_err(|fault| self.end = Some(ConsumerEnd::Refused(fault.clone())))?;
        }
    }

    fn leave(&self) -> Pending<()> {
        let (session, channel) = (Arc::clone(&self.session), self.channel.clone());
        let tag = self.consumer.tag();
        let cancel = async move {
            session.answer(channel.basic_cancel(tag, BasicCancelOptions::default())).await
        };
        cancel.boxed()
    }

    fn join(&self, prefetch: u16) -> Pending<Consumer> {
        let (session, channel) = (Arc::clone(&self.session), self.channel.clone());
        let (queue, exclusive) = (self.queue.clone(), self.exclusive);
        async move { consume(&session, &channel, &queue, exclusive, prefetch).await }.boxed()
    }

    /// Takes one step of the consumer, or notes its end.
    fn take(&mut self, item: Option<lapin::Result<lapin::message::Delivery>>) -> Option<Delivery> {
        match item {
            Some(Ok(delivery)) => return Some(properties::incoming(delivery)),
            Some(Err(error)) => self.end = Some(ConsumerEnd::Failed(error)),
            None if matches!(self.change, Change::Leaving(..)) => {
                if let Change::Leaving(cancel, wanted) = &mut self.change {
                    self.change = Change::Left(cancel.take(), *wanted);
                }
            }
            None if self.channel.status().connected() => self.end = Some(ConsumerEnd::Cancelled),
            None => {
                let state = lapin::ConnectionState::Closed;
                self.end =
                    Some(ConsumerEnd::Failed(ErrorKind::InvalidConnectionState(state).into()));
            }
        }
        None
    }

    /// Whether a delivery is to be had a second time: what is damaged may have become
    /// so on its way from the broker.
    fn is_to_come_again(&mut self, delivery: &Delivery) -> bool {
        let again = delivery.message.damage.is_some() && !delivery.redelivered;
        if again {
            self.damaged.push(delivery.tag.0);
        }
        again
    }

    /// Gives back what arrived damaged. To be done before anything after it is
    /// acknowledged: that would cover it, too.
    async fn give_back(&mut self) -> Result<(), Fault> {
        while let Some(tag) = self.damaged.pop() {
            tracing::warn!(
                queue = self.queue,
                "a message arrived damaged, and is asked for once more"
            );
            let channel = self.channel.clone();
            let back = async move {
                channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await
            };
            self.send(back).await?;
        }
        Ok(())
    }

    /// The fault that ended this inlet, if one has.
    async fn ended(&mut self) -> Result<(), Fault> {
        match &self.end {
            None => self.session.alive(),
            Some(ConsumerEnd::Refused(fault)) => Err(fault.clone()),
            Some(ConsumerEnd::Failed(error)) => Err(self.session.explain(error).await),
            Some(ConsumerEnd::Cancelled) => Err(Fault::Missing(format!(
                "it cancelled the consumer of the queue '{}', which was deleted or moved",
                self.queue
            ))),
        }
    }

    /// Sees a request through that has no answer but an error.
    async fn send(
        &mut self,
        request: impl Future<Output = lapin::Result<()>> + Send,
    ) -> Result<(), Fault> {
        let Err(error) = self.session.while_moving(request).await? else { return Ok(()) };
        // Why the channel is gone is what the consumer was told.
        while classify::is_aftermath(&error) && self.end.is_none() {
            let Ok(item) = timeout(REASON_PATIENCE, self.consumer.next()).await else { break };
            self.take(item);
        }
        self.ended().await?;
        Err(self.session.explain(&error).await)
    }
}

/// Starts consuming, with so many deliveries under way.
async fn consume(
    session: &AmqpSession,
    channel: &Channel,
    queue: &str,
    exclusive: bool,
    prefetch: u16,
) -> Result<Consumer, Fault> {
    session.answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
    let queue = short(queue)?;
    session.answer(channel.basic_consume(queue, "".into(), options, FieldTable::default())).await
}

/// Takes a lease, and starts listening to what is published to it.
async fn hold(session: &AmqpSession, channel: &Channel, lease: &str) -> Result<Consumer, Fault> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    session.answer(channel.queue_declare(short(lease)?, exclusive, FieldTable::default())).await?;
    // A call is of no use to the next holder.
    let settled = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let calls = channel.basic_consume(short(lease)?, "".into(), settled, FieldTable::default());
    session.answer(calls).await
}

#[async_trait]
impl Inlet for AmqpInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let mut deliveries = Vec::new();
        while deliveries.is_empty() {
            self.give_back().await?;
            self.ended().await?;
            let mut item = Some(self.step().await?);
            // No await from here on to the return, but where there is nothing to
            // return: a cancelled wait loses nothing.
            while let Some(step) = item {
                let Some(delivery) = self.take(step) else { break };
                if !self.is_to_come_again(&delivery) {
                    deliveries.push(delivery);
                }
                item =
                    if deliveries.len() < max { self.consumer.next().now_or_never() } else { None };
            }
            if self.end.is_some() {
                break;
            }
        }
        // What came before the end is the broker's again.
        self.ended().await?;
        self.unsettled.extend(deliveries.iter().map(|delivery| delivery.tag.0));
        deliveries.iter().for_each(|delivery| self.budget.came(delivery.message.body.len()));
        Ok(deliveries)
    }

    async fn lost(&mut self) -> Fault {
        let mut health = self.session.watch();
        loop {
            if let Err(fault) = self.ended().await {
                return fault;
            }
            if health.changed().await.is_err() {
                return Fault::Closed("the connection is gone".to_owned());
            }
        }
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.give_back().await?;
        let later = self.unsettled.split_off(&up_to.0.saturating_add(1));
        let settled = std::mem::replace(&mut self.unsettled, later);
        // A tag that is settled already is an error to the broker, even as the
        // end of a range.
        let Some(&last) = settled.last() else { return Ok(()) };
        let channel = self.channel.clone();
        let acknowledged =
            async move { channel.basic_ack(last, BasicAckOptions { multiple: true }).await };
        self.send(acknowledged).await
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        if !self.unsettled.remove(&tag.0) {
            return Ok(());
        }
        let channel = self.channel.clone();
        let acknowledged =
            async move { channel.basic_ack(tag.0, BasicAckOptions { multiple: false }).await };
        self.send(acknowledged).await
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        if !self.unsettled.remove(&tag.0) {
            return Ok(());
        }
        let channel = self.channel.clone();
        let rejected =
            async move { channel.basic_reject(tag.0, BasicRejectOptions { requeue: false }).await };
        self.send(rejected).await
    }

    /// A request that the broker answers on the same channel: it has then
    /// processed the acknowledgements before it. (The prefetch of a running
    /// consumer stays what it is.)
    async fn secured(&mut self) -> Result<(), Fault> {
        self.ended().await?;
        let barrier = self.channel.basic_qos(self.budget.granted(), BasicQosOptions::default());
        self.session.answer(barrier).await
    }

    fn calls(&mut self) -> Calls {
        let Some(calls) = self.calls.take() else { return stream::pending().boxed() };
        let session = Arc::clone(&self.session);
        let listening = stream::unfold(Some((session, calls)), async move |listening| {
            let (session, mut calls) = listening?;
            let fault = match calls.next().await {
                Some(Ok(call)) => {
                    return Some((Ok(properties::incoming(call).message), Some((session, calls))));
                }
                Some(Err(error)) => session.explain(&error).await,
                None => session.alive().err().unwrap_or_else(|| {
                    Fault::Closed("it took the lease of this connection away".to_owned())
                }),
            };
            Some((Err(fault), None))
        });
        listening.boxed()
    }
}
