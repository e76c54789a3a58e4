//! Messages of a later build of Clutch, at real daemons: a control message is counted and
//! acknowledged, whereas tasks are refused in words and kept as a dead letter.

use crate::running;
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::SOON;
use serde_json::{Value, json};

/// Waits until a daemon has said that it passed a message of this kind by.
fn passed_by(daemon: &Daemon, kind: &str) {
    poll::until(&format!("{kind} to be passed by"), SOON, || {
        let log = daemon.log()?;
        let is_told = |line: &str| line.contains("passed by") && line.contains(kind);
        Ok(log.lines().any(is_told).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_later_control_message_is_passed_by_and_later_tasks_are_refused_and_kept() {
    let test = "a_later_control_message_is_passed_by_and_later_tasks_are_refused_and_kept";
    let Some(run) = running(test) else { return };
    let vhost = run.world.vhost();
    let queue = format!("{}.tasks", run.endpoint.id);
    let id = uuid::Uuid::new_v4().to_string();
    let work = json!({ "process": { "argv": ["true"] } });
    let control = json!({ "version": 2, "type": "clutch.roll_call", "tasks_of": [id] });
    let tasks =
        json!({ "version": 2, "type": "clutch.tasks", "tasks": [{ "id": id, "work": work }] });
    for (kind, body) in [("clutch.roll_call", &control), ("clutch.tasks", &tasks)] {
        let properties = json!({ "type": kind });
        vhost.publish("", &queue, properties, body.to_string().as_bytes()).unwrap();
    }
    // The queue is read in order: the control message was settled before the tasks are.
    poll::until("the later task to be refused", SOON, || {
        let shown = run.world.service(&["show", &id, "--json"])?;
        let shown = if shown.code == 0 { shown.json()? } else { Value::Null };
        let reason = shown["results"][0]["reason"].as_str().unwrap_or_default();
        Ok((shown["state"] == "rejected" && reason.contains("version 2")).then_some(()))
    })
    .unwrap();
    passed_by(&run.daemon, "clutch.roll_call");
    let mut letters = Vec::new();
    poll::until("the later tasks among the dead letters", SOON, || {
        letters.extend(vhost.take("dead-letters", 9)?);
        Ok((!letters.is_empty()).then_some(()))
    })
    .unwrap();
    let bodies: Vec<Vec<u8>> = letters.into_iter().map(|letter| letter.body).collect();
    assert_eq!(bodies, [tasks.to_string().into_bytes()]);
    let done = run.world.service(&["submit", "lab", "--wait", "--", "true"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_control_message_of_an_unknown_kind_is_passed_by_at_the_service_and_told() {
    let test = "a_control_message_of_an_unknown_kind_is_passed_by_at_the_service_and_told";
    let Some(run) = running(test) else { return };
    let key = format!("{}.results", run.endpoint.id);
    let progress = json!({ "version": 1, "type": "clutch.progress", "percent": 50 }).to_string();
    run.world.vhost().publish("results", &key, json!({}), progress.as_bytes()).unwrap();
    passed_by(&run.service, "clutch.progress");
    let done = run.world.service(&["submit", "lab", "--wait", "--", "true"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.stderr);
    let doctor = run.world.service(&["doctor"]).unwrap().text();
    assert!(doctor.contains("1 control messages"), "{doctor}");
    assert!(run.world.vhost().take("dead-letters", 9).unwrap().is_empty());
}
