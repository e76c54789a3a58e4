//! Bad folders and bad files, as tables: what is given, what the user sees, and
//! how the program ends.

use super::running;
use crate::bad_input::{Row, judge, still_works};
use clutch_tests::process::{Output, run};
use clutch_tests::world::{SOON, World};
use clutch_tests::{machine, poll, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn provision(world: &World, url: &str) -> Output {
    let out = world.folder().join("x.toml").display().to_string();
    world.service(&["provision", "x", "--broker", url, "--out", &out]).unwrap()
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_in_words() {
    let world = World::in_folder().unwrap();
    let file = world.folder().join("file");
    fs::write(&file, b"").unwrap();
    let thesis = world.folder().join("thesis");
    fs::create_dir(&thesis).unwrap();
    fs::write(thesis.join("thesis.tex"), b"").unwrap();
    let old = world.folder().join("old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("clutch-spool.json"), b"{\"format\": 9}").unwrap();
    let good = url(&world.spool());
    let row =
        |input, url: &str, code, words| Row { input, seen: provision(&world, url), code, words };
    judge(&[
        row("a relative path", "file:spool", 64, &["absolute"]),
        row("a host", "file://spool", 64, &["host", "file:///"]),
        row("the root of the file system", "file:///", 64, &["folder below"]),
        row("an unknown option", &format!("{good}?colour=red"), 64, &["colour", "poll"]),
        row(
            "an option with a wrong value",
            &format!("{good}?poll=soon"),
            64,
            &["poll=", "duration"],
        ),
        row("a file", &url(&file), 78, &["file", "not a folder"]),
        row("a folder in a folder that is not there", "file:///no/such/spool", 69, &["/no/such"]),
        row("the folder of another program", &url(&thesis), 78, &["thesis", "folder of its own"]),
        row("a folder of another format", &url(&old), 78, &["format 1", "9"]),
    ]);
    assert_eq!(fs::read_dir(&thesis).unwrap().count(), 1, "it was changed");
    assert!(!world.spool().exists());
}

#[test]
fn a_folder_without_permission_is_named() {
    let test = "a_folder_without_permission_is_named";
    let world = World::in_folder().unwrap();
    let shut = world.folder().join("shut");
    fs::create_dir(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    // Root is kept out of nothing.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let world = if machine::is_root() { world.wrapped_in(&nobody) } else { world };
    fs::set_permissions(world.folder(), fs::Permissions::from_mode(0o777)).unwrap();
    let able = run(world.service_command(&["--version"]), b"", SOON);
    if !able.is_ok_and(|output| output.code == 0) {
        return skip::because(test, "the binaries cannot be run as another user");
    }
    let seen = provision(&world, &url(&shut));
    judge(&[Row {
        input: "a folder without permission",
        seen,
        code: 77,
        words: &["shut", "ermission"],
    }]);
}

#[test]
fn files_that_cannot_be_read_are_set_aside_and_the_rest_goes_on() {
    let mut running = running();
    let queue = running.world.spool().join(format!("queues/{}.tasks/ready", running.endpoint.id));
    let garbage: [&[u8]; 3] = [b"", b"hello", b"clutch-messages/1 00000000 2\n[]"];
    for (number, bytes) in (1..).zip(garbage) {
        let producer = queue.join(format!("{}.1", uuid::Uuid::now_v7()));
        fs::create_dir(&producer).unwrap();
        fs::write(producer.join(format!("{number:016}")), bytes).unwrap();
    }
    let told = "a file in the queue cannot be read: it is set aside and not delivered";
    for _ in garbage {
        let line = running.daemon.wait_for(told, SOON).unwrap();
        assert!(Path::new(line["file"].as_str().unwrap()).is_file(), "{line}");
    }
    let aside = running.world.spool().join("quarantine");
    assert_eq!(fs::read_dir(&aside).unwrap().count(), garbage.len());
    still_works(&running.world, "garbage in the task queue");
}

#[test]
fn a_task_file_that_is_cut_short_is_set_aside_and_the_rest_goes_on() {
    let mut running = running();
    assert_eq!(running.daemon.stop(SOON).unwrap(), 0);
    let submit = |key: &str| {
        let submit = ["submit", "lab", "--key", key, "--", "echo", key];
        running.world.service(&submit).unwrap().ok().unwrap();
    };
    submit("cut");
    let queue = running.world.spool().join(format!("queues/{}.tasks/ready", running.endpoint.id));
    let files: Vec<_> = poll::until("the task's file", SOON, || {
        let mut files = Vec::new();
        for producer in fs::read_dir(&queue)? {
            files.extend(fs::read_dir(producer?.path())?.flatten().map(|file| file.path()));
        }
        Ok((!files.is_empty()).then_some(files))
    })
    .unwrap();
    assert_eq!(files.len(), 1);
    let bytes = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &bytes[..bytes.len() / 2]).unwrap();
    submit("whole");
    running.daemon = running.world.run(&running.endpoint).unwrap();
    running.world.wait("whole").unwrap().ok().unwrap();
    let told = "a file in the queue cannot be read: it is set aside and not delivered";
    // It is set aside once the service has been told, which may be later.
    running.daemon.wait_for(told, SOON).unwrap();
    let aside = running.world.spool().join("quarantine");
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 1);
}

#[test]
fn a_root_of_another_format_is_told_and_nothing_is_done_in_it() {
    let mut running = running();
    assert_eq!(running.daemon.stop(SOON).unwrap(), 0);
    assert_eq!(running.service.stop(SOON).unwrap(), 0);
    let world = &running.world;
    fs::write(world.spool().join("clutch-spool.json"), b"{\"format\": 2}\n").unwrap();
    let config = running.endpoint.config.display().to_string();
    let endpoint = run(world.endpoint_command(&["run", "--config", &config]), b"", SOON).unwrap();
    let words: &[&str] = &["format 1", "another folder"];
    judge(&[Row { input: "a newer root, to the endpoint", seen: endpoint, code: 69, words }]);
    // The records can be read all the same, so the service goes on.
    let mut service = world.launch_service(&[]).unwrap();
    let told = service.wait_for("disengaged", SOON).unwrap();
    assert!(told["fault"].as_str().unwrap().contains("another folder"), "{told}");
    world.service(&["tasks"]).unwrap().ok().unwrap();
}
