//! Workers that are written in the older way: both of its examples, over AMQP and over a folder.

use clutch_tests::world::{SOON, World};
use serde_json::{Value, json};

/// The module of the examples.
const TASKS: &str = "\
class TestTask1:
    def execute(self, *args):
        return sum(args)


class TestTask2:
    def execute(self, **kwargs):
        return sorted(kwargs)
";

/// A pair of which the endpoint runs with a worker's file runs both tasks of the file; nothing
/// else of its module.
fn runs(world: &World, worker: &Value) {
    let endpoint = world.provision("old").unwrap();
    let folder = world.folder();
    std::fs::write(folder.join("tasks.py"), TASKS).unwrap();
    let file = folder.join("worker.json");
    std::fs::write(&file, worker.to_string()).unwrap();
    let _service = world.serve().unwrap();
    let mut daemon = world.run_with(&endpoint, &["--worker", file.to_str().unwrap()]).unwrap();
    let submit = |key: &str, call: &str, options: &[&str]| {
        let words = ["submit", "--topic", "test-tasks", "--key", key, "--call", call];
        world.service(&[&words[..], options].concat()).unwrap().ok().unwrap();
    };
    submit("sum", "tasks.TestTask1", &["--json-arg", "1", "--json-arg", "2"]);
    submit("names", "tasks.TestTask2", &["--json-kwarg", "b=1", "--json-kwarg", "a=2"]);
    submit("none", "tasks.TestTask3", &["--place-within", "1s"]);
    for (key, value) in [("sum", json!(3)), ("names", json!(["a", "b"]))] {
        world.wait(key).unwrap().ok().unwrap();
        assert_eq!(world.result(key).unwrap()["result"]["value"], value, "{key}");
    }
    assert_ne!(world.wait("none").unwrap().code, 0);
    let expired = world.result("none").unwrap();
    assert_eq!(expired["state"], "expired", "{expired}");
    let reason = expired["result"]["reason"].as_str().unwrap();
    for word in ["test-tasks", "tasks.TestTask3", "old", "tasks.TestTask1"] {
        assert!(reason.contains(word), "no {word} in: {reason}");
    }
    daemon.stop(SOON).unwrap();
}

#[test]
fn the_older_example_of_a_worker_over_amqp_runs() {
    let test = "the_older_example_of_a_worker_over_amqp_runs";
    let Some(world) = World::or_skip(test) else { return };
    let worker = json!({
        "url": world.broker(),
        "exchange": "test-exchange",
        "topic": "test-tasks",
        "tasks": ["tasks:TestTask1", "tasks:TestTask2"],
    });
    runs(&world, &worker);
}

#[test]
fn the_older_example_of_a_worker_over_a_folder_runs() {
    let world = World::in_folder().unwrap();
    let worker = json!({
        "exchange": "test-exchange",
        "topic": "test-tasks",
        "tasks": ["tasks:TestTask1", "tasks:TestTask2"],
        "transport": "filesystem",
        "transport_options": {
            "data_folder_in": world.spool(),
            "data_folder_out": world.spool(),
        },
    });
    runs(&world, &worker);
}
