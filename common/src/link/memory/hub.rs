//! A broker's state and decisions: queues and routing, connections and leases, consumers.
//! Pure: every method returns at once, and the same calls give
//! the same answers.
//!
//! A message is in one place at a time: ready in its queue, or with the consumer
//! that took it until that settles it or is gone. It goes back to where it stood.

use super::queue::{HubQueue, Position, QueuedMessage};
use crate::link::{
    DELIVERY_LIMIT, Delivery, Destination, Fault, InletOptions, Message, REJECTED, Settlement, Tag,
};
use crate::topology::{self, ExchangeKind, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ConnectionId(u64);

/// Names a consumer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ConsumerId(u64);

/// A broker's state.
#[derive(Default)]
pub(super) struct Hub {
    /// The last number given to a connection, a consumer or a message.
    last: u64,
    exchanges: BTreeMap<String, HubExchange>,
    queues: BTreeMap<String, HubQueue>,
    connections: BTreeMap<ConnectionId, String>,
    leases: BTreeMap<String, ConnectionId>,
    consumers: BTreeMap<ConsumerId, HubConsumer>,
}

struct HubExchange {
    kind: ExchangeKind,
    /// Keys, and the queues they are bound to.
    bindings: BTreeSet<(String, String)>,
}

struct HubConsumer {
    connection: ConnectionId,
    queue: String,
    exclusive: bool,
    prefetch: usize,
    last: u64,
    unsettled: BTreeMap<Tag, (Position, QueuedMessage)>,
}

impl Hub {
    /// Adds a connection.
    pub(super) fn connect(&mut self, name: &str) -> ConnectionId {
        let id = ConnectionId(self.number());
        self.connections.insert(id, name.to_owned());
        id
    }

    /// Ends a connection, its consumers and its leases. One that has ended stays
    /// as it is.
    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.leases.retain(|_, holder| *holder != id);
        let consumers = self.consumers.iter();
        let own = consumers.filter(|(_, consumer)| consumer.connection == id).map(|(id, _)| *id);
        for consumer in own.collect::<Vec<_>>() {
            self.cancel(consumer);
        }
    }

    /// The fault of a connection that has ended.
    pub(super) fn alive(&self, id: ConnectionId) -> Result<(), Fault> {
        if self.connections.contains_key(&id) { Ok(()) } else { Err(closed()) }
    }

    /// Removes a queue and its bindings.
    pub(super) fn remove_queue(&mut self, id: ConnectionId, queue: &str) -> Result<(), Fault> {
        self.alive(id)?;
        self.queues.remove(queue);
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|(_, bound)| bound != queue);
        }
        Ok(())
    }

    /// How many messages are ready in a queue.
    pub(super) fn waiting_in(&self, id: ConnectionId, queue: &str) -> Result<u64, Fault> {
        self.alive(id)?;
        self.queues.get(queue).map(HubQueue::waiting).ok_or_else(|| missing("queue", queue))
    }

    /// Whether a queue has a consumer.
    pub(super) fn is_consumed(&self, queue: &str) -> bool {
        self.consumers.values().any(|consumer| consumer.queue == queue)
    }

    /// Declares a topology up to the first fault.
    pub(super) fn declare(&mut self, id: ConnectionId, topology: &Topology) -> Result<(), Fault> {
        self.alive(id)?;
        for declared in &topology.exchanges {
            let exchange = self.exchanges.entry(declared.name.clone());
            let bindings = BTreeSet::new();
            let kind = exchange.or_insert(HubExchange { kind: declared.kind, bindings }).kind;
            if kind != declared.kind {
                let how = format!("received {:?} but current is {kind:?}", declared.kind);
                return Err(mismatch("exchange", &declared.name, &how));
            }
        }
        for declared in &topology.queues {
            let queue = self.queues.entry(declared.name.clone());
            let queue = queue.or_insert_with(|| HubQueue::new(&declared.arguments));
            if let Some(how) = queue.differs(&declared.arguments) {
                return Err(mismatch("queue", &declared.name, &how));
            }
        }
        for binding in &topology.bindings {
            if !self.queues.contains_key(&binding.queue) {
                return Err(missing("queue", &binding.queue));
            }
            let exchange = self.exchanges.get_mut(&binding.exchange);
            let exchange = exchange.ok_or_else(|| missing("exchange", &binding.exchange))?;
            exchange.bindings.insert((binding.key.clone(), binding.queue.clone()));
        }
        Ok(())
    }

    /// Routes a message, and says what became of it. It gets an id if it has
    /// none.
    ///
    /// # Errors
    /// [`Fault::Missing`] when there is no such exchange.
    pub(super) fn publish(
        &mut self,
        to: &Destination,
        mut message: Message,
    ) -> Result<Settlement, Fault> {
        let queues = self.route(&to.exchange, &to.routing_key)?;
        if queues.is_empty() {
            let Destination { exchange, routing_key } = to;
            let reason = format!("NO_ROUTE (exchange '{exchange}', routing key '{routing_key}')");
            return Ok(Settlement::Returned(reason));
        }
        message.deaths.clear();
        message.routing_key = to.key_at_an_exchange();
        if message.message_id.is_none() {
            message.message_id = Some(format!("memory-{}", self.number()));
        }
        let taken = self.deliver(&queues, &Arc::new(message), &Arc::from(&*to.routing_key));
        Ok(if taken { Settlement::Confirmed } else { Settlement::Refused })
    }

    /// Takes the lease and adds a consumer; neither, when there is a fault.
    pub(super) fn consume(
        &mut self,
        connection: ConnectionId,
        options: &InletOptions,
    ) -> Result<ConsumerId, Fault> {
        self.alive(connection)?;
        let holder = options.lease.as_ref().and_then(|lease| self.leases.get(lease));
        if let (Some(lease), Some(holder)) = (&options.lease, holder)
            && *holder != connection
        {
            let by = self.name(*holder);
            return Err(Fault::Locked(format!("the lease '{lease}' is held by '{by}'")));
        }
        if !self.queues.contains_key(&options.queue) {
            return Err(missing("queue", &options.queue));
        }
        let exclusive = options.lease.is_some();
        let mut others = self.consumers.values().filter(|other| other.queue == options.queue);
        if let Some(other) = others.find(|other| exclusive || other.exclusive) {
            let (queue, by) = (&options.queue, self.name(other.connection));
            return Err(Fault::Locked(format!("the queue '{queue}' is consumed by '{by}'")));
        }
        if let Some(lease) = &options.lease {
            self.leases.insert(lease.clone(), connection);
        }
        let id = ConsumerId(self.number());
        let consumer = HubConsumer {
            connection,
            queue: options.queue.clone(),
            exclusive,
            // As in AMQP's case, 0 would be no bound.
            prefetch: usize::from(options.prefetch.max(1)),
            last: 0,
            unsettled: BTreeMap::new(),
        };
        self.consumers.insert(id, consumer);
        Ok(id)
    }

    /// Lets a consumer take as many messages as there are.
    pub(super) fn unbound(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.prefetch = usize::MAX;
        }
    }

    /// Removes a consumer; what it has not settled goes back to the queue.
    pub(super) fn cancel(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else { return };
        let held = consumer.unsettled.into_values();
        let dead: Vec<QueuedMessage> =
            held.filter_map(|(position, entry)| queue.put_back(position, entry)).collect();
        for entry in dead {
            self.bury(&consumer.queue, &entry, DELIVERY_LIMIT);
        }
    }

    /// Takes up to `max` (at least one) messages that are ready, as far as the
    /// prefetch allows; there may be none.
    pub(super) fn take(&mut self, id: ConsumerId, max: usize) -> Result<Vec<Delivery>, Fault> {
        let consumer = self.consumers.get_mut(&id).ok_or_else(closed)?;
        let Some(queue) = self.queues.get_mut(&consumer.queue) else { return Ok(Vec::new()) };
        let room = consumer.prefetch.saturating_sub(consumer.unsettled.len());
        let ready = std::iter::from_fn(|| queue.pop()).take(room.min(max.max(1)));
        let deliveries = ready.map(|(position, entry)| {
            consumer.last += 1;
            let tag = Tag(consumer.last);
            let message = Message::clone(&entry.message);
            let delivery = Delivery { tag, redelivered: entry.returns > 0, message };
            consumer.unsettled.insert(tag, (position, entry));
            delivery
        });
        Ok(deliveries.collect())
    }

    /// Forgets every unsettled message up to and including a tag.
    pub(super) fn acknowledge(&mut self, id: ConsumerId, up_to: Tag) -> Result<(), Fault> {
        let consumer = self.consumers.get_mut(&id).ok_or_else(closed)?;
        consumer.unsettled = consumer.unsettled.split_off(&Tag(up_to.0.saturating_add(1)));
        Ok(())
    }

    /// Forgets one unsettled message.
    pub(super) fn remove(&mut self, id: ConsumerId, tag: Tag) -> Result<(), Fault> {
        let consumer = self.consumers.get_mut(&id).ok_or_else(closed)?;
        consumer.unsettled.remove(&tag);
        Ok(())
    }

    /// How many messages are ready in the queue of a consumer.
    pub(super) fn waiting(&self, id: ConsumerId) -> Result<u64, Fault> {
        let consumer = self.consumers.get(&id).ok_or_else(closed)?;
        Ok(self.queues.get(&consumer.queue).map_or(0, HubQueue::waiting))
    }

    /// Moves an unsettled message to where its queue's dead letters go.
    pub(super) fn dead_letter(&mut self, id: ConsumerId, tag: Tag) -> Result<(), Fault> {
        let consumer = self.consumers.get_mut(&id).ok_or_else(closed)?;
        if let Some((_, entry)) = consumer.unsettled.remove(&tag) {
            let queue = consumer.queue.clone();
            self.bury(&queue, &entry, REJECTED);
        }
        Ok(())
    }

    /// Routes a dead letter. It is dropped where nothing takes it. (It reads no
    /// clock, so it does not say when.)
    fn bury(&mut self, queue: &str, entry: &QueuedMessage, reason: &str) {
        let Some(of) = self.queues.get(queue) else { return };
        let Some(exchange) = of.dead_letter_exchange().map(str::to_owned) else { return };
        let key = of.dead_letter_key().map_or_else(|| Arc::clone(&entry.routing_key), Arc::from);
        if let Ok(queues) = self.route(&exchange, &key) {
            let mut message = Message::clone(&entry.message);
            message.died(queue, reason, None);
            self.deliver(&queues, &Arc::new(message), &key);
        }
    }

    /// Puts a message into queues; says whether all took it.
    fn deliver(
        &mut self,
        queues: &BTreeSet<String>,
        message: &Arc<Message>,
        key: &Arc<str>,
    ) -> bool {
        let mut taken = true;
        for name in queues {
            match self.queues.get_mut(name) {
                Some(queue) if !queue.is_full() => queue.push(Arc::clone(message), Arc::clone(key)),
                Some(_) | None => taken = false,
            }
        }
        taken
    }

    /// The queues that an exchange routes a key to.
    fn route(&self, exchange: &str, key: &str) -> Result<BTreeSet<String>, Fault> {
        if exchange.is_empty() {
            let known = self.queues.contains_key(key);
            return Ok(known.then(|| key.to_owned()).into_iter().collect());
        }
        let HubExchange { kind, bindings } =
            self.exchanges.get(exchange).ok_or_else(|| missing("exchange", exchange))?;
        let bound = bindings.iter().filter(|(binding, _)| topology::matches(*kind, binding, key));
        Ok(bound.map(|(_, queue)| queue.clone()).collect())
    }

    fn name(&self, id: ConnectionId) -> &str {
        self.connections.get(&id).map_or("", String::as_str)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

fn closed() -> Fault {
    Fault::Closed("it was closed on this side".to_owned())
}

fn missing(what: &str, name: &str) -> Fault {
    Fault::Missing(format!("no {what} '{name}'"))
}

fn mismatch(what: &str, name: &str, how: &str) -> Fault {
    Fault::Mismatch(format!(
        "the {what} '{name}' was declared with other options ({how}); delete it when it is \
         empty, or provision with the options it has"
    ))
}

#[cfg(test)]
mod tests;
