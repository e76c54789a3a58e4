//! The whole path: what is submitted runs, and what ran is recorded.

use crate::running;
use clutch_tests::gate::Gate;
use clutch_tests::oracle::Runs;
use clutch_tests::poll;
use clutch_tests::scenario::{self, Files};
use clutch_tests::world::{SOON, World};
use serde_json::Value;

#[test]
fn outputs_of_real_files_equal_those_computed_directly() {
    let Some(run) = running("outputs_of_real_files_equal_those_computed_directly") else { return };
    let files = Files::find(&["/usr/share"], 300, run.world.folder()).unwrap();
    let compared = scenario::files(&run.world, &run.endpoint, &files).unwrap();
    assert!(compared.perfect(), "{compared:?}");
    for task in run.world.results("files").unwrap() {
        assert_eq!(task["state"], "succeeded");
        assert_eq!(task["result"]["duplicates"], 0);
    }
}

#[test]
fn a_single_task_looks_like_the_command_it_ran() {
    let Some(run) = running("a_single_task_looks_like_the_command_it_ran") else { return };
    let script = "echo out; echo err >&2; exit 3";
    let output = run.world.submit(&run.endpoint, "k", &["--", "sh", "-c", script], SOON).unwrap();
    assert_eq!((output.code, output.text().as_str()), (3, "out\n"));
    assert!(output.stderr.contains("err\n"), "{}", output.stderr);
    let task = run.world.result("k").unwrap();
    let result = &task["result"];
    assert_eq!((&task["state"], &result["exit_code"]), (&Value::from("failed"), &Value::from(3)));
    assert_eq!(result["endpoint_id"], run.endpoint.id.as_str());
    assert!(result["ended_at_ms"].as_u64() >= result["started_at_ms"].as_u64());
    assert!(result["cpu_ms"].is_u64(), "{result}");
}

#[test]
fn an_array_keeps_its_order_and_lines_their_bytes() {
    let Some(run) = running("an_array_keeps_its_order_and_lines_their_bytes") else { return };
    let (world, endpoint) = (&run.world, &run.endpoint);
    let array = ["--array", "1-30", "--", "echo", "n{}"];
    world.submit(endpoint, "array", &array, SOON).unwrap().ok().unwrap();
    let stdout = world.service(&["results", "--key", "array", "--stdout-only"]).unwrap();
    let expected: String = (1..=30).map(|n| format!("n{n}\n")).collect();
    assert_eq!(stdout.text(), expected);

    let lines = "plain\nwith space\n$HOME `id` \"quoted\" '\\n'\ngrüß\n";
    let list = world.folder().join("lines");
    std::fs::write(&list, lines).unwrap();
    let list = list.display().to_string();
    let each = ["--each-line", &list, "--", "printf", "%s\\n"];
    world.submit(endpoint, "lines", &each, SOON).unwrap().ok().unwrap();
    let stdout = world.service(&["results", "--key", "lines", "--stdout-only"]).unwrap();
    assert_eq!(stdout.text(), lines);
}

#[test]
fn output_may_be_any_bytes_and_any_length() {
    let Some(run) = running("output_may_be_any_bytes_and_any_length") else { return };
    let (world, endpoint) = (&run.world, &run.endpoint);
    let bytes = ["--", "printf", "\\377\\000\\376"];
    world.submit(endpoint, "bytes", &bytes, SOON).unwrap().ok().unwrap();
    let stdout = world.service(&["results", "--key", "bytes", "--stdout-only"]).unwrap();
    assert_eq!(stdout.stdout, b"\xff\0\xfe");

    let long = ["--", "sh", "-c", "echo begin; head -c 10000000 /dev/zero | tr '\\0' x; echo end"];
    world.submit(endpoint, "long", &long, SOON).unwrap().ok().unwrap();
    let task = world.result("long").unwrap();
    let kept = task["result"]["stdout"].as_str().unwrap();
    assert!(kept.starts_with("begin\n") && kept.ends_with("end\n"));
    assert!(kept.len() < 300_000, "{} bytes were kept", kept.len());
    assert!(task["result"]["stdout_omitted"].as_u64().unwrap() > 9_000_000);
}

#[test]
fn the_same_key_runs_nothing_twice() {
    let Some(run) = running("the_same_key_runs_nothing_twice") else { return };
    let (world, endpoint) = (&run.world, &run.endpoint);
    let runs = Runs::at(&world.folder().join("runs"));
    let argv = runs.command("echo $1", &["{}"]);
    let mut arguments = vec!["--array", "1-5", "--"];
    arguments.extend(argv.iter().map(String::as_str));
    for _ in 0..3 {
        world.submit(endpoint, "once", &arguments, SOON).unwrap().ok().unwrap();
    }
    let started = runs.read().unwrap();
    assert_eq!(started.len(), 5);
    assert!(started.values().all(|times| *times == 1), "{started:?}");
    assert_eq!(world.results("once").unwrap().len(), 5);
}

#[test]
fn a_task_is_found_by_name_state_key_and_id() {
    let Some(run) = running("a_task_is_found_by_name_state_key_and_id") else { return };
    let world = &run.world;
    world.submit(&run.endpoint, "good", &["--name", "nightly", "--", "true"], SOON).unwrap();
    world.submit(&run.endpoint, "bad", &["--", "false"], SOON).unwrap();
    let list = |arguments: &[&str]| {
        let output = world.service(&[&["tasks", "--json"], arguments].concat()).unwrap();
        output.ok().unwrap().text()
    };
    let id = |key: &str| world.result(key).unwrap()["id"].as_str().unwrap().to_owned();
    let (good, bad) = (id("good"), id("bad"));
    assert!(list(&["--key", "good"]).contains("nightly"));
    let failed = list(&["--status", "failed"]);
    assert!(failed.contains(&bad) && !failed.contains(&good), "{failed}");
    let of_endpoint = list(&["--endpoint", "lab"]);
    assert!(of_endpoint.contains(&bad) && of_endpoint.contains(&good));
    let shown = world.service(&["show", &good, "--json"]).unwrap().ok().unwrap().json().unwrap();
    assert_eq!((&shown["id"], &shown["name"]), (&Value::from(good), &Value::from("nightly")));
}

#[test]
fn a_quorum_queue_carries_tasks_as_well() {
    let Some(world) = World::or_skip("a_quorum_queue_carries_tasks_as_well") else { return };
    let endpoint = world.provision_with("lab", &["--queue", "quorum"]).unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let array = ["--array", "1-50", "--", "echo"];
    world.submit(&endpoint, "k", &array, SOON).unwrap().ok().unwrap();
    let queues = world.vhost().queues().unwrap();
    let tasks = format!("{}.tasks", endpoint.id);
    let queue = queues.iter().find(|queue| queue["name"] == tasks.as_str()).unwrap();
    assert_eq!(queue["type"], "quorum");
}

#[test]
fn both_daemons_stop_with_0_and_what_waited_is_done_after_the_next_start() {
    let test = "both_daemons_stop_with_0_and_what_waited_is_done_after_the_next_start";
    let Some(mut run) = running(test) else { return };
    let runs = Runs::at(&run.world.folder().join("runs"));
    let gate = Gate::new(run.world.folder(), "k");
    let argv = runs.command(&gate.line(), &[]);
    let mut arguments = vec!["submit", "lab", "--key", "k", "--array", "1-40", "--"];
    arguments.extend(argv.iter().map(String::as_str));
    run.world.service(&arguments).unwrap().ok().unwrap();
    poll::until("a task to run", SOON, || Ok((!runs.read()?.is_empty()).then_some(()))).unwrap();
    run.daemon.signal("TERM").unwrap();
    let stopping = "stopping: running tasks may finish; a second signal stops them";
    run.daemon.wait_for(stopping, SOON).unwrap();
    gate.open().unwrap();
    assert_eq!(run.daemon.wait(SOON).unwrap(), 0);
    assert_eq!(run.service.stop(SOON).unwrap(), 0);
    let started = runs.read().unwrap();
    assert!(started.len() < 40, "it did not stop before all was done");

    let _service = run.world.serve().unwrap();
    let _daemon = run.world.run(&run.endpoint).unwrap();
    run.world.wait("k").unwrap().ok().unwrap();
    let started = runs.read().unwrap();
    assert_eq!(started.len(), 40);
    assert!(started.values().all(|times| *times == 1), "an orderly stop repeats nothing");
}
