//! Order and room: what starts first at an endpoint, and how many slots it takes, over a broker
//! and over a folder.

use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

/// Both daemons, and a task that holds a slot until the gate is open.
struct Stage {
    endpoint: Endpoint,
    _daemons: [Daemon; 2],
    world: World,
}

/// Plays on a broker and on a folder.
fn on_both(test: &str, play: impl Fn(World)) {
    if let Some(world) = World::or_skip(test) {
        play(world);
    }
    play(World::in_folder().unwrap());
}

impl Stage {
    /// An endpoint with these settings, which has a task that waits for the gate.
    fn new(world: World, settings: &str) -> Self {
        let endpoint = world.provision("lab").unwrap();
        let mut config = File::options().append(true).open(&endpoint.config).unwrap();
        config.write_all(settings.as_bytes()).unwrap();
        let daemons = [world.serve().unwrap(), world.run(&endpoint).unwrap()];
        let stage = Self { endpoint, _daemons: daemons, world };
        let waits =
            format!("touch {0}.closed; until [ -e {0} ]; do sleep 0.05; done", stage.gate());
        stage.submit("gate", &[], &waits);
        let closed = stage.file("gate.closed");
        poll::until("a task holds the gate", SOON, || Ok(closed.exists().then_some(()))).unwrap();
        stage
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    fn gate(&self) -> String {
        self.file("gate").display().to_string()
    }

    fn open(&self) {
        fs::write(self.gate(), "").unwrap();
    }

    /// Submits tasks that run a script, and returns their ids.
    fn submit(&self, key: &str, options: &[&str], script: &str) -> Vec<String> {
        let name = self.endpoint.name.as_str();
        let begin = ["submit", name, "--key", key, "--confirmed", "--shell", "--json"];
        let words = [&begin[..], options, &["--", script]].concat();
        let answer = self.world.service(&words).unwrap().ok().unwrap().json().unwrap();
        let ids = answer["ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    fn shown(&self, task: &str) -> Value {
        self.world.service(&["show", task, "--json"]).unwrap().ok().unwrap().json().unwrap()
    }

    fn until_state(&self, task: &str, state: &str) {
        let mut last = Value::Null;
        let reached = poll::until(&format!("{task} is {state}"), SOON, || {
            last = self.shown(task);
            Ok((last["state"] == state).then_some(()))
        });
        reached.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    }

    fn wait(&self, key: &str) {
        self.world.service(&["wait", "--key", key]).unwrap();
    }

    /// The results of a submission, with their tasks.
    fn results(&self, key: &str) -> Vec<Value> {
        let words = ["results", "--key", key, "--json"];
        let text = self.world.service(&words).unwrap().text();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Has an urgent task start before a thousand normal ones that wait, of which an inbox of this
/// size holds as many as it takes.
fn urgent_overtakes(world: World, inbox: usize) {
    let settings = format!("\n[engine]\nslots = 1\n[inbox]\nmax_tasks = {inbox}\nprefetch = 2\n");
    let stage = Stage::new(world, &settings);
    let normal = stage.submit("normal", &["--array", "1-1000"], "true");
    stage.until_state(&normal[inbox.min(900) - 2], "accepted");
    let urgent = stage.submit("urgent", &["--priority", "high"], "true").remove(0);
    stage.until_state(&urgent, "accepted");
    stage.open();
    stage.until_state(&urgent, "succeeded");
    stage.world.service(&["cancel", "--key", "normal"]).unwrap();
    stage.wait("normal");
    let shown = stage.shown(&urgent);
    assert_eq!(shown["priority"], "high");
    let started = |result: &Value| result["started_at_ms"].as_u64();
    let urgent = started(&shown["results"][0]).unwrap();
    let results = stage.results("normal");
    assert_eq!(results.len(), 1000);
    let before = results.iter().filter_map(|task| started(&task["result"]));
    assert_eq!(before.filter(|at| *at < urgent).count(), 0, "it was not overtaken");
}

#[test]
fn an_urgent_task_overtakes_a_thousand_that_are_accepted() {
    on_both("an_urgent_task_overtakes_a_thousand_that_are_accepted", |world| {
        urgent_overtakes(world, 1000);
    });
}

#[test]
fn an_urgent_task_overtakes_a_thousand_in_the_queue_of_a_full_endpoint() {
    on_both("an_urgent_task_overtakes_a_thousand_in_the_queue_of_a_full_endpoint", |world| {
        urgent_overtakes(world, 10);
    });
}

#[test]
fn the_lowest_runs_under_a_stream_of_the_highest() {
    on_both("the_lowest_runs_under_a_stream_of_the_highest", |world| {
        let stage = Stage::new(world, "\n[engine]\nslots = 1\n");
        let order = stage.file("order");
        let notes = |what: &str| format!("echo {what} >> {}", order.display());
        stage.submit("lowest", &["--priority", "lowest"], &notes("lowest"));
        let all = ["--priority", "highest", "--array", "1-30"];
        let highest = stage.submit("highest", &all, &notes("highest"));
        stage.until_state(&highest[29], "accepted");
        stage.open();
        stage.wait("highest");
        stage.wait("lowest");
        let order = fs::read_to_string(order).unwrap();
        assert_eq!(order.lines().count(), 31, "{order}");
        assert_eq!(order.lines().position(|line| line == "lowest"), Some(7), "{order}");
    });
}

#[test]
fn a_task_that_takes_all_slots_runs_alone_and_one_that_takes_more_is_rejected() {
    on_both(
        "a_task_that_takes_all_slots_runs_alone_and_one_that_takes_more_is_rejected",
        |world| {
            let stage = Stage::new(world, "\n[engine]\nslots = 4\n");
            let there = stage.file("running").display().to_string();
            fs::create_dir(&there).unwrap();
            let narrow = format!("mkdir {there}/$$ && sleep 0.05 && rmdir {there}/$$");
            let alone = format!("[ \"$CLUTCH_CORES $(ls {there})\" = '4 ' ]");
            stage.submit("before", &["--array", "1-12"], &narrow);
            let wide = stage.submit("wide", &["--cores", "4"], &alone).remove(0);
            let too_wide = stage.submit("too wide", &["--cores", "5"], "true").remove(0);
            let after = stage.submit("after", &["--array", "1-12"], &narrow);
            stage.until_state(&after[11], "accepted");
            stage.open();
            stage.until_state(&wide, "succeeded");
            stage.until_state(&too_wide, "rejected");
            let shown = stage.shown(&too_wide);
            let reason = shown["results"][0]["reason"].as_str().unwrap();
            assert!(reason.contains("needs 5 cores, and the endpoint has 4 slots"), "{reason}");
            stage.wait("before");
            stage.wait("after");
            for key in ["before", "after"] {
                assert!(stage.results(key).iter().all(|task| task["state"] == "succeeded"));
            }
        },
    );
}
