//! Tasks that tasks submit, messages that wait for their target, and what the service shows of
//! both.

use crate::running;
use clutch_tests::poll;
use clutch_tests::world::{SOON, World};
use serde_json::Value;
use std::path::Path;

/// The program that a running task uses.
fn tool(world: &World) -> String {
    world.endpoint_command(&[]).get_program().display().to_string()
}

/// Submits a script as a task under a key, and returns its id.
fn submit(world: &World, key: &str, script: &str) -> String {
    let line = ["submit", "lab", "--key", key, "--", "sh", "-c", script];
    world.service(&line).unwrap().ok().unwrap();
    let listed = world.service(&["tasks", "--key", key, "--json"]).unwrap().json().unwrap();
    listed["id"].as_str().unwrap().to_owned()
}

fn show(world: &World, task: &str) -> Value {
    world.service(&["show", task, "--json"]).unwrap().json().unwrap()
}

fn until(world: &World, task: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    poll::until(what, SOON, || {
        let shown = show(world, task);
        Ok(holds(&shown).then_some(shown))
    })
    .unwrap()
}

fn until_there(path: &Path) {
    poll::until("a file of a task", SOON, || Ok(path.exists().then_some(()))).unwrap();
}

#[test]
fn a_task_has_children_that_are_shown_with_it_told_of_and_cancelled_with_it() {
    let test = "a_task_has_children_that_are_shown_with_it_told_of_and_cancelled_with_it";
    let Some(running) = running(test) else { return };
    let world = &running.world;
    let (tool, told) = (tool(world), world.folder().join("told"));
    let sleep = r#"{"argv":["sleep","600"]}"#;
    let short = r#"{"call":{"function":"clutch.echo","args":[7]}}"#;
    let script = format!(
        "set -e\n\
         '{tool}' task submit --text '{{\"tasks\":[{short},{sleep}]}}' > ids\n\
         short=$(cut -d '\"' -f 4 ids)\n\
         '{tool}' task outcome $short --wait 60s > outcome\n\
         mv outcome '{}'\n\
         exec sleep 600",
        told.display()
    );
    let parent = submit(world, "family", &script);
    until_there(&told);
    let outcome: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    assert_eq!(outcome["results"][0]["value"], serde_json::json!([7]), "{outcome}");
    let shown = until(world, &parent, "a child that runs", |shown| {
        shown["family"]["descendants"][1]["state"] == "running"
    });
    let children = shown["family"]["descendants"].as_array().unwrap();
    assert_eq!(children.len(), 2, "{shown}");
    assert_eq!(children[0]["state"], "succeeded");
    let drawn = world.service(&["show", &parent]).unwrap().ok().unwrap().text();
    assert!(drawn.contains("├─ ") && drawn.contains("(this task)"), "{drawn}");
    let child = children[1]["id"].as_str().unwrap();
    let of_child = show(world, child);
    assert_eq!(of_child["family"]["parent"]["id"], Value::from(parent.as_str()));
    assert_eq!(of_child["task"]["parent"], Value::from(parent.as_str()));
    world.service(&["cancel", &parent, "--with-children"]).unwrap().ok().unwrap();
    for task in [&parent, child] {
        until(world, task, "its cancellation", |shown| shown["state"] == "cancelled");
    }
}

#[test]
fn a_message_is_kept_until_its_target_runs_and_takes_it() {
    let test = "a_message_is_kept_until_its_target_runs_and_takes_it";
    let Some(running) = running(test) else { return };
    let world = &running.world;
    let tool = tool(world);
    let (target, told) = (world.folder().join("target"), world.folder().join("told"));
    let receive = format!("exec '{tool}' task receive in --timeout 60s");
    // Both are of one submission, and the second one starts when its gate is open.
    let gate = world.folder().join("gate");
    let script = format!(
        "if [ $1 = 1 ]; then\n\
         until [ -e '{target}' ]; do sleep 0.1; done\n\
         '{tool}' task send $(cat '{target}') in --text later --mailbox > sent\n\
         mv sent '{told}'\n\
         else until [ -e '{gate}' ]; do sleep 0.1; done; {receive}; fi",
        target = target.display(),
        told = told.display(),
        gate = gate.display(),
    );
    let line = ["submit", "lab", "--key", "pair", "--array", "1-2", "--shell", "--", &script];
    world.service(&line).unwrap().ok().unwrap();
    let tasks = world.results("pair").unwrap();
    let id = |index: usize| tasks[index]["id"].as_str().unwrap().to_owned();
    std::fs::write(target.with_extension("new"), id(1)).unwrap();
    std::fs::rename(target.with_extension("new"), &target).unwrap();
    until_there(&told);
    let answer: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    assert_eq!(answer["kept"], true, "{answer}");
    let shown = show(world, &id(1));
    assert_eq!(shown["kept_messages"], 1, "{shown}");
    std::fs::write(&gate, "").unwrap();
    world.wait("pair").unwrap().ok().unwrap();
    let results = world.results("pair").unwrap();
    assert_eq!(results[1]["result"]["stdout"], "later", "{}", results[1]);
    until(world, &id(1), "the record that it was taken", |shown| shown["kept_messages"].is_null());
}

#[test]
fn tasks_that_wait_for_each_other_in_a_ring_are_named() {
    let test = "tasks_that_wait_for_each_other_in_a_ring_are_named";
    let Some(world) = &World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run_with(&endpoint, &["--slots", "3"]).unwrap();
    let next = world.folder().join("next");
    // Each receives of the next one alone, and the last one of the first.
    let script = format!(
        "until [ -e '{next}' ]; do sleep 0.1; done\n\
         exec '{tool}' task receive in --from $(sed -n $1p '{next}') --timeout 600s",
        next = next.display(),
        tool = tool(world),
    );
    let line = ["submit", "lab", "--key", "ring", "--array", "1-3", "--shell", "--", &script];
    world.service(&line).unwrap().ok().unwrap();
    let tasks = world.results("ring").unwrap();
    let ids: Vec<&str> = tasks.iter().map(|task| task["id"].as_str().unwrap()).collect();
    let all = format!("{}\n{}\n{}\n", ids[1], ids[2], ids[0]);
    std::fs::write(next.with_extension("new"), all).unwrap();
    std::fs::rename(next.with_extension("new"), &next).unwrap();
    let shown = until(world, ids[1], "the ring", |shown| shown["ring"].is_array());
    assert_eq!(shown["ring"], serde_json::json!([ids[1], ids[2], ids[0]]));
    let ring = |from: usize| {
        let [a, b, c] = [0, 1, 2].map(|step| ids[(from + step) % 3]);
        format!("wait for each other in a ring: {a} → {b} → {c} → {a}")
    };
    let drawn = world.service(&["show", ids[2]]).unwrap().ok().unwrap().text();
    assert!(drawn.contains(&ring(2)), "{drawn}");
    let first = (0..3).min_by_key(|index| ids[*index]).unwrap();
    let listed = world.service(&["endpoints"]).unwrap().ok().unwrap().text();
    assert!(listed.contains(&ring(first)), "{listed}");
    let listed = world.service(&["endpoints", "--json"]).unwrap().ok().unwrap().json().unwrap();
    let expected = [0, 1, 2].map(|step| ids[(first + step) % 3]);
    assert_eq!(listed["rings"], serde_json::json!([expected]));
    world.service(&["cancel", ids[0]]).unwrap().ok().unwrap();
    until(world, ids[1], "the ring to be gone", |shown| {
        shown["ring"].as_array().is_none_or(Vec::is_empty)
    });
}
