//! Endpoints as people see and steer them: how each is, draining one, removing one, and declaring
//! one lost.

use clutch_tests::gate::Gate;
use clutch_tests::poll;
use clutch_tests::process::Output;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::{Value, json};
use uuid::Uuid;

/// An endpoint as it is listed.
fn listed(world: &World, name: &str) -> Value {
    let page = world.service(&["endpoints", "--json"]).unwrap().ok().unwrap().json().unwrap();
    let endpoints = page["endpoints"].as_array().unwrap();
    endpoints.iter().find(|one| one["name"] == name).unwrap().clone()
}

/// Waits until an endpoint has a status, and returns it as it is listed then.
fn until(world: &World, name: &str, status: &str) -> Value {
    poll::until(&format!("{name} to be {status}"), SOON, || {
        let seen = listed(world, name);
        Ok((seen["status"] == status).then_some(seen))
    })
    .unwrap()
}

fn endpoint(world: &World, words: &[&str]) -> Output {
    world.service(&[&["endpoint"], words].concat()).unwrap()
}

/// Submits a task that waits for a gate, and waits until it runs.
fn running_task(world: &World, name: &str, key: &str, gate: &Gate, options: &[&str]) {
    let started = world.folder().join(format!("{key}.started"));
    let script = format!("echo x >> {}; {}", started.display(), gate.line());
    let submit = ["submit", name, "--key", key];
    let words = [&submit[..], options, &["--shell", "--", &script]].concat();
    world.service(&words).unwrap().ok().unwrap();
    poll::until("the task to run", SOON, || Ok(started.exists().then_some(()))).unwrap();
}

fn submit(world: &World, name: &str, key: &str) {
    let submit = ["submit", name, "--key", key, "--confirmed", "--", "true"];
    world.service(&submit).unwrap().ok().unwrap();
}

fn every_status(world: &World) {
    let lab = world.provision("lab").unwrap();
    world.provision("other").unwrap();
    let _service = world.serve().unwrap();
    assert_eq!(listed(world, "lab")["status"], "never_seen");

    let mut daemon = world.run_with(&lab, &["--slots", "3"]).unwrap();
    // It holds the lease a moment before it is heard.
    let online = poll::until("the endpoint to tell its slots", SOON, || {
        let seen = until(world, "lab", "online");
        Ok(seen["slots"].is_number().then_some(seen))
    })
    .unwrap();
    assert_eq!(online["slots"], 3);
    assert!(online["host"].is_string() && online["version"].is_string(), "{online}");
    assert_eq!(listed(world, "other")["status"], "never_seen");

    let shown = endpoint(world, &["show", "lab", "--json"]).ok().unwrap().json().unwrap();
    let instances = shown["endpoint"]["instances"].as_array().unwrap();
    assert_eq!((instances.len(), instances[0]["role"].as_str()), (1, Some("active")));
    let text = endpoint(world, &["show", "lab"]).ok().unwrap().text();
    assert!(text.contains("online since") && text.contains("slots"), "{text}");

    daemon.kill().unwrap();
    let offline = until(world, "lab", "offline");
    assert_eq!(offline["since_ms"], offline["last_heard_ms"]);
    submit(world, "lab", "waits");
    assert_eq!(listed(world, "lab")["queued"], 1);
    assert_eq!(listed(world, "lab")["pending"], 1);

    let lost = endpoint(world, &["lost", "lab", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!(lost["states"].as_array().unwrap().len(), 1);
    assert_eq!(until(world, "lab", "lost")["queued"], 1, "what waits stays there");
    let again = endpoint(world, &["lost", "lab"]).ok().unwrap().text();
    assert!(again.contains("nothing is lost"), "{again}");

    let _daemon = world.run(&lab).unwrap();
    until(world, "lab", "online");
    world.wait("waits").unwrap().ok().unwrap();
    let refused = endpoint(world, &["lost", "lab"]);
    assert!(refused.code == 1 && refused.stderr.contains("is online"), "{}", refused.stderr);
}

#[test]
fn each_status_of_an_endpoint_is_told_over_a_broker() {
    let test = "each_status_of_an_endpoint_is_told_over_a_broker";
    let Some(world) = World::or_skip(test) else { return };
    every_status(&world);
}

#[test]
fn each_status_of_an_endpoint_is_told_over_a_folder() {
    every_status(&World::in_folder().unwrap());
}

#[test]
fn a_standby_without_an_active_instance_and_a_queue_that_is_gone_are_told() {
    let test = "a_standby_without_an_active_instance_and_a_queue_that_is_gone_are_told";
    let Some(world) = World::or_skip(test) else { return };
    let pair = world.provision("pair").unwrap();
    let _service = world.serve().unwrap();
    let presence = json!({
        "endpoint_id": pair.id, "state_id": Uuid::now_v7(), "instance": Uuid::new_v4(),
        "role": "standby", "standby": true, "pending": 0,
    });
    let content = presence.to_string();
    let body = format!(r#"{{"version":1,"type":"clutch.presence",{}"#, &content[1..]).into_bytes();
    let key = format!("{}.results", pair.id);
    let kind = json!({ "type": "clutch.presence" });
    world.vhost().publish("results", &key, kind, &body).unwrap();
    until(&world, "pair", "standby");

    let state = world.folder().join("second").display().to_string();
    let _first = world.run_with(&pair, &["--standby"]).unwrap();
    let mut second = world.launch(&pair, &["--standby", "--state", &state]).unwrap();
    second.wait_for("standing by", SOON).unwrap();
    let roles = poll::until("both instances to be heard", SOON, || {
        let shown = endpoint(&world, &["show", "pair", "--json"]).ok()?.json()?;
        let instances = shown["endpoint"]["instances"].as_array().cloned().unwrap_or_default();
        let told = instances.iter().filter(|one| one["details"].is_object());
        let roles: Vec<String> =
            told.filter_map(|one| Some(one["role"].as_str()?.to_owned())).collect();
        Ok((roles.len() == 2).then_some(roles))
    })
    .unwrap();
    assert!(["active", "standby"].iter().all(|role| roles.iter().any(|one| one == role)));
    until(&world, "pair", "online");
}

#[test]
fn an_endpoint_is_removed_once_nothing_is_pending_or_its_tasks_end() {
    let test = "an_endpoint_is_removed_once_nothing_is_pending_or_its_tasks_end";
    let Some(world) = World::or_skip(test) else { return };
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mut daemon = world.run(&lab).unwrap();
    let gate = Gate::new(world.folder(), "open");
    running_task(&world, "lab", "runs", &gate, &[]);
    let refused = endpoint(&world, &["remove", "lab"]);
    assert!(refused.stderr.contains("an instance of the endpoint is running"), "{refused:?}");
    assert_eq!(world.result("runs").unwrap()["state"], "submitted", "nothing ends unasked");
    daemon.kill().unwrap();
    until(&world, "lab", "offline");
    let refused = endpoint(&world, &["remove", "lab"]);
    assert!(refused.stderr.contains("1 task without an outcome"), "{}", refused.stderr);
    let removed = endpoint(&world, &["remove", "lab", "--end-tasks", "--json"]);
    assert_eq!(removed.ok().unwrap().json().unwrap()["interrupted"], 1);
    let ended = world.result("runs").unwrap();
    assert_eq!(ended["state"], "interrupted");
    assert!(ended["result"]["reason"].as_str().unwrap().contains("whether it ran is not known"));
    assert!(endpoint(&world, &["show", "lab"]).stderr.contains("no endpoint 'lab'"));

    let queues = world.vhost().queues().unwrap();
    let own = queues.iter().filter(|queue| queue["name"].as_str().unwrap().starts_with(&lab.id));
    assert_eq!(own.count(), 0, "its queues are gone");
    world.provision("never").unwrap();
    submit(&world, "never", "first");
    endpoint(&world, &["remove", "never", "--end-tasks"]).ok().unwrap();
    assert_eq!(world.result("first").unwrap()["state"], "cancelled", "no instance had it");
}

#[test]
fn tasks_of_an_endpoint_that_is_online_end_as_cancelled_before_it_is_removed() {
    let test = "tasks_of_an_endpoint_that_is_online_end_as_cancelled_before_it_is_removed";
    let Some(world) = World::or_skip(test) else { return };
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mut daemon = world.run_with(&lab, &["--slots", "1"]).unwrap();
    let gate = Gate::new(world.folder(), "open");
    running_task(&world, "lab", "runs", &gate, &[]);
    submit(&world, "lab", "waits");
    let refused = endpoint(&world, &["remove", "lab", "--end-tasks"]);
    assert!(refused.code == 1, "{}", refused.stderr);
    for words in ["2 tasks ended as cancelled", "an instance of the endpoint is running"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    for key in ["runs", "waits"] {
        assert_eq!(world.result(key).unwrap()["result"]["outcome"], "cancelled");
    }
    assert_eq!(daemon.stop(SOON).unwrap(), 0);
    until(&world, "lab", "offline");
    let removed = endpoint(&world, &["remove", "lab", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!((&removed["cancelled"], &removed["interrupted"]), (&json!(0), &json!(0)));
}

/// Kills an endpoint with two tasks that run, one of which must not rerun.
fn killed_while_running(world: &World, lab: &Endpoint) -> Gate {
    let gate = Gate::new(world.folder(), "open");
    let mut daemon = world.run(lab).unwrap();
    running_task(world, "lab", "again", &gate, &[]);
    running_task(world, "lab", "once", &gate, &["--no-rerun"]);
    daemon.kill().unwrap();
    until(world, "lab", "offline");
    endpoint(world, &["lost", "lab"]).ok().unwrap();
    gate
}

#[test]
fn tasks_of_an_endpoint_that_is_declared_lost_run_on_its_next_disk_or_end() {
    let test = "tasks_of_an_endpoint_that_is_declared_lost_run_on_its_next_disk_or_end";
    let Some(world) = World::or_skip(test) else { return };
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let gate = killed_while_running(&world, &lab);
    submit(&world, "lab", "queued");
    let state = world.folder().join("new").display().to_string();
    // One that shares the endpoint replaces no other by itself.
    let _next = world.run_with(&lab, &["--standby", "--state", &state]).unwrap();
    gate.open().unwrap();
    for key in ["again", "once", "queued"] {
        drop(world.wait(key).unwrap());
    }
    let again = world.result("again").unwrap();
    assert_eq!((again["state"].as_str(), again["attempt"].as_u64()), (Some("succeeded"), Some(2)));
    assert_eq!(world.result("once").unwrap()["state"], "interrupted");
    assert_eq!(
        world.result("queued").unwrap()["attempt"],
        1,
        "what waited in the queue is as it was"
    );
}

#[test]
fn an_endpoint_that_comes_back_on_the_disk_that_was_declared_lost_keeps_its_tasks() {
    let test = "an_endpoint_that_comes_back_on_the_disk_that_was_declared_lost_keeps_its_tasks";
    let Some(world) = World::or_skip(test) else { return };
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let gate = killed_while_running(&world, &lab);
    gate.open().unwrap();
    let _same = world.run(&lab).unwrap();
    for key in ["again", "once"] {
        drop(world.wait(key).unwrap());
    }
    let again = world.result("again").unwrap();
    assert_eq!((again["state"].as_str(), again["attempt"].as_u64()), (Some("succeeded"), Some(1)));
    assert_eq!(world.result("once").unwrap()["state"], "interrupted", "it had started");
    until(&world, "lab", "online");
}

fn drained(world: &World) {
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&lab).unwrap();
    let gate = Gate::new(world.folder(), "open");
    running_task(world, "lab", "runs", &gate, &[]);
    let first = endpoint(world, &["drain", "lab", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!((&first["draining"], &first["confirmed"]), (&json!(true), &json!(true)));
    let told = |draining| {
        poll::until("the instance to say whether it drains", SOON, || {
            let shown = endpoint(world, &["show", "lab", "--json"]).ok()?.json()?;
            let told = &shown["endpoint"]["instances"][0]["details"]["draining"];
            Ok((told.as_bool().unwrap_or(false) == draining).then_some(()))
        })
        .unwrap();
    };
    told(true);
    until(world, "lab", "draining");
    submit(world, "lab", "later");
    let said = world.service(&["submit", "lab", "--key", "later", "--", "true"]).unwrap();
    assert!(said.stderr.contains("lab drains: its tasks wait"), "{}", said.stderr);
    let said = world.service(&["submit", "lab", "--key", "later", "--json", "--", "true"]).unwrap();
    let warning = said.ok().unwrap().json().unwrap()["warnings"][0].clone();
    assert!(warning.as_str().unwrap().contains("endpoint resume lab"), "{warning}");
    gate.open().unwrap();
    world.wait("runs").unwrap().ok().unwrap();
    // It has an end of the task that ran, and has started none since.
    let idle = until(world, "lab", "draining");
    assert_eq!(idle["pending"], 1);
    let again = endpoint(world, &["drain", "lab", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!(again["changed"], false);
    endpoint(world, &["resume", "lab"]).ok().unwrap();
    world.wait("later").unwrap().ok().unwrap();
    told(false);
    until(world, "lab", "online");
}

#[test]
fn a_drained_endpoint_finishes_what_runs_and_starts_nothing_over_a_broker() {
    let test = "a_drained_endpoint_finishes_what_runs_and_starts_nothing_over_a_broker";
    let Some(world) = World::or_skip(test) else { return };
    drained(&world);
}

#[test]
fn a_drained_endpoint_finishes_what_runs_and_starts_nothing_over_a_folder() {
    drained(&World::in_folder().unwrap());
}
