//! A database that is not in the state folder: every command uses it, and what guards it in the
//! state folder guards it there.

use crate::doctor::judge;
use clutch_tests::faults::Need;
use clutch_tests::process::Daemon;
use clutch_tests::skip;
use clutch_tests::world::{Endpoint, SOON, World};
use rustix::fs::{major, minor};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Runs a program that is shown other mounts than there are.
const WITH_MOUNTS: &str = "mount --bind \"$0\" /proc/$$/mountinfo && exec \"$@\"";

/// A world in a folder, with its database in `records/x.db`.
struct Site {
    world: World,
    endpoint: Endpoint,
}

impl Site {
    fn new() -> Self {
        let world = World::in_folder().unwrap();
        // From the state folder on.
        let endpoint = world.provision_with("lab", &["--database", "../records/x.db"]).unwrap();
        Self { world, endpoint }
    }

    fn database(&self) -> PathBuf {
        self.world.folder().join("records/x.db")
    }

    fn path(&self) -> String {
        self.database().display().to_string()
    }

    fn serve(&self) -> Daemon {
        let mut service = self.world.launch_service(&["--database", &self.path()]).unwrap();
        service.wait_for("serving", SOON).unwrap();
        service
    }

    fn submit(&self, key: &str) {
        let echo = ["--", "echo", key];
        self.world.submit(&self.endpoint, key, &echo, SOON).unwrap().ok().unwrap();
    }
}

#[test]
fn every_command_uses_a_database_elsewhere_and_no_second_service_does() {
    let site = Site::new();
    let (world, path) = (&site.world, site.path());
    assert!(site.database().exists() && !world.folder().join("service/clutch.db").exists());
    let mut service = site.serve();
    let _daemon = world.run(&site.endpoint).unwrap();
    site.submit("k");
    let found = ["records/x.db can be used", "is running on it", "collected by this service"];
    judge(&world.service(&["doctor", "--database", &path]).unwrap(), 0, &found);
    let mut by_variable = world.service_command(&["doctor"]);
    by_variable.env("CLUTCH_DATABASE", &path);
    judge(&clutch_tests::process::run(by_variable, b"", SOON).unwrap(), 0, &found);
    let other = world.folder().join("other").display().to_string();
    let second = ["serve", "--state", &other, "--database", &path];
    judge(&world.service(&second).unwrap(), 73, &["x.db.serve.lock is locked", "--database PATH"]);
    assert_eq!(service.stop(SOON).unwrap(), 0);
    // Without the option there are other records: another service's.
    judge(&world.service(&["serve"]).unwrap(), 77, &["belong to another clutch-service"]);
    let mut service = site.serve();
    assert_eq!(world.result("k").unwrap()["result"]["stdout"], "k\n");
    assert_eq!(service.stop(SOON).unwrap(), 0);
}

#[test]
fn a_database_elsewhere_that_is_moved_while_it_is_used_is_told_with_its_place() {
    let site = Site::new();
    let mut service = site.serve();
    let _daemon = site.world.run(&site.endpoint).unwrap();
    site.submit("k");
    let (there, moved) = (site.database(), site.world.folder().join("moved"));
    std::fs::rename(there.parent().unwrap(), &moved).unwrap();
    assert_eq!(service.wait(SOON).unwrap(), 70);
    let log = service.log().unwrap();
    assert!(log.contains("moved/x.db") && log.contains("give that file as --database"), "{log}");
    std::fs::rename(&moved, there.parent().unwrap()).unwrap();
    let _service = site.serve();
    assert_eq!(site.world.result("k").unwrap()["result"]["stdout"], "k\n");
}

#[test]
fn a_place_where_no_database_can_be_is_refused_in_words() {
    let world = World::in_folder().unwrap();
    for command in [&["serve"][..], &["provision", "lab"], &["doctor"]] {
        let refused = [command, &["--database", "."]].concat();
        judge(&world.service(&refused).unwrap(), 73, &["it is a folder", "--database DIR"]);
    }
    std::fs::write(world.folder().join("file"), "").unwrap();
    let below = ["serve", "--database", "../file/x.db"];
    judge(&world.service(&below).unwrap(), 73, &["file", "--database PATH"]);
}

#[test]
fn a_database_on_a_network_file_system_is_refused_and_one_on_this_host_is_not() {
    let test = "a_database_on_a_network_file_system_is_refused_and_one_on_this_host_is_not";
    if let Some(why) = Need::Mount.missing() {
        return skip::because(test, &why);
    }
    let world = World::in_folder().unwrap();
    let device = world.folder().metadata().unwrap().dev();
    let mounts = world.folder().join("mounts");
    let (major, minor) = (major(device), minor(device));
    let mounted = format!("22 1 {major}:{minor} / / rw - fuse.sshfs you@host:/ rw\n");
    std::fs::write(&mounts, mounted).unwrap();
    let mounts = mounts.display().to_string();
    let world = world.wrapped_in(&["unshare", "--mount", "sh", "-c", WITH_MOUNTS, &mounts]);
    let words = ["network file system (fuse.sshfs)", "with --database PATH"];
    for command in [&["serve"][..], &["provision", "lab"], &["doctor"]] {
        judge(&world.service(command).unwrap(), 73, &words);
    }
    // The state folder may stay there.
    let host = tempfile::tempdir_in("/dev/shm").unwrap();
    let database = host.path().join("clutch.db").display().to_string();
    world.provision_with("lab", &["--database", &database]).unwrap();
    let found = ["clutch.db can be used"];
    judge(&world.service(&["doctor", "--database", &database]).unwrap(), 0, &found);
    judge(&world.service(&["doctor", "--database", "here.db"]).unwrap(), 73, &words);
}
