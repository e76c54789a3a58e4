//! Provisioning: what it writes, and that doing it again changes nothing.

use clutch_tests::world::World;
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
    let mut expected =
        vec![format!("{}.tasks", first.id), "dead-letters".to_owned(), "results".to_owned()];
    expected.sort();
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
