//! One queue: what is ready, in order, and what its arguments make of a message.
//! Pure.
//!
//! It acts on `x-dead-letter-exchange` and its `x-dead-letter-routing-key`,
//! `x-delivery-limit`, and `x-max-length` with the `x-overflow` of `reject-publish`.
//! Other arguments only have to be the same when the queue is declared again.

use crate::link::Message;
use crate::topology::Argument;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct QueuedMessage {
    pub(super) message: Arc<Message>,
    /// The routing key that it was published with, and is dead-lettered with.
    pub(super) routing_key: Arc<str>,
    /// How often it was delivered and came back.
    pub(super) returns: u64,
}

/// Where a message stands in its queue; the smaller is the older.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Position(u64);

/// A queue. What is delivered and not settled is with the consumer.
#[derive(Debug)]
pub(super) struct HubQueue {
    arguments: BTreeMap<&'static str, Argument>,
    next: u64,
    ready: BTreeMap<Position, QueuedMessage>,
}

impl HubQueue {
    /// An empty queue.
    pub(super) fn new(arguments: &[(&'static str, Argument)]) -> Self {
        Self { arguments: arguments.iter().cloned().collect(), next: 0, ready: BTreeMap::new() }
    }

    /// The first argument in which a declaration differs, with what it is here
    /// and there.
    pub(super) fn differs(&self, arguments: &[(&'static str, Argument)]) -> Option<String> {
        let theirs: BTreeMap<_, _> = arguments.iter().cloned().collect();
        let mut names = self.arguments.keys().chain(theirs.keys());
        let name = names.find(|name| self.arguments.get(*name) != theirs.get(*name))?;
        let [ours, theirs] = [&self.arguments, &theirs].map(|all| match all.get(name) {
            None => "none".to_owned(),
            Some(Argument::Text(text)) => format!("'{text}'"),
            Some(Argument::Number(number)) => number.to_string(),
            Some(Argument::Flag(flag)) => flag.to_string(),
        });
        Some(format!("inequivalent arg '{name}': received {theirs} but current is {ours}"))
    }

    /// Whether it refuses one more message.
    pub(super) fn is_full(&self) -> bool {
        let rejects = self.text("x-overflow") == Some("reject-publish");
        rejects && self.number("x-max-length").is_some_and(|max| self.waiting() >= max)
    }

    /// How many messages are ready.
    pub(super) fn waiting(&self) -> u64 {
        self.ready.len() as u64
    }

    /// Where its dead letters go.
    pub(super) fn dead_letter_exchange(&self) -> Option<&str> {
        self.text("x-dead-letter-exchange")
    }

    /// The routing key of its dead letters, if it is not their own.
    pub(super) fn dead_letter_key(&self) -> Option<&str> {
        self.text("x-dead-letter-routing-key")
    }

    /// Adds a message at the end.
    pub(super) fn push(&mut self, message: Arc<Message>, routing_key: Arc<str>) {
        self.ready.insert(Position(self.next), QueuedMessage { message, routing_key, returns: 0 });
        self.next += 1;
    }

    /// Takes the oldest that is ready.
    pub(super) fn pop(&mut self) -> Option<(Position, QueuedMessage)> {
        self.ready.pop_first()
    }

    /// Puts back what was delivered and not settled, where it stood; returns it
    /// as a dead letter instead if it came back too often.
    pub(super) fn put_back(
        &mut self,
        position: Position,
        mut entry: QueuedMessage,
    ) -> Option<QueuedMessage> {
        entry.returns += 1;
        if self.number("x-delivery-limit").is_some_and(|limit| entry.returns > limit) {
            return Some(entry);
        }
        self.ready.insert(position, entry);
        None
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.arguments.get(name)? {
            Argument::Text(text) => Some(text),
            Argument::Number(_) | Argument::Flag(_) => None,
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.arguments.get(name)? {
            Argument::Number(number) => u64::try_from(*number).ok(),
            Argument::Text(_) | Argument::Flag(_) => None,
        }
    }
}
