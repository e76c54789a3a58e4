//! Cancels and drains at real daemons: what runs is stopped, and what waits never starts,
//! whichever instance reads it.

use crate::running;
use clutch_tests::poll;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

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
fn a_running_tree_of_five_that_ignores_term_is_gone_and_recorded_soon_after_the_grace() {
    let test = "a_running_tree_of_five_that_ignores_term_is_gone_and_recorded_soon_after_the_grace";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let text = std::fs::read_to_string(&endpoint.config).unwrap();
    let grace = format!("{text}\n[engine]\ngrace = \"{}s\"\n", GRACE.as_secs());
    std::fs::write(&endpoint.config, grace).unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let mark = format!("1000.{}", std::process::id());
    // All five ignore TERM. Two of them are children of one that has left the session.
    let left = format!("sh -c 'sleep {mark} & wait'");
    let script = format!(
        "trap '' TERM; echo begun; setsid {left} & for i in 1 2; do sleep {mark} & done; wait"
    );
    let submit = ["submit", "lab", "--key", "tree", "--", "sh", "-c", &script];
    world.service(&submit).unwrap().ok().unwrap();
    poll::until("five processes", SOON, || Ok((processes(&mark) == 5).then_some(()))).unwrap();
    let begun = Instant::now();
    cancel(&world, "tree");
    assert_eq!(outcomes(&world, "tree"), ["cancelled"]);
    let took = begun.elapsed();
    assert_eq!(processes(&mark), 0);
    println!(
        "five processes that ignore TERM: gone and recorded after {took:.2?}, grace {GRACE:?}"
    );
    assert!(took >= GRACE, "they had {took:?} to end by themselves, of {GRACE:?}");
    assert!(took < Duration::from_secs(1) + 5 * GRACE, "it took {took:?}");
    let result = world.result("tree").unwrap()["result"].clone();
    assert_eq!(result["stdout"], "begun\n");
    assert!(result["reason"].as_str().unwrap().contains("cancelled while it ran"), "{result}");
    runs_one(&world);
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
fn an_instance_that_takes_over_from_a_drained_one_is_drained_until_the_resume() {
    let test = "an_instance_that_takes_over_from_a_drained_one_is_drained_until_the_resume";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let mut service = world.serve().unwrap();
    let mut first = world.run_with(&endpoint, &["--standby"]).unwrap();
    let state = world.folder().join("second").display().to_string();
    let mut second = world.launch(&endpoint, &["--standby", "--state", &state]).unwrap();
    second.wait_for("standing by", SOON).unwrap();
    world.service(&["endpoint", "drain", "lab"]).unwrap().ok().unwrap();
    first.wait_for(DRAINED, SOON).unwrap();
    let some = Marked::submit(&world, "some", 50);
    // What it is told it reads from its queue: no service is there to tell it again.
    service.kill().unwrap();
    first.kill().unwrap();
    second.wait_for(DRAINED, SOON).unwrap();
    let _service = world.serve().unwrap();
    let told = |draining| {
        poll::until("the second one to say whether it drains", SOON, || {
            let shown = world.service(&["endpoint", "show", "lab", "--json"])?.ok()?.json()?;
            let instances = shown["endpoint"]["instances"].as_array().cloned().unwrap_or_default();
            let active = instances.iter().find(|one| one["role"] == "active");
            let drains = active.and_then(|one| one["details"]["draining"].as_bool());
            Ok((drains.unwrap_or(false) == draining).then_some(()))
        })
        .unwrap();
    };
    told(true);
    assert_eq!(some.ran(), 0);
    world.service(&["endpoint", "resume", "lab"]).unwrap().ok().unwrap();
    assert!(outcomes(&world, "some").iter().all(|outcome| outcome == "succeeded"));
    assert_eq!(some.ran(), 50);
    told(false);
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
