//! The broker's queues, exchanges and bindings, as data. Pure.
//!
//! Only the service declares these. An endpoint declares nothing but its own
//! lease: a short-lived exclusive queue that lives and dies with the connection
//! that consumes.

use crate::id::{EndpointId, ServiceId};
use serde::{Deserialize, Serialize};

/// The topic exchange that every endpoint publishes results to.
pub const RESULTS_EXCHANGE: &str = "results";
/// The durable queue that the service collects results from.
pub const RESULTS_QUEUE: &str = "results";
/// The key that binds [`RESULTS_QUEUE`] to [`RESULTS_EXCHANGE`].
pub const RESULTS_PATTERN: &str = "*.results";
/// The queue that names the owner of the results: it holds no messages, and its arguments name
/// the service ([`owner`]).
pub const OWNER_QUEUE: &str = "results.owner";
/// The exclusive queue that the one service that collects results holds.
pub const SERVICE_LEASE: &str = "results.lease";
/// The exchange that refused messages go to.
pub const DEAD_LETTER_EXCHANGE: &str = "dead-letters";
/// The durable queue that keeps refused messages.
pub const DEAD_LETTER_QUEUE: &str = "dead-letters";
/// The argument of [`OWNER_QUEUE`] that names the service. It is one that every broker
/// compares when a queue is declared again; other names are not compared, or not taken.
const OWNER_ARGUMENT: &str = "x-dead-letter-routing-key";
/// The exclusive queue that a reader of [`DEAD_LETTER_QUEUE`] holds: two at
/// once would each see a part.
pub const DEAD_LETTER_LEASE: &str = "dead-letters.lease";
/// The topic exchange that every endpoint publishes events to.
pub const EVENTS_EXCHANGE: &str = "events";
/// The bounded queue that the service reads events from: when it is full, it refuses more.
pub const EVENTS_QUEUE: &str = "events";
/// The key that binds [`EVENTS_QUEUE`] to [`EVENTS_EXCHANGE`].
pub const EVENTS_PATTERN: &str = "*.events";
/// The most messages in [`EVENTS_QUEUE`].
pub const EVENTS_MAX: i64 = 1000;

/// How often a quorum queue delivers a message again before it is
/// dead-lettered. A cut connection counts as one delivery of everything
/// unacknowledged on it, and `RabbitMQ` 4 drops at 20 by default: too few for a
/// link that flaps, so ours is far above what a bad day brings.
pub const DELIVERY_LIMIT: i64 = 1000;
/// A limit that no message reaches, for a quorum queue with messages that are delivered again
/// and again.
const NO_LIMIT: i64 = i32::MAX as i64;

/// The queue that holds an endpoint's tasks.
#[must_use]
pub fn tasks_queue(id: EndpointId) -> String {
    format!("{id}.tasks")
}

/// The only routing key an endpoint may publish results with.
#[must_use]
pub fn results_key(id: EndpointId) -> String {
    format!("{id}.results")
}

/// The exclusive queue that the one active instance of an endpoint holds.
#[must_use]
pub fn lease_queue(id: EndpointId) -> String {
    format!("{id}.lease")
}

/// The only routing key an endpoint may publish events with.
#[must_use]
pub fn events_key(id: EndpointId) -> String {
    format!("{id}.events")
}

/// The queue that holds the messages by which the service steers an endpoint.
#[must_use]
pub fn control_queue(id: EndpointId) -> String {
    format!("{id}.control")
}

/// How the broker keeps a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// On one node's disk.
    #[default]
    Classic,
    /// Replicated over the nodes of a cluster.
    Quorum,
}

impl QueueKind {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// The kind of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeKind {
    /// Routes by pattern.
    Topic,
    /// Routes everything to every binding.
    Fanout,
}

/// A durable exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// The value of a queue argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A string.
    Text(String),
    /// A signed 64-bit integer.
    Number(i64),
    /// A flag.
    Flag(bool),
}

/// A durable queue with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `x-…` arguments, in the order they are declared.
    pub arguments: Vec<(&'static str, Argument)>,
}

/// A binding of a queue to an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The queue.
    pub queue: String,
    /// The exchange.
    pub exchange: String,
    /// The binding key.
    pub key: String,
}

/// The declarations, in order: exchanges, queues, bindings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// Exchanges.
    pub exchanges: Vec<Exchange>,
    /// Queues.
    pub queues: Vec<Queue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// The topology that all endpoints share: results, dead letters and events.
#[must_use]
pub fn shared(kind: QueueKind) -> Topology {
    let exchange = |name: &str, kind| Exchange { name: name.to_owned(), kind };
    let binding = |queue: &str, exchange: &str, key: &str| Binding {
        queue: queue.to_owned(),
        exchange: exchange.to_owned(),
        key: key.to_owned(),
    };
    Topology {
        exchanges: vec![
            exchange(RESULTS_EXCHANGE, ExchangeKind::Topic),
            exchange(DEAD_LETTER_EXCHANGE, ExchangeKind::Fanout),
            exchange(EVENTS_EXCHANGE, ExchangeKind::Topic),
        ],
        queues: vec![
            dead_letters(kind),
            dead_lettered(RESULTS_QUEUE.to_owned(), kind, DELIVERY_LIMIT),
            events(),
        ],
        bindings: vec![
            binding(DEAD_LETTER_QUEUE, DEAD_LETTER_EXCHANGE, ""),
            binding(RESULTS_QUEUE, RESULTS_EXCHANGE, RESULTS_PATTERN),
            binding(EVENTS_QUEUE, EVENTS_EXCHANGE, EVENTS_PATTERN),
        ],
    }
}

/// The topology of one endpoint besides [`shared`]: its task queue and its control queue.
#[must_use]
pub fn endpoint(id: EndpointId, kind: QueueKind) -> Topology {
    let own = |name: String, delivery_limit: i64| {
        let mut queue = dead_lettered(name, kind, delivery_limit);
        if kind == QueueKind::Quorum {
            queue.arguments.push(("x-single-active-consumer", Argument::Flag(true)));
        }
        queue
    };
    // What is in force there comes again as often as a session begins.
    let queues = vec![own(tasks_queue(id), DELIVERY_LIMIT), own(control_queue(id), NO_LIMIT)];
    Topology { queues, ..Topology::default() }
}

/// The mark that the results are those of one service: a queue with its id among its
/// arguments. A broker refuses to declare it with other arguments than it has, so two
/// services cannot both have declared it, and neither needs to hold or to read anything.
#[must_use]
pub fn owner(service: ServiceId, kind: QueueKind) -> Topology {
    let text = |value: &str| Argument::Text(value.to_owned());
    let arguments = vec![
        queue_type(kind),
        ("x-dead-letter-exchange", text(DEAD_LETTER_EXCHANGE)),
        (OWNER_ARGUMENT, text(&service.to_string())),
    ];
    let queue = Queue { name: OWNER_QUEUE.to_owned(), arguments };
    Topology { queues: vec![queue], ..Topology::default() }
}

/// Whether a binding takes a message, as AMQP has it.
///
/// A topic exchange compares words, which dots set apart: `*` stands for exactly
/// one word, an empty one included, and `#` for any number of them. An empty key
/// has no words. A fanout exchange takes everything.
#[must_use]
pub fn matches(kind: ExchangeKind, binding_key: &str, routing_key: &str) -> bool {
    match kind {
        ExchangeKind::Topic => words_match(binding_key, routing_key),
        ExchangeKind::Fanout => true,
    }
}

/// One row of the table of which prefix of the pattern takes which prefix of the
/// key, for each word of the pattern: time grows with the product of both.
fn words_match(pattern: &str, key: &str) -> bool {
    let key: Vec<&str> = words(key).collect();
    let mut taken = vec![false; key.len() + 1];
    taken[0] = true;
    for word in words(pattern) {
        let mut before = taken[0];
        taken[0] &= word == "#";
        for (index, of_key) in key.iter().enumerate() {
            let above = taken[index + 1];
            taken[index + 1] = match word {
                "#" => above || taken[index],
                "*" => before,
                exact => before && exact == *of_key,
            };
            before = above;
        }
    }
    taken[key.len()]
}

fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').filter(move |_| !key.is_empty())
}

fn queue_type(kind: QueueKind) -> (&'static str, Argument) {
    let broker_type = match kind {
        QueueKind::Classic => "classic",
        QueueKind::Quorum => "quorum",
    };
    ("x-queue-type", Argument::Text(broker_type.to_owned()))
}

/// The queue that keeps them. Looking at a dead letter is a delivery of it, and
/// `RabbitMQ` 4 drops what was delivered 20 times from a quorum queue: a limit of
/// one's own is the only way out that 3.10 takes as well.
fn dead_letters(kind: QueueKind) -> Queue {
    let mut arguments = vec![queue_type(kind)];
    if kind == QueueKind::Quorum {
        arguments.push(("x-delivery-limit", Argument::Number(NO_LIMIT)));
    }
    Queue { name: DEAD_LETTER_QUEUE.to_owned(), arguments }
}

/// The queue that keeps events while the service does not read them. Classic whatever the
/// others are: an event may be lost, and is not worth copies.
fn events() -> Queue {
    let arguments = vec![
        queue_type(QueueKind::Classic),
        ("x-max-length", Argument::Number(EVENTS_MAX)),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
    ];
    Queue { name: EVENTS_QUEUE.to_owned(), arguments }
}

/// A queue that keeps its refused messages as dead letters. Only quorum queues count
/// deliveries, and only they can promise that a dead letter is not lost on its
/// way, which asks for `reject-publish`.
fn dead_lettered(name: String, kind: QueueKind, delivery_limit: i64) -> Queue {
    let text = |value: &str| Argument::Text(value.to_owned());
    let mut arguments =
        vec![queue_type(kind), ("x-dead-letter-exchange", text(DEAD_LETTER_EXCHANGE))];
    if kind == QueueKind::Quorum {
        arguments.push(("x-delivery-limit", Argument::Number(delivery_limit)));
        arguments.push(("x-dead-letter-strategy", text("at-least-once")));
        arguments.push(("x-overflow", text("reject-publish")));
    }
    Queue { name, arguments }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let id: EndpointId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(tasks_queue(id), "01890a5d-ac96-774b-bcce-b302099a8057.tasks");
        assert_eq!(results_key(id), "01890a5d-ac96-774b-bcce-b302099a8057.results");
        assert_eq!(lease_queue(id), "01890a5d-ac96-774b-bcce-b302099a8057.lease");
        assert_eq!(control_queue(id), "01890a5d-ac96-774b-bcce-b302099a8057.control");
        assert_eq!(events_key(id), "01890a5d-ac96-774b-bcce-b302099a8057.events");
    }

    #[test]
    fn every_queue_is_dead_lettered_but_the_dead_letters_and_the_events() {
        for kind in [QueueKind::Classic, QueueKind::Quorum] {
            let queues = [shared(kind).queues, endpoint(EndpointId::new(), kind).queues].concat();
            for queue in queues {
                let dead_lettered =
                    queue.arguments.iter().any(|(name, _)| *name == "x-dead-letter-exchange");
                let may_lose = [DEAD_LETTER_QUEUE, EVENTS_QUEUE].contains(&queue.name.as_str());
                assert_eq!(dead_lettered, !may_lose, "{}", queue.name);
            }
        }
    }

    #[test]
    fn a_dead_letter_may_be_looked_at_for_ever() {
        let letters = shared(QueueKind::Quorum).queues.remove(0);
        assert_eq!(letters.name, DEAD_LETTER_QUEUE);
        let limit = ("x-delivery-limit", Argument::Number(i64::from(i32::MAX)));
        assert!(letters.arguments.contains(&limit));
    }

    #[test]
    fn a_topic_matches_word_by_word() {
        for (pattern, key, expected) in [
            ("*.results", "a.results", true),
            ("*.results", "a.b.results", false),
            ("*.results", "results", false),
            ("*.results", ".results", true),
            ("*.results", "a.results.", false),
            ("*.results", "a.resultsx", false),
            ("a.results", "a.results", true),
            ("a.results", "b.a.results", false),
            ("*", "a", true),
            ("*", "", false),
            ("*.*", ".", true),
            ("*.*", "a", false),
            ("a*", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("a", "a.", false),
            (".", ".", true),
            ("#", "", true),
            ("#", "a", true),
            ("#", "a..b", true),
            ("#.#", "", true),
            ("#.#", "a", true),
            ("#.a", "a", true),
            ("#.a", "x.y.a", true),
            ("#.a", "x.y.b", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("a.#", "b.a", false),
            ("a.#.b", "a.b", true),
            ("a.#.b", "a.x.b.y.b", true),
            ("a.#.b", "a.x", false),
            ("*.#", "", false),
            ("*.#", "a", true),
            ("#.*.#.a", "a", false),
            ("#.*.#.a", "x.a", true),
            ("é.*", "é.ü", true),
        ] {
            assert_eq!(matches(ExchangeKind::Topic, pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn many_wildcards_do_not_take_for_ever() {
        let pattern = vec!["#.*"; 60].join(".");
        let key = vec!["a"; 120].join(".");
        assert!(matches(ExchangeKind::Topic, &pattern, &key));
        assert!(!matches(ExchangeKind::Topic, &format!("{pattern}.b"), &key));
    }

    #[test]
    fn a_fanout_takes_everything() {
        for key in ["", "a", "a.b"] {
            assert!(matches(ExchangeKind::Fanout, "", key));
        }
    }
}
