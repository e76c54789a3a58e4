//! Exchanges: which queues a message reaches.

use super::*;

/// Publishes each key, and says which of them reach a queue.
async fn reaching(connection: &dyn Connection, from: &str, keys: &[&str], at: &str) -> Vec<String> {
    let mut outlet = connection.outlet().await.unwrap();
    let mut reached = 0;
    for key in keys {
        outlet.publish(&by(from, key), message(key)).await.unwrap();
        let settled = settle(outlet.as_mut()).await;
        reached += usize::from(settled[0].1 == Settlement::Confirmed);
    }
    let mut inlet = shared(connection, at, 100).await;
    let there = take(inlet.as_mut(), reached).await;
    nothing_else(connection, at, inlet.as_mut()).await;
    ids(&there)
}

pub(super) async fn a_topic_exchange_routes_by_words(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    for (name, pattern, keys, expected) in [
        (
            "results",
            "*.results",
            &["a.results", "b.results", "a.b.results", "results", ".results", "a.resultsx"][..],
            &["a.results", "b.results", ".results"][..],
        ),
        ("all", "a.#", &["a", "a.b.c", "b.a", "ab"], &["a", "a.b.c"]),
        ("exact", "a.b", &["a.b", "a.c", "a.b.c", "a"], &["a.b"]),
    ] {
        let topic = exchange(name, ExchangeKind::Topic, &[("q", pattern)]);
        connection.declare(&topic).await.unwrap();
        assert_eq!(reaching(connection.as_ref(), name, keys, "q").await, expected, "{pattern}");
    }
}

pub(super) async fn a_fanout_exchange_routes_to_every_queue(site: &impl Site) {
    let connection = with_queue(site, "one").await;
    connection.declare(&queue("two", &[])).await.unwrap();
    connection.declare(&queue("three", &[])).await.unwrap();
    let all = exchange("all", ExchangeKind::Fanout, &[("one", ""), ("two", "key")]);
    connection.declare(&all).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    for key in ["", "key", "other"] {
        outlet.publish(&by("all", key), message(format!("to '{key}'"))).await.unwrap();
        assert_eq!(settle(outlet.as_mut()).await[0].1, Settlement::Confirmed);
    }
    for (name, expected) in [("one", 3), ("two", 3), ("three", 0)] {
        let mut inlet = shared(connection.as_ref(), name, 100).await;
        let there = take(inlet.as_mut(), expected).await;
        assert_eq!(ids(&there), ["to ''", "to 'key'", "to 'other'"][..expected], "{name}");
        nothing_else(connection.as_ref(), name, inlet.as_mut()).await;
    }
}

pub(super) async fn several_bindings_of_one_queue_take_a_message_once(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let bound = [("q", "*.results"), ("q", "a.*"), ("q", "#")];
    connection.declare(&exchange("topic", ExchangeKind::Topic, &bound)).await.unwrap();
    let keys = ["a.results", "a.b", "c"];
    assert_eq!(reaching(connection.as_ref(), "topic", &keys, "q").await, keys);
}
