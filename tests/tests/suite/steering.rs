//! Cancels and drains at real daemons: what runs is stopped, and what waits never starts,
//! whichever instance reads it.

use crate::running;
use clutch_tests::poll;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Of the endpoint's own: the time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

/// The words of an endpoint when a drain begins.
const DRAINED: &str = "drained: no task is started or read, and those that run go on";

/// How many processes have this among their arguments.
fn processes(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(mark)).count()
}

/// The outcomes of the tasks under a key, once all have one.
fn outcomes(world: &World, key: &str) -> Vec<String> {
    poll::until(&format!("all outcomes of {key}"), SOON, || {
        let results = world.results(key)?;
        let outcome = |one: &serde_json::Value| Some(one["result"]["outcome"].as_str()?.to_owned());
        Ok(results.iter().map(outcome).collect::<Option<Vec<String>>>())
    })
    .unwrap()
}

/// Tasks of which each leaves a file behind where it runs.
struct Marked {
    folder: PathBuf,
}

impl Marked {
    fn submit(world: &World, key: &str, count: usize) -> Self {
        let folder = world.folder().join(key);
        std::fs::create_dir(&folder).unwrap();
        let script = format!("touch {}/$CLUTCH_TASK_ID", folder.display());
        let array = format!("1-{count}");
        let submit = ["submit", "lab", "--key", key, "--array", &array, "--", "sh", "-c", &script];
        world.service_within(&submit, 2 * SOON).unwrap().ok().unwrap();
        Self { folder }
    }

    fn ran(&self) -> usize {
        std::fs::read_dir(&self.folder).unwrap().count()
    }
}

fn cancel(world: &World, key: &str) {
    world.service(&["cancel", "--key", key]).unwrap().ok().unwrap();
}

fn runs_one(world: &World) {
    let done = world.service(&["submit", "lab", "--wait", "--", "true"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_running_tree_of_five_is_gone_and_recorded_as_cancelled_with_its_output() {
    let test = "a_running_tree_of_five_is_gone_and_recorded_as_cancelled_with_its_output";
    let Some(run) = running(test) else { return };
    let mark = format!("1000.{}", std::process::id());
    let script = format!("echo begun; for i in 1 2 3 4; do sleep {mark} & done; wait");
    let submit = ["submit", "lab", "--key", "tree", "--", "sh", "-c", &script];
    run.world.service(&submit).unwrap().ok().unwrap();
    poll::until("five processes", SOON, || Ok((processes(&mark) == 5).then_some(()))).unwrap();
    let begun = Instant::now();
    cancel(&run.world, "tree");
    assert_eq!(outcomes(&run.world, "tree"), ["cancelled"]);
    assert!(begun.elapsed() < Duration::from_secs(1) + GRACE, "it took {:?}", begun.elapsed());
    assert_eq!(processes(&mark), 0);
    let result = run.world.result("tree").unwrap()["result"].clone();
    assert_eq!(result["stdout"], "begun\n");
    assert!(result["reason"].as_str().unwrap().contains("cancelled while it ran"), "{result}");
    runs_one(&run.world);
}

#[test]
fn many_that_wait_for_an_endpoint_that_is_offline_never_start() {
    let test = "many_that_wait_for_an_endpoint_that_is_offline_never_start";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let many = Marked::submit(&world, "many", 10_000);
    // It is told whether it is there or not; none of them starts from here on.
    world.service(&["cancel", "--key", "many", "--no-wait"]).unwrap().ok().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    assert!(outcomes(&world, "many").iter().all(|outcome| outcome == "cancelled"));
    runs_one(&world);
    assert_eq!(many.ran(), 0);
}

/// An endpoint that is drained has read no mark, so its cancels are in force when it is killed.
fn cancelled_before_a_kill(test: &str, first: &[&str], second: impl Fn(&World) -> Vec<String>) {
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mut daemon = world.run_with(&endpoint, first).unwrap();
    world.service(&["endpoint", "drain", "lab"]).unwrap().ok().unwrap();
    daemon.wait_for(DRAINED, SOON).unwrap();
    let some = Marked::submit(&world, "some", 200);
    world.service(&["cancel", "--key", "some", "--no-wait"]).unwrap().ok().unwrap();
    daemon.wait_for("cancelled tasks", SOON).unwrap();
    daemon.kill().unwrap();
    let options = second(&world);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut next = world.run_with(&endpoint, &options).unwrap();
    next.wait_for("cancelled tasks", SOON).unwrap();
    next.wait_for(DRAINED, SOON).unwrap();
    world.service(&["endpoint", "resume", "lab"]).unwrap().ok().unwrap();
    runs_one(&world);
    assert!(outcomes(&world, "some").iter().all(|outcome| outcome == "cancelled"));
    assert_eq!(some.ran(), 0);
}

#[test]
fn what_was_cancelled_does_not_start_at_the_standby_that_takes_over_before_the_mark() {
    let test = "what_was_cancelled_does_not_start_at_the_standby_that_takes_over_before_the_mark";
    cancelled_before_a_kill(test, &["--standby"], |world| {
        let state = world.folder().join("second").display().to_string();
        vec!["--standby".to_owned(), "--state".to_owned(), state]
    });
}

#[test]
fn what_was_cancelled_does_not_start_after_a_kill_between_obeying_and_the_mark() {
    let test = "what_was_cancelled_does_not_start_after_a_kill_between_obeying_and_the_mark";
    cancelled_before_a_kill(test, &[], |_| Vec::new());
}

/// Publishes to one of the endpoint's queues.
fn publish(world: &World, endpoint: &Endpoint, queue: &str, body: &serde_json::Value) {
    let (queue, properties) = (format!("{}.{queue}", endpoint.id), json!({ "type": body["type"] }));
    world.vhost().publish("", &queue, properties, body.to_string().as_bytes()).unwrap();
}

#[test]
fn more_cancels_than_the_first_prefetch_are_held_and_all_released_by_their_mark() {
    let test = "more_cancels_than_the_first_prefetch_are_held_and_all_released_by_their_mark";
    let Some(mut run) = running(test) else { return };
    for number in 1..=300 {
        let attempt = json!({ "task_id": uuid::Uuid::new_v4(), "attempt": 1 });
        let cancel = json!({ "version": 1, "type": "clutch.cancel", "number": number,
            "attempts": [attempt] });
        publish(&run.world, &run.endpoint, "control", &cancel);
    }
    let obeyed = |number: u32| {
        let word = format!("\"number\":{number},");
        move |log: &str| log.contains(&word)
    };
    poll::until("the last cancel to be obeyed", SOON, || {
        Ok(obeyed(300)(&run.daemon.log()?).then_some(()))
    })
    .unwrap();
    let mark = json!({ "version": 1, "type": "clutch.mark", "up_to": 299 });
    publish(&run.world, &run.endpoint, "tasks", &mark);
    // Behind the mark in the queue.
    runs_one(&run.world);
    assert_eq!(run.daemon.stop(SOON).unwrap(), 0);
    let control = format!("{}.control", run.endpoint.id);
    let mut left = Vec::new();
    poll::until("the last one to be back", SOON, || {
        left.extend(run.world.vhost().take(&control, 9)?);
        Ok((!left.is_empty()).then_some(()))
    })
    .unwrap();
    assert_eq!(left.len(), 1, "it alone is in force");
}
