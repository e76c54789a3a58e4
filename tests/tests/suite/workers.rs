//! Functions of an endpoint: calls that warm workers answer, from the command line
//! to the recorded value.

mod ending;
mod python;

use crate::running;
use clutch_tests::process::{Daemon, Output};
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;
use std::path::PathBuf;

/// A whole worker in a shell: it answers with what it was asked, how often it has
/// answered, and its process. `die` and `sleep` are arguments it knows.
pub(crate) const SHELL: &str = r#"
exec 3>&1 1>&2
echo '{"clutch": 1}' >&3
count=0
while read -r line; do
    count=$((count + 1))
    echo "call $count"
    case $line in
    *'"args":["die"'*) kill -9 $$ ;;
    *'"args":["sleep"'*) sleep 300 & wait ;;
    esac
    call=${line#*:}
    echo "{\"call\": ${call%%,*}, \"value\": {\"asked\": $line, \"count\": $count, \"pid\": $$}}" >&3
done
"#;

/// A world with an endpoint that has functions.
struct Place {
    endpoint: Endpoint,
    daemon: Daemon,
    _service: Daemon,
    world: World,
}

/// An endpoint with `functions` at the end of its file, and a daemon that runs with
/// `options`. `{}` is the world's folder.
fn place(test: &str, functions: &str, options: &[&str]) -> Option<Place> {
    let world = World::or_skip(test)?;
    let endpoint = world.provision("lab").unwrap();
    let folder = world.folder().display().to_string();
    let file = std::fs::read_to_string(&endpoint.config).unwrap();
    let functions = functions.replace("{}", &folder);
    std::fs::write(&endpoint.config, format!("{file}\n{functions}")).unwrap();
    std::fs::write(world.folder().join("worker.sh"), SHELL).unwrap();
    let service = world.serve().unwrap();
    let daemon = world.run_with(&endpoint, options).unwrap();
    Some(Place { endpoint, daemon, _service: service, world })
}

const ASK: &str = "[functions.ask]\ncommand = [\"sh\", \"{}/worker.sh\"]\n";

impl Place {
    /// Calls a function and waits for the outcome.
    fn call(&self, key: &str, function: &str, arguments: &[&str]) -> Output {
        let line = [&["--call", function], arguments].concat();
        self.world.submit(&self.endpoint, key, &line, SOON).unwrap()
    }

    /// The outcome of the one call under a key.
    fn result(&self, key: &str) -> Value {
        self.world.result(key).unwrap()["result"].clone()
    }

    /// The value of a call that succeeds.
    fn value(&self, key: &str, function: &str, arguments: &[&str]) -> Value {
        self.call(key, function, arguments).ok().unwrap().json().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.world.folder().join("state/clutch/endpoints").join(&self.endpoint.id)
    }
}

/// Whether there is such a process, and more of it than its parent has to see.
fn lives(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn an_echo_comes_back_from_every_endpoint() {
    let Some(run) = running("an_echo_comes_back_from_every_endpoint") else { return };
    let arguments = ["--call", "clutch.echo", "--json-arg", "1.50", "--json-arg", "[null, \"é\"]"];
    let output = run.world.submit(&run.endpoint, "k", &arguments, SOON).unwrap().ok().unwrap();
    assert_eq!(output.text(), "[1.50,[null, \"é\"]]\n");
    let task = run.world.result("k").unwrap();
    assert_eq!(
        (&task["state"], &task["command"]),
        (&Value::from("succeeded"), &Value::from("clutch.echo(1.50,[null, \"é\"])"))
    );
    let id = task["id"].as_str().unwrap();
    let shown = run.world.service(&["show", id]).unwrap().ok().unwrap().text();
    assert!(shown.contains("--- value") && shown.contains("[1.50,[null, \"é\"]]"), "{shown}");
    let printed = run.world.service(&["results", id]).unwrap().ok().unwrap().text();
    assert!(printed.contains("[1.50,[null, \"é\"]]"), "{printed}");
    let json = [&arguments[..], &["--json"]].concat();
    let output = run.world.submit(&run.endpoint, "k", &json, SOON).unwrap().ok().unwrap();
    assert_eq!(output.json().unwrap()["value"][0], 1.5);
}

#[test]
fn a_function_that_is_not_there_is_rejected_with_what_to_do() {
    let test = "a_function_that_is_not_there_is_rejected_with_what_to_do";
    let Some(place) = place(test, ASK, &[]) else { return };
    assert_eq!(place.call("k", "add", &["--json-arg", "1"]).code, 1);
    assert_eq!(place.world.result("k").unwrap()["state"], "rejected");
    let result = place.result("k");
    let reason = result["reason"].as_str().unwrap();
    assert!(reason.contains("'ask'") && reason.contains("[functions.add]"), "{reason}");
    assert!(result["started_at_ms"].is_null());
}

#[test]
fn a_worker_in_twenty_lines_of_another_language_answers_again_and_again() {
    let test = "a_worker_in_twenty_lines_of_another_language_answers_again_and_again";
    let Some(place) = place(test, ASK, &["--slots", "1"]) else { return };
    let named = ["--json-arg", "{\"a\":\n1}", "--json-kwarg", "b=[2]", "--name", "first"];
    let first = place.value("one", "ask", &named);
    let task = place.world.result("one").unwrap();
    assert_eq!(first["asked"]["task"], task["id"]);
    assert_eq!(first["asked"]["args"], serde_json::json!([{ "a": 1 }]));
    assert_eq!(
        (&first["asked"]["kwargs"]["b"][0], &first["asked"]["attempt"]),
        (&2.into(), &1.into())
    );
    assert_eq!(task["result"]["stderr"], "call 1\n");
    assert_eq!(task["result"]["value"], first);

    let list = place.world.folder().join("lines");
    std::fs::write(&list, "a\nsay \"hi\"\n").unwrap();
    let list = list.display().to_string();
    place.call("lines", "ask", &["--each-line", &list, "--json-arg", "0"]).ok().unwrap();
    place.call("numbers", "ask", &["--array", "7-8"]).ok().unwrap();
    let asked = |key: &str| -> Vec<Value> {
        let results = place.world.results(key).unwrap();
        results.iter().map(|task| task["result"]["value"]["asked"]["args"].clone()).collect()
    };
    assert_eq!(asked("lines"), [serde_json::json!([0, "a"]), serde_json::json!([0, "say \"hi\""])]);
    assert_eq!(asked("numbers"), [serde_json::json!([7]), serde_json::json!([8])]);
    let last = place.value("last", "ask", &[]);
    assert_eq!((&last["count"], &last["pid"]), (&6.into(), &first["pid"]));
}

#[test]
fn a_function_whose_workers_are_all_busy_holds_up_nobody() {
    let test = "a_function_whose_workers_are_all_busy_holds_up_nobody";
    let functions = format!("{ASK}concurrency = 1\n");
    let Some(place) = place(test, &functions, &["--slots", "2"]) else { return };
    let sleep = ["submit", "lab", "--key", "busy", "--call", "ask", "--array", "1-5", "--json-arg"];
    place.world.service(&[&sleep[..], &["\"sleep\""]].concat()).unwrap().ok().unwrap();
    let mut beside = vec!["--", "true"];
    place.world.submit(&place.endpoint, "beside", &beside, SOON).unwrap().ok().unwrap();
    beside = vec!["--call", "clutch.echo"];
    place.world.submit(&place.endpoint, "echo", &beside, SOON).unwrap().ok().unwrap();
    let open = place.world.results("busy").unwrap();
    assert!(open.iter().all(|task| task["result"].is_null()));
}

#[test]
fn check_starts_a_worker_of_each_function() {
    let test = "check_starts_a_worker_of_each_function";
    let broken =
        "[functions.broken]\ncommand = [\"sh\", \"-c\", \"echo no such module >&2; exit 3\"]\n";
    let Some(mut place) = place(test, &format!("{ASK}{broken}"), &[]) else { return };
    let config = place.endpoint.config.display().to_string();
    let command = place.world.endpoint_command(&["check", "--config", &config]);
    let output = clutch_tests::process::run(command, b"", SOON).unwrap();
    let text = output.text();
    assert_eq!(output.code, 78, "{text}");
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("'ask'").starts_with("ok"), "{text}");
    let broken = line("'broken'");
    assert!(broken.contains("exit code 3") && broken.contains("no such module"), "{text}");
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}
