//! Workers in Python, with the module that the endpoint offers them.

use super::*;
use clutch_tests::skip;
use std::process::Command;

/// The functions that the tests below call.
const WORKER: &str = r#"
import asyncio, os, subprocess, sys, time
from clutch import function, serve, task_id, attempt

@function
def add(a, b=0):
    return a + b

@function
async def later(value):
    await asyncio.sleep(0.01)
    return value

@function
def noisy(kind):
    print("printed")
    print("to stderr", file=sys.stderr)
    os.write(1, b"written to 1\n")
    subprocess.run(["echo", "from a child"])
    if kind == "raise":
        raise ValueError("not today")
    if kind == "odd":
        return object()
    if kind == "nan":
        return float("nan")
    if kind == "exit":
        sys.exit(7)
    if kind == "die":
        os.kill(os.getpid(), 9)
    if kind == "deep":
        value = []
        for _ in range(100000):
            value = [value]
        return value
    return [sys.stdin.read(), task_id(), attempt()]

@function(name="who.am-i")
def who():
    return os.getpid()

serve()
"#;

/// An endpoint with the functions of the worker.
fn python(test: &str, options: &[&str]) -> Option<Place> {
    if !Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success()) {
        skip::because(test, "there is no python3");
        return None;
    }
    let functions: String = ["add", "later", "noisy", "\"who.am-i\"", "missing"]
        .map(|name| format!("[functions.{name}]\ncommand = [\"python3\", \"{{}}/worker.py\"]\n"))
        .concat();
    let place = place(test, &functions, options)?;
    std::fs::write(place.world.folder().join("worker.py"), WORKER).unwrap();
    Some(place)
}

#[test]
fn python_functions_take_json_and_return_it() {
    let Some(place) = python("python_functions_take_json_and_return_it", &["--slots", "1"]) else {
        return;
    };
    assert_eq!(place.value("a", "add", &["--json-arg", "1", "--json-arg", "2"]), 3);
    let strings = ["--json-arg", "\"grüß \"", "--json-kwarg", "b=\"dich 🦀\""];
    assert_eq!(place.value("b", "add", &strings), "grüß dich 🦀");
    let lists = ["--json-arg", "[1, {\"x\":\n null}]", "--json-kwarg", "b=[2.5]"];
    assert_eq!(place.value("c", "add", &lists), serde_json::json!([1, { "x": null }, 2.5]));
    assert_eq!(place.value("d", "later", &["--json-arg", "null"]), Value::Null);
    assert_eq!(place.value("e", "later", &["--json-arg", "[[]]"]), serde_json::json!([[]]));
    let pid = place.value("f", "who.am-i", &[]);
    assert_eq!(place.value("g", "who.am-i", &[]), pid, "it stays warm");
    assert_eq!(place.result("g")["stderr"], Value::Null, "and says nothing by itself");
}

#[test]
fn what_python_prints_is_the_tasks_and_never_an_answer() {
    let test = "what_python_prints_is_the_tasks_and_never_an_answer";
    let Some(place) = python(test, &["--slots", "1"]) else { return };
    let all = ["printed", "to stderr", "written to 1", "from a child"];
    let value = place.value("k", "noisy", &["--json-arg", "\"fine\""]);
    let id = place.world.result("k").unwrap()["id"].clone();
    assert_eq!(value, serde_json::json!(["", id, 1]));
    for (kind, words) in [
        ("raise", "ValueError: not today"),
        ("odd", "returned a object that is not JSON"),
        ("nan", "returned a float that is not JSON"),
        ("deep", "returned a list that is not JSON"),
    ] {
        let arg = format!("\"{kind}\"");
        assert_eq!(place.call(kind, "noisy", &["--json-arg", &arg]).code, 1);
        assert_eq!(place.world.result(kind).unwrap()["state"], "failed");
        let result = place.result(kind);
        assert!(result["reason"].as_str().unwrap().contains(words), "{kind}: {result}");
        let error = &result["error"];
        assert!(!error["type"].as_str().unwrap().is_empty(), "{kind}: {result}");
        assert_eq!(error["message"] == "not today", kind == "raise", "{error}");
        let stderr = result["stderr"].as_str().unwrap();
        assert!(all.iter().all(|line| stderr.contains(line)), "{kind}: {stderr}");
        assert_eq!(stderr.contains("Traceback"), kind == "raise", "{stderr}");
        assert!(!stderr.contains("in _call"), "frames of the module: {stderr}");
    }
    let wrong = place.call("wrong", "add", &[]);
    assert!(wrong.stderr.contains("TypeError: add() missing"), "{}", wrong.stderr);
    place.call("missing", "missing", &[]);
    let reason = place.result("missing")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("no function 'missing'; it has add, later, noisy"), "{reason}");
}

#[test]
fn python_that_ends_fails_its_task_alone() {
    let Some(place) = python("python_that_ends_fails_its_task_alone", &["--slots", "1"]) else {
        return;
    };
    for (kind, field, number) in [("exit", "exit_code", 7), ("die", "signal", 9)] {
        let arg = format!("\"{kind}\"");
        assert_ne!(place.call(kind, "noisy", &["--json-arg", &arg]).code, 0);
        let result = place.result(kind);
        assert_eq!((&result["outcome"], &result[field]), (&"failed".into(), &number.into()));
        // What Python has not yet passed on dies with it by a signal.
        let printed = result["stderr"].as_str().unwrap().contains("printed");
        assert!(printed || kind == "die", "{result}");
        assert_eq!(place.value(&format!("after {kind}"), "add", &["--json-arg", "1"]), 1);
    }
}

/// Plays a library that prints while it is loaded, one that closes
/// standard output, and a function that leaves a child which goes on as if it were the worker.
const ROUGH: &str = r#"
print("a banner", flush=True)
import os
os.write(1, b"no line end")
from clutch import function, serve
import sys
os.close(1)
sys.stdout.close()
sys.stdout = None
sys.stderr = None

@function
def rough(kind):
    print("printed")
    if kind == "fork" and os.fork() == 0:
        return "child"
    if kind == "serve" and os.fork() == 0:
        serve()
    if kind == "raise":
        raise ValueError("not today")
    return [kind, os.getpid()]

serve()
"#;

#[test]
fn python_starts_and_answers_whatever_was_done_to_its_output() {
    let test = "python_starts_and_answers_whatever_was_done_to_its_output";
    let rough = "[functions.rough]\ncommand = [\"python3\", \"{}/rough.py\"]\n";
    let Some(place) = place(test, rough, &["--slots", "1"]) else { return };
    std::fs::write(place.world.folder().join("rough.py"), ROUGH).unwrap();
    let mut pid = Value::Null;
    for kind in ["plain", "fork", "serve", "again"] {
        let value = place.value(kind, "rough", &["--json-arg", &format!("\"{kind}\"")]);
        assert_eq!(value[0], kind);
        assert!(pid.is_null() || pid == value[1], "it was replaced after '{kind}'");
        pid = value[1].clone();
    }
    place.call("raise", "rough", &["--json-arg", "\"raise\""]);
    let result = place.result("raise");
    assert!(result["reason"].as_str().unwrap().contains("ValueError: not today"), "{result}");
    assert!(result["stderr"].as_str().unwrap().contains("in rough"), "{result}");
}

#[test]
fn python_finds_its_module_wherever_the_state_folder_is() {
    use std::os::unix::ffi::OsStringExt as _;
    let test = "python_finds_its_module_wherever_the_state_folder_is";
    let Some(mut place) = python(test, &["--slots", "1"]) else { return };
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
    let odd = std::ffi::OsString::from_vec(b"a:b\xff".to_vec());
    let folder = place.world.folder().join(odd);
    std::fs::create_dir(&folder).unwrap();
    for (key, state, wrapper) in [
        ("relative", "relative".to_owned(), &["env", "-C", "{}"][..]),
        ("odd", "state".to_owned(), &["sh", "-c", "cd {}/a:b*; exec \"$@\"", "sh"]),
    ] {
        let here = place.world.folder().display().to_string();
        let wrapper: Vec<String> = wrapper.iter().map(|part| part.replace("{}", &here)).collect();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let options = ["--slots", "1", "--state", &state];
        place.daemon = place.world.run_in(&wrapper, &place.endpoint, &options).unwrap();
        let value = place.value(key, "add", &["--json-arg", "1", "--json-arg", "2"]);
        assert_eq!(value, 3, "{key}");
        assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
    }
    assert!(folder.join("state").is_dir() && place.world.folder().join("relative").is_dir());
}
