//! `clutch-service doctor` and `clutch-endpoint check`: what is wrong is told in
//! words and by the exit code, and nothing is changed by looking.

use clutch_tests::binaries::{self, ENDPOINT, SERVICE};
use clutch_tests::gate::Gate;
use clutch_tests::poll;
use clutch_tests::process::{Daemon, Output, run};
use clutch_tests::skip;
use clutch_tests::world::{SOON, World};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with a state of its own, and no broker but folders in it.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Self {
        Self(tempfile::Builder::new().prefix("clutch-test-").tempdir_in(parent).unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}", self.at(name).display())
    }

    fn environment(&self) -> Vec<(String, String)> {
        [("CLUTCH_STATE", "service"), ("XDG_STATE_HOME", "state"), ("HOME", "home")]
            .map(|(name, folder)| (name.to_owned(), self.at(folder).display().to_string()))
            .into()
    }

    fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::folder().unwrap().join(binary));
        command.args(arguments).envs(self.environment()).env_remove("CLUTCH_BROKER");
        command.current_dir(self.0.path());
        run(command, b"", SOON).unwrap()
    }

    fn doctor(&self, broker: &str) -> Output {
        self.run(SERVICE, &["doctor", "--broker", broker])
    }

    fn check(&self) -> Output {
        self.run(ENDPOINT, &["check", "--config", "lab.toml"])
    }

    /// Provisions the endpoint `lab` in the folder `spool`.
    fn provision(&self) {
        let url = self.url("spool");
        let provision = ["provision", "lab", "--out", "lab.toml", "--broker", &url];
        self.run(SERVICE, &provision).ok().unwrap();
    }
}

/// Everything below a folder, by name.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            names.extend(listing(&path));
        }
        names.push(path);
    }
    names.sort();
    names
}

/// Judges the exit code of a command, and that it says these words.
#[track_caller]
pub(crate) fn judge(seen: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", seen.text(), seen.stderr);
    assert_eq!(seen.code, code, "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    }
}

#[test]
fn a_good_folder_passes_on_both_sides_and_nothing_is_left_behind() {
    let site = Site::new();
    site.provision();
    let before = listing(site.0.path());
    let doctor = site.doctor(&site.url("spool"));
    judge(&doctor, 0, &["a lock keeps others out", "no service is listening"]);
    let check = site.check();
    judge(&check, 0, &["lab.toml can be used", "nothing is in it yet", "a lock keeps others out"]);
    assert!(!doctor.text().contains("FAILED") && !check.text().contains("FAILED"));
    assert_eq!(listing(site.0.path()), before);
}

#[test]
fn what_is_no_spool_is_told_with_what_it_is() {
    let site = Site::new();
    std::fs::write(site.at("file"), "").unwrap();
    std::fs::create_dir(site.at("theirs")).unwrap();
    std::fs::write(site.at("theirs/thesis.tex"), "").unwrap();
    judge(&site.doctor(&site.url("nowhere")), 69, &["FAILED", "there is no folder"]);
    judge(&site.doctor(&site.url("file")), 69, &["FAILED", "Not a directory"]);
    judge(&site.doctor(&site.url("theirs")), 78, &["FAILED", "holds other things"]);
    assert!(!site.at("nowhere").exists());
    site.provision();
    for (to, code, words) in [
        ("nowhere", 69, "there is no folder"),
        ("file", 69, "Not a directory"),
        ("theirs", 69, "holds other things"),
    ] {
        let text = std::fs::read_to_string(site.at("lab.toml")).unwrap();
        std::fs::write(site.at("other.toml"), text.replace("/spool?", &format!("/{to}?"))).unwrap();
        let seen = site.run(ENDPOINT, &["check", "--config", "other.toml"]);
        judge(&seen, code, &["FAILED", words]);
    }
}

#[test]
fn a_state_folder_that_cannot_be_used_is_told() {
    let site = Site::new();
    site.provision();
    std::fs::write(site.at("state"), "").unwrap();
    judge(&site.check(), 73, &["FAILED", "is not a folder"]);
    let state = site.at("state").display().to_string();
    let broker = site.url("spool");
    let seen = site.run(SERVICE, &["doctor", "--broker", &broker, "--state", &state]);
    judge(&seen, 73, &["FAILED", "the state folder", "--state DIR"]);
}

#[test]
fn a_folder_in_memory_works_and_is_warned_of() {
    let test = "a_folder_in_memory_works_and_is_warned_of";
    let memory = Path::new("/dev/shm");
    let mut kind = Command::new("stat");
    kind.args(["-f", "-c", "%T"]).arg(memory);
    if !run(kind, b"", SOON).is_ok_and(|kind| kind.text().trim() == "tmpfs") {
        return skip::because(test, "/dev/shm is no tmpfs");
    }
    let site = Site::within(memory);
    site.provision();
    let seen = site.doctor(&site.url("spool"));
    judge(&seen, 0, &["warning", "in memory: nothing outlives the machine"]);
    judge(&site.check(), 0, &["warning", "in memory: nothing outlives the machine"]);
}

#[test]
fn scripts_read_json_and_nothing_else() {
    let site = Site::new();
    site.provision();
    let spool = site.url("spool");
    let seen = site.run(SERVICE, &["doctor", "--json", "--broker", &spool]).ok().unwrap();
    let report = seen.json().unwrap();
    assert_ne!(report["verdict"], "failed", "{report}");
    assert!(report["checks"].as_array().unwrap().len() > 2, "{report}");
    let seen = site.run(SERVICE, &["doctor", "--json", "--broker", &site.url("nowhere")]);
    let report = seen.json().unwrap();
    assert_eq!((seen.code, &report["verdict"]), (69, &"failed".into()), "{report}");
    let seen = site.run(ENDPOINT, &["check", "--json", "--config", "lab.toml"]).ok().unwrap();
    assert_ne!(seen.json().unwrap()["verdict"], "failed");
    let seen = site.run(ENDPOINT, &["check", "--json", "--config", "none.toml"]);
    assert_eq!((seen.code, &seen.json().unwrap()["verdict"]), (78, &"failed".into()));
}

#[test]
fn daemons_that_run_are_told_of_and_go_on() {
    let site = Site::new();
    site.provision();
    let (spool, logs) = (site.url("spool"), site.at("logs"));
    let start = |binary: &str, arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let program = binaries::folder().unwrap().join(binary);
        Daemon::start(&program, &arguments, &site.environment(), &logs).unwrap()
    };
    let mut service = start(SERVICE, &["serve", "--broker", &spool]);
    let config = site.at("lab.toml").display().to_string();
    let mut endpoint = start(ENDPOINT, &["run", "--config", &config]);
    service.wait_for("serving", SOON).unwrap();
    endpoint.wait_for("engaged", SOON).unwrap();
    let process = format!("process {}", endpoint.pid());
    for _ in 0..3 {
        judge(&site.check(), 0, &["warning", &process, "is running on it"]);
        let doctor = site.doctor(&spool);
        judge(&doctor, 0, &["`clutch-service serve` is running on it", "engaged"]);
    }
    site.run(SERVICE, &["submit", "lab", "--wait", "--", "true"]).ok().unwrap();
    for daemon in [&mut endpoint, &mut service] {
        assert!(!daemon.log().unwrap().contains("disengaged"));
        assert_eq!(daemon.stop(SOON).unwrap(), 0);
    }
    judge(&site.check(), 0, &["0 tasks and 0 results are pending"]);
}

/// Runs `doctor` until its report on what is missing has these words.
fn told_of_missing(world: &World, words: &str) -> Output {
    poll::until(&format!("doctor to say '{words}'"), SOON, || {
        let said = world.service(&["doctor"])?;
        let line = |line: &&str| line.contains("no task is missing");
        let found = said.text().lines().find(line).is_some_and(|line| line.contains(words));
        Ok(found.then_some(said))
    })
    .unwrap()
}

#[test]
fn tasks_without_a_sign_of_life_are_named_and_so_is_what_their_endpoint_answers() {
    let world = World::in_folder().unwrap();
    let lab = world.provision("lab").unwrap();
    let mut service = world.launch_service(&["--ask-after", "1s"]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    told_of_missing(&world, "ok");
    let gate = Gate::new(world.folder(), "runs");
    let submit = ["submit", "lab", "--key", "k", "--", "sh", "-c", &gate.line()];
    world.service(&submit).unwrap().ok().unwrap();
    let id = world.result("k").unwrap()["id"].as_str().unwrap().to_owned();
    let asked = |words: &str| {
        let shown = world.service(&["show", &id]).unwrap().ok().unwrap().text();
        let line = shown.lines().find(|line| line.starts_with("asked")).unwrap_or_default();
        assert!(line.contains(words), "{shown}");
    };
    // Nothing is active yet that could be asked.
    told_of_missing(&world, "lab: 1 without a result");
    asked("not yet");
    let _daemon = world.run(&lab).unwrap();
    told_of_missing(&world, "it has 1 of them");
    asked("the endpoint has it, waiting or running");
    gate.open().unwrap();
    world.wait("k").unwrap().ok().unwrap();
    assert!(!told_of_missing(&world, "ok").text().contains("without a result"));
}

#[test]
fn a_broker_that_nobody_answers_for_or_that_lives_in_one_process_is_told() {
    let site = Site::new();
    judge(&site.doctor("amqp://127.0.0.1:1"), 69, &["FAILED", "nobody listens there"]);
    for command in [&["doctor"][..], &["serve"], &["provision", "lab"]] {
        let seen = site.run(SERVICE, &[command, &["--broker", "memory:"]].concat());
        judge(&seen, 64, &["lives in one process"]);
    }
}

#[test]
fn a_wrong_password_is_told_on_both_sides() {
    let Some(world) = World::or_skip("a_wrong_password_is_told_on_both_sides") else { return };
    let endpoint = world.provision("lab").unwrap();
    judge(&world.service(&["doctor"]).unwrap(), 0, &["the broker takes a connection"]);
    let mut wrong = url::Url::parse(&world.vhost().url()).unwrap();
    wrong.set_password(Some("wr0ng")).unwrap();
    let seen = world.service(&["doctor", "--broker", wrong.as_str()]).unwrap();
    judge(&seen, 77, &["FAILED", "credentials were refused", "check user, password and vhost"]);
    let text = std::fs::read_to_string(&endpoint.config).unwrap();
    std::fs::write(&endpoint.config, text.replace(&world.vhost().url(), wrong.as_str())).unwrap();
    let config = endpoint.config.display().to_string();
    let check = world.endpoint_command(&["check", "--config", &config]);
    let seen = run(check, b"", SOON).unwrap();
    judge(&seen, 77, &["FAILED", "credentials were refused", "endpoint.toml"]);
    assert!(!seen.text().contains("wr0ng"));
}

/// Tells that something takes messages from a queue.
const TAKES: &str = "something at the broker takes messages from a queue";

#[test]
fn what_takes_messages_from_a_queue_and_dead_letters_that_wait_are_told() {
    let test = "what_takes_messages_from_a_queue_and_dead_letters_that_wait_are_told";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    judge(
        &world.service(&["doctor"]).unwrap(),
        0,
        &["ok       no dead letters wait", "ok       nothing else takes messages"],
    );
    let vhost = world.vhost();
    vhost.policy("short", "tasks$", &json!({"message-ttl": 300})).unwrap();
    let told = ["message-ttl=300 by the policy 'short'", "clear_policy short"];
    poll::until("the policy to apply", SOON, || {
        Ok(world.service(&["doctor"])?.text().contains(told[0]).then_some(()))
    })
    .unwrap();
    judge(&world.service(&["doctor"]).unwrap(), 0, &[&["warning"], &told[..]].concat());
    let mut service = world.serve().unwrap();
    let line = service.wait_for(TAKES, SOON).unwrap();
    assert!(line["what"].as_str().unwrap().contains(told[0]), "{line}");

    // No instance reads the queue, so the task leaves it.
    world.service(&["submit", "lab", "--key", "k", "--", "true"]).unwrap().ok().unwrap();
    let task = world.result("k").unwrap()["id"].as_str().unwrap().to_owned();
    judge(&world.service(&["show", &task]).unwrap(), 0, &told);
    poll::until("the task to be a dead letter", SOON, || {
        Ok((vhost.depth("dead-letters")? == Some(1)).then_some(()))
    })
    .unwrap();
    let doctor = world.service(&["doctor"]).unwrap();
    judge(&doctor, 0, &["warning", "1 letter: messages", "dead-letters list"]);
    vhost.delete_policy("short").unwrap();
    world.service(&["dead-letters", "requeue", "--all"]).unwrap().ok().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    world.wait("k").unwrap().ok().unwrap();
    judge(&world.service(&["doctor"]).unwrap(), 0, &["ok       no dead letters wait"]);
}

#[test]
fn results_that_are_nobodys_are_counted_and_told() {
    let Some(world) = World::or_skip("results_that_are_nobodys_are_counted_and_told") else {
        return;
    };
    let endpoint = world.provision("lab").unwrap();
    let mut service = world.serve().unwrap();
    let result = |endpoint: &str| {
        json!({"task_id": uuid::Uuid::now_v7(), "attempt": 1, "outcome": "succeeded",
            "ended_at_ms": 1, "endpoint_id": endpoint})
    };
    let nobody = uuid::Uuid::now_v7().to_string();
    for of in [&endpoint.id, &nobody, &nobody] {
        let body = json!({"version": 1, "type": "clutch.results", "endpoint": of,
            "results": [result(of)]});
        let body = body.to_string().into_bytes();
        world.vhost().publish("results", &format!("{of}.results"), json!({}), &body).unwrap();
    }
    world.vhost().publish("", "results", json!({}), b"nonsense").unwrap();
    let line = service
        .wait_for(
            "results came from endpoints that were not provisioned with this state folder, of tasks \
             that are not in it: are --state and --broker right? Another service's tasks may wait \
             for them. They are kept: `clutch-service tasks` lists them",
            SOON,
        )
        .unwrap();
    assert_eq!(line["level"], "ERROR", "{line}");
    let words = ["2 of endpoints that were not", "1 of tasks that are not", "1 in messages"];
    poll::until("all of it to be counted", SOON, || {
        let said = world.service(&["doctor"])?.text();
        Ok(words.iter().all(|word| said.contains(word)).then_some(()))
    })
    .unwrap();
    let kept = world.service(&["tasks", "--json"]).unwrap().ok().unwrap();
    assert_eq!(kept.json_lines().unwrap().len(), 3, "{}", kept.text());
}
