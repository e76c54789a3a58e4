//! Exchanges, queues and bindings of a root: one file, replaced as a whole.
//! Routing is a pure function of it.

use super::disk;
use super::names::LONGEST_NAME;
use super::root::Root;
use crate::link::{Destination, Fault};
use crate::system::removal;
use crate::topology::{Argument, ExchangeKind, Topology, matches};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// The queue arguments that a folder honours. The rest of what
/// `RabbitMQ` offers (times to live, lengths in bytes) is refused rather than
/// ignored.
const ARGUMENTS: [&str; 8] = [
    "x-queue-type",
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    DELIVERY_LIMIT,
    MAX_LENGTH,
    OVERFLOW,
    "x-dead-letter-strategy",
    "x-single-active-consumer",
];
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const DEAD_LETTER_KEY: &str = "x-dead-letter-routing-key";
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const MAX_LENGTH: &str = "x-max-length";
const OVERFLOW: &str = "x-overflow";
/// The overflow policy of a full queue: the only one that loses nothing.
const REJECT: &str = "reject-publish";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Topic,
    Fanout,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct StoredBinding {
    exchange: String,
    queue: String,
    key: String,
}

/// The declared exchanges, queues and bindings.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    exchanges: BTreeMap<String, Kind>,
    queues: BTreeMap<String, BTreeMap<String, Value>>,
    bindings: BTreeSet<StoredBinding>,
}

impl Table {
    /// Reads a root's; an empty one where nothing was declared yet.
    fn load(root: &Root) -> Result<Self, Fault> {
        let path = root.topology();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                root.is_there()?;
                return Ok(Self::default());
            }
            Err(error) => return Err(root.fault("reading", &path, &error)),
        };
        serde_json::from_slice(&text).map_err(|error| {
            Fault::Protocol(format!(
                "{} cannot be read: {error}; restore it, or move it away and provision again",
                path.display()
            ))
        })
    }

    /// The queues a message goes to.
    ///
    /// # Errors
    /// When there is no such exchange.
    pub(super) fn route(&self, to: &Destination) -> Result<Vec<&str>, Fault> {
        if to.exchange.is_empty() {
            let queue = self.queues.get_key_value(&to.routing_key);
            return Ok(queue.map(|(name, _)| name.as_str()).into_iter().collect());
        }
        let Some(kind) = self.exchanges.get(&to.exchange) else {
            return Err(Fault::Missing(format!("no exchange '{}'", to.exchange)));
        };
        let kind = match kind {
            Kind::Topic => ExchangeKind::Topic,
            Kind::Fanout => ExchangeKind::Fanout,
        };
        let bound = self.bindings.iter().filter(|binding| binding.exchange == to.exchange);
        let queues: BTreeSet<&str> = bound
            .filter(|binding| matches(kind, &binding.key, &to.routing_key))
            .map(|binding| binding.queue.as_str())
            .collect();
        Ok(queues.into_iter().collect())
    }

    /// The names of all queues.
    pub(super) fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    /// Whether there is such a queue.
    pub(super) fn has_queue(&self, name: &str) -> bool {
        self.queues.contains_key(name)
    }

    /// Where a queue's refused messages go.
    pub(super) fn dead_letter_exchange(&self, queue: &str) -> Option<&str> {
        self.text(queue, DEAD_LETTER_EXCHANGE)
    }

    /// The routing key that they go there with, if it is a certain one.
    pub(super) fn dead_letter_key(&self, queue: &str) -> Option<&str> {
        self.text(queue, DEAD_LETTER_KEY)
    }

    fn text(&self, queue: &str, argument: &str) -> Option<&str> {
        match self.queues.get(queue)?.get(argument)? {
            Value::Text(text) => Some(text),
            Value::Flag(_) | Value::Number(_) => None,
        }
    }

    /// How often a queue delivers a message again.
    pub(super) fn delivery_limit(&self, queue: &str) -> Option<u64> {
        self.number(queue, DELIVERY_LIMIT)
    }

    /// How many messages may wait in a queue.
    pub(super) fn max_length(&self, queue: &str) -> Option<u64> {
        self.number(queue, MAX_LENGTH)
    }

    fn number(&self, queue: &str, argument: &str) -> Option<u64> {
        match self.queues.get(queue)?.get(argument)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            Value::Flag(_) | Value::Text(_) => None,
        }
    }

    /// Adds what is new.
    ///
    /// # Errors
    /// When something exists with other options, or cannot be kept.
    fn add(&mut self, topology: &Topology) -> Result<(), Fault> {
        for exchange in &topology.exchanges {
            check_name(&exchange.name)?;
            let kind = match exchange.kind {
                ExchangeKind::Topic => Kind::Topic,
                ExchangeKind::Fanout => Kind::Fanout,
            };
            let known = *self.exchanges.entry(exchange.name.clone()).or_insert(kind);
            if known != kind {
                return Err(differs("exchange", &exchange.name, &format!("it is {known:?}")));
            }
        }
        for queue in &topology.queues {
            check_name(&queue.name)?;
            let arguments = arguments(&queue.name, &queue.arguments)?;
            let known = self.queues.entry(queue.name.clone()).or_insert_with(|| arguments.clone());
            if *known != arguments {
                return Err(differs("queue", &queue.name, &difference(known, &arguments)));
            }
        }
        for binding in &topology.bindings {
            if !self.exchanges.contains_key(&binding.exchange) {
                return Err(Fault::Missing(format!("no exchange '{}'", binding.exchange)));
            }
            if !self.queues.contains_key(&binding.queue) {
                return Err(Fault::Missing(format!("no queue '{}'", binding.queue)));
            }
            self.bindings.insert(StoredBinding {
                exchange: binding.exchange.clone(),
                queue: binding.queue.clone(),
                key: binding.key.clone(),
            });
        }
        Ok(())
    }
}

/// Checks that there is such a queue.
///
/// # Errors
/// [`Fault::Missing`] when there is none.
pub(super) fn check_queue(root: &Root, name: &str) -> Result<(), Fault> {
    if Table::load(root)?.has_queue(name) {
        return Ok(());
    }
    Err(Fault::Missing(format!("no queue '{name}' in {}", root.path().display())))
}

/// Removes a queue: from the table first, so that nothing more is put into it.
pub(super) fn remove(root: &Root, queue: &str) -> Result<(), Fault> {
    let _turn = take_turn(root)?;
    let mut table = Table::load(root)?;
    if table.queues.remove(queue).is_some() {
        table.bindings.retain(|binding| binding.queue != queue);
        write(root, &table)?;
    }
    let folder = root.queue(queue);
    removal::remove_all(&folder).map_err(|error| root.fault("removing", &folder, &error))
}

/// Waits for the turn to change what is declared, which lasts as long as the file.
fn take_turn(root: &Root) -> Result<std::fs::File, Fault> {
    let turn = root.declaring();
    let failed = |error: std::io::Error| root.fault("declaring, which writes", &turn, &error);
    let lock = disk::open_for_writing(&turn, root.access()).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

fn write(root: &Root, table: &Table) -> Result<(), Fault> {
    let path = root.topology();
    let bytes = serde_json::to_vec_pretty(table)
        .map_err(|error| Fault::Protocol(format!("writing the topology: {error}")))?;
    disk::replace(&path, &bytes, root.access())
        .map_err(|error| root.fault("declaring, which writes", &path, &error))
}

/// Declares a topology. Two that declare at once take turns.
pub(super) fn declare(root: &Root, topology: &Topology) -> Result<(), Fault> {
    let failed = |path: &std::path::Path, error: std::io::Error| {
        root.fault("declaring, which writes", path, &error)
    };
    let _turn = take_turn(root)?;
    let known = Table::load(root)?;
    let mut table = known.clone();
    table.add(topology)?;
    let queues = root.path().join("queues");
    for queue in &topology.queues {
        for folder in [root.ready(&queue.name), root.claimed(&queue.name)] {
            disk::make_folders(&queues, &folder, root.access()).map_err(|e| failed(&folder, e))?;
        }
    }
    if table == known {
        return Ok(());
    }
    write(root, &table)
}

/// A table that is read again only when its file was replaced.
#[derive(Default)]
pub(super) struct Cached {
    table: Arc<Table>,
    /// Inode, length and time of change of the file it was read from.
    stamp: Option<(u64, u64, i64, i64)>,
}

impl Cached {
    /// The table as it is on disk.
    pub(super) fn get(&mut self, root: &Root) -> Result<Arc<Table>, Fault> {
        let stamp = std::fs::metadata(root.topology())
            .ok()
            .map(|found| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()));
        if stamp.is_none() || stamp != self.stamp {
            self.table = Arc::new(Table::load(root)?);
            self.stamp = stamp;
        }
        Ok(Arc::clone(&self.table))
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    if name.len() > LONGEST_NAME {
        return Err(Fault::Protocol(format!("the name '{name}' is longer than 255 bytes")));
    }
    Ok(())
}

fn arguments(
    queue: &str,
    arguments: &[(&'static str, Argument)],
) -> Result<BTreeMap<String, Value>, Fault> {
    let mut table = BTreeMap::new();
    for (name, value) in arguments {
        if !ARGUMENTS.contains(name) {
            return Err(Fault::Protocol(format!(
                "the queue '{queue}' asks for {name}, which a folder cannot keep"
            )));
        }
        let value = match value {
            Argument::Text(text) => Value::Text(text.clone()),
            Argument::Number(number) => Value::Number(*number),
            Argument::Flag(flag) => Value::Flag(*flag),
        };
        table.insert((*name).to_owned(), value);
    }
    let rejects = table.get(OVERFLOW) == Some(&Value::Text(REJECT.to_owned()));
    if table.contains_key(MAX_LENGTH) && !rejects {
        return Err(Fault::Protocol(format!(
            "the queue '{queue}' asks for {MAX_LENGTH} without {OVERFLOW}={REJECT}: what is too \
             much would be lost, which a folder does not do"
        )));
    }
    Ok(table)
}

fn difference(known: &BTreeMap<String, Value>, given: &BTreeMap<String, Value>) -> String {
    let differing = ARGUMENTS.iter().filter(|name| known.get(**name) != given.get(**name));
    let each = differing.map(|name| {
        format!(
            "inequivalent arg '{name}': received {}, current is {}",
            text(given.get(*name)),
            text(known.get(*name))
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value::Flag(flag)) => format!("'{flag}'"),
        Some(Value::Number(number)) => format!("'{number}'"),
        Some(Value::Text(text)) => format!("'{text}'"),
    }
}

fn differs(what: &str, name: &str, how: &str) -> Fault {
    Fault::Mismatch(format!(
        "the {what} '{name}' was declared with other options ({how}); delete it when it is \
         empty, or provision with the options it has"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EndpointId;
    use crate::topology::{self, Queue, QueueKind};

    fn to(exchange: &str, routing_key: &str) -> Destination {
        Destination { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }
    }

    #[test]
    fn messages_are_routed_by_queue_name_pattern_and_fanout() {
        let id = EndpointId::new();
        let mut table = Table::default();
        table.add(&topology::shared(QueueKind::Classic)).unwrap();
        table.add(&topology::endpoint(id, QueueKind::Quorum)).unwrap();
        let tasks = topology::tasks_queue(id);
        assert_eq!(table.route(&to("", &tasks)).unwrap(), [tasks.as_str()]);
        assert_eq!(table.route(&to("", &tasks[1..])).unwrap(), [""; 0]);
        assert_eq!(table.route(&to("results", &topology::results_key(id))).unwrap(), ["results"]);
        assert_eq!(table.route(&to("results", "a.b.results")).unwrap(), [""; 0]);
        assert_eq!(table.route(&to("dead-letters", "any")).unwrap(), ["dead-letters"]);
        assert!(matches!(table.route(&to("nowhere", "any")), Err(Fault::Missing(_))));
        assert_eq!(table.dead_letter_exchange(&tasks), Some("dead-letters"));
        assert_eq!(table.delivery_limit(&tasks), Some(1000));
        assert_eq!(table.delivery_limit("results"), None);
    }

    #[test]
    fn what_differs_or_cannot_be_kept_is_told() {
        let id = EndpointId::new();
        let mut table = Table::default();
        table.add(&topology::endpoint(id, QueueKind::Classic)).unwrap();
        let before = table.clone();
        table.add(&topology::endpoint(id, QueueKind::Classic)).unwrap();
        assert_eq!(table, before);
        let fault = table.add(&topology::endpoint(id, QueueKind::Quorum)).unwrap_err();
        assert!(
            matches!(&fault, Fault::Mismatch(text) if text.contains("x-queue-type")),
            "{fault}"
        );
        let bounded =
            Queue { name: "q".to_owned(), arguments: vec![("x-message-ttl", Argument::Number(5))] };
        let topology = Topology { queues: vec![bounded], ..Topology::default() };
        let fault = table.add(&topology).unwrap_err();
        assert!(fault.to_string().contains("x-message-ttl"), "{fault}");
    }
}
