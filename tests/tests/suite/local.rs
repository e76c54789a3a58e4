//! The commands of a person at the machine of an endpoint: `status`, `tasks`, `drain`, `resume`,
//! also with the broker gone, and `HUP`.

use clutch_tests::poll;
use clutch_tests::process::{self, Daemon, Output};
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A world in which an endpoint's daemon runs.
struct Place {
    world: World,
    endpoint: Endpoint,
    daemon: Daemon,
    _service: Daemon,
}

/// A world without a broker of its own: all of this works without one.
fn place(settings: &str) -> Place {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    append(&endpoint, settings);
    let service = world.serve().unwrap();
    let daemon = world.run(&endpoint).unwrap();
    Place { world, endpoint, daemon, _service: service }
}

fn append(endpoint: &Endpoint, settings: &str) {
    let file = std::fs::read_to_string(&endpoint.config).unwrap();
    std::fs::write(&endpoint.config, format!("{file}\n{settings}")).unwrap();
}

impl Place {
    fn try_ask(&self, arguments: &[&str]) -> Output {
        let config = self.endpoint.config.display().to_string();
        let words = [arguments, &["--config", &config]].concat();
        process::run(self.world.endpoint_command(&words), b"", SOON).unwrap()
    }

    /// The daemon's answer to a command, as JSON.
    fn ask(&self, arguments: &[&str]) -> Value {
        self.try_ask(&[arguments, &["--json"]].concat()).ok().unwrap().json().unwrap()
    }

    /// Waits until a number of the status is as it is to be.
    fn until(&self, key: &str, count: u64) {
        let what = format!("{key} to be {count}");
        let there = || Ok((self.ask(&["status"])[key] == count).then_some(()));
        poll::until(&what, SOON, there).unwrap();
    }

    /// Submits tasks that run until the file `go` is there.
    fn submit_waiting(&self, key: &str, count: u32) {
        let script = format!("until [ -e {}/go ]; do sleep 0.05; done", self.folder());
        let array = format!("1-{count}");
        let submit = ["submit", "lab", "--key", key, "--array", &array, "--", "sh", "-c", &script];
        self.world.service(&submit).unwrap().ok().unwrap();
    }

    fn folder(&self) -> String {
        self.world.folder().display().to_string()
    }

    fn go(&self) {
        std::fs::write(self.world.folder().join("go"), "").unwrap();
    }

    fn start_again(&mut self) {
        self.daemon = self.world.run(&self.endpoint).unwrap();
    }
}

#[test]
fn status_and_tasks_say_what_runs_and_why_the_rest_waits() {
    let place = place("[engine]\nslots = 1");
    let status = place.ask(&["status"]);
    assert_eq!((&status["link"]["state"], &status["role"]), (&"engaged".into(), &"active".into()));
    assert_eq!((status["slots"].as_u64(), status["accepted"].as_u64()), (Some(1), Some(0)));
    assert_eq!(status["pid"], place.daemon.pid());
    assert_eq!(place.try_ask(&["tasks"]).ok().unwrap().text(), "no task is accepted\n");
    place.submit_waiting("k", 3);
    place.until("accepted", 3);
    let running = || {
        let tasks = place.ask(&["tasks"]);
        Ok((tasks["tasks"][0]["pid"].is_u64()).then_some(tasks))
    };
    let tasks = poll::until("a task to run", SOON, running).unwrap();
    let phases: Vec<&Value> =
        tasks["tasks"].as_array().unwrap().iter().map(|task| &task["phase"]).collect();
    assert_eq!(phases, ["running", "waiting", "waiting"]);
    assert_eq!(tasks["tasks"][1]["why"], "all slots are in use");
    assert!(tasks["tasks"][0]["since_ms"].is_u64());
    let limited = place.ask(&["tasks", "--limit", "2"]);
    assert_eq!((limited["tasks"].as_array().unwrap().len(), &limited["more"]), (2, &1.into()));
    place.go();
    place.world.wait("k").unwrap().ok().unwrap();
    place.until("accepted", 0);
}

#[test]
fn a_drain_without_the_broker_holds_over_a_restart_until_it_is_resumed() {
    let mut place = place("[engine]\nslots = 1");
    place.submit_waiting("k", 3);
    place.until("accepted", 3);
    let spool = place.world.spool();
    let away = spool.with_extension("away");
    std::fs::rename(&spool, &away).unwrap();
    let status = place.ask(&["drain"]);
    assert_eq!((&status["running"], &status["accepted"]), (&1.into(), &3.into()));
    let down = || Ok((place.ask(&["status"])["link"]["fault"].is_string()).then_some(()));
    poll::until("the link to be down", SOON, down).unwrap();
    place.go();
    let waited = place.ask(&["drain", "--wait"]);
    assert_eq!((&waited["running"], &waited["accepted"]), (&0.into(), &2.into()));
    place.daemon.kill().unwrap();
    place.daemon.wait(SOON).unwrap();
    std::fs::rename(&away, &spool).unwrap();
    place.start_again();
    let tasks = place.ask(&["tasks"]);
    assert_eq!(tasks["tasks"][0]["why"], "the endpoint is drained");
    assert_eq!(place.ask(&["status"])["running"], 0);
    let text = place.try_ask(&["resume"]).ok().unwrap().text();
    assert!(text.starts_with("resumed"), "{text}");
    place.world.wait("k").unwrap().ok().unwrap();
    for task in place.world.results("k").unwrap() {
        assert_eq!((&task["state"], &task["attempt"]), (&"succeeded".into(), &1.into()));
    }
}

#[test]
fn the_deadline_of_a_drain_stops_what_runs_and_a_resume_runs_it_again() {
    let place = place("[engine]\nslots = 1");
    place.submit_waiting("k", 1);
    place.until("running", 1);
    let status = place.ask(&["drain", "--deadline", "200ms", "--wait"]);
    assert_eq!((&status["running"], &status["accepted"]), (&0.into(), &1.into()));
    assert!(status["drains"]["local"]["deadline_ms"].is_u64());
    place.ask(&["resume"]);
    place.until("running", 1);
    place.go();
    place.world.wait("k").unwrap().ok().unwrap();
}

#[test]
fn a_command_without_a_daemon_says_what_to_do_and_a_killed_one_is_replaced() {
    let mut place = place("");
    place.daemon.kill().unwrap();
    place.daemon.wait(SOON).unwrap();
    let failed = place.try_ask(&["status"]);
    assert_eq!(failed.code, 69, "{}", failed.stderr);
    for words in ["no daemon runs", "the one that ran there has ended", "clutch-endpoint run"] {
        assert!(failed.stderr.contains(words), "no '{words}' in:\n{}", failed.stderr);
    }
    place.start_again();
    place.until("accepted", 0);
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
    assert!(place.try_ask(&["status"]).stderr.contains("it has no socket"));
}

#[test]
fn hup_takes_slots_up_and_down_and_a_wrong_file_changes_nothing() {
    let mut place = place("[engine]\nslots = 1");
    place.submit_waiting("k", 4);
    place.until("running", 1);
    // The file is wrong later, and cannot say where the state folder is.
    let state = place.ask(&["status"])["state"].as_str().unwrap().to_owned();
    let file = std::fs::read_to_string(&place.endpoint.config).unwrap();
    let write = |text: &str| std::fs::write(&place.endpoint.config, text).unwrap();
    write(&file.replace("slots = 1", "slots = 3\ngrace = \"1s\""));
    place.daemon.signal("HUP").unwrap();
    let taken = "read the configuration again; what is named under `restart` has changed too, and \
                 counts from the next start";
    let said = place.daemon.wait_for(taken, SOON).unwrap().to_string();
    assert!(said.contains("engine.slots") && said.contains("engine.grace"), "{said}");
    place.until("running", 3);
    write(&file.replace("slots = 1", "slots = 0"));
    place.daemon.signal("HUP").unwrap();
    let refused = "the configuration was to be read again and cannot be used: nothing changes. Mend \
                   the file and send HUP again; `clutch-endpoint check` says what is wrong";
    let said = place.daemon.wait_for(refused, SOON).unwrap().to_string();
    assert!(said.contains("engine.slots"), "{said}");
    let unread = place.try_ask(&["status"]);
    assert!(unread.stderr.contains("name its state folder: --state DIR"), "{}", unread.stderr);
    assert_eq!(place.ask(&["status", "--state", &state])["slots"], 3);
    write(&file.replace("slots = 1", "slots = 2"));
    place.daemon.signal("HUP").unwrap();
    place.until("slots", 2);
    assert_eq!(place.ask(&["status"])["running"], 3, "what runs goes on");
    place.go();
    place.world.wait("k").unwrap().ok().unwrap();
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}

#[test]
fn a_result_tells_which_files_were_removed_with_the_sandbox() {
    let place = place("");
    let script = "echo x > out.dat; mkdir more; echo y > more/b; echo z > more/a";
    let submit = |key: &str, script: &str| {
        let line = ["--", "sh", "-c", script];
        place.world.submit(&place.endpoint, key, &line, SOON).unwrap().ok().unwrap();
        place.world.result(key).unwrap()
    };
    assert!(submit("none", "true")["result"]["removed_files"].is_null());
    let task = submit("some", script);
    let files = &task["result"]["removed_files"];
    assert_eq!(files["count"], 3);
    assert_eq!(files["names"], serde_json::json!(["out.dat", "more/a", "more/b"]));
    let shown = place.world.service(&["show", task["id"].as_str().unwrap()]).unwrap().ok().unwrap();
    let words = "3 files in the removed sandbox: out.dat, more/a, more/b; give the task a --cwd";
    assert!(shown.text().contains(words), "{}", shown.text());
}

#[test]
fn a_request_that_is_refused_is_answered_however_much_it_brings() {
    let place = place("");
    let state = place.ask(&["status"])["state"].as_str().unwrap().to_owned();
    for (target, body, status) in [
        ("/v1/nothing", 900_000, "404"),
        ("/v1/status", 900_000, "405"),
        ("/v1/drain", 900_000, "400"),
    ] {
        let mut stream = UnixStream::connect(Path::new(&state).join("endpoint.sock")).unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nhost: e\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {body}\r\n\r\n").unwrap();
        stream.write_all(&vec![b'x'; body]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
}
