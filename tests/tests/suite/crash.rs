//! Crashes: of the endpoint, the service and the broker, by `kill -9`.

use crate::{heavy, running};
use clutch_tests::binaries;
use clutch_tests::broker::Private;
use clutch_tests::gate::Gate;
use clutch_tests::oracle::{Runs, Verdict};
use clutch_tests::scenario::{self, Faults, Survived};
use clutch_tests::world::{SOON, World};
use clutch_tests::{poll, skip};
use std::time::Duration;

#[test]
fn no_task_is_lost_to_killed_endpoints_and_restarted_brokers() {
    let test = "no_task_is_lost_to_killed_endpoints_and_restarted_brokers";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let _turn = heavy();
    let survived = scenario::faults(binaries::folder().unwrap(), &Faults::over(1000)).unwrap();
    let Survived { verdict, slots_at_kills, running_at_kills, .. } = &survived;
    println!("{verdict}; at the kills: {slots_at_kills} slots, {running_at_kills} processes");
    assert!(survived.holds(), "{:?}", survived.verdict);
}

/// Kills the endpoint while a task submitted with `terms` runs, starts it
/// again, and returns the task's state and how often it started.
fn killed_while_running(test: &str, terms: &[&str]) -> Option<(String, usize)> {
    let mut run = running(test)?;
    let runs = Runs::at(&run.world.folder().join("runs"));
    // The second time it finds the mark of the first and ends.
    let argv = runs.command("[ -e \"$1\" ] && exit 0; touch \"$1\"; sleep 600", &["MARK"]);
    let mark = run.world.folder().join("mark").display().to_string();
    let argv: Vec<&str> =
        argv.iter().map(|word| if word == "MARK" { mark.as_str() } else { word }).collect();
    let submit = [&["submit", "lab", "--key", "k"], terms, &["--"], &argv].concat();
    run.world.service(&submit).unwrap().ok().unwrap();
    poll::until("the task to run", SOON, || Ok(std::path::Path::new(&mark).exists().then_some(())))
        .unwrap();
    run.daemon.kill().unwrap();
    let _daemon = run.world.run(&run.endpoint).unwrap();
    run.world.wait("k").unwrap();
    let state = run.world.result("k").unwrap()["state"].as_str().unwrap().to_owned();
    Some((state, runs.read().unwrap().values().sum()))
}

#[test]
fn a_task_runs_again_after_a_crash_of_its_endpoint() {
    let ended = killed_while_running("a_task_runs_again_after_a_crash_of_its_endpoint", &[]);
    assert!(ended.is_none_or(|ended| ended == ("succeeded".to_owned(), 2)));
}

#[test]
fn a_task_that_must_not_run_again_is_interrupted_by_a_crash() {
    let test = "a_task_that_must_not_run_again_is_interrupted_by_a_crash";
    let ended = killed_while_running(test, &["--no-rerun"]);
    assert!(ended.is_none_or(|ended| ended == ("interrupted".to_owned(), 1)));
}

#[test]
fn no_result_is_lost_to_a_killed_service() {
    let Some(mut run) = running("no_result_is_lost_to_a_killed_service") else { return };
    let runs = Runs::at(&run.world.folder().join("runs"));
    let gate = Gate::new(run.world.folder(), "k");
    // Half of the results come before the kill, half while no service is there.
    let argv = runs.command(&format!("[ $1 -le 100 ] || {}; echo $1", gate.line()), &["{}"]);
    let mut submit = vec!["submit", "lab", "--key", "k", "--array", "1-200", "--"];
    submit.extend(argv.iter().map(String::as_str));
    run.world.service(&submit).unwrap().ok().unwrap();
    poll::until("a result to be recorded", SOON, || {
        let done = |task: &serde_json::Value| !task["result"].is_null();
        Ok(run.world.results("k")?.iter().any(done).then_some(()))
    })
    .unwrap();
    run.service.kill().unwrap();
    gate.open().unwrap();
    poll::until("all tasks to start", SOON, || Ok((runs.read()?.len() == 200).then_some(())))
        .unwrap();
    let mut service = run.world.serve().unwrap();
    service.kill().unwrap();
    let _service = run.world.serve().unwrap();
    run.world.wait("k").unwrap().ok().unwrap();
    let stdout = run.world.service(&["results", "--key", "k", "--stdout-only"]).unwrap();
    let expected: String = (1..=200).map(|n| format!("{n}\n")).collect();
    assert_eq!(stdout.text(), expected);
}

#[test]
fn the_broker_may_be_killed_while_tasks_run() {
    let test = "the_broker_may_be_killed_while_tasks_run";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let mut broker = Private::start(&clutch_tests::broker::Options::default()).unwrap();
    let world = World::on(broker.address()).unwrap();
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mut daemon = world.run(&endpoint).unwrap();
    // A broker that is killed right after a declaration may forget the queue.
    poll::pause(Duration::from_secs(5));
    let runs = Runs::at(&world.folder().join("runs"));
    let gate = Gate::new(world.folder(), "k");
    // One message brings all sixty; from the eleventh on, tasks wait for the
    // gate, so there is work left whenever the loss of the broker is noticed.
    let argv = runs.command(&format!("[ $1 -le 10 ] || {}; echo $1", gate.line()), &["{}"]);
    let mut submit = vec!["submit", "lab", "--key", "k", "--array", "1-60", "--"];
    submit.extend(argv.iter().map(String::as_str));
    world.service(&submit).unwrap().ok().unwrap();
    poll::until("ten tasks to start", SOON, || Ok((runs.read()?.len() >= 10).then_some(())))
        .unwrap();
    broker.kill().unwrap();
    daemon.wait_for("disengaged", SOON).unwrap();
    gate.open().unwrap();
    poll::until("the engine to do all it has without a link", SOON, || {
        Ok((runs.read()?.len() == 60).then_some(()))
    })
    .unwrap();
    broker.run().unwrap();
    daemon.wait_for("engaged", SOON).unwrap();
    world.wait("k").unwrap().ok().unwrap();
    let started = runs.read().unwrap();
    assert_eq!(started.len(), 60);
    assert!(started.values().all(|times| *times == 1), "a link fault repeated a task");
}

#[test]
fn an_endpoint_may_die_between_any_two_steps() {
    let Some(world) = World::or_skip("an_endpoint_may_die_between_any_two_steps") else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let slots = std::thread::available_parallelism().unwrap().get();
    for failpoint in ["accept:1", "ack:1", "start:150", "finish:150", "publish:2", "release:1"] {
        let runs = Runs::at(&world.folder().join(failpoint));
        let argv = runs.command("echo $1", &["{}"]);
        let mut submit = vec!["submit", "lab", "--key", failpoint, "--array", "1-300", "--"];
        submit.extend(argv.iter().map(String::as_str));
        let mut mortal = world.launch_mortal(&endpoint, failpoint).unwrap();
        world.service(&submit).unwrap().ok().unwrap();
        assert_eq!(mortal.wait(SOON).unwrap(), 128 + 9, "it was to die at {failpoint}");
        let mut daemon = world.run(&endpoint).unwrap();
        world.wait(failpoint).unwrap().ok().unwrap();
        assert_eq!(daemon.stop(SOON).unwrap(), 0);
        let ids = World::ids(&world.results(failpoint).unwrap());
        let verdict = Verdict::new(&ids, &ids, &runs.read().unwrap());
        println!("{failpoint}: {verdict}");
        assert!(verdict.recorded == 300 && verdict.unknown.is_empty(), "{failpoint}: {verdict}");
        assert!(verdict.ran_again.len() <= slots, "{failpoint}: {verdict}");
    }
}
