//! Why a task waits: each cause provoked, and told by `show` in a sentence.
//!
//! The endpoint is played by hand: it tells what the test has it tell, and a consumer of its
//! queues makes it look connected.

use clutch_tests::broker::Raw;
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// A service, and an endpoint that is played by hand.
struct Stage {
    endpoint: Endpoint,
    state: Uuid,
    instance: Uuid,
    _service: Daemon,
    world: World,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

impl Stage {
    fn or_skip(test: &str) -> Option<Self> {
        let world = World::or_skip(test)?;
        let endpoint = world.provision("lab").unwrap();
        let service = world.serve().unwrap();
        let (state, instance) = (Uuid::now_v7(), Uuid::new_v4());
        Some(Self { endpoint, state, instance, _service: service, world })
    }

    /// Makes the endpoint look connected for as long as this lives.
    fn online(&self) -> Raw {
        let mut raw = Raw::connect(&self.world.vhost().url()).unwrap();
        raw.consume(&format!("{}.control", self.endpoint.id)).unwrap();
        raw.consume(&format!("{}.tasks", self.endpoint.id)).unwrap();
        raw
    }

    fn publish(&self, exchange: &str, kind: &str, mut content: Value) {
        content["endpoint_id"] = json!(self.endpoint.id);
        content["state_id"] = json!(self.state);
        content["instance"] = json!(self.instance);
        let content = content.to_string();
        let body = format!(r#"{{"version":1,"type":"{kind}",{}"#, &content[1..]);
        let key = format!("{}.{exchange}", self.endpoint.id);
        let properties = json!({ "type": kind });
        self.world.vhost().publish(exchange, &key, properties, body.as_bytes()).unwrap();
    }

    fn presence(&self, role: &str, lost: bool) {
        let told =
            json!({ "role": role, "standby": role == "standby", "pending": 0, "lost": lost });
        self.publish("results", "clutch.presence", told);
    }

    /// Tells a load, and the attempts that are at the endpoint.
    fn tell(&self, load: Value, attempts: &[Value]) {
        let mut whole = json!({ "slots": 4, "running": 0, "accepted": 0, "undelivered": 0 });
        whole.as_object_mut().unwrap().extend(load.as_object().unwrap().clone());
        let told =
            json!({ "at_ms": now_ms(), "complete": true, "load": whole, "attempts": attempts });
        self.publish("events", "clutch.events", told);
    }

    /// Submits tasks, and returns their ids in the order of their indexes.
    fn submit(&self, key: &str, options: &[&str]) -> Vec<String> {
        let words = [&["submit", &self.endpoint.name, "--key", key, "--json"], options].concat();
        let answer = self.world.service(&words).unwrap().ok().unwrap().json().unwrap();
        let ids = answer["ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    fn shown(&self, task: &str) -> Value {
        self.world.service(&["show", task, "--json"]).unwrap().ok().unwrap().json().unwrap()
    }

    /// Waits until `show` tells this cause, with these words.
    fn waits_for(&self, task: &str, cause: &str, words: &str) {
        let mut last = Value::Null;
        let told = poll::until(&format!("the cause {cause}"), SOON, || {
            last = self.shown(task)["why"].clone();
            Ok((last["cause"] == cause).then_some(()))
        });
        told.unwrap_or_else(|error| panic!("{error:#}: {last}"));
        let sentence = last["words"].as_str().unwrap();
        assert!(sentence.contains(words), "'{words}' is not in: {sentence}");
        let text = self.world.service(&["show", task]).unwrap().ok().unwrap().text();
        assert!(text.contains("why "), "{text}");
    }
}

/// An attempt that is accepted or runs.
fn attempt(task: &str, phase: &str) -> Value {
    json!({
        "attempt": { "task_id": task, "attempt": 1 },
        "phase": phase,
        "since_ms": now_ms(),
        "accepted_at_ms": now_ms(),
    })
}

#[test]
fn a_task_says_that_the_service_has_no_link() {
    let Some(world) = World::or_skip("a_task_says_that_the_service_has_no_link") else { return };
    let endpoint = world.provision("lab").unwrap();
    let nowhere = ["--broker", "amqp://guest:guest@127.0.0.1:9/none"];
    let mut service = world.launch_service(&nowhere).unwrap();
    service.wait_for("disengaged", SOON).unwrap();
    let (state, instance) = (Uuid::now_v7(), Uuid::new_v4());
    let stage = Stage { endpoint, state, instance, _service: service, world };
    let task = stage.submit("k", &["--", "true"]).remove(0);
    stage.waits_for(&task, "no_link", "no link to the broker");
}

#[test]
fn a_task_says_how_far_away_its_endpoint_is() {
    let Some(stage) = Stage::or_skip("a_task_says_how_far_away_its_endpoint_is") else { return };
    let task = stage.submit("k", &["--", "true"]).remove(0);
    stage.waits_for(&task, "never_seen", "lab was never seen");
    stage.presence("standby", false);
    stage.waits_for(&task, "standby_only", "only a standby of lab");
    stage.presence("active", false);
    stage.waits_for(&task, "offline", "was heard last");
    let soon = stage.submit("soon", &["--expires", "5m", "--", "true"]).remove(0);
    stage.waits_for(&soon, "offline", "it expires in 4 min");
    let raw = stage.online();
    stage.world.vhost().purge(&format!("{}.tasks", stage.endpoint.id)).unwrap();
    stage.waits_for(&soon, "expires_soon", "it expires in 4 min");
    stage.waits_for(&task, "about_to_start", "tells of tasks that take longer than a second");
    drop(raw);
}

#[test]
fn a_task_says_that_there_is_no_queue_or_no_room_in_it() {
    let Some(stage) = Stage::or_skip("a_task_says_that_there_is_no_queue_or_no_room_in_it") else {
        return;
    };
    let queue = format!("{}.tasks", stage.endpoint.id);
    let full = json!({ "max-length": 1, "overflow": "reject-publish" });
    stage.world.vhost().policy("full", &queue, &full).unwrap();
    stage.submit("first", &["--", "true"]);
    let task = stage.submit("second", &["--", "true"]).remove(0);
    stage.waits_for(&task, "queue_full", "is full");
    stage.world.vhost().delete(&queue).unwrap();
    stage.waits_for(&task, "no_queue", "clutch-service provision lab");
}

#[test]
fn a_task_says_what_keeps_its_endpoint_from_starting_it() {
    let Some(stage) = Stage::or_skip("a_task_says_what_keeps_its_endpoint_from_starting_it") else {
        return;
    };
    let _online = stage.online();
    stage.presence("active", false);
    let tasks = stage.submit("k", &["--array", "1-3", "--walltime", "1h", "--", "true"]);
    let call = stage.submit("call", &["--call", "fit"]).remove(0);
    stage.waits_for(&tasks[2], "tasks_ahead", "2 tasks are ahead of it in the queue of lab");
    let urgent = stage.submit("urgent", &["--priority", "high", "--", "true"]).remove(0);
    let below = "1 task is ahead of it in the queue of lab, at its priority or above";
    stage.waits_for(&tasks[0], "tasks_ahead", below);
    stage.waits_for(&urgent, "about_to_start", "");
    let wide = stage.submit("wide", &["--cores", "8", "--", "true"]).remove(0);
    stage.tell(json!({}), &[]);
    stage.waits_for(&wide, "needs_cores", "needs 8 cores, and lab has 4 slots");
    stage.tell(json!({ "inbox_full": true, "accepted": 9, "running": 4 }), &[]);
    stage.waits_for(&tasks[2], "inbox_full", "the inbox of lab is full");
    stage.tell(json!({ "troubles": ["disk full: 17 bytes are free"] }), &[]);
    stage.waits_for(&tasks[2], "disk_full", "17 bytes are free");
    stage.tell(json!({ "troubles": ["function fit: its workers do not start: no"] }), &[]);
    stage.waits_for(&call, "workers", "function fit: its workers do not start: no");
    stage.tell(json!({ "draining": true }), &[]);
    stage.waits_for(&tasks[2], "draining", "clutch-endpoint resume");
    let at = [attempt(&tasks[0], "running"), attempt(&tasks[1], "accepted")];
    stage.tell(json!({ "slots": 1, "running": 1, "accepted": 1 }), &at);
    stage.waits_for(&tasks[1], "slots_busy", "1 of 1 slot) until about");
    stage.waits_for(&tasks[0], "running", "it runs at lab");
    let drain = ["endpoint", "drain", &stage.endpoint.name];
    stage.world.service(&drain).unwrap().ok().unwrap();
    stage.waits_for(&tasks[2], "draining", "clutch-service endpoint resume lab");
}

#[test]
fn a_task_in_doubt_and_one_that_is_to_be_cancelled_say_so() {
    let Some(stage) = Stage::or_skip("a_task_in_doubt_and_one_that_is_to_be_cancelled_say_so")
    else {
        return;
    };
    let _online = stage.online();
    stage.presence("active", false);
    let tasks = stage.submit("k", &["--array", "1-2", "--", "true"]);
    stage.presence("active", true);
    stage.waits_for(&tasks[0], "in_doubt", "may ");
    let cancel = ["cancel", &tasks[1]];
    stage.world.service(&cancel).unwrap();
    stage.waits_for(&tasks[1], "cancel_requested", "the endpoint has not answered yet");
}

#[test]
fn events_move_tasks_through_the_states_that_are_listed_and_counted() {
    let Some(stage) =
        Stage::or_skip("events_move_tasks_through_the_states_that_are_listed_and_counted")
    else {
        return;
    };
    let tasks = stage.submit("k", &["--array", "1-4", "--confirmed", "--", "true"]);
    let mut running = attempt(&tasks[0], "running");
    running["progress"] = json!({ "fraction": 0.25, "message": "epoch 3", "at_ms": now_ms() });
    stage.tell(json!({ "running": 1 }), &[running, attempt(&tasks[1], "accepted")]);
    let listed = |state: &str| -> Vec<Value> {
        let words = ["tasks", "--status", state, "--key", "k", "--json"];
        stage.world.service(&words).unwrap().ok().unwrap().json_lines().unwrap()
    };
    poll::until("a task to run", SOON, || Ok((listed("running").len() == 1).then_some(())))
        .unwrap();
    assert_eq!(listed("running")[0]["id"], tasks[0].as_str());
    assert_eq!(listed("running")[0]["progress"]["message"], "epoch 3");
    assert_eq!(listed("accepted")[0]["id"], tasks[1].as_str());
    assert_eq!(listed("submitted").len(), 2);
    assert_eq!(listed("running,submitted").len(), 3);
    let text = stage.world.service(&["tasks"]).unwrap().ok().unwrap().text();
    assert!(text.contains("(25 % epoch 3)"), "{text}");
    let waited = ["wait", "--key", "k", "--timeout", "0s", "--json"];
    let counted = stage.world.service(&waited).unwrap().json().unwrap();
    assert_eq!(counted["states"], json!({ "running": 1, "accepted": 1, "submitted": 2 }));
    let shown = stage.shown(&tasks[0]);
    assert_eq!((&shown["state"], &shown["live"]["phase"]), (&json!("running"), &json!("running")));
    let steps = shown["timeline"].as_array().unwrap().iter();
    let steps: Vec<&str> = steps.map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["recorded", "confirmed", "accepted", "started", "progress"]);

    // What the service heard is told again once it asks for it.
    let result = json!({
        "task_id": tasks[0], "attempt": 1, "outcome": "succeeded", "exit_code": 0,
        "ended_at_ms": now_ms(), "endpoint_id": stage.endpoint.id,
    });
    let results = json!({ "endpoint": stage.endpoint.id, "results": [result] });
    stage.publish("results", "clutch.results", results);
    poll::until("the result", SOON, || {
        Ok((stage.shown(&tasks[0])["state"] == "succeeded").then_some(()))
    })
    .unwrap();
    assert!(listed("running").is_empty());
    assert!(stage.shown(&tasks[0])["why"].is_null());
    stage.tell(json!({}), &[]);
    poll::until("nothing to be accepted", SOON, || Ok(listed("accepted").is_empty().then_some(())))
        .unwrap();
    assert_eq!(listed("submitted").len(), 3);
}

#[test]
fn a_service_asks_endpoints_with_submitted_tasks_for_everything_they_have() {
    let test = "a_service_asks_endpoints_with_submitted_tasks_for_everything_they_have";
    let Some(stage) = Stage::or_skip(test) else { return };
    let Stage { world, endpoint, _service: mut service, .. } = stage;
    world.service(&["submit", "lab", "--", "true"]).unwrap().ok().unwrap();
    let idle = world.provision("idle").unwrap();
    for _ in 0..2 {
        service.stop(SOON).unwrap();
        service = world.serve().unwrap();
    }
    let control = |endpoint: &Endpoint| format!("{}.control", endpoint.id);
    let asked =
        poll::until("a request", SOON, || Ok(world.vhost().take(&control(&endpoint), 10)?.pop()));
    let body: Value = serde_json::from_slice(&asked.unwrap().body).unwrap();
    assert_eq!(body["type"], "clutch.report");
    // One waited there already when the service asked again.
    assert!(world.vhost().take(&control(&endpoint), 10).unwrap().is_empty());
    assert!(world.vhost().take(&control(&idle), 10).unwrap().is_empty());
}
