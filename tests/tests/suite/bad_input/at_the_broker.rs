//! Wrong messages in the queues.

use super::still_works;
use crate::running;
use clutch_tests::poll;
use clutch_tests::world::{SOON, World};
use serde_json::{Value, json};

/// A message, and what becomes of it.
struct Bad {
    input: &'static str,
    body: Vec<u8>,
    /// Words of the recorded `rejected` result; nothing where the task
    /// cannot be known.
    reason: Option<&'static str>,
    /// Whether the message is kept as a dead letter.
    dead: bool,
}

fn envelope(tasks: Value) -> Vec<u8> {
    json!({ "version": 1, "type": "clutch.tasks", "tasks": tasks }).to_string().into_bytes()
}

fn process(id: &str, process: Value) -> Value {
    json!({ "id": id, "work": { "process": process } })
}

/// The messages; `id` is the task that each is about.
fn table(id: &str) -> Vec<Bad> {
    let whole =
        String::from_utf8(envelope(json!([process(id, json!({ "argv": ["true"] }))]))).unwrap();
    let task = |input, what: Value, reason| {
        let body = envelope(json!([process(id, what)]));
        Bad { input, body, reason: Some(reason), dead: false }
    };
    let unreadable = |input, body: &str, reason| Bad {
        input,
        body: body.as_bytes().to_vec(),
        reason: Some(reason),
        dead: true,
    };
    let mut large = whole.clone().into_bytes();
    large.resize(20_000_000, b' ');
    vec![
        unreadable("truncated JSON", &whole[..40], "not a JSON envelope"),
        unreadable("no JSON", "hello", "not a JSON envelope"),
        unreadable(
            "a wrong version",
            &whole.replace("\"version\":1", "\"version\":2"),
            "version 2",
        ),
        unreadable("no version", &whole.replace("\"version\":1", "\"v\":1"), "no version"),
        unreadable("a wrong type", &whole.replace("clutch.tasks", "clutch.news"), "clutch.news"),
        unreadable("no tasks", &whole.replace("\"tasks\":[", "\"x\":["), "list of tasks"),
        unreadable(
            "work that does not exist",
            &whole.replace("\"process\"", "\"magic\""),
            "cannot be read",
        ),
        Bad { input: "20 MB", body: large, reason: Some("more than the limit"), dead: true },
        task("an empty argv", json!({ "argv": [] }), "argv is empty"),
        task("a NUL in argv", json!({ "argv": ["a", "b\0c"] }), "argv[1] contains a NUL"),
        task("a NUL in env", json!({ "argv": ["true"], "env": { "A": "\0" } }), "NUL"),
        task("'=' in a name", json!({ "argv": ["true"], "env": { "A=B": "" } }), "'A=B'"),
        task(
            "a relative folder",
            json!({ "argv": ["true"], "cwd": "tmp" }),
            "not an absolute path",
        ),
    ]
}

fn rejection(world: &World, id: &str) -> String {
    poll::until("the rejection to be recorded", SOON, || {
        let shown = world.service(&["show", id, "--json"])?;
        let shown = if shown.code == 0 { shown.json()? } else { Value::Null };
        Ok((shown["state"] == "rejected").then(|| shown["results"][0]["reason"].to_string()))
    })
    .unwrap()
}

#[test]
fn bad_messages_are_rejected_in_words_and_kept_if_they_cannot_be_read() {
    let test = "bad_messages_are_rejected_in_words_and_kept_if_they_cannot_be_read";
    let Some(run) = running(test) else { return };
    let queue = format!("{}.tasks", run.endpoint.id);
    for index in 0..table("").len() {
        let id = uuid::Uuid::new_v4().to_string();
        let Bad { input, body, reason, dead } = table(&id).remove(index);
        let properties = json!({ "correlation_id": id, "type": "clutch.tasks" });
        let vhost = run.world.vhost();
        if let Err(error) = vhost.publish("", &queue, properties, &body) {
            // RabbitMQ 4 takes at most 16 MiB.
            assert_eq!(input, "20 MB", "{error:#}");
            continue;
        }
        let said = rejection(&run.world, &id);
        println!("{input:<28} rejected  {said}");
        assert!(said.contains(reason.unwrap_or_default()), "{input}: {said}");
        if dead {
            assert!(letters(&run.world, 1) == [body], "{input}: another dead letter");
        }
        assert!(vhost.take("dead-letters", 9).unwrap().is_empty(), "{input}: more dead letters");
        still_works(&run.world, input);
    }
}

/// The bodies of that many dead letters.
fn letters(world: &World, count: usize) -> Vec<Vec<u8>> {
    let mut letters = Vec::new();
    poll::until("a dead letter", SOON, || {
        letters.extend(world.vhost().take("dead-letters", count)?);
        Ok((letters.len() >= count).then_some(()))
    })
    .unwrap();
    letters.into_iter().map(|letter| letter.body).collect()
}

#[test]
fn a_message_that_names_no_task_is_kept_and_harms_nobody() {
    let Some(run) = running("a_message_that_names_no_task_is_kept_and_harms_nobody") else {
        return;
    };
    let queue = format!("{}.tasks", run.endpoint.id);
    run.world.vhost().publish("", &queue, json!({}), b"\xff\xfe").unwrap();
    assert_eq!(letters(&run.world, 1), [b"\xff\xfe"]);
    still_works(&run.world, "a message without a name");
}

#[test]
fn one_bad_task_in_a_message_does_not_spoil_the_others() {
    let Some(run) = running("one_bad_task_in_a_message_does_not_spoil_the_others") else { return };
    let [good, bad] = [(); 2].map(|()| uuid::Uuid::new_v4().to_string());
    let body = envelope(json!([{ "id": bad }, process(&good, json!({ "argv": ["true"] }))]));
    let queue = format!("{}.tasks", run.endpoint.id);
    run.world.vhost().publish("", &queue, json!({}), &body).unwrap();
    assert!(rejection(&run.world, &bad).contains("cannot be read"));
    poll::until("the good task", SOON, || {
        let shown = run.world.service(&["show", &good, "--json"])?;
        Ok((shown.code == 0 && shown.json()?["state"] == "succeeded").then_some(()))
    })
    .unwrap();
    assert_eq!(letters(&run.world, 1), [body]);
}

#[test]
fn a_result_that_cannot_be_read_is_kept_and_the_service_goes_on() {
    let test = "a_result_that_cannot_be_read_is_kept_and_the_service_goes_on";
    let Some(run) = running(test) else { return };
    let key = format!("{}.results", run.endpoint.id);
    let version = br#"{"version":9,"type":"clutch.results","results":[]}"#;
    for body in [&b"not a result"[..], version] {
        run.world.vhost().publish("results", &key, json!({}), body).unwrap();
        assert_eq!(letters(&run.world, 1), [body]);
        still_works(&run.world, "an unreadable result");
    }
}
