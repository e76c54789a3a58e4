//! Somebody who has only read `design/0002-wire.md`, in another language and
//! with a stock AMQP client, submits tasks and reads results.

use crate::running;
use clutch_tests::world::SOON;
use clutch_tests::{poll, process, python, skip, workspace};
use serde_json::Value;
use std::process::Command;

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
    let output = process::run(command, b"", 2 * SOON).unwrap().ok().unwrap();
    let results = output.json().unwrap();
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
