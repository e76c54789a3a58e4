//! How workers end: each end is one task's outcome, and none of the daemon's.

use super::*;
use clutch_tests::poll;

#[test]
fn a_worker_that_is_killed_fails_its_task_and_the_next_one_succeeds() {
    let test = "a_worker_that_is_killed_fails_its_task_and_the_next_one_succeeds";
    let Some(mut place) = place(test, ASK, &["--slots", "1"]) else { return };
    let before = place.value("before", "ask", &[]);
    assert_eq!(place.call("dies", "ask", &["--json-arg", "\"die\""]).code, 137);
    assert_eq!(place.world.result("dies").unwrap()["state"], "failed");
    let result = place.result("dies");
    assert_eq!((&result["signal"], &result["stderr"]), (&9.into(), &"call 2\n".into()));
    let reason = result["reason"].as_str().unwrap();
    assert!(reason.contains("ended before it answered"), "{reason}");
    let after = place.value("after", "ask", &[]);
    assert!(after["pid"] != before["pid"] && after["count"] == 1);

    // One that is killed while it waits costs no task anything.
    let pid = after["pid"].to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert!(killed.success());
    poll::until("it to die", SOON, || Ok((!lives(&after["pid"])).then_some(()))).unwrap();
    assert_ne!(place.value("again", "ask", &[])["pid"], after["pid"]);
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}

#[test]
fn a_walltime_ends_one_worker_and_leaves_the_other() {
    let test = "a_walltime_ends_one_worker_and_leaves_the_other";
    let Some(place) = place(test, ASK, &["--slots", "2"]) else { return };
    let slow = ["submit", "lab", "--key", "slow", "--walltime", "3s", "--call", "ask"];
    let slow = [&slow[..], &["--json-arg", "\"sleep\""]].concat();
    place.world.service(&slow).unwrap().ok().unwrap();
    let beside = place.value("beside", "ask", &[]);
    assert_eq!(place.world.wait("slow").unwrap().code, 1);
    assert_eq!(place.world.result("slow").unwrap()["state"], "timed_out");
    let reason = place.result("slow")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("walltime of 3s"), "{reason}");
    assert_eq!(place.value("later", "ask", &[])["pid"], beside["pid"]);
}

#[test]
fn a_worker_serves_its_time_and_takes_no_more_memory_than_it_may() {
    let test = "a_worker_serves_its_time_and_takes_no_more_memory_than_it_may";
    let functions = format!(
        "{ASK}recycle_after = 2\n{}memory_limit = 4096\n",
        ASK.replace("functions.ask", "functions.fat")
    );
    let Some(place) = place(test, &functions, &["--slots", "1"]) else { return };
    let pids = |function: &str| -> Vec<Value> {
        let key = |number: i32| format!("{function}-{number}");
        (0..4).map(|number| place.value(&key(number), function, &[])["pid"].clone()).collect()
    };
    let worn = pids("ask");
    assert!(worn[0] == worn[1] && worn[1] != worn[2] && worn[2] == worn[3], "{worn:?}");
    let fat = pids("fat");
    assert!(fat[0] != fat[1] && fat[1] != fat[2], "{fat:?}");
}

#[test]
fn a_worker_that_never_says_hello_fails_its_task_in_words() {
    let test = "a_worker_that_never_says_hello_fails_its_task_in_words";
    let functions = "[functions.mute]\ncommand = [\"sleep\", \"300\"]\nstartup_timeout = \"1s\"\n";
    let Some(place) = place(test, functions, &[]) else { return };
    assert_eq!(place.call("k", "mute", &[]).code, 1);
    assert_eq!(place.world.result("k").unwrap()["state"], "failed");
    let reason = place.result("k")["reason"].as_str().unwrap().to_owned();
    for words in ["sleep 300", "did not say hello within 1s", "startup_timeout"] {
        assert!(reason.contains(words), "no '{words}' in: {reason}");
    }
    place.call("echo", "clutch.echo", &[]).ok().unwrap();
}

#[test]
fn a_call_that_ran_when_the_daemon_died_runs_again_unless_it_must_not() {
    let test = "a_call_that_ran_when_the_daemon_died_runs_again_unless_it_must_not";
    let functions = format!("{ASK}{}", ASK.replace("functions.ask", "functions.spare"));
    let Some(mut place) = place(test, &functions, &["--slots", "3"]) else { return };
    let idle = place.value("idle", "spare", &[]);
    for (key, terms) in [("again", &[][..]), ("once", &["--no-rerun"])] {
        let submit = ["submit", "lab", "--key", key, "--call", "ask", "--json-arg", "\"sleep\""];
        place.world.service(&[&submit[..], terms].concat()).unwrap().ok().unwrap();
    }
    let noted = place.state().join("running");
    let running = || {
        let bytes = std::fs::read(&noted)?;
        let calls = bytes.chunks(bytes.len().max(2) / 2).filter(|one| one.iter().any(|b| *b != 0));
        Ok((!bytes.is_empty() && calls.count() == 2).then_some(()))
    };
    poll::until("both calls to run", SOON, running).unwrap();
    let marked = format!("CLUTCH_ENDPOINT_ID={}", place.endpoint.id);
    assert!(workers_with(&marked) >= 2);
    place.daemon.kill().unwrap();
    // Those that wait see the end of their input; those that do not are ended next.
    poll::until("the idle one to end", SOON, || Ok((!lives(&idle["pid"])).then_some(()))).unwrap();
    std::fs::write(place.world.folder().join("worker.sh"), SHELL.replace("sleep 300", ":"))
        .unwrap();
    place.daemon = place.world.run_with(&place.endpoint, &["--slots", "3"]).unwrap();
    place.world.wait("again").unwrap().ok().unwrap();
    place.world.wait("once").unwrap();
    assert_eq!(place.world.result("once").unwrap()["state"], "interrupted");
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
    assert_eq!(workers_with(&marked), 0, "a worker was left behind");
}

#[test]
fn a_stop_keeps_the_call_that_runs_for_the_next_start() {
    let test = "a_stop_keeps_the_call_that_runs_for_the_next_start";
    let Some(mut place) = place(test, ASK, &[]) else { return };
    let submit = ["submit", "lab", "--key", "k", "--call", "ask", "--json-arg", "\"sleep\""];
    place.world.service(&submit).unwrap().ok().unwrap();
    let marked = format!("CLUTCH_ENDPOINT_ID={}", place.endpoint.id);
    poll::until("it to run", SOON, || Ok((workers_with(&marked) >= 2).then_some(()))).unwrap();
    place.daemon.signal("TERM").unwrap();
    place
        .daemon
        .wait_for("stopping: running tasks may finish; a second signal stops them", SOON)
        .unwrap();
    place.daemon.signal("TERM").unwrap();
    assert_eq!(place.daemon.wait(SOON).unwrap(), 0);
    assert_eq!(workers_with(&marked), 0);
    std::fs::write(place.world.folder().join("worker.sh"), SHELL.replace("sleep 300", ":"))
        .unwrap();
    let _daemon = place.world.run(&place.endpoint).unwrap();
    place.world.wait("k").unwrap().ok().unwrap();
    assert_eq!(place.world.result("k").unwrap()["state"], "succeeded");
}

/// How many processes have `text` in their environment.
fn workers_with(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environment| String::from_utf8_lossy(environment).contains(text))
        .count()
}
