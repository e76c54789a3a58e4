//! Tasks that take their daemon down, and those that run beside them.

use clutch_tests::leash::alive;
use clutch_tests::oracle::Runs;
use clutch_tests::poll;
use clutch_tests::world::{Endpoint, SOON, World};

/// Runs an endpoint's daemon, again each time that it dies, until the tasks
/// under `keys` have ended. How often it died.
fn supervised(world: &World, endpoint: &Endpoint, keys: &[&str]) -> usize {
    let mut deaths = 0;
    loop {
        let mut daemon = world.launch(endpoint, &["--slots", "4"]).unwrap();
        let over = poll::until("all tasks to end, or the daemon", SOON, || {
            if !alive(daemon.pid()) {
                return Ok(Some(false));
            }
            for key in keys {
                if world.results(key)?.iter().any(|task| task["result"].is_null()) {
                    return Ok(None);
                }
            }
            Ok(Some(true))
        });
        if over.unwrap() {
            assert_eq!(daemon.stop(SOON).unwrap(), 0);
            return deaths;
        }
        assert_eq!(daemon.wait(SOON).unwrap(), 128 + 9);
        deaths += 1;
    }
}

#[test]
fn a_task_that_kills_its_daemon_is_poisoned_and_its_neighbours_succeed() {
    let test = "a_task_that_kills_its_daemon_is_poisoned_and_its_neighbours_succeed";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let runs = Runs::at(&world.folder().join("runs"));
    let submit = |key: &str, options: &[&str], script: &str| {
        let argv = runs.command(script, &[]);
        let mut submit = [&["submit", "lab", "--key", key], options, &["--"]].concat();
        submit.extend(argv.iter().map(String::as_str));
        world.service(&submit).unwrap().ok().unwrap();
    };
    submit("long", &[], "sleep 5");
    submit("poison", &[], "kill -9 $PPID; sleep 60");
    submit("others", &["--array", "1-100"], "true");

    let deaths = supervised(&world, &endpoint, &["long", "poison", "others"]);
    assert_eq!(deaths, 3);
    let poisoned = world.result("poison").unwrap();
    let id = poisoned["id"].as_str().unwrap();
    assert_eq!(poisoned["state"], "poisoned");
    assert_eq!(runs.read().unwrap()[id], 3);
    let shown = world.service(&["show", id]).unwrap().ok().unwrap().text();
    for words in ["poisoned", "died 3 times", "kill -9 $PPID"] {
        assert!(shown.contains(words), "no '{words}' in:\n{shown}");
    }
    for (key, count) in [("long", 1), ("others", 100)] {
        let states = world.results(key).unwrap();
        assert_eq!(states.iter().filter(|task| task["state"] == "succeeded").count(), count);
    }
}

#[test]
fn a_task_that_outlives_stops_and_kills_of_its_daemon_is_not_poisoned() {
    let test = "a_task_that_outlives_stops_and_kills_of_its_daemon_is_not_poisoned";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let runs = Runs::at(&world.folder().join("runs"));
    let argv = runs.command("[ -e go ] && exit 0; sleep 60", &[]);
    let folder = world.folder().display().to_string();
    let mut submit = vec!["submit", "lab", "--key", "k", "--cwd", &folder, "--"];
    submit.extend(argv.iter().map(String::as_str));
    world.service(&submit).unwrap().ok().unwrap();
    let started = |times: usize| {
        let what = format!("start {times} of the task");
        poll::until(&what, SOON, || {
            Ok((runs.read()?.values().sum::<usize>() >= times).then_some(()))
        })
        .unwrap();
    };
    let state = world.folder().join("state/clutch/endpoints").join(&endpoint.id);
    let noted = || std::fs::read(state.join("running"));
    for life in 1..=4 {
        let mut daemon = world.run(&endpoint).unwrap();
        started(life);
        assert!(!noted().unwrap().is_empty(), "the run is noted while the daemon is well");
        // The first signal lets the task run on; a supervisor loses patience.
        daemon.signal("TERM").unwrap();
        poll::until("the daemon to stop", SOON, || Ok(noted()?.is_empty().then_some(()))).unwrap();
        daemon.kill().unwrap();
    }
    std::fs::write(world.folder().join("go"), "").unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    world.wait("k").unwrap().ok().unwrap();
    assert_eq!(world.result("k").unwrap()["state"], "succeeded");
}
