//! Topics by their commands: its members, what waits and why, how many workers there are, and
//! what becomes of tasks that are submitted to one.

mod page;

use clutch_tests::poll;
use clutch_tests::process::Output;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;

fn service(world: &World, arguments: &[&str]) -> Output {
    world.service(arguments).unwrap()
}

/// Runs a command that must succeed, and returns its output.
fn done(world: &World, arguments: &[&str]) -> String {
    service(world, arguments).ok().unwrap().text()
}

/// Runs a command that must fail, and returns its exit code and its words.
fn refused(world: &World, arguments: &[&str]) -> (i32, String) {
    let output = service(world, arguments);
    assert_ne!(output.code, 0, "{arguments:?}: {}", output.text());
    (output.code, output.stderr)
}

fn json(world: &World, arguments: &[&str]) -> Value {
    service(world, &[&["--json"], arguments].concat()).ok().unwrap().json().unwrap()
}

/// A topic in full.
fn topic(world: &World, name: &str) -> Value {
    json(world, &["topic", "show", name])["topic"].clone()
}

/// Waits until a topic fulfils a condition, and returns it.
fn until(world: &World, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    poll::until(what, SOON, || {
        let topic = topic(world, name);
        Ok(is(&topic).then_some(topic))
    })
    .unwrap()
}

/// Provisions a member of the topic `cloud` and has it name a function.
fn member(world: &World, name: &str) -> Endpoint {
    let endpoint = world.provision_with(name, &["--topic", "cloud"]).unwrap();
    let text = std::fs::read_to_string(&endpoint.config).unwrap();
    assert!(text.contains("[worker]\ntopics = [\"cloud\"]\n"), "{text}");
    let function = "\n[functions.add]\ncommand = [\"/bin/cat\"]\nversion = \"1\"\n";
    std::fs::write(&endpoint.config, text + function).unwrap();
    endpoint
}

/// Submits a task to the topic `cloud` and returns its id.
fn submitted(world: &World, key: &str, arguments: &[&str]) -> String {
    let submit = ["submit", "--topic", "cloud", "--key", key];
    let report = json(world, &[&submit, arguments].concat());
    report["ids"][0].as_str().unwrap().to_owned()
}

/// Waits until a task waits for this cause, and returns the sentence.
fn because(world: &World, task: &str, cause: &str) -> String {
    poll::until(cause, SOON, || {
        let shown = json(world, &["show", task]);
        let why = &shown["why"];
        Ok((why["cause"] == cause).then(|| why["words"].as_str().unwrap().to_owned()))
    })
    .unwrap()
}

fn workers_come_and_go(world: &World) {
    let (one, two) = (member(world, "one"), member(world, "two"));
    let _service = world.serve().unwrap();
    let wait = ["wait-for-workers", "cloud", "-n", "2", "--timeout", "1s"];
    let (code, words) = refused(world, &wait);
    assert!(code == 75 && words.contains("2 of 2 workers missing"), "{words}");
    let first = world.run(&one).unwrap();
    let found = done(world, &["wait-for-workers", "cloud", "--timeout", "60s"]);
    assert_eq!(found.trim(), "the topic cloud has 1 worker: one");
    let output = service(world, &[&["--json"], &wait[..]].concat());
    let report = output.json().unwrap();
    assert_eq!((output.code, report["missing"].as_u64()), (75, Some(1)), "{report}");
    // The second comes while it is waited for.
    let waiting = std::thread::scope(|scope| {
        let wait = ["wait-for-workers", "cloud", "-n", "2", "--timeout", "60s"];
        let waiting = scope.spawn(move || done(world, &wait));
        let second = world.run(&two).unwrap();
        (waiting.join().unwrap(), second)
    });
    assert_eq!(waiting.0.trim(), "the topic cloud has 2 workers: one, two");
    let cloud = topic(world, "cloud");
    let functions = &cloud["members"][0]["functions"][0];
    assert_eq!(
        (functions["name"].as_str(), functions["version"].as_str()),
        (Some("add"), Some("1"))
    );
    assert!(cloud["members"][0]["slots"].as_u64() > Some(0), "{cloud}");
    let listed = done(world, &["topics"]);
    let row = listed.lines().find(|line| line.starts_with("cloud")).unwrap();
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["cloud", "2", "2"], "{listed}");
    let mut first = first;
    first.kill().unwrap();
    let cloud = until(world, "cloud", "one to be gone", |cloud| cloud["workers"] == 1);
    assert_eq!(cloud["members"][0]["why_none"]["why"], "away", "{cloud}");
    let (code, words) = refused(world, &wait);
    assert!(code == 75 && words.contains("1 of 2 workers missing"), "{words}");
}

#[test]
fn workers_of_a_topic_are_counted_as_they_come_and_go() {
    let Some(world) = World::or_skip("workers_of_a_topic_are_counted_as_they_come_and_go") else {
        return;
    };
    workers_come_and_go(&world);
}

#[test]
fn workers_of_a_topic_are_counted_as_they_come_and_go_over_a_folder() {
    workers_come_and_go(&World::in_folder().unwrap());
}

#[test]
fn a_task_that_no_member_can_do_says_why_it_waits_and_can_be_cancelled() {
    let world = World::in_folder().unwrap();
    let endpoint = member(&world, "one");
    let _service = world.serve().unwrap();
    let task = submitted(&world, "none", &["--", "true"]);
    let words = because(&world, &task, "no_member");
    assert!(words.contains("no endpoint is a member of the topic cloud"), "{words}");
    let listed = done(&world, &["tasks", "--topic", "cloud"]);
    assert!(listed.contains(&task) && listed.contains("topic cloud"), "{listed}");
    assert!(!done(&world, &["tasks", "--topic", "other"]).contains(&task));
    let shown = done(&world, &["show", &task]);
    assert!(shown.contains("topic        cloud\n") && !shown.contains("\nendpoint "), "{shown}");
    let cancelled = done(&world, &["cancel", "--topic", "cloud"]);
    assert_eq!(cancelled.trim(), "cancelled 1 task");

    let _daemon = world.run(&endpoint).unwrap();
    done(&world, &["wait-for-workers", "cloud", "--timeout", "60s"]);
    let call = submitted(&world, "function", &["--call", "multiply"]);
    let words = because(&world, &call, "no_function");
    assert!(words.contains("has the function multiply: one has add"), "{words}");
    let version = ["--call", "add", "--function-version", "2"];
    let version = submitted(&world, "version", &version);
    let words = because(&world, &version, "no_version");
    assert!(words.contains("has add in the version 2: one has 1"), "{words}");
    let cloud = topic(&world, "cloud");
    let waiting = cloud["waiting"].as_array().unwrap();
    assert_eq!(waiting.len(), 2, "{cloud}");
    assert!(waiting.iter().all(|kind| kind["tasks"] == 1), "{cloud}");
    let text = done(&world, &["topic", "show", "cloud"]);
    assert!(text.contains("multiply") && text.contains("one has add"), "{text}");
    done(&world, &["endpoint", "drain", "one"]);
    let process = submitted(&world, "drained", &["--", "true"]);
    let words = because(&world, &process, "no_member_ready");
    assert!(words.contains("one drains"), "{words}");
    let cancelled = done(&world, &["cancel", "--topic", "cloud", "--no-wait"]);
    assert_eq!(cancelled.trim(), "cancelled 3 tasks");
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_way_out() {
    let world = World::in_folder().unwrap();
    member(&world, "one");
    let _service = world.serve().unwrap();
    for (arguments, code, told) in [
        (
            &["submit", "one", "--topic", "cloud", "--", "true"][..],
            64,
            "leave out 'one' or --topic cloud",
        ),
        (&["submit", "--", "true"], 64, "--topic TOPIC"),
        (&["submit", "--topic", "a b", "--", "true"], 64, "cannot be the name of a topic"),
        (&["submit", "one", "--place-within", "5s", "--", "true"], 64, "--topic"),
        (&["submit", "--topic", "cloud", "--confirmed", "--", "true"], 64, "when they are placed"),
        (&["topic", "show", "cloudd"], 1, "there is no topic 'cloudd'"),
        (&["cancel", "--topic", "cloud", "--endpoint", "one"], 64, "cannot be used with"),
        (&["provision", "two", "--topic", "a b"], 64, "cannot be the name of a topic"),
    ] {
        let (exit, words) = refused(&world, arguments);
        assert!(exit == code && words.contains(told), "{arguments:?}: {exit} {words}");
    }
    let words = done(&world, &["topics"]);
    assert!(words.contains("There is no topic yet"), "{words}");
}

#[test]
fn tasks_of_a_topic_run_at_its_members_and_show_where() {
    let world = World::in_folder().unwrap();
    let (one, two) = (member(&world, "one"), member(&world, "two"));
    let _service = world.serve().unwrap();
    let _daemons = [world.run(&one).unwrap(), world.run(&two).unwrap()];
    done(&world, &["wait-for-workers", "cloud", "-n", "2", "--timeout", "60s"]);
    let said = done(&world, &["submit", "--topic", "cloud", "--wait", "--", "echo", "hello"]);
    assert_eq!(said, "hello\n");
    let range = ["submit", "--topic", "cloud", "--key", "many", "--array", "1-40", "--wait"];
    done(&world, &[&range[..], &["--shell", "--", "sleep 0.1"]].concat());
    let listed = done(&world, &["tasks", "--topic", "cloud", "--key", "many"]);
    assert_eq!(listed.lines().skip(1).filter(|line| line.contains("succeeded")).count(), 40);
    assert!(listed.contains("  one  ") && listed.contains("  two  "), "{listed}");
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = done(&world, &["show", &id]);
    assert!(shown.contains("topic        cloud\n"), "{shown}");
    assert!(shown.contains("placed       attempt 1 at "), "{shown}");
    let short = ["submit", "--topic", "nowhere", "--place-within", "200ms", "--wait"];
    let (_, words) = refused(&world, &[&short[..], &["--", "true"]].concat());
    assert!(words.contains("expired") && words.contains("nowhere"), "{words}");
}
