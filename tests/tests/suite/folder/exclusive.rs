//! One endpoint and one service at a folder: a second one is told which process is the
//! first, and takes over at once when that one is killed.

use super::running;
use clutch_tests::process::run;
use clutch_tests::world::{SOON, World};

fn names(world: &World, pid: u32, told: &str) {
    let holder = format!("process {pid} on ");
    assert!(told.contains(&holder), "{told} does not name {holder}; {}", world.broker());
}

#[test]
fn a_second_daemon_is_told_who_holds_the_endpoint() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision_with("lab", &["--heartbeat", "2s"]).unwrap();
    let first = world.run(&endpoint).unwrap();
    let (config, state) = (endpoint.config.display().to_string(), world.folder().join("second"));
    let state = state.display().to_string();
    let second = world.endpoint_command(&["run", "--config", &config, "--state", &state]);
    let seen = run(second, b"", SOON).unwrap();
    assert_eq!(seen.code, 77, "{}", seen.stderr);
    assert!(seen.stderr.contains("only one instance"), "{}", seen.stderr);
    names(&world, first.pid(), &seen.stderr);
}

#[test]
fn a_second_service_is_told_who_collects() {
    let running = running();
    let state = running.world.folder().join("second").display().to_string();
    let seen = running.world.service(&["serve", "--state", &state, "--take-over"]).unwrap();
    assert_eq!(seen.code, 77, "{}", seen.stderr);
    assert!(seen.stderr.contains("another clutch-service is collecting"), "{}", seen.stderr);
    names(&running.world, running.service.pid(), &seen.stderr);
}

#[test]
fn a_second_daemon_takes_over_when_the_first_is_killed() {
    let world = World::in_folder().unwrap();
    // Waiting for a heartbeat that is missing would take three times as long.
    let endpoint = world.provision_with("lab", &["--heartbeat", "60s"]).unwrap();
    let _service = world.serve().unwrap();
    let mut first = world.run(&endpoint).unwrap();
    let state = world.folder().join("second").display().to_string();
    let mut second = world.launch(&endpoint, &["--state", &state]).unwrap();
    let told = second.wait_for("disengaged", SOON).unwrap();
    names(&world, first.pid(), told["fault"].as_str().unwrap());
    first.kill().unwrap();
    second.wait_for("engaged", SOON).unwrap();
    world.submit(&endpoint, "k", &["--", "true"], SOON).unwrap().ok().unwrap();

    second.kill().unwrap();
    let again = world.run(&endpoint).unwrap();
    assert!(!again.log().unwrap().contains("disengaged"), "it waited for the dead one");
}

#[test]
fn a_second_service_that_is_to_take_over_does_so_when_the_first_is_killed() {
    let mut running = running();
    let state = running.world.folder().join("second").display().to_string();
    let mut second = running.world.launch_service(&["--state", &state, "--take-over"]).unwrap();
    let told = second.wait_for("disengaged", SOON).unwrap();
    names(&running.world, running.service.pid(), told["fault"].as_str().unwrap());
    running.service.kill().unwrap();
    second.wait_for("engaged", SOON).unwrap();

    second.kill().unwrap();
    let mut service = running.world.launch_service(&["--take-over"]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    assert!(!service.log().unwrap().contains("disengaged"), "it waited for the dead one");
    running.world.submit(&running.endpoint, "k", &["--", "true"], SOON).unwrap().ok().unwrap();
}
