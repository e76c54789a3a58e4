//! The output of a task while it runs. The endpoint is played by hand, but where its speed is
//! measured.

use crate::running;
use clutch_tests::poll;
use clutch_tests::process::{Daemon, Output};
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

/// A service, and an endpoint that is played by hand.
struct Stage {
    endpoint: Endpoint,
    task: String,
    service: Daemon,
    world: World,
}

impl Stage {
    /// A submitted task.
    fn or_skip(test: &str) -> Option<Self> {
        let world = World::or_skip(test)?;
        let endpoint = world.provision("lab").unwrap();
        let service = world.serve().unwrap();
        let submit = ["submit", "lab", "--json", "--", "true"];
        let answer = world.service(&submit).unwrap().ok().unwrap().json().unwrap();
        let task = answer["ids"][0].as_str().unwrap().to_owned();
        Some(Self { endpoint, task, service, world })
    }

    fn publish(&self, exchange: &str, kind: &str, content: &Value) {
        let content = content.to_string();
        let body = format!(r#"{{"version":1,"type":"{kind}",{}"#, &content[1..]);
        let key = format!("{}.{exchange}", self.endpoint.id);
        let properties = json!({ "type": kind });
        self.world.vhost().publish(exchange, &key, properties, body.as_bytes()).unwrap();
    }

    /// Publishes a piece of standard output, in a session of the endpoint.
    fn print(&self, session: u128, from: u64, text: &str) {
        let attempt = json!({ "task_id": self.task, "attempt": 1 });
        let piece = json!({ "attempt": attempt, "stream": "stdout", "from": from, "bytes": text });
        let events = json!({
            "endpoint_id": self.endpoint.id, "state_id": Uuid::nil(), "at_ms": 1,
            "instance": Uuid::from_u128(session), "output": [piece],
        });
        self.publish("events", "clutch.events", &events);
    }

    fn end(&self, mut result: Value) {
        result["task_id"] = json!(self.task);
        result["attempt"] = json!(1);
        result["ended_at_ms"] = json!(2);
        result["endpoint_id"] = json!(self.endpoint.id);
        let results = json!({ "endpoint": self.endpoint.id, "results": [result] });
        self.publish("results", "clutch.results", &results);
    }

    /// Waits until the service asks the endpoint to publish the task's output.
    fn followed(&self) -> Value {
        let queue = format!("{}.control", self.endpoint.id);
        poll::until("a request to follow", SOON, || {
            for message in self.world.vhost().take(&queue, 10)? {
                let body: Value = serde_json::from_slice(&message.body)?;
                if body["type"] == "clutch.follow" {
                    return Ok(Some(body));
                }
            }
            Ok(None)
        })
        .unwrap()
    }

    /// Starts `logs --follow`; its output goes to a file.
    fn follow(&self) -> Follower {
        let file = self.world.folder().join(format!("out-{}", Uuid::new_v4()));
        let errors = file.with_extension("err");
        let mut command: Command = self.world.service_command(&["logs", &self.task, "--follow"]);
        command.stdout(std::fs::File::create(&file).unwrap());
        command.stderr(std::fs::File::create(&errors).unwrap()).stdin(Stdio::null());
        Follower { child: Killed(command.spawn().unwrap()), file, errors }
    }

    fn logs(&self, options: &[&str]) -> Output {
        self.world.service(&[&["logs", &self.task], options].concat()).unwrap()
    }
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Follower {
    child: Killed,
    file: std::path::PathBuf,
    errors: std::path::PathBuf,
}

impl Follower {
    fn has(&self, text: &str) -> Duration {
        let begun = Instant::now();
        poll::until(&format!("'{text}'"), SOON, || {
            Ok(std::fs::read_to_string(&self.file)?.ends_with(text).then_some(()))
        })
        .unwrap();
        begun.elapsed()
    }

    fn says(&self, words: &str) {
        poll::until(&format!("'{words}'"), SOON, || {
            Ok(std::fs::read_to_string(&self.errors)?.contains(words).then_some(()))
        })
        .unwrap();
    }

    /// Waits for its end; returns the exit code and all of its output.
    fn ended(mut self) -> (i32, String) {
        let status = poll::until("the end", SOON, || Ok(self.child.0.try_wait()?)).unwrap();
        let mut text = String::new();
        std::fs::File::open(&self.file).unwrap().read_to_string(&mut text).unwrap();
        (status.code().unwrap(), text)
    }
}

#[test]
fn output_is_followed_to_the_end_of_the_task_with_what_is_missing_marked() {
    let test = "output_is_followed_to_the_end_of_the_task_with_what_is_missing_marked";
    let Some(stage) = Stage::or_skip(test) else { return };
    let (first, second) = (stage.follow(), stage.follow());
    let follow = stage.followed();
    assert_eq!((&follow["stdout_from"], &follow["for_ms"]), (&json!(0), &json!(30_000)));
    stage.print(1, 0, "one\n");
    println!("a line was shown {:?} after it was published", first.has("one\n"));
    second.has("one\n");
    stage.print(1, 100, "two\n");
    first.has("[… 96 bytes left out …]\ntwo\n");
    stage.end(json!({
        "outcome": "failed", "exit_code": 7, "stdout_omitted": 96,
        "stdout": "one\n\n[... 96 bytes omitted ...]\ntwo\n",
    }));
    for follower in [first, second] {
        let (code, text) = follower.ended();
        assert_eq!((code, text.as_str()), (7, "one\n[… 96 bytes left out …]\ntwo\n"));
    }
    let text = stage.logs(&[]).ok().unwrap().text();
    assert_eq!(text, "one\n[… 96 bytes left out …]\ntwo\n");
    assert_eq!(stage.logs(&["--stderr"]).ok().unwrap().text(), "");
}

#[test]
fn a_follower_says_when_the_task_runs_anew_and_goes_on_over_a_restart_of_the_service() {
    let test = "a_follower_says_when_the_task_runs_anew_and_goes_on_over_a_restart_of_the_service";
    let Some(mut stage) = Stage::or_skip(test) else { return };
    let follower = stage.follow();
    stage.followed();
    stage.print(1, 0, "before\n");
    follower.has("before\n");
    stage.print(2, 0, "anew\n");
    follower.has("before\nanew\n");
    follower.says("the task with it: its output begins anew");
    stage.service.kill().unwrap();
    follower.says("the service is away");
    stage.service = stage.world.serve().unwrap();
    follower.says("the service is there again");
    stage.followed();
    stage.print(2, 5, "after\n");
    follower.has("after\n");
    stage.end(json!({ "outcome": "succeeded", "exit_code": 0, "stdout": "anew\nafter\n" }));
    let (code, text) = follower.ended();
    assert_eq!(code, 0, "{text}");
    assert_eq!(stage.logs(&[]).ok().unwrap().text(), "anew\nafter\n");
}

#[test]
fn a_line_that_a_task_writes_is_shown_by_a_follower_soon() {
    const LINES: usize = 20;
    let test = "a_line_that_a_task_writes_is_shown_by_a_follower_soon";
    let Some(it) = running(test) else { return };
    // Each line is the moment of its writing.
    let script = "while :; do date +%s%3N; sleep 0.2; done";
    let submit = ["submit", "lab", "--json", "--", "sh", "-c", script];
    let answer = it.world.service(&submit).unwrap().ok().unwrap().json().unwrap();
    let task = answer["ids"][0].as_str().unwrap().to_owned();
    let mut command: Command = it.world.service_command(&["logs", &task, "--follow"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut late = Vec::new();
    let mut followed_since = None;
    while late.len() < LINES {
        let written: u64 = lines.next().unwrap().unwrap().parse().unwrap();
        let seen = u64::try_from(
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis(),
        )
        .unwrap();
        // What was written before it was followed is shown at once.
        if written > *followed_since.get_or_insert(seen) {
            late.push(seen.saturating_sub(written));
        }
    }
    late.sort_unstable();
    let (median, last) = (late[LINES / 2], late[LINES - 1]);
    println!("a line was shown {median} ms after it was written, at the latest {last} ms");
    assert!(median < 3000, "{late:?}");
    it.world.service(&["cancel", &task]).unwrap().ok().unwrap();
    // The follower ends with the task, which was stopped.
    let status = poll::until("the end", SOON, || Ok(child.0.try_wait()?)).unwrap();
    assert!(!status.success());
}
