//! The hub's rules as tables, and a run of random calls against a model.

use super::*;
use crate::topology::{Argument, Binding, Exchange, Queue};
use proptest::prelude::*;

fn queue(name: &str, arguments: &[(&'static str, Argument)]) -> Topology {
    let queue = Queue { name: name.to_owned(), arguments: arguments.to_vec() };
    Topology { queues: vec![queue], ..Topology::default() }
}

fn text(value: &str) -> Argument {
    Argument::Text(value.to_owned())
}

fn exchange(name: &str, kind: ExchangeKind, bound: &[(&str, &str)]) -> Topology {
    let binding = |(queue, key): &(&str, &str)| Binding {
        queue: (*queue).to_owned(),
        exchange: name.to_owned(),
        key: (*key).to_owned(),
    };
    Topology {
        exchanges: vec![Exchange { name: name.to_owned(), kind }],
        bindings: bound.iter().map(binding).collect(),
        ..Topology::default()
    }
}

fn options(queue: &str, prefetch: u16, lease: Option<&str>) -> InletOptions {
    InletOptions {
        queue: queue.to_owned(),
        prefetch,
        lease: lease.map(str::to_owned),
        one_by_one: false,
    }
}

/// A hub with queues, and a connection to it.
fn with(queues: &[Topology]) -> (Hub, ConnectionId) {
    let mut hub = Hub::default();
    let id = hub.connect("test");
    for topology in queues {
        hub.declare(id, topology).unwrap();
    }
    (hub, id)
}

fn publish(hub: &mut Hub, exchange: &str, key: &str, id: impl ToString) -> Settlement {
    let to = Destination { exchange: exchange.to_owned(), routing_key: key.to_owned() };
    let message = Message { message_id: Some(id.to_string()), ..Message::default() };
    hub.publish(&to, message).unwrap()
}

/// Takes and acknowledges all that a queue has.
fn drain(hub: &mut Hub, id: ConnectionId, queue: &str) -> Vec<String> {
    let consumer = hub.consume(id, &options(queue, u16::MAX, None)).unwrap();
    let there = hub.take(consumer, usize::MAX).unwrap();
    hub.acknowledge(consumer, Tag(u64::MAX)).unwrap();
    hub.cancel(consumer);
    there.into_iter().map(|delivery| delivery.message.message_id.unwrap()).collect()
}

#[test]
fn a_message_goes_once_to_every_queue_with_a_binding_that_takes_it() {
    let (mut hub, id) = with(&[
        queue("a", &[]),
        queue("b", &[]),
        exchange("topic", ExchangeKind::Topic, &[("a", "*.x"), ("a", "#"), ("b", "y.*")]),
    ]);
    for (number, key) in ["y.x", "z", "y.z"].into_iter().enumerate() {
        assert_eq!(publish(&mut hub, "topic", key, number), Settlement::Confirmed);
    }
    assert_eq!(drain(&mut hub, id, "a"), ["0", "1", "2"]);
    assert_eq!(drain(&mut hub, id, "b"), ["0", "2"]);
}

#[test]
fn a_binding_needs_its_queue_and_its_exchange() {
    let (mut hub, id) = with(&[queue("a", &[])]);
    let stray = exchange("x", ExchangeKind::Fanout, &[("b", "")]);
    assert!(matches!(hub.declare(id, &stray), Err(Fault::Missing(text)) if text.contains("'b'")));
    let bindings = exchange("y", ExchangeKind::Fanout, &[("a", "")]).bindings;
    let stray = Topology { bindings, ..Topology::default() };
    assert!(matches!(hub.declare(id, &stray), Err(Fault::Missing(text)) if text.contains("'y'")));
}

#[test]
fn an_argument_that_differs_is_named() {
    let (mut hub, id) =
        with(&[queue("a", &[("x-one", text("1")), ("x-two", Argument::Flag(true))])]);
    let turned = [("x-two", Argument::Flag(true)), ("x-one", text("1"))];
    hub.declare(id, &queue("a", &turned)).unwrap();
    for (arguments, word) in [
        (vec![("x-one", text("2")), ("x-two", Argument::Flag(true))], "x-one"),
        (vec![("x-one", text("1"))], "x-two"),
        (vec![turned[0].clone(), turned[1].clone(), ("x-three", Argument::Number(3))], "x-three"),
    ] {
        let fault = hub.declare(id, &queue("a", &arguments)).unwrap_err();
        assert!(matches!(&fault, Fault::Mismatch(text) if text.contains(word)), "{fault}");
    }
}

#[test]
fn a_fault_leaves_neither_a_lease_nor_a_consumer() {
    let (mut hub, first) = with(&[queue("a", &[])]);
    let second = hub.connect("second");
    let leased = options("a", 1, Some("lease"));
    let shared = hub.consume(first, &options("a", 1, None)).unwrap();
    assert!(matches!(hub.consume(first, &leased), Err(Fault::Locked(_))));
    assert!(matches!(hub.consume(first, &options("b", 1, Some("lease"))), Err(Fault::Missing(_))));
    hub.cancel(shared);
    hub.consume(second, &leased).unwrap();
    let locked = hub.consume(first, &leased).unwrap_err();
    assert!(matches!(&locked, Fault::Locked(text) if text.contains("'second'")), "{locked}");
}

#[test]
fn a_full_queue_refuses_and_the_others_of_a_fanout_take_it() {
    let full = [("x-max-length", Argument::Number(1)), ("x-overflow", text("reject-publish"))];
    let (mut hub, id) = with(&[
        queue("full", &full),
        queue("open", &[]),
        exchange("both", ExchangeKind::Fanout, &[("full", ""), ("open", "")]),
    ]);
    assert_eq!(publish(&mut hub, "both", "", 1), Settlement::Confirmed);
    assert_eq!(publish(&mut hub, "both", "", 2), Settlement::Refused);
    assert_eq!(drain(&mut hub, id, "full"), ["1"]);
    assert_eq!(drain(&mut hub, id, "open"), ["1", "2"]);
}

#[test]
fn a_message_that_comes_back_too_often_is_a_dead_letter() {
    let (mut hub, id) = with(&[
        queue("dead", &[]),
        exchange("letters", ExchangeKind::Fanout, &[("dead", "")]),
        queue(
            "a",
            &[
                ("x-delivery-limit", Argument::Number(2)),
                ("x-dead-letter-exchange", text("letters")),
            ],
        ),
    ]);
    publish(&mut hub, "", "a", 1);
    for attempt in 0..3 {
        let consumer = hub.consume(id, &options("a", 1, None)).unwrap();
        let there = hub.take(consumer, 1).unwrap();
        assert_eq!(there[0].redelivered, attempt > 0);
        hub.cancel(consumer);
    }
    assert_eq!(drain(&mut hub, id, "a"), [""; 0]);
    assert_eq!(drain(&mut hub, id, "dead"), ["1"]);
}

#[test]
fn a_dead_letter_without_a_place_to_go_is_dropped() {
    for exchange in [None, Some("nowhere")] {
        let arguments: Vec<_> =
            exchange.map(|name| ("x-dead-letter-exchange", text(name))).into_iter().collect();
        let (mut hub, id) = with(&[queue("a", &arguments)]);
        publish(&mut hub, "", "a", 1);
        let consumer = hub.consume(id, &options("a", 1, None)).unwrap();
        let tag = hub.take(consumer, 1).unwrap()[0].tag;
        hub.dead_letter(consumer, tag).unwrap();
        hub.cancel(consumer);
        assert_eq!(drain(&mut hub, id, "a"), [""; 0]);
    }
}

#[test]
fn a_connection_that_ended_is_told_so() {
    let (mut hub, id) = with(&[queue("a", &[])]);
    let consumer = hub.consume(id, &options("a", 1, None)).unwrap();
    hub.disconnect(id);
    let faults = [
        hub.alive(id),
        hub.declare(id, &queue("b", &[])),
        hub.consume(id, &options("a", 1, None)).map(drop),
        hub.take(consumer, 1).map(drop),
        hub.acknowledge(consumer, Tag(1)),
        hub.dead_letter(consumer, Tag(1)),
    ];
    for fault in faults {
        assert!(matches!(fault, Err(Fault::Closed(_))), "{fault:?}");
    }
}

/// One call, on one of two consumers of one queue.
#[derive(Clone, Debug)]
enum Call {
    Publish,
    Take(usize, usize),
    Acknowledge(usize, usize),
    DeadLetter(usize, usize),
    Reopen(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let which = 0..2_usize;
    prop_oneof![
        3 => Just(Call::Publish),
        3 => (which.clone(), 0..6_usize).prop_map(|(who, max)| Call::Take(who, max)),
        2 => (which.clone(), 0..6_usize).prop_map(|(who, nth)| Call::Acknowledge(who, nth)),
        1 => (which.clone(), 0..6_usize).prop_map(|(who, nth)| Call::DeadLetter(who, nth)),
        1 => which.prop_map(Call::Reopen),
    ]
}

/// The expected place of every message, by its number.
#[derive(Default)]
struct Model {
    published: usize,
    ready: BTreeSet<usize>,
    returned: BTreeSet<usize>,
    held: [BTreeMap<Tag, usize>; 2],
    dead: Vec<usize>,
}

impl Model {
    fn nth(&self, who: usize, nth: usize) -> Tag {
        self.held[who].keys().nth(nth).copied().unwrap_or(Tag(0))
    }

    fn take(&mut self, who: usize, prefetch: usize, max: usize, there: &[Delivery]) {
        let room = prefetch - self.held[who].len();
        let expected: Vec<usize> = self.ready.iter().copied().take(room.min(max.max(1))).collect();
        let ids = there.iter().map(|delivery| delivery.message.message_id.clone().unwrap());
        assert_eq!(ids.map(|id| id.parse().unwrap()).collect::<Vec<usize>>(), expected);
        for (delivery, number) in there.iter().zip(expected) {
            assert_eq!(delivery.redelivered, self.returned.contains(&number));
            assert!(self.held[who].last_key_value().is_none_or(|(tag, _)| *tag < delivery.tag));
            self.ready.remove(&number);
            self.held[who].insert(delivery.tag, number);
        }
    }

    fn give_back(&mut self, who: usize) {
        let held = std::mem::take(&mut self.held[who]);
        self.returned.extend(held.values());
        self.ready.extend(held.values());
    }
}

proptest! {
    #[test]
    fn every_message_is_where_the_calls_put_it(
        calls in prop::collection::vec(call(), 1..200),
        prefetch in 1..5_u16,
    ) {
        let (mut hub, id) = with(&[
            queue("dead", &[]),
            queue("q", &[("x-dead-letter-exchange", text("letters"))]),
            exchange("letters", ExchangeKind::Fanout, &[("dead", "")]),
        ]);
        let shared = options("q", prefetch, None);
        let mut consumers = [(); 2].map(|()| hub.consume(id, &shared).unwrap());
        let mut model = Model::default();
        for call in calls {
            match call {
                Call::Publish => {
                    publish(&mut hub, "", "q", model.published);
                    model.ready.insert(model.published);
                    model.published += 1;
                }
                Call::Take(who, max) => {
                    let there = hub.take(consumers[who], max).unwrap();
                    model.take(who, prefetch.into(), max, &there);
                }
                Call::Acknowledge(who, nth) => {
                    let tag = model.nth(who, nth);
                    hub.acknowledge(consumers[who], tag).unwrap();
                    model.held[who].retain(|held, _| *held > tag);
                }
                Call::DeadLetter(who, nth) => {
                    let tag = model.nth(who, nth);
                    hub.dead_letter(consumers[who], tag).unwrap();
                    model.dead.extend(model.held[who].remove(&tag));
                }
                Call::Reopen(who) => {
                    hub.cancel(consumers[who]);
                    consumers[who] = hub.consume(id, &shared).unwrap();
                    model.give_back(who);
                }
            }
        }
        hub.disconnect(id);
        (0..2).for_each(|who| model.give_back(who));
        let id = hub.connect("later");
        let numbers = |ids: Vec<String>| -> Vec<usize> {
            ids.iter().map(|id| id.parse().unwrap()).collect()
        };
        prop_assert_eq!(numbers(drain(&mut hub, id, "q")), Vec::from_iter(model.ready));
        prop_assert_eq!(numbers(drain(&mut hub, id, "dead")), model.dead);
    }
}
