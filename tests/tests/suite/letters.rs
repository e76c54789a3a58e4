//! Dead letters, as an operator sees to them: at a broker and in a folder.

mod at_the_broker;
mod in_a_folder;
mod killed;

use clutch_tests::poll;
use clutch_tests::process::Output;
use clutch_tests::world::{SOON, World};
use serde_json::Value;

/// Runs `clutch-service dead-letters`.
fn letters(world: &World, arguments: &[&str]) -> Output {
    world.service(&[&["dead-letters"], arguments].concat()).unwrap()
}

/// The dead letters.
fn listed(world: &World) -> Vec<Value> {
    letters(world, &["list", "--json"]).ok().unwrap().json_lines().unwrap()
}

/// The dead letters, once there are so many.
fn until(world: &World, count: usize) -> Vec<Value> {
    poll::until(&format!("{count} dead letters"), SOON, || {
        let listed = listed(world);
        Ok((listed.len() == count).then_some(listed))
    })
    .unwrap()
}

/// The id of a letter.
fn handle(letter: &Value) -> &str {
    letter["handle"].as_str().unwrap()
}

/// A task's message.
fn task(id: &str) -> Vec<u8> {
    let work = r#"{"process":{"argv":["true"]}}"#;
    format!(r#"{{"version":1,"type":"clutch.tasks","tasks":[{{"id":"{id}","work":{work}}}]}}"#)
        .into_bytes()
}

/// Checks what holds wherever the letters are: `put` puts a message into the endpoint's
/// queue, which the endpoint then refuses.
fn a_letter_is_seen_to(world: &World, queue: &str, put: impl Fn(&[u8])) {
    put(b"no envelope \x1b[2J");
    let there = until(world, 1);
    let letter = &there[0];
    assert_eq!((&letter["queue"], &letter["reason"]), (&queue.into(), &"rejected".into()));
    assert_eq!((&letter["bytes"], &letter["tasks"]), (&16.into(), &0.into()));
    assert!(letter["died_at_ms"].as_u64() > Some(1_700_000_000_000), "{letter}");
    assert!(letter["problem"].as_str().unwrap().contains("not a JSON envelope"), "{letter}");

    let text = letters(world, &["list"]).ok().unwrap().text();
    let row = text.lines().nth(1).unwrap();
    for words in [handle(letter), "rejected", queue, "16", "not a JSON envelope"] {
        assert!(row.contains(words), "{text}");
    }
    let shown = letters(world, &["show", handle(letter)]).ok().unwrap().text();
    for words in [handle(letter), &format!("rejected in {queue}"), "no envelope \\u{1b}[2J"] {
        assert!(shown.contains(words), "{shown}");
    }
    let raw = letters(world, &["show", handle(letter), "--raw"]).ok().unwrap().stdout;
    assert_eq!(raw, b"no envelope \x1b[2J");
    let whole = letters(world, &["show", handle(letter), "--json"]).ok().unwrap().json().unwrap();
    assert_eq!(whole["body"], "no envelope \u{1b}[2J");
    assert_eq!(whole["deaths"][0]["count"], 1);
    // Looking has changed nothing.
    assert_eq!(listed(world), there);

    let back = letters(world, &["requeue", handle(letter)]).ok().unwrap().text();
    assert!(back.contains("comes back"), "{back}");
    let again = until(world, 1);
    assert_eq!(handle(&again[0]), handle(letter), "it is the same message");
    let dropped = letters(world, &["drop", "--all", "--json"]).ok().unwrap();
    assert_eq!(dropped.json().unwrap()["done"], "dropped");
    assert!(listed(world).is_empty());

    for command in [&["show", handle(letter)][..], &["drop", handle(letter)], &["requeue", "x"]] {
        let unknown = letters(world, command);
        assert_eq!(unknown.code, 1, "{command:?}");
        assert!(unknown.stderr.contains("there is no dead letter"), "{}", unknown.stderr);
    }
    letters(world, &["requeue", "--all"]).ok().unwrap();
}
