//! Why a task waits, told by `show` about real endpoints at a real broker.

use crate::running;
use clutch_tests::poll;
use clutch_tests::proxy::Proxy;
use clutch_tests::skip;
use clutch_tests::tmpfs::Tmpfs;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;

/// The service's words when the broker confirms nothing.
const NOT_CONFIRMED: &str = "the broker does not confirm what it is sent: tasks are recorded, and \
                             wait; look whether its memory or disk is short";
/// How large the disk of an endpoint is that is filled.
const DISK_KILOBYTES: u32 = 16 * 1024;

/// Submits tasks, and returns their ids in the order of their indexes.
fn submit(world: &World, key: &str, options: &[&str]) -> Vec<String> {
    let words = [&["submit", "lab", "--key", key, "--json"], options].concat();
    let answer = world.service(&words).unwrap().ok().unwrap().json().unwrap();
    let ids = answer["ids"].as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Waits until `show` tells this cause, with these words, as text and as JSON.
fn waits_for(world: &World, task: &str, cause: &str, words: &str) {
    let mut last = Value::Null;
    let told = poll::until(&format!("the cause {cause}"), SOON, || {
        let shown = world.service(&["show", task, "--json"])?.ok()?.json()?;
        last = shown["why"].clone();
        Ok((last["cause"] == cause).then_some(()))
    });
    told.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    let sentence = last["words"].as_str().unwrap();
    assert!(sentence.contains(words), "'{words}' is not in: {sentence}");
    let text = world.service(&["show", task]).unwrap().ok().unwrap().text();
    assert!(text.contains("\nwhy ") && text.contains(words), "'{words}' is not in: {text}");
}

/// Adds lines to an endpoint's file.
fn append(endpoint: &Endpoint, lines: &str) {
    let file = std::fs::read_to_string(&endpoint.config).unwrap();
    std::fs::write(&endpoint.config, format!("{file}\n{lines}\n")).unwrap();
}

#[test]
fn a_task_says_that_its_retry_is_not_due() {
    let Some(it) = running("a_task_says_that_its_retry_is_not_due") else { return };
    let retry = ["--retries", "1", "--backoff", "1h..1h", "--", "false"];
    let task = submit(&it.world, "k", &retry).remove(0);
    waits_for(&it.world, &task, "retry_pause", "the next one starts in ");
}

#[test]
fn a_task_says_that_the_broker_does_not_confirm_it() {
    let Some(world) = World::or_skip("a_task_says_that_the_broker_does_not_confirm_it") else {
        return;
    };
    let broker = (std::net::Ipv4Addr::LOCALHOST, world.vhost().port().unwrap());
    let proxy = Proxy::before(broker.into()).unwrap();
    let endpoint = world.provision("lab").unwrap();
    let behind = world.vhost().url_by(proxy.port()).unwrap();
    let mut service = world.launch_service(&["--broker", &behind]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    proxy.hold_confirms(true);
    let task = submit(&world, "k", &["--", "sleep", "300"]).remove(0);
    waits_for(&world, &task, "submitting", "the broker has not confirmed it yet");
    assert!(proxy.confirms_held() > 0);
    proxy.hold_confirms(false);
    waits_for(&world, &task, "never_seen", "lab was never seen");
    let _daemon = world.run(&endpoint).unwrap();
    waits_for(&world, &task, "running", "it runs at lab");
}

#[test]
fn submitting_needs_no_confirm_however_much_is_submitted() {
    let Some(world) = World::or_skip("submitting_needs_no_confirm_however_much_is_submitted")
    else {
        return;
    };
    let broker = (std::net::Ipv4Addr::LOCALHOST, world.vhost().port().unwrap());
    let proxy = Proxy::before(broker.into()).unwrap();
    let endpoint = world.provision("lab").unwrap();
    let behind = world.vhost().url_by(proxy.port()).unwrap();
    let mut service = world.launch_service(&["--broker", &behind]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    proxy.hold_confirms(true);
    // More than has room at the broker's side.
    let large = "x".repeat(100_000);
    let submit = |key: &str| {
        let words = ["submit", "lab", "--key", key, "--array", "1-400", "--json", "--"];
        let line = [&words[..], &["true", &large]].concat();
        world.service(&line).unwrap().ok().unwrap().json().unwrap()
    };
    let first = submit("first");
    assert_eq!(first["recorded"], 400);
    let words = "the broker does not confirm what it was sent before";
    let told = first["waiting"].as_str().unwrap_or_default();
    assert!(told.contains(words), "{first}");
    service.wait_for(NOT_CONFIRMED, SOON).unwrap();
    let last = first["ids"][399].as_str().unwrap();
    waits_for(&world, last, "submitting", "look whether its memory or disk is short");
    let confirmed = ["submit", "lab", "--confirmed", "--", "true"];
    let refused = world.service(&confirmed).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("nothing was recorded"), "{refused:?}");
    // What waits is not held in memory, and a service that is started anew goes on with it.
    service.kill().unwrap();
    proxy.hold_confirms(false);
    let mut service = world.launch_service(&["--broker", &behind]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    assert_eq!(world.wait("first").unwrap().code, 0);
}

#[test]
fn a_task_says_that_others_have_the_slots_or_are_ahead_or_that_its_endpoint_rests() {
    let test = "a_task_says_that_others_have_the_slots_or_are_ahead_or_that_its_endpoint_rests";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    append(&endpoint, "[inbox]\nmax_tasks = 2\nprefetch = 1");
    let _service = world.serve().unwrap();
    let first = submit(&world, "first", &["--walltime", "1h", "--", "sleep", "600"]).remove(0);
    waits_for(&world, &first, "never_seen", "clutch-endpoint run");
    let mut daemon = world.run_with(&endpoint, &["--slots", "1"]).unwrap();
    waits_for(&world, &first, "running", "it runs at lab");
    let second = submit(&world, "second", &["--", "true"]).remove(0);
    waits_for(&world, &second, "slots_busy", "are busy (1 of 1 slot) until about ");
    let late = submit(&world, "late", &["--array", "1-3", "--", "true"]);
    waits_for(&world, &late[2], "inbox_full", "the inbox of lab is full");
    world.service(&["endpoint", "drain", "lab"]).unwrap().ok().unwrap();
    waits_for(&world, &second, "draining", "clutch-service endpoint resume lab");
    world.service(&["endpoint", "resume", "lab"]).unwrap().ok().unwrap();
    waits_for(&world, &second, "slots_busy", "are busy");
    daemon.kill().unwrap();
    waits_for(&world, &late[0], "offline", "was heard last");
    world.service(&["cancel", &late[1], "--no-wait"]).unwrap();
    waits_for(&world, &late[1], "cancel_requested", "told before anything else when it is back");
}

#[test]
fn a_call_says_that_the_workers_of_its_function_are_starting() {
    let test = "a_call_says_that_the_workers_of_its_function_are_starting";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    append(&endpoint, "[functions.slow]\ncommand = [\"sleep\", \"600\"]\nstartup_timeout = \"1h\"");
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let call = submit(&world, "k", &["--call", "slow"]).remove(0);
    poll::until("the call to be accepted", SOON, || {
        let shown = world.service(&["show", &call, "--json"])?.ok()?.json()?;
        Ok((shown["state"] == "accepted").then_some(()))
    })
    .unwrap();
    let starting = "lab says that it waits for a worker of 'slow' to start";
    waits_for(&world, &call, "workers", starting);
}

#[test]
fn a_task_says_that_the_disk_of_its_endpoint_is_full() {
    let test = "a_task_says_that_the_disk_of_its_endpoint_is_full";
    let Some(world) = World::or_skip(test) else { return };
    let mounted = world.folder().join("disk");
    std::fs::create_dir(&mounted).unwrap();
    let disk = match Tmpfs::over(&mounted, DISK_KILOBYTES) {
        Ok(disk) => disk,
        Err(error) => return skip::because(test, &format!("{error:#}")),
    };
    let endpoint = world.provision("lab").unwrap();
    append(&endpoint, &format!("[state]\npath = \"{}\"", mounted.join("state").display()));
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    disk.fill().unwrap();
    let large = "x".repeat(8000);
    let task = submit(&world, "k", &["--array", "1-300", "--", "true", &large]).pop().unwrap();
    poll::until("the disk to be full", SOON, || {
        // What the endpoint removes makes room: it is taken again.
        disk.fill()?;
        let shown = world.service(&["show", &task, "--json"])?.ok()?.json()?;
        Ok((shown["why"]["cause"] == "disk_full").then_some(()))
    })
    .unwrap();
    waits_for(&world, &task, "disk_full", "lab says: disk full");
}
