//! Names are taken as they are, down to the last byte.

use super::*;

/// Names that are easily mistaken for each other, or for something else.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "tasks",
        "a.tasks",
        "tasks.a",
        "a.tasks.a",
        "xtasks",
        "tasksx",
        "Tasks",
        "tasks ",
        " tasks",
        "tasks.",
        ".tasks",
        ".",
        "..",
        "...",
        "a/b",
        "a%2fb",
        "a%2Fb",
        "a\\b",
        "/",
        "../tasks",
        "/tasks",
        "tasks/",
        "100%",
        "%",
        "%%",
        "two words",
        "tab\there",
        "a:b",
        "a*b",
        "#",
        "*",
        "-",
        "~",
        "é",
        "e\u{301}",
        "ü.tasks",
        "任务",
        "🦀",
        "'\"",
        "NUL",
        "con",
    ]
    .map(str::to_owned)
    .into();
    names.extend(["n".repeat(255), "n".repeat(254), "é".repeat(127), "/".repeat(255)]);
    names
}

pub(super) async fn queues_with_odd_and_similar_names_are_apart(site: &impl Site) {
    let connection = connect(&site.url()).await;
    let mut outlet = connection.outlet().await.unwrap();
    for name in odd_names() {
        connection.declare(&queue(&name, &[])).await.unwrap_or_else(|f| panic!("{name}: {f}"));
    }
    for name in odd_names() {
        publish(outlet.as_mut(), &name, [&name]).await;
    }
    // A connection that did not declare the names finds them again as they are kept.
    let connection = connect(&site.url()).await;
    for name in odd_names() {
        let mut inlet = shared(connection.as_ref(), &name, 8).await;
        assert_eq!(ids(&take(inlet.as_mut(), 1).await), [name.as_str()]);
        nothing_else(connection.as_ref(), &name, inlet.as_mut()).await;
    }
}

pub(super) async fn odd_routing_keys_and_exchanges_are_taken_as_they_are(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    for name in odd_names() {
        let key = format!("{}.x", name.chars().take(60).collect::<String>().replace('.', "-"));
        let topic = exchange(&name, ExchangeKind::Topic, &[("q", "*.x")]);
        connection.declare(&topic).await.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        outlet.publish(&by(&name, &key), message(&name)).await.unwrap();
        let settled = settle(outlet.as_mut()).await;
        assert_eq!(settled[0].1, Settlement::Confirmed, "{name}");
        let there = take(inlet.as_mut(), 1).await;
        assert_eq!(ids(&there), [name.as_str()]);
        inlet.acknowledge(there[0].tag).await.unwrap();
    }
}
