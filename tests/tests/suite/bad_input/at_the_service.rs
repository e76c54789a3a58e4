//! Wrong arguments on the command line of the service.

use super::{Row, judge, still_works};
use crate::running;
use clutch_tests::gate::Gate;
use clutch_tests::process::{Output, run};
use clutch_tests::world::{SOON, World};
use std::path::Path;

fn write(world: &World, name: &str, bytes: &[u8]) -> String {
    let path = world.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// Submits to `lab` with these options and `-- true`.
fn submit(world: &World, options: &[&str]) -> Output {
    let arguments = [&["submit", "lab"], options, &["--", "true"]].concat();
    world.service(&arguments).unwrap()
}

#[test]
fn bad_submissions_are_refused_in_words_before_anything_is_sent() {
    let test = "bad_submissions_are_refused_in_words_before_anything_is_sent";
    let Some(run) = running(test) else { return };
    let world = &run.world;
    let large = write(world, "large", &vec![b'x'; 20_000_000]);
    let nul = write(world, "nul", b"fine\nbad\0line\n");
    let empty = write(world, "empty", b"");
    let row = |input, seen, code, words| Row { input, seen, code, words };
    let service = |arguments: &[&str]| world.service(arguments).unwrap();
    let rows = [
        row(
            "an unknown endpoint",
            service(&["submit", "nobody", "--", "true"]),
            1,
            &["nobody", "lab"],
        ),
        row("no program", service(&["submit", "lab", "--"]), 64, &["ARGV"]),
        row("an empty program name", service(&["submit", "lab", "--", ""]), 64, &["argv is empty"]),
        row("a NUL byte in a line", submit(world, &["--each-line", &nul]), 64, &["line 2", "NUL"]),
        row("an empty list", submit(world, &["--each-line", &empty]), 64, &["nothing to submit"]),
        row(
            "a list that is not there",
            submit(world, &["--each-line", "/no/list"]),
            64,
            &["/no/list"],
        ),
        row("a walltime that is none", submit(world, &["--walltime", "soon"]), 64, &["--walltime"]),
        row("a walltime of 0", submit(world, &["--walltime", "0s"]), 64, &["longer than 0"]),
        row("env without '='", submit(world, &["--env", "COLOUR"]), 64, &["NAME=VALUE"]),
        row("a relative folder", submit(world, &["--cwd", "tmp"]), 64, &["not an absolute path"]),
        row("a range that runs backwards", submit(world, &["--array", "5-1"]), 64, &["--array"]),
        row("a range of words", submit(world, &["--array", "a-b"]), 64, &["--array"]),
        row("20 MB of input", submit(world, &["--stdin", &large]), 64, &["more than the limit"]),
        row(
            "an option that does not exist",
            submit(world, &["--frobnicate"]),
            64,
            &["--frobnicate"],
        ),
    ];
    judge(&rows);
    let listed = service(&["tasks", "--json"]).ok().unwrap().text();
    assert!(!listed.contains("\"submitt"), "something was recorded: {listed}");
    still_works(world, "bad submissions");
}

#[test]
fn bad_questions_are_answered_in_words() {
    let Some(run) = running("bad_questions_are_answered_in_words") else { return };
    let world = &run.world;
    let service = |arguments: &[&str]| world.service(arguments).unwrap();
    let id = uuid::Uuid::new_v4().to_string();
    let gate = Gate::new(world.folder(), "slow");
    let slow = ["submit", "lab", "--key", "slow", "--", "sh", "-c", &gate.line()];
    service(&slow).ok().unwrap();
    service(&["submit", "lab", "--key", "taken", "--wait", "--", "true"]).ok().unwrap();
    let row = |input, seen, code, words| Row { input, seen, code, words };
    let rows = [
        row("a task that does not exist", service(&["show", &id]), 1, &["task"]),
        row("a task id that is none", service(&["show", "x"]), 64, &["TASK"]),
        row("a key that does not exist", service(&["wait", "--key", "nope"]), 1, &["nope"]),
        row("a state that is none", service(&["tasks", "--status", "lost"]), 64, &["timed_out"]),
        row("waiting for nothing", service(&["wait"]), 64, &["--key"]),
        row(
            "not waiting for long enough",
            service(&["wait", "--key", "slow", "--timeout", "1s"]),
            75,
            &["1 task"],
        ),
        row(
            "a key used for something else",
            service(&["submit", "lab", "--key", "taken", "--", "false"]),
            1,
            &["taken"],
        ),
    ];
    judge(&rows);
    still_works(world, "bad questions");
    gate.open().unwrap();
}

#[test]
fn bad_provisioning_is_refused_in_words_and_changes_nothing() {
    let test = "bad_provisioning_is_refused_in_words_and_changes_nothing";
    let Some(run) = running(test) else { return };
    let world = &run.world;
    let before = std::fs::read_to_string(&run.endpoint.config).unwrap();
    let ours = run.endpoint.config.display().to_string();
    let other = world.folder().join("other.toml").display().to_string();
    let text = write(world, "text", b"dear diary\n");
    let provision =
        |arguments: &[&str]| world.service(&[&["provision"], arguments].concat()).unwrap();
    let queue = format!("{}.tasks", run.endpoint.id);
    let kind = uuid::Uuid::new_v4().to_string();
    world
        .vhost()
        .declare(
            &format!("{kind}.tasks"),
            serde_json::json!({
                "x-queue-type": "quorum",
                "x-dead-letter-exchange": "dead-letters",
            }),
        )
        .unwrap();
    let wrong_password = world.vhost().url_as("guest", "wrong").unwrap();
    let row = |input, seen, code, words| Row { input, seen, code, words };
    let rows = [
        row(
            "a name with a slash",
            provision(&["a/b", "--out", &other]),
            64,
            &["A-Z a-z 0-9 . _ -"],
        ),
        row(
            "a heartbeat that is none",
            provision(&["x", "--heartbeat", "soon"]),
            64,
            &["--heartbeat"],
        ),
        row("an id that is none", provision(&["x", "--id", "7"]), 64, &["--id"]),
        row(
            "another id for a known name",
            provision(&["lab", "--id", &kind, "--out", &other]),
            1,
            &["lab", "is known by the id"],
        ),
        row(
            "another kind of queue for a known name",
            provision(&["lab", "--queue", "quorum", "--out", &other]),
            1,
            &["classic", "quorum"],
        ),
        row(
            "a queue of another kind at the broker",
            provision(&["x", "--id", &kind, "--out", &other]),
            78,
            &["x-queue-type", "quorum", "classic"],
        ),
        row(
            "the file of another endpoint",
            provision(&["y", "--out", &ours]),
            1,
            &["belongs to another endpoint"],
        ),
        row("a file that is no configuration", provision(&["z", "--out", &text]), 1, &["--out"]),
        row(
            "a broker URL that is none",
            provision(&["x", "--broker", "nonsense", "--out", &other]),
            64,
            &["amqp://user:password@host:5672/vhost"],
        ),
        row(
            "a broker that is not there",
            provision(&["x", "--broker", "amqp://guest:guest@127.0.0.1:1/", "--out", &other]),
            69,
            &["127.0.0.1:1", "refused"],
        ),
        row(
            "a wrong password",
            provision(&["x", "--broker", &wrong_password, "--out", &other]),
            77,
            &["credentials"],
        ),
    ];
    judge(&rows);
    assert!(rows.iter().all(|row| !row.seen.stderr.contains("wrong@")), "a password was shown");
    assert!(!Path::new(&other).exists());
    assert_eq!(std::fs::read_to_string(&run.endpoint.config).unwrap(), before);
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "dear diary\n");
    assert!(world.vhost().queues().unwrap().iter().any(|one| one["name"] == queue.as_str()));
    still_works(world, "bad provisioning");
}

#[test]
fn a_service_or_a_broker_that_is_away_is_named() {
    let Some(mut run) = running("a_service_or_a_broker_that_is_away_is_named") else { return };
    let world = &run.world;
    let second = world.service(&["serve"]).unwrap();
    assert_eq!(run.service.stop(SOON).unwrap(), 0);
    let nobody = world.service(&["submit", "lab", "--", "true"]).unwrap();

    // A service without a broker answers, records what is submitted, and says why it waits.
    let mut command = world.service_command(&["serve"]);
    command.env("CLUTCH_BROKER", "amqp://guest:guest@127.0.0.1:1/");
    let cut_off = Cut::start(command);
    clutch_tests::poll::until("the service to answer", SOON, || {
        Ok((world.service(&["tasks"])?.code == 0).then_some(()))
    })
    .unwrap();
    let submit = ["submit", "lab", "--key", "later", "--", "true"];
    let brokerless = world.service(&submit).unwrap();
    let confirmed = ["submit", "lab", "--key", "later", "--confirmed", "--", "true"];
    let confirmed = world.service(&confirmed).unwrap();
    drop(cut_off);

    let row = |input, seen, code, words| Row { input, seen, code, words };
    judge(&[
        row("a second service on one folder", second, 73, &["another `clutch-service serve`"]),
        row("no service", nobody, 69, &["no service is listening", "clutch-service serve"]),
        row(
            "no broker at submit",
            brokerless,
            0,
            &["no link to the broker", "placed once the broker takes them"],
        ),
        row(
            "no broker at a confirmed submit",
            confirmed,
            69,
            &["no link to the broker", "nothing was recorded"],
        ),
    ]);
    let _service = world.serve().unwrap();
    let again = ["submit", "lab", "--key", "later", "--wait", "--", "true"];
    assert_eq!(world.service(&again).unwrap().code, 0, "the same key continues");
    still_works(world, "a broker that was away");
}

/// A service process that is killed when this is dropped.
struct Cut(std::process::Child);

impl Cut {
    fn start(mut command: std::process::Command) -> Self {
        let silent = std::process::Stdio::null;
        Self(command.stdin(silent()).stdout(silent()).stderr(silent()).spawn().unwrap())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_missing_task_queue_is_named_at_submit() {
    let Some(mut running) = running("a_missing_task_queue_is_named_at_submit") else { return };
    running.daemon.stop(SOON).unwrap();
    let world = &running.world;
    world.vhost().delete(&format!("{}.tasks", running.endpoint.id)).unwrap();
    let submit = ["submit", "lab", "--key", "k", "--confirmed", "--", "true"];
    let seen = run(world.service_command(&submit), b"", SOON).unwrap();
    let words: &[&str] = &["has no queue", "provision lab", "--key k", "placed when"];
    judge(&[Row { input: "a task queue that was deleted", seen, code: 69, words }]);
    let task = world.result("k").unwrap();
    assert_eq!(task["state"], "waiting");
    let shown = world.service(&["show", task["id"].as_str().unwrap()]).unwrap().ok().unwrap();
    assert!(shown.text().contains("the broker has no queue"), "{}", shown.text());
    world.provision("lab").unwrap();
    let _daemon = world.run(&running.endpoint).unwrap();
    // It is placed by itself.
    let waited = world.service(&["wait", "--key", "k"]).unwrap();
    assert_eq!(waited.code, 0, "{}", waited.stderr);
}
