//! Each key is taken, or refused with what it is called here.

use super::super::tests::FILE;
use super::*;

/// The endpoint's file, with a broker at this URL, and a worker's file over it.
fn laid(broker: &str, name: &str, text: &str) -> Result<Config, String> {
    let mut config = Config::parse(FILE).unwrap();
    config.broker.url = broker.to_owned();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    config.lay_worker_file(&path)?;
    config.check()?;
    let function = config.functions.values().next();
    let place = folder.path().display().to_string();
    assert!(function.is_none_or(|function| function.env["PYTHONPATH"].starts_with(&place)));
    Ok(config)
}

const BROKER: &str = "amqp://cluster-a:secret@localhost:5672/%2f";

#[test]
fn a_file_for_amqp_gives_its_topic_and_functions_of_its_tasks() {
    let text = r#"{"url": "amqp://guest:guest@localhost:5672//", "exchange": "test-exchange",
        "topic": "test-tasks", "tasks": ["tasks:TestTask1", "tasks:TestTask2"]}"#;
    let config = laid(BROKER, "worker.json", text).unwrap();
    assert_eq!(config.worker.topics, ["test-tasks"]);
    let names: Vec<&String> = config.functions.keys().collect();
    assert_eq!(names, ["tasks.TestTask1", "tasks.TestTask2"]);
    let command = &config.functions["tasks.TestTask1"].command;
    assert_eq!(command[1..], ["-m", "clutch.named", "tasks:TestTask1"]);
    assert!(config.offer().topics.contains("test-tasks"));
}

#[test]
fn a_file_for_a_folder_is_taken_where_the_endpoint_is_at_that_folder() {
    let text = "exchange = \"test-exchange\"\ntopic = \"test-tasks\"\n\
        tasks = [\"tasks:TestTask1\"]\ntransport = \"filesystem\"\n\
        [transport_options]\ndata_folder_in = \"/tmp/tasks\"\ndata_folder_out = \"/tmp/tasks/\"\n";
    assert_eq!(laid("file:///tmp/tasks", "w.toml", text).unwrap().functions.len(), 1);
    let refused = |broker: &str| laid(broker, "w.toml", text).unwrap_err();
    assert!(refused("file:///elsewhere").contains("--broker file:///tmp/tasks"));
    assert!(refused(BROKER).contains("broker.url"));
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_name_here() {
    for (key, told) in [
        ("url = \"amqp://guest:hidden@other:5672//\"", "broker.url"),
        ("url = 1", "url is no text"),
        ("transport = \"redis\"", "there are filesystem and amqp"),
        ("transport = \"filesystem\"", "begins with file://"),
        ("topics = [\"a\"]", "worker.topics"),
        ("threads_count = 4", "engine.slots"),
        ("topik = \"a\"", "'topik' is no key"),
        ("topic = \"a b\"", "'a b'"),
        ("tasks = [\"tasks.TestTask1\"]", "module:Class"),
        ("tasks = [\"a:B\", \"a:B\"]", "there already"),
        ("transport_options = {confirm = true}", "no counterpart"),
        ("transport_options = {data_folder_in = \"/a\", data_folder_out = \"/b\"}", "one folder"),
        ("topic = ", "1"),
    ] {
        let error = laid(BROKER, "w.toml", key).unwrap_err();
        assert!(error.contains(told), "{key}: {error}");
        assert!(!error.contains("secret") && !error.contains("hidden"), "{error}");
    }
}

#[test]
fn urls_name_one_broker_whoever_logs_in() {
    for same in ["amqp://localhost", "amqp://u:p@localhost:5672/", "amqp://localhost:5672//"] {
        assert_eq!(place(same), place(BROKER), "{same}");
    }
    for other in ["amqps://localhost", "amqp://localhost/v", "amqp://localhost:5673", "file:///a"] {
        assert_ne!(place(other), place(BROKER), "{other}");
    }
}
