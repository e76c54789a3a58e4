//! `clutch-endpoint check` ends as `run` would: with what is not permitted at the broker,
//! what is not there, and what another instance holds; and changes none of it.

use crate::running;
use clutch_tests::process::{Output, run};
use clutch_tests::world::{Endpoint, SOON, World};

fn check(world: &World, endpoint: &Endpoint, options: &[&str]) -> Output {
    let config = endpoint.config.display().to_string();
    let command = world.endpoint_command(&[&["check", "--config", &config], options].concat());
    run(command, b"", SOON).unwrap()
}

#[track_caller]
fn judge(seen: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", seen.text(), seen.stderr);
    assert_eq!(seen.code, code, "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    }
}

fn another_instance(world: &World, endpoint: &Endpoint) {
    judge(&check(world, endpoint, &[]), 0, &["is running on it", "warning", "lease"]);
    let elsewhere = ["--state", "elsewhere"];
    let held = check(world, endpoint, &elsewhere);
    judge(&held, 77, &["FAILED", "lease", "--standby"]);
    judge(&check(world, endpoint, &["--state", "elsewhere", "--standby"]), 0, &["warning"]);
    let done = world.service(&["submit", "lab", "--wait", "--", "true"]).unwrap();
    assert_eq!(done.code, 0, "the daemon goes on: {}", done.stderr);
}

#[test]
fn another_instance_that_is_active_is_told_at_a_broker() {
    let Some(run) = running("another_instance_that_is_active_is_told_at_a_broker") else { return };
    another_instance(&run.world, &run.endpoint);
}

#[test]
fn another_instance_that_is_active_is_told_in_a_folder() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    another_instance(&world, &endpoint);
}

#[test]
fn what_an_endpoint_may_not_do_is_told_before_it_runs_and_nothing_is_done_by_it() {
    let test = "what_an_endpoint_may_not_do_is_told_before_it_runs_and_nothing_is_done_by_it";
    let Some(world) = World::or_skip(test) else { return };
    for queue in ["classic", "quorum"] {
        let endpoint = world.provision_with(queue, &["--queue", queue]).unwrap();
        let tasks = format!("{}.tasks", endpoint.id);
        world.vhost().publish("", &tasks, serde_json::json!({}), b"a task").unwrap();
        judge(&check(&world, &endpoint, &[]), 0, &["the lease is free", "tasks may be read"]);

        let text = std::fs::read_to_string(&endpoint.config).unwrap();
        let user = format!("narrow-{}", endpoint.id);
        let (lease, all) = (format!("^{}.lease$", endpoint.id), ".*");
        for (permissions, missing) in [
            (["^none$", all, all], "the lease is free and may be taken"),
            ([all, &lease, all], "results may be published"),
            ([all, all, &lease], "tasks may be read"),
        ] {
            world.vhost().user(&user, "pass", permissions).unwrap();
            let url = world.vhost().url_as(&user, "pass").unwrap();
            std::fs::write(&endpoint.config, text.replace(&world.vhost().url(), &url)).unwrap();
            let seen = check(&world, &endpoint, &[]);
            judge(&seen, 77, &[&format!("{missing}: "), "permissions"]);
            assert_eq!(seen.text().matches("FAILED").count(), 1, "{}", seen.text());
        }
        world.vhost().delete_user(&user).unwrap();
        std::fs::write(&endpoint.config, &text).unwrap();
        let there = || world.vhost().depth(&tasks);
        clutch_tests::poll::until("the task to be counted", SOON, || {
            Ok((there()? == Some(1)).then_some(()))
        })
        .unwrap();
        world.vhost().delete(&tasks).unwrap();
        judge(&check(&world, &endpoint, &[]), 69, &["tasks may be read", "provision"]);
    }
    assert!(world.vhost().take("results", 1).unwrap().is_empty(), "a result was published");
}
