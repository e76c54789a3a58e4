//! Cancelling tasks and running them again, at real endpoints.

use crate::running;
use clutch_tests::oracle::Runs;
use clutch_tests::poll;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How many tasks wait.
const MANY: usize = 10_000;

/// Cancels, and returns the answer.
fn cancel(world: &World, words: &[&str]) -> Value {
    let all = [&["cancel", "--json"], words].concat();
    world.service(&all).unwrap().ok().unwrap().json().unwrap()
}

/// Submits so many tasks that note their start and then sleep.
fn submit(world: &World, endpoint: &Endpoint, key: &str, count: usize, seconds: &str) -> Runs {
    let runs = Runs::at(&world.folder().join(format!("runs of {key}")));
    let argv = runs.command(&format!("exec sleep {seconds}"), &[]);
    let array = format!("1-{count}");
    let mut words = vec!["submit", &endpoint.name, "--key", key, "--array", &array, "--shell"];
    words.push("--");
    let script = argv[2].clone();
    words.push(&script);
    world.service(&words).unwrap().ok().unwrap();
    runs
}

/// How many tasks of a submission are in a state.
fn count(world: &World, key: &str, state: &str) -> usize {
    let results = world.results(key).unwrap();
    results.iter().filter(|task| task["state"] == state).count()
}

fn until_started(runs: &Runs, count: usize) {
    poll::until("tasks to start", SOON, || Ok((runs.read()?.len() >= count).then_some(())))
        .unwrap();
}

/// How many processes have this in their command line.
fn processes(mark: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

#[test]
fn a_running_tree_of_processes_is_gone_and_recorded_within_a_second() {
    let Some(it) = running("a_running_tree_of_processes_is_gone_and_recorded_within_a_second")
    else {
        return;
    };
    // Five processes, by a number that no other has.
    let mark = format!("6{:05}.{}", std::process::id() % 100_000, 4242);
    let script = format!("for i in 1 2 3; do sleep {mark} & done; sh -c 'sleep {mark}; :'");
    let submit = ["submit", "lab", "--key", "tree", "--shell", "--", &script];
    it.world.service(&submit).unwrap().ok().unwrap();
    poll::until("the tree", SOON, || Ok((processes(&mark) >= 5).then_some(()))).unwrap();
    let begun = Instant::now();
    let answer = cancel(&it.world, &["--key", "tree"]);
    let took = begun.elapsed();
    println!("five processes that obey TERM: gone and recorded after {took:.2?}");
    assert_eq!((&answer["cancelled"], &answer["asked"]), (&1.into(), &0.into()), "{answer}");
    assert_eq!(processes(&mark), 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(it.world.result("tree").unwrap()["state"], "cancelled");
    // It comes too late for the second time.
    let again = it.world.service(&["cancel", "--key", "tree"]).unwrap().ok().unwrap();
    assert!(again.text().contains("too late for 1 task"), "{}", again.text());
}

#[test]
fn none_of_ten_thousand_queued_tasks_starts_after_they_are_cancelled() {
    let Some(it) = running("none_of_ten_thousand_queued_tasks_starts_after_they_are_cancelled")
    else {
        return;
    };
    let runs = submit(&it.world, &it.endpoint, "many", MANY, "0.5");
    until_started(&runs, 1);
    let begun = Instant::now();
    let answer = cancel(&it.world, &["--endpoint", "lab"]);
    let (took, started) = (begun.elapsed(), runs.read().unwrap().len());
    println!("{MANY} queued tasks cancelled at an endpoint that is online in {took:.2?}");
    assert_eq!(answer["asked"], 0, "{answer}");
    it.world.wait("many").unwrap();
    assert_eq!(runs.read().unwrap().len(), started, "some started after the answer");
    let cancelled = count(&it.world, "many", "cancelled");
    assert_eq!(cancelled + count(&it.world, "many", "succeeded"), MANY);
    assert!(cancelled > MANY / 2, "{cancelled}");
}

#[test]
fn tasks_of_an_offline_endpoint_are_cancelled_when_it_is_back_and_none_starts() {
    let test = "tasks_of_an_offline_endpoint_are_cancelled_when_it_is_back_and_none_starts";
    let Some(mut it) = running(test) else { return };
    it.daemon.stop(SOON).unwrap();
    let runs = submit(&it.world, &it.endpoint, "off", MANY, "0.01");
    let begun = Instant::now();
    let said = it.world.service(&["cancel", "--key", "off"]).unwrap().ok().unwrap().text();
    println!(
        "{MANY} queued tasks of an endpoint that is offline: the answer after {:.2?}",
        begun.elapsed()
    );
    assert!(said.contains("10000 tasks not cancelled yet"), "{said}");
    assert!(said.contains("will not start"), "{said}");
    let _back = it.world.run(&it.endpoint).unwrap();
    it.world.wait("off").unwrap();
    println!(
        "{MANY} cancelled by an endpoint that came back, {:.2?} after they were",
        begun.elapsed()
    );
    assert_eq!(count(&it.world, "off", "cancelled"), MANY);
    assert!(runs.read().unwrap().is_empty(), "a task started that was cancelled");
}

#[test]
fn tasks_that_are_cancelled_during_a_takeover_start_at_neither_instance() {
    let test = "tasks_that_are_cancelled_during_a_takeover_start_at_neither_instance";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision_with("lab", &["--lost-after", "10s"]).unwrap();
    let _service = world.serve().unwrap();
    let mut first = world.run_with(&endpoint, &["--standby", "--slots", "2"]).unwrap();
    let state = world.folder().join("second").display().to_string();
    let options = ["--standby", "--slots", "2", "--state", &state];
    let mut second = world.launch(&endpoint, &options).unwrap();
    second.wait_for("standing by", SOON).unwrap();
    let runs = submit(&world, &endpoint, "over", MANY, "0.2");
    until_started(&runs, 2);
    first.kill().unwrap();
    cancel(&world, &["--key", "over", "--no-wait"]);
    let started = runs.read().unwrap().len();
    second.wait_for("engaged", SOON).unwrap();
    // What the first one had accepted was lost with it, which is certain after a while.
    world.wait("over").unwrap();
    assert_eq!(runs.read().unwrap().len(), started, "a task started after the answer");
    let cancelled = count(&world, "over", "cancelled");
    assert_eq!(cancelled + count(&world, "over", "succeeded"), MANY);
    assert!(cancelled > MANY / 2, "{cancelled}");
}

/// Submits one task that fails until it has run so many times.
fn submit_failing(world: &World, key: &str, times: usize, options: &[&str]) -> Runs {
    let runs = Runs::at(&world.folder().join(format!("runs of {key}")));
    let file = world.folder().join(format!("runs of {key}"));
    let script = format!("test $(wc -l < '{}') -gt {times}", file.display());
    let argv = runs.command(&script, &[]);
    let submit = [&["submit", "lab", "--key", key], options, &["--shell", "--", &argv[2]]].concat();
    world.service(&submit).unwrap().ok().unwrap();
    runs
}

/// The outcomes of the attempts at the one task of a submission.
fn attempts(world: &World, key: &str) -> Vec<String> {
    let task = world.result(key).unwrap()["id"].as_str().unwrap().to_owned();
    let shown = world.service(&["show", &task, "--json"]).unwrap().ok().unwrap().json().unwrap();
    let results = shown["results"].as_array().unwrap();
    results.iter().map(|one| one["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_failed_task_is_run_again_by_a_person_and_one_under_way_is_not() {
    let Some(it) = running("a_failed_task_is_run_again_by_a_person_and_one_under_way_is_not")
    else {
        return;
    };
    let world = &it.world;
    let runs = submit_failing(world, "again", 1, &["--no-rerun"]);
    world.wait("again").unwrap();
    assert_eq!(attempts(world, "again"), ["failed"]);
    let retry = ["retry", "--key", "again", "--status", "failed,timed_out"];
    let said = world.service(&retry).unwrap().ok().unwrap().text();
    assert!(said.contains("run again: 1 task"), "{said}");
    world.wait("again").unwrap().ok().unwrap();
    assert_eq!(attempts(world, "again"), ["failed", "succeeded"]);
    assert_eq!(runs.read().unwrap().values().copied().collect::<Vec<_>>(), [2]);
    let said = world.service(&retry).unwrap().ok().unwrap().text();
    assert!(said.contains("nothing to run again"), "{said}");
    let sleeping = submit(world, &it.endpoint, "sleeps", 1, "600");
    until_started(&sleeping, 1);
    let task = world.result("sleeps").unwrap()["id"].as_str().unwrap().to_owned();
    let refused = world.service(&["retry", &task]).unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("under way"), "{}", refused.stderr);
    assert_eq!(cancel(world, &[&task])["cancelled"], 1);
}

#[test]
fn a_task_that_expired_may_wait_as_long_again_when_it_is_run_again() {
    let Some(mut it) = running("a_task_that_expired_may_wait_as_long_again_when_it_is_run_again")
    else {
        return;
    };
    let world = &it.world;
    it.daemon.stop(SOON).unwrap();
    let expires = Duration::from_secs(5);
    let options = ["--expires", "5s", "--", "true"];
    let submitted = Instant::now();
    world
        .service(&[&["submit", "lab", "--key", "late"], &options[..]].concat())
        .unwrap()
        .ok()
        .unwrap();
    poll::pause(expires.saturating_sub(submitted.elapsed()) + Duration::from_millis(10));
    let _daemon = world.run(&it.endpoint).unwrap();
    world.wait("late").unwrap();
    assert_eq!(attempts(world, "late"), ["expired"]);
    world.service(&["retry", "--key", "late"]).unwrap().ok().unwrap();
    world.wait("late").unwrap().ok().unwrap();
    assert_eq!(attempts(world, "late"), ["expired", "succeeded"]);
}

#[test]
fn a_policy_runs_a_task_again_until_it_succeeds_and_waiters_wait_for_that() {
    let test = "a_policy_runs_a_task_again_until_it_succeeds_and_waiters_wait_for_that";
    let Some(it) = running(test) else { return };
    let options = ["--retries", "5", "--backoff", "10ms..1s"];
    submit_failing(&it.world, "policy", 2, &options);
    it.world.wait("policy").unwrap().ok().unwrap();
    assert_eq!(attempts(&it.world, "policy"), ["failed", "failed", "succeeded"]);
    // A pause is ended by a cancellation.
    let options = ["--retries", "5", "--backoff", "1h"];
    submit_failing(&it.world, "pause", 9, &options);
    poll::until("the pause", SOON, || {
        let paused = attempts(&it.world, "pause") == ["failed"];
        Ok((paused && count(&it.world, "pause", "waiting") == 1).then_some(()))
    })
    .unwrap();
    assert_eq!(cancel(&it.world, &["--key", "pause"])["cancelled"], 1);
    assert_eq!(attempts(&it.world, "pause"), ["failed", "cancelled"]);
}
