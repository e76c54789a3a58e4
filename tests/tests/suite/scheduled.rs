//! Submissions that are due later: visible, cancellable, kept over a restart, and never early.

use clutch_tests::poll;
use clutch_tests::world::{SOON, World};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The only task under a key, in full.
fn task(world: &World, key: &str) -> Value {
    let listed = world.service(&["tasks", "--key", key, "--json"]).unwrap().json().unwrap();
    let id = listed["id"].as_str().unwrap().to_owned();
    world.service(&["show", &id, "--json"]).unwrap().json().unwrap()
}

fn submit(world: &World, key: &str, after: &str) {
    let submit = ["submit", "lab", "--key", key, "--in", after, "--", "date", "+%s%3N"];
    let told = world.service(&submit).unwrap().ok().unwrap();
    assert!(told.text().contains(", due "), "{}", told.text());
}

#[test]
fn a_task_waits_for_its_moment_over_a_restart_and_starts_at_it_and_not_before() {
    let test = "a_task_waits_for_its_moment_over_a_restart_and_starts_at_it_and_not_before";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let mut service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    submit(&world, "later", "4s");
    submit(&world, "never", "2days");
    let later = task(&world, "never");
    assert_eq!(later["state"], "scheduled");
    assert_eq!(later["why"]["cause"], "scheduled");
    let why = later["why"]["words"].as_str().unwrap();
    assert!(why.starts_with("scheduled for ") && why.contains("in 1 d 23 h"), "{why}");
    service.kill().unwrap();
    let _service = world.serve().unwrap();
    world.service(&["cancel", "--key", "never"]).unwrap().ok().unwrap();
    assert_eq!(task(&world, "never")["state"], "cancelled");
    world.wait("later").unwrap().ok().unwrap();
    let result = world.result("later").unwrap();
    let done = task(&world, "later");
    let due = done["due_at_ms"].as_u64().unwrap();
    let started: u64 = result["result"]["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(started >= due, "{} ms early", due - started);
    assert!(done["late_ms"].as_u64().unwrap() < 5000, "{done}");
    assert!(due <= now_ms());
}

#[test]
fn a_moment_passes_without_the_broker_and_the_task_waits_for_the_link() {
    let test = "a_moment_passes_without_the_broker_and_the_task_waits_for_the_link";
    let Some(world) = World::or_skip(test) else { return };
    world.provision("lab").unwrap();
    let mut away =
        world.launch_service(&["--broker", "amqp://guest:guest@127.0.0.1:1/away"]).unwrap();
    away.wait_for("disengaged", SOON).unwrap();
    submit(&world, "k", "1s");
    let released = poll::until("the moment", SOON, || {
        let task = task(&world, "k");
        Ok((task["state"] == json!("waiting")).then_some(task))
    });
    let released = released.unwrap();
    assert!(released["released_at_ms"].as_u64() >= released["due_at_ms"].as_u64(), "{released}");
    away.wait_for("scheduled tasks are due", SOON).unwrap();
}
