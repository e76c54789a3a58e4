//! Provisioning: what it writes, and that doing it again changes nothing.

use crate::{Running, running};
use clutch_tests::world::{SOON, World};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn provisioning_again_changes_nothing_and_needs_no_service() {
    let test = "provisioning_again_changes_nothing_and_needs_no_service";
    let Some(world) = World::or_skip(test) else { return };
    let first = world.provision("lab").unwrap();
    let text = std::fs::read_to_string(&first.config).unwrap();
    let mode = std::fs::metadata(&first.config).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = world.provision("lab").unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(std::fs::read_to_string(&first.config).unwrap(), text);
    for name in ["tasks_queue", "results_exchange", "results_key", "heartbeat", "blocked_timeout"] {
        assert!(text.contains(name), "{text}");
    }
    let mut names: Vec<String> = world
        .vhost()
        .queues()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    let shared = ["dead-letters", "events", "results", "results.owner"].map(str::to_owned);
    let own = ["control", "tasks"].map(|queue| format!("{}.{queue}", first.id));
    let expected = [&own[..], &shared].concat();
    assert_eq!(names, expected);
}

#[test]
fn an_edited_file_is_left_alone() {
    let Some(world) = World::or_skip("an_edited_file_is_left_alone") else { return };
    let endpoint = world.provision("lab").unwrap();
    let edited = std::fs::read_to_string(&endpoint.config).unwrap() + "\n[engine]\nslots = 1\n";
    std::fs::write(&endpoint.config, &edited).unwrap();
    world.provision("lab").unwrap();
    assert_eq!(std::fs::read_to_string(&endpoint.config).unwrap(), edited);
}

#[test]
fn an_id_of_ones_own_is_kept() {
    let Some(world) = World::or_skip("an_id_of_ones_own_is_kept") else { return };
    let id = uuid::Uuid::new_v4().to_string();
    let endpoint = world.provision_with("lab", &["--id", &id, "--heartbeat", "7s"]).unwrap();
    assert_eq!(endpoint.id, id);
    assert!(std::fs::read_to_string(&endpoint.config).unwrap().contains("heartbeat = \"7s\""));
}

fn deprovisioning(mut running: Running) {
    let (world, id) = (&running.world, running.endpoint.id.clone());
    let deprovision =
        |options: &[&str]| world.service(&[&["deprovision", "lab"], options].concat()).unwrap();
    world.service(&["submit", "lab", "--key", "done", "--wait", "--", "true"]).unwrap();
    let held = deprovision(&["--yes"]);
    assert_eq!(held.code, 77, "{}", held.stderr);
    assert!(held.stderr.contains("an instance of the endpoint is running"), "{}", held.stderr);
    running.daemon.stop(SOON).unwrap();
    world.service(&["submit", "lab", "--key", "open", "--", "true"]).unwrap().ok().unwrap();
    let refused = deprovision(&[]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("1 task without an outcome"), "{}", refused.stderr);
    let removed = deprovision(&["--yes", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!(removed["interrupted"], 1, "an instance was there, and may have had it");
    assert_eq!(removed["id"], id.as_str());
    assert_eq!(world.result("open").unwrap()["state"], "interrupted");
    assert_eq!(world.result("done").unwrap()["state"], "succeeded");
    let unknown = world.service(&["submit", "lab", "--", "true"]).unwrap();
    assert!(unknown.stderr.contains("lab"), "{}", unknown.stderr);
    assert_eq!(unknown.code, 1);
    assert_eq!(deprovision(&[]).code, 1);

    std::fs::remove_file(&running.endpoint.config).unwrap();
    assert_ne!(world.provision("lab").unwrap().id, id, "the name is free for another endpoint");
}

#[test]
fn an_endpoint_is_removed_from_a_broker_once_it_has_stopped_and_nothing_is_left_silent() {
    let test =
        "an_endpoint_is_removed_from_a_broker_once_it_has_stopped_and_nothing_is_left_silent";
    if let Some(running) = running(test) {
        deprovisioning(running);
    }
}

#[test]
fn an_endpoint_is_removed_from_a_folder_once_it_has_stopped_and_nothing_is_left_silent() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let service = world.serve().unwrap();
    let daemon = world.run(&endpoint).unwrap();
    deprovisioning(Running { endpoint, daemon, service, world });
}
