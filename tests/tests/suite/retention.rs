//! Records that go (`forget`, `serve --keep`) or are written out, listings, and commands that
//! wait while the service restarts.

use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{api, poll};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A pair over a folder.
struct Site {
    world: World,
    endpoint: Endpoint,
    service: Daemon,
    _daemon: Daemon,
}

fn site(options: &[&str]) -> Site {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let mut service = world.launch_service(options).unwrap();
    service.wait_for("serving", SOON).unwrap();
    let daemon = world.run(&endpoint).unwrap();
    Site { world, endpoint, service, _daemon: daemon }
}

impl Site {
    fn ask(&self, arguments: &[&str]) -> clutch_tests::process::Output {
        self.world.service(arguments).unwrap()
    }

    fn submit(&self, key: &str, arguments: &[&str]) {
        self.world.submit(&self.endpoint, key, arguments, SOON).unwrap().ok().unwrap();
    }

    /// The size of the database, with the service stopped.
    fn size(&mut self) -> u64 {
        assert_eq!(self.service.stop(SOON).unwrap(), 0);
        std::fs::metadata(self.world.folder().join("service/clutch.db")).unwrap().len()
    }
}

#[test]
fn forgotten_tasks_leave_the_file_shrinks_and_unfinished_ones_stay() {
    let mut site = site(&[]);
    let script = ["--array", "1-120", "--shell", "--", "head -c 100000 /dev/zero | tr '\\0' $1"];
    site.submit("large", &script);
    site.submit("small", &["--array", "1-3", "--", "true"]);
    site.ask(&["submit", "lab", "--key", "open", "--", "sleep", "600"]).ok().unwrap();
    assert!(site.size() > 12_000_000);
    site.service = site.world.serve().unwrap();
    let dry = site.ask(&["forget", "--key", "large", "--dry-run"]).ok().unwrap();
    assert_eq!(dry.text(), "would forget 120 tasks\n");
    let forgot = site.ask(&["forget", "--key", "large", "--json"]).ok().unwrap().json().unwrap();
    assert_eq!((&forgot["tasks"], &forgot["submissions"]), (&120.into(), &1.into()));
    let gone = site.ask(&["results", "--key", "large", "--json"]);
    assert_eq!((gone.code, gone.text().as_str()), (1, ""));
    let error: serde_json::Value =
        serde_json::from_str(gone.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["kind"], "not_found", "{error}");
    let again = site.ask(&["submit", "lab", "--key", "large", "--wait", "--", "true"]);
    assert_eq!(again.code, 0, "its key is free again: {}", again.stderr);
    let forgot = site.ask(&["forget", "--older-than", "1ms"]).ok().unwrap();
    let words = "forgot 4 tasks and 2 submissions; 1 task without an outcome stay";
    assert!(forgot.text().starts_with(words), "{}", forgot.text());
    let left = site.ask(&["tasks", "--json"]).ok().unwrap().json_lines().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["key"], "open");
    let size = site.size();
    assert!(size < 2_000_000, "{size} bytes are left");
}

#[test]
fn a_service_forgets_what_is_older_than_it_is_told_to_keep() {
    let site = site(&["--keep", "1s"]);
    site.submit("k", &["--array", "1-5", "--", "true"]);
    poll::until("the tasks to be forgotten", SOON, || {
        let left = site.ask(&["tasks", "--json"]).ok()?.text();
        Ok(left.is_empty().then_some(()))
    })
    .unwrap();
    assert_eq!(site.ask(&["wait", "--key", "k"]).code, 1);
}

#[test]
fn what_became_of_old_times_of_a_schedule_is_forgotten_but_for_the_last_twenty() {
    let site = site(&[]);
    let socket = site.world.folder().join("service/clutch.sock");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = u64::try_from(since.as_millis()).unwrap() + 500;
    let rule = json!({
        "recurrence": { "every_ms": 100 }, "from_ms": first, "until_ms": first + 2400,
    });
    let spec = json!({
        "endpoint": "lab", "rule": rule, "task": { "argv": ["true"] },
        "policy": { "overlap": "allow", "catch_up": "all" },
    });
    let set = json!({ "schedules": [{ "name": "often", "spec": spec }] });
    api::post(&socket, "/v1/schedules", &set).unwrap();
    let shown = || api::get(&socket, "/v1/schedules/often").unwrap();
    poll::until("25 tasks to end", SOON, || {
        let shown = shown();
        Ok((shown["tasks"] == 25 && shown["running"] == 0).then_some(()))
    })
    .unwrap();
    let forgot = site.ask(&["forget", "--older-than", "1ms", "--json"]).ok().unwrap();
    let forgot = forgot.json().unwrap();
    assert_eq!((&forgot["tasks"], &forgot["occurrences"]), (&25.into(), &5.into()));
    let kept: Vec<Value> = shown()["occurrences"].as_array().unwrap().clone();
    assert_eq!(kept.len(), 20);
    assert!(kept.iter().all(|one| one["end"] == "task" && one["state"].is_null()), "{kept:?}");
    api::post(&socket, "/v1/schedules/often/remove", &json!({})).unwrap();
    let forgot = site.ask(&["forget", "--older-than", "1ms"]).ok().unwrap();
    assert_eq!(forgot.text(), "forgot 0 tasks and 0 submissions, and 20 records of schedules\n");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn results_are_written_as_files_and_values_in_order() {
    let site = site(&[]);
    let script = "echo out $1; test $1 = 3 || echo err >&2";
    site.submit("p", &["--array", "1-11", "--name", "a/b", "--shell", "--", script]);
    let folder = site.world.folder().join("out");
    let to = ["results", "--key", "p", "--to", folder.to_str().unwrap()];
    let wrote = site.ask(&to).ok().unwrap().text();
    assert!(wrote.starts_with("wrote 21 files to "), "{wrote}");
    let all = names(&folder);
    assert_eq!(
        (all.len(), all[0].as_str(), all[1].as_str()),
        (21, "00-a_b.stderr", "00-a_b.stdout")
    );
    assert_eq!(std::fs::read_to_string(folder.join("10-a_b.stdout")).unwrap(), "out 11\n");
    std::fs::remove_file(folder.join("04-a_b.stdout")).unwrap();
    std::fs::write(folder.join("05-a_b.stdout"), "mine").unwrap();
    let again = site.ask(&to);
    assert_eq!(again.code, 1);
    assert!(again.text().starts_with("wrote 1 file to "), "{}", again.text());
    assert!(again.stderr.contains("05-a_b.stdout"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(folder.join("05-a_b.stdout")).unwrap(), "mine");
    assert_eq!(names(&folder), all);

    let call = ["--call", "clutch.echo", "--json-arg", "{}", "--json-arg", "[1.50, null]"];
    site.submit("c", &[&["--array", "1-3"], &call[..]].concat());
    let values = site.ask(&["results", "--key", "c", "--values"]).ok().unwrap().text();
    let values: Vec<&str> = values.lines().collect();
    assert_eq!(values.len(), 3, "{values:?}");
    assert!(values[2].contains("1.50") && values[2].contains('3'), "{values:?}");
    let none = site.ask(&["results", "--key", "p", "--values"]);
    assert_eq!((none.code, none.text()), (1, "null\n".repeat(11)));
}

#[test]
fn listings_are_filtered_and_watched() {
    let site = site(&[]);
    site.submit("good", &["--array", "1-3", "--name", "sweep-a", "--", "true"]);
    let bad = ["submit", "lab", "--key", "bad", "--name", "sweep-b", "--wait", "--", "false"];
    assert_eq!(site.ask(&bad).code, 1);
    let count = |arguments: &[&str]| {
        let listed = site.ask(&[&["tasks", "--json"], arguments].concat()).ok().unwrap();
        listed.json_lines().unwrap().len()
    };
    for (arguments, tasks) in [
        (&["--status", "failed,succeeded"][..], 4),
        (&["--status", "failed", "--name", "sweep*"], 1),
        (&["--name", "*-a", "--limit", "2"], 2),
        (&["--name", "sweep"], 0),
        (&["--since", "1h"], 4),
        (&["--until", "1h"], 0),
        (&["--until", "2100-01-01T00:00:00+01:00"], 4),
    ] {
        assert_eq!(count(arguments), tasks, "{arguments:?}");
    }
    let watched = site.ask(&["tasks", "--watch", "--key", "good"]).ok().unwrap().text();
    assert!(watched.contains("3 of 3 tasks done") && watched.contains("3 succeeded"), "{watched}");
    let json = site.ask(&["tasks", "--watch", "--key", "good", "--json"]).ok().unwrap();
    let last = json.json_lines().unwrap().pop().unwrap();
    assert_eq!((&last["done"], &last["total"]), (&3.into(), &3.into()));
}

/// How many clients are connected to the service.
fn clients(world: &World) -> usize {
    // It was bound under another name, and renamed.
    let socket = world.folder().join("service/clutch.").display().to_string();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    // The sixth column is the state; 03 is a connection.
    let connected = |line: &&str| line.split_whitespace().nth(5) == Some("03");
    sockets.lines().filter(|line| line.contains(&socket)).filter(connected).count()
}

#[test]
fn commands_that_wait_survive_a_restart_of_the_service_and_repeat_nothing() {
    let mut site = site(&[]);
    let gate = site.world.folder().join("gate").display().to_string();
    let script = format!("while [ ! -e {gate} ]; do sleep 0.1; done; echo done");
    let several =
        ["submit", "lab", "--key", "several", "--array", "1-2", "--", "sh", "-c", &script];
    site.ask(&several).ok().unwrap();
    let outputs = std::thread::scope(|scope| {
        let world = &site.world;
        let one = ["submit", "lab", "--key", "one", "--wait", "--", "sh", "-c", &script];
        let one = one.map(str::to_owned);
        let commands = [
            scope.spawn(move || world.service(&one.each_ref().map(String::as_str)).unwrap()),
            scope.spawn(|| world.service(&["wait", "--key", "several"]).unwrap()),
        ];
        poll::until("both commands to wait", SOON, || Ok((clients(world) >= 2).then_some(())))
            .unwrap();
        let submitted = ["tasks", "--key", "one", "--json"];
        poll::until("the task to be submitted", SOON, || {
            Ok(world.service(&submitted)?.text().contains(r#""submitted_at_ms":1"#).then_some(()))
        })
        .unwrap();
        site.service.kill().unwrap();
        poll::pause(Duration::from_secs(1));
        site.service = world.serve().unwrap();
        std::fs::write(&gate, "").unwrap();
        commands.map(|command| command.join().unwrap())
    });
    for output in &outputs {
        assert_eq!(output.code, 0, "{}", output.stderr);
        let told = output.stderr.matches("the service is away").count();
        assert_eq!(told, 1, "{}", output.stderr);
    }
    assert_eq!(outputs[0].text(), "done\n");
    assert_eq!(outputs[1].text(), "2 tasks: 2 succeeded\n");
    assert_eq!(site.service.stop(SOON).unwrap(), 0);
    let given_up = site.ask(&["wait", "--key", "several"]);
    assert_eq!(given_up.code, 69, "a service that was never reached is not waited for");
}
