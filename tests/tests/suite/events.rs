//! The events of an endpoint, read from a queue of the test's own.

use crate::{Running, running};
use clutch_tests::gate::Gate;
use clutch_tests::poll;
use clutch_tests::world::SOON;
use serde_json::{Value, json};

/// The queue that the tests read from.
const QUEUE: &str = "test.events";

/// Has the events of all endpoints come to [`QUEUE`] as well.
fn listen(run: &Running) {
    let vhost = run.world.vhost();
    vhost.declare(QUEUE, json!({})).unwrap();
    let path = ["bindings", vhost.name(), "e", "events", "q", QUEUE];
    let body = json!({ "routing_key": format!("{}.events", run.endpoint.id) });
    vhost.api().call("POST", &path, Some(&body)).unwrap();
}

/// The events that came since the last call.
fn events(run: &Running) -> Vec<Value> {
    let taken = run.world.vhost().take(QUEUE, 100).unwrap();
    taken.iter().map(|message| serde_json::from_slice(&message.body).unwrap()).collect()
}

/// A piece of output: where it begins, and its text.
type Piece = (u64, String);

#[test]
fn a_long_task_is_told_with_its_progress_and_short_ones_are_not() {
    let test = "a_long_task_is_told_with_its_progress_and_short_ones_are_not";
    let Some(run) = running(test) else { return };
    listen(&run);
    let many = ["--array", "1-50", "--", "true"];
    run.world.submit(&run.endpoint, "short", &many, SOON).unwrap().ok().unwrap();
    let gate = Gate::new(run.world.folder(), "k");
    let script = format!("echo '50% half way' >> \"$CLUTCH_PROGRESS\"; {}", gate.line());
    let long = ["submit", "lab", "--key", "long", "--shell", "--", &script];
    run.world.service(&long).unwrap().ok().unwrap();
    let id = run.world.result("long").unwrap()["id"].clone();
    let mut all = Vec::new();
    let told = poll::until("its progress", SOON, || {
        all.extend(events(&run));
        let mut attempts = all.iter().filter_map(|told| told["attempts"].as_array()).flatten();
        Ok(attempts.rfind(|told| told["progress"]["message"] == "half way").cloned())
    })
    .unwrap();
    assert_eq!((&told["attempt"]["task_id"], &told["phase"]), (&id, &json!("running")), "{told}");
    assert_eq!(told["progress"]["fraction"], 0.5);
    let attempts = || all.iter().filter_map(|told| told["attempts"].as_array()).flatten();
    assert!(attempts().all(|told| told["attempt"]["task_id"] == id), "{all:?}");
    let last = all.last().unwrap();
    assert_eq!((&last["type"], &last["load"]["running"]), (&json!("clutch.events"), &json!(1)));
    let file = run.world.folder().join("state/clutch/endpoints").join(&run.endpoint.id);
    let files = || std::fs::read_dir(file.join("progress")).unwrap().count();
    assert_eq!(files(), 1);
    gate.open().unwrap();
    run.world.wait("long").unwrap().ok().unwrap();
    poll::until("that nothing runs", SOON, || {
        let told = events(&run);
        let idle = |told: &Value| told["complete"] == true && told["load"]["running"] == 0;
        Ok(told.iter().any(idle).then_some(()))
    })
    .unwrap();
    assert_eq!(files(), 0, "its file is removed");
}

#[test]
fn where_events_have_no_exchange_results_come_as_ever() {
    let test = "where_events_have_no_exchange_results_come_as_ever";
    let Some(run) = running(test) else { return };
    run.world.vhost().delete_exchange("events").unwrap();
    let script = ["--shell", "--", "sleep 3; echo done"];
    let output = run.world.submit(&run.endpoint, "k", &script, SOON).unwrap().ok().unwrap();
    assert_eq!(output.text(), "done\n");
    let log = run.daemon.log().unwrap();
    assert!(!log.contains("disengaged"), "{log}");
}

#[test]
fn output_of_a_followed_task_comes_while_it_runs_and_a_flood_is_cut() {
    let test = "output_of_a_followed_task_comes_while_it_runs_and_a_flood_is_cut";
    let Some(run) = running(test) else { return };
    listen(&run);
    let [more, end] = ["more", "end"].map(|name| Gate::new(run.world.folder(), name));
    let flood = "head -c 30000000 /dev/zero | tr '\\0' y";
    let script = format!("echo first; {}; echo second; {flood}; {}", more.line(), end.line());
    let submit = ["submit", "lab", "--key", "k", "--shell", "--", &script];
    run.world.service(&submit).unwrap().ok().unwrap();
    let id = run.world.result("k").unwrap()["id"].clone();
    let follow = json!({
        "version": 1, "type": "clutch.follow", "attempt": { "task_id": id, "attempt": 1 },
        "stdout_from": 2, "stderr_from": 0, "for_ms": 100_000,
    });
    let (key, properties) =
        (format!("{}.control", run.endpoint.id), json!({ "type": follow["type"] }));
    run.world.vhost().publish("", &key, properties, follow.to_string().as_bytes()).unwrap();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut follow_until = |what: &str, is_there: &dyn Fn(&[Piece]) -> bool| {
        poll::until(what, SOON, || {
            for told in events(&run) {
                for output in told["output"].as_array().into_iter().flatten() {
                    assert_eq!(
                        (&output["attempt"]["task_id"], &output["stream"]),
                        (&id, &json!("stdout"))
                    );
                    let text = output["bytes"].as_str().unwrap_or_default().to_owned();
                    pieces.push((output["from"].as_u64().unwrap(), text));
                }
            }
            Ok(is_there(&pieces).then_some(()))
        })
        .unwrap();
    };
    follow_until("what was written before", &|pieces| pieces == [(2, "rst\n".to_owned())]);
    more.open().unwrap();
    follow_until("what is written now", &|pieces| {
        pieces.get(1).is_some_and(|(from, text)| *from == 6 && text.starts_with("second\n"))
    });
    end.open().unwrap();
    run.world.wait("k").unwrap().ok().unwrap();
    let result = run.world.result("k").unwrap();
    assert!(result["result"]["stdout_omitted"].as_u64().unwrap() > 0, "{}", result["state"]);
    assert!(pieces.len() < 200, "a flood is left out");
}
