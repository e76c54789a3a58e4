//! A client that was written from `design/0002-wire.md` alone, in another language and
//! with a stock AMQP client, submits tasks and reads results.

use crate::{Running, running};
use clutch_tests::world::SOON;
use clutch_tests::{poll, process, python, skip, workspace};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Publishes what endpoints tell the service and strangers pass by.
fn say_what_is_no_result(run: &Running) {
    let (id, task) = (&run.endpoint.id, uuid::Uuid::now_v7());
    let presence = r#""state_id":"01890a5d-ac96-774b-bcce-b302099a8057",
        "instance":"01890a5d-ac96-774b-bcce-b302099a8058","role":"standby","pending":0"#;
    let lost = format!(
        r#""results":[{{"task_id":"{task}","attempt":1,"outcome":"interrupted","lost":"unknown",
        "ended_at_ms":1,"endpoint_id":"{id}"}}]"#
    );
    let later = r#""percent":50"#;
    for (version, kind, content) in [
        (1, "clutch.presence", presence),
        (1, "clutch.results", &lost),
        (2, "clutch.progress", later),
    ] {
        let body =
            format!(r#"{{"version":{version},"type":"{kind}","endpoint_id":"{id}",{content}}}"#);
        let key = format!("{id}.results");
        let properties = json!({ "type": kind, "content_type": "application/json" });
        run.world.vhost().publish("results", &key, properties, body.as_bytes()).unwrap();
    }
}

#[test]
fn a_stock_client_submits_tasks_and_reads_results() {
    let test = "a_stock_client_submits_tasks_and_reads_results";
    let python = match python::with_pika() {
        Ok(python) => python,
        Err(error) => return skip::because(test, &format!("{error:#}")),
    };
    let Some(run) = running(test) else { return };
    let mut command = Command::new(python);
    command
        .arg(workspace().join("tests/python/stranger.py"))
        .arg(run.world.vhost().url())
        .arg(&run.endpoint.id);
    let done = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                say_what_is_no_result(&run);
                poll::pause(Duration::from_millis(100));
            }
        });
        let output = process::run(command, b"", 2 * SOON);
        done.store(true, Ordering::Relaxed);
        output.unwrap().ok().unwrap()
    });
    let results = output.json().unwrap();
    assert_eq!(results["passed_by"], json!(["clutch.presence", "clutch.progress", "unknown"]));
    let field = |name: &str, field: &str| results[name][field].clone();
    assert_eq!(field("sum", "outcome"), "succeeded");
    let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(field("sum", "stdout").as_str().unwrap().starts_with(of_abc));
    assert_eq!(field("greet", "outcome"), "failed");
    assert_eq!(field("greet", "exit_code"), 4);
    assert_eq!(field("greet", "stdout"), "hello\n");
    assert_eq!(field("bytes", "stdout_hex"), "fffe");
    assert_eq!(field("slow", "outcome"), "timed_out");
    assert_eq!(field("empty", "outcome"), "rejected");
    assert!(field("empty", "reason").as_str().unwrap().contains("argv is empty"));
    assert_eq!(field("cat", "stdout_hex"), "ff00");

    // The endpoint passes a later control message by, and refuses later tasks in words.
    assert_eq!(field("later", "outcome"), "rejected");
    assert!(field("later", "reason").as_str().unwrap().contains("version 2"));
    let letters = run.world.vhost().take("dead-letters", 9).unwrap();
    let mut bodies: Vec<Value> =
        letters.iter().map(|letter| serde_json::from_slice(&letter.body).unwrap()).collect();
    bodies.retain(|body| body["type"] != "clutch.results");
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(bodies[0]["tasks"][0]["id"], field("later", "task_id"));

    // The service records what strangers submit, too.
    for name in ["sum", "cat", "slow"] {
        let id = field(name, "task_id");
        poll::until(&format!("{name} to be recorded"), SOON, || {
            let tasks = run.world.service(&["tasks", "--json"])?.ok()?.text();
            Ok(tasks.contains(id.as_str().unwrap()).then_some(()))
        })
        .unwrap();
        let shown = run.world.service(&["show", id.as_str().unwrap(), "--json"]).unwrap();
        assert_eq!(shown.json().unwrap()["results"].as_array().map(Vec::len), Some(1));
    }
    assert_ne!(results, Value::Null);
}
