//! A task's own side of its endpoint: the commands of shells, tokens, progress, the order to end,
//! and the calls of warm workers.

use super::{place, place_in};
use clutch_tests::binaries;
use clutch_tests::poll;
use clutch_tests::process::run;
use clutch_tests::world::{SOON, World};
use std::process::Command;

/// The path of the endpoint's program.
fn program() -> String {
    binaries::folder().unwrap().join(binaries::ENDPOINT).display().to_string()
}

#[test]
fn a_shell_has_a_command_for_each_request() {
    let place = place();
    let receive = "
set -u
\"$0\" task receive in --timeout 100s; echo
\"$0\" task receive in --timeout 100s --json
\"$0\" task receive in --timeout 200ms; echo $?
\"$0\" task receive end --timeout 100s
";
    let target = place.submit("to", &["sh", "-c", receive, &program()]);
    let send = "
set -u
\"$0\" task whoami
printf 'one' | \"$0\" task send \"$1\" in
\"$0\" task send \"$1\" in --text 'two words'
\"$0\" task log a line
\"$0\" task cancelled --timeout 100ms; echo $?
\"$0\" task send \"$1\" 'never' --wait 100ms; echo $?
\"$0\" task send not-a-task in; echo $?
env -u CLUTCH_TOKEN \"$0\" task whoami; echo $?
CLUTCH_TOKEN=0 \"$0\" task whoami; echo $?
\"$0\" task send \"$1\" end --text '' > /dev/null
";
    let source = place.submit("from", &["sh", "-c", send, &program(), &target]);
    let told = place.told("to");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines[0], lines[2]), ("one", "75"), "{told}");
    let received: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&received["source"], &received["body"]), (&source.into(), &"two words".into()));
    let told = place.told("from");
    let codes: Vec<&str> = told.lines().skip(3).collect();
    assert_eq!(codes, ["75", "75", "64", "69", "77"], "{told}");
    assert!(told.lines().next().unwrap().contains("\"endpoint_name\":\"lab\""), "{told}");
    let result = place.world.result("from").unwrap();
    let stderr = result["result"]["stderr"].as_str().unwrap().to_owned();
    for words in
        ["a line\n", "not_listening: no process", "CLUTCH_TOKEN are not set", "bad_token: "]
    {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
}

#[test]
fn a_token_is_worth_nothing_after_its_attempt() {
    let place = place();
    place.submit("k", &["sh", "-c", "echo $CLUTCH_SOCKET; echo $CLUTCH_TOKEN"]);
    let told = place.told("k");
    let (socket, token) = told.split_once('\n').unwrap();
    let mut ask = Command::new("curl");
    ask.args(["-sS", "--unix-socket", socket, "-H", &format!("Authorization: Bearer {token}")]);
    ask.arg("http://endpoint/v1/whoami");
    let answer = run(ask, b"", SOON).unwrap().ok().unwrap().json().unwrap();
    assert_eq!((&answer["type"], &answer["status"]), (&"bad_token".into(), &401.into()));
}

#[test]
fn progress_that_is_told_by_the_socket_is_shown() {
    let place = place();
    let script = "task.progress(0.5, 'ha' + 'lf way'); task.receive('end')";
    let target = place.python("k", script, &[]);
    let shown = || {
        let shown = place.world.service(&["show", &target])?.ok()?.text();
        Ok(shown.contains("half way").then_some(()))
    };
    poll::until("the progress in `show`", SOON, shown).unwrap();
    place.python("end", "task.send(sys.argv[1], 'end')", &[&target]);
    place.told("k");
}

#[test]
fn a_task_hears_that_it_is_cancelled() {
    let settings = "[engine]\ngrace = \"100s\"\n";
    let place = place_in(World::in_folder().unwrap(), settings);
    let script = "
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
task.progress(message='rea' + 'dy to end')
print(task.cancelled(timeout=None), flush=True)
";
    let target = place.python("k", script, &[]);
    let ready = || {
        let shown = place.world.service(&["show", &target])?.ok()?.text();
        Ok(shown.contains("ready to end").then_some(()))
    };
    poll::until("the task to be ready", SOON, ready).unwrap();
    place.world.service(&["cancel", &target]).unwrap().ok().unwrap();
    place.world.wait("k").unwrap();
    let result = &place.world.result("k").unwrap()["result"];
    assert_eq!(result["outcome"], "cancelled");
    assert_eq!(result["stdout"], "cancelled\n", "{result}");
}

#[test]
fn a_warm_worker_speaks_for_the_call_that_it_has() {
    let worker = "
from clutch import function, serve, task, task_id

@function
def ask(target):
    if target:
        task.send(target, 'in', task.whoami()['task'])
    return [task.whoami()['task'], task_id()]

serve()
";
    let settings = "[messages]\nallow = \"any\"\n[functions.ask]\n\
                    command = [\"python3\", \"{}/ask.py\"]\nconcurrency = 1\n";
    let world = World::in_folder().unwrap();
    std::fs::write(world.folder().join("ask.py"), worker).unwrap();
    let place = place_in(world, settings);
    let target = place.python("to", "tell(lambda: message(task.receive('in')))", &[]);
    for (key, argument) in [("one", "null".to_owned()), ("two", format!("\"{target}\""))] {
        let line = ["--call", "ask", "--json-arg", &argument];
        let output = place.world.submit(&place.endpoint, key, &line, SOON).unwrap().ok().unwrap();
        let value = output.json().unwrap();
        let id = place.world.result(key).unwrap()["id"].clone();
        assert_eq!(value, serde_json::json!([id, id]));
    }
    let told = &place.values("to")[0];
    assert_eq!(told[0], told[2], "the source is the call's task");
}
