//! Parts that have nothing in common but a folder: each in a network of its own
//! that leads nowhere.

use clutch_tests::scenario::{self, Files};
use clutch_tests::skip;
use clutch_tests::world::World;
use std::process::Command;
use std::time::Instant;

#[test]
fn two_endpoints_and_a_service_do_a_job_without_any_network() {
    let test = "two_endpoints_and_a_service_do_a_job_without_any_network";
    let wrapper = ["unshare", "--net"];
    let permitted = Command::new("unshare").args(["--net", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        return skip::because(test, "a network namespace is not permitted");
    }
    let world = World::in_folder().unwrap().wrapped_in(&wrapper);
    let parts = ["/usr/share/doc", "/usr/include"].map(|folder| {
        let name = if folder.ends_with("doc") { "left" } else { "right" };
        let into = world.folder().join(name);
        std::fs::create_dir(&into).unwrap();
        let endpoint = world.provision(name).unwrap();
        let daemon = world.run(&endpoint).unwrap();
        (endpoint, daemon, Files::find(&[folder], 150, &into).unwrap())
    });
    let service = world.serve().unwrap();
    let started = Instant::now();
    for (endpoint, _, files) in &parts {
        let list = files.list.display().to_string();
        let job = ["--each-line", &list, "--", "sha256sum", "{}"];
        let submit = ["submit", &endpoint.name, "--key", &endpoint.name];
        world.service(&[&submit[..], &job].concat()).unwrap().ok().unwrap();
    }
    for (endpoint, _, files) in &parts {
        world.wait(&endpoint.name).unwrap().ok().unwrap();
        let took = started.elapsed();
        let compared = scenario::compare(&world, &endpoint.name, files, took).unwrap();
        assert!(compared.perfect(), "{compared:?}");
    }
    let [(_, left, _), (_, right, _)] = &parts;
    let processes = [left.pid(), right.pid(), service.pid(), std::process::id()];
    assert_eq!(std::collections::BTreeSet::from(processes.map(network)).len(), 4);
}

/// The network that a process is in.
fn network(pid: u32) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}
