//! The terms a task is submitted with: environment, input, folder, walltime,
//! expiry.

use crate::running;
use clutch_tests::poll;
use clutch_tests::world::{SOON, World};
use std::time::Duration;

/// Long enough for a shell to start and to set its traps.
const WALLTIME: Duration = Duration::from_secs(2);
/// From TERM to KILL, when nothing else is configured.
const GRACE: Duration = Duration::from_secs(5);

/// The processes that have `text` in their environment.
fn processes_with(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(text)
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_task_sees_its_environment_its_input_and_who_it_is() {
    let Some(run) = running("a_task_sees_its_environment_its_input_and_who_it_is") else { return };
    let input = run.world.folder().join("input");
    std::fs::write(&input, "in put").unwrap();
    let input = input.display().to_string();
    let script = "echo \"$COLOUR|$(cat)|$CLUTCH_ATTEMPT|$CLUTCH_ENDPOINT_ID|$CLUTCH_TASK_ID\"";
    let terms = ["--env", "COLOUR=dark=red", "--stdin", &input, "--shell", "--", script];
    let output = run.world.submit(&run.endpoint, "k", &terms, SOON).unwrap().ok().unwrap();
    let id = run.world.result("k").unwrap()["id"].as_str().unwrap().to_owned();
    let expected = format!("dark=red|in put|1|{}|{id}\n", run.endpoint.id);
    assert_eq!(output.text(), expected);
}

#[test]
fn a_task_does_not_see_the_brokers_password() {
    let Some(run) = running("a_task_does_not_see_the_brokers_password") else { return };
    let output = run.world.submit(&run.endpoint, "k", &["--", "env"], SOON).unwrap().ok().unwrap();
    assert!(output.text().contains("CLUTCH_TASK_ID="));
    assert!(!output.text().contains("amqp://"), "{}", output.text());
}

#[test]
fn a_task_runs_in_a_folder_of_its_own_that_goes_or_in_the_one_it_names() {
    let test = "a_task_runs_in_a_folder_of_its_own_that_goes_or_in_the_one_it_names";
    let Some(run) = running(test) else { return };
    let (world, endpoint) = (&run.world, &run.endpoint);
    let script = ["--shell", "--", "touch litter && pwd"];
    let own = world.submit(endpoint, "own", &script, SOON).unwrap().ok().unwrap().text();
    let own = std::path::PathBuf::from(own.trim());
    poll::until("the sandbox to go", SOON, || Ok((!own.exists()).then_some(()))).unwrap();
    let named = world.submit(endpoint, "named", &["--cwd", "/usr", "--", "pwd"], SOON).unwrap();
    assert_eq!(named.text(), "/usr\n");
    let missing = ["--cwd", "/does/not/exist", "--", "pwd"];
    assert_ne!(world.submit(endpoint, "missing", &missing, SOON).unwrap().code, 0);
    let task = world.result("missing").unwrap();
    assert_eq!(task["state"], "failed");
    assert!(task["result"]["reason"].as_str().unwrap().contains("/does/not/exist"), "{task}");
}

#[test]
fn a_program_that_is_not_there_is_an_outcome_with_a_reason() {
    let test = "a_program_that_is_not_there_is_an_outcome_with_a_reason";
    let Some(run) = running(test) else { return };
    let output = run.world.submit(&run.endpoint, "k", &["--", "no-such-program"], SOON).unwrap();
    assert_ne!(output.code, 0);
    let task = run.world.result("k").unwrap();
    assert_eq!(task["state"], "failed");
    assert!(task["result"]["exit_code"].is_null());
    assert!(task["result"]["reason"].as_str().unwrap().contains("no-such-program"), "{task}");
}

#[test]
fn the_memory_of_a_large_task_is_known() {
    let Some(run) = running("the_memory_of_a_large_task_is_known") else { return };
    let script = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let output = run.world.submit(&run.endpoint, "k", &["--shell", "--", script], SOON).unwrap();
    assert_eq!(output.text(), "100000000\n");
    let peak = run.world.result("k").unwrap()["result"]["peak_memory_bytes"].as_u64();
    assert!(peak.is_some_and(|peak| peak > 90_000_000), "{peak:?}");
}

#[test]
fn a_task_past_its_walltime_ends_in_time_and_leaves_no_process() {
    let test = "a_task_past_its_walltime_ends_in_time_and_leaves_no_process";
    let Some(run) = running(test) else { return };
    let stubborn = "trap '' TERM; (setsid sleep 300 &) ; sleep 300 & sleep 300";
    // A process that heeds TERM ends by it, another by KILL, after the grace.
    let table = [
        ("plain", "sleep 300 & sleep 300", 15, WALLTIME),
        ("stubborn", stubborn, 9, WALLTIME + GRACE),
    ];
    for (key, script, signal, at_least) in table {
        let terms = ["--walltime", "2s", "--", "sh", "-c", script];
        let output = run.world.submit(&run.endpoint, key, &terms, SOON).unwrap();
        assert_eq!(output.code, 1, "{}", output.stderr);
        let task = run.world.result(key).unwrap();
        assert_eq!(
            (&task["state"], &task["result"]["signal"]),
            (&"timed_out".into(), &signal.into())
        );
        let ms = |name: &str| task["result"][name].as_u64().unwrap();
        let ran = Duration::from_millis(ms("ended_at_ms") - ms("started_at_ms"));
        assert!(ran >= at_least && ran < at_least + SOON / 4, "{key}: {ran:?}");
        let id = task["id"].as_str().unwrap();
        assert_eq!(processes_with(&format!("CLUTCH_TASK_ID={id}")), Vec::<String>::new());
    }
}

#[test]
fn a_task_that_is_not_started_in_time_expires_and_does_not_run() {
    let test = "a_task_that_is_not_started_in_time_expires_and_does_not_run";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mark = world.folder().join("mark").display().to_string();
    let submit = ["submit", "lab", "--key", "k", "--expires", "500ms", "--", "touch", &mark];
    world.service(&submit).unwrap().ok().unwrap();
    poll::pause(Duration::from_millis(700));
    let _daemon = world.run(&endpoint).unwrap();
    assert_eq!(world.wait("k").unwrap().code, 1);
    assert_eq!(world.result("k").unwrap()["state"], "expired");
    assert!(!std::path::Path::new(&mark).exists());
}
