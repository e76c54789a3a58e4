//! Words about tasks of topics that are late, doubled, or of none.

use super::{Cloud, TOPIC};
use clutch_tests::poll;
use clutch_tests::world::{SOON, World};
use serde_json::{Value, json};

/// Publishes a message as an endpoint does.
fn say(cloud: &Cloud, endpoint: &str, version: u64, kind: &str, content: &Value) {
    let mut body = json!({ "version": version, "type": kind });
    for (name, value) in content.as_object().unwrap() {
        body[name] = value.clone();
    }
    let (key, properties) = (format!("{endpoint}.results"), json!({ "type": kind }));
    let vhost = cloud.world.vhost();
    vhost.publish("results", &key, properties, body.to_string().as_bytes()).unwrap();
}

#[test]
fn words_of_no_attempt_are_passed_by_and_the_next_good_one_counts() {
    let test = "words_of_no_attempt_are_passed_by_and_the_next_good_one_counts";
    let Some(world) = World::or_skip(test) else { return };
    let cloud = Cloud::serve(world);
    let member = cloud.member("one", 1, "");
    let (tasks, gate) = cloud.gated("k", &["--array", "1-3"]);
    cloud.until_started(1);
    let id = member.endpoint.id.as_str();
    let strange = uuid::Uuid::now_v7();
    let claims = |task: &str, attempt: u64, state: Value| {
        json!({
            "endpoint_id": id, "state_id": state,
            "attempts": [{ "task_id": task, "attempt": attempt }],
        })
    };
    let other = || json!(uuid::Uuid::now_v7());
    // Of a task that is not known, of an attempt that never was, of one that waits, and of another
    // state folder.
    for (task, attempt) in [
        (strange.to_string(), 1),
        (tasks[0].clone(), 7),
        (tasks[2].clone(), 1),
        (tasks[0].clone(), 1),
    ] {
        say(&cloud, id, 1, "clutch.claims", &claims(&task, attempt, other()));
    }
    // Without what it must have, of a kind that none knows, and of a later version.
    say(&cloud, id, 1, "clutch.claims", &json!({ "endpoint_id": id }));
    say(&cloud, id, 1, "clutch.claim", &json!({ "endpoint_id": id }));
    say(&cloud, id, 2, "clutch.claims", &claims(&tasks[0], 1, other()));
    // Two that a member may say of what it never had, and one of an attempt that runs elsewhere.
    for (task, attempt, lost) in [
        (strange.to_string(), 1, "not_started"),
        (tasks[2].clone(), 1, "not_offered"),
        (tasks[0].clone(), 9, "not_started"),
    ] {
        let result = json!({
            "task_id": task, "attempt": attempt, "outcome": "interrupted", "lost": lost,
            "ended_at_ms": 1, "endpoint_id": id,
        });
        say(&cloud, id, 1, "clutch.results", &json!({ "endpoint_id": id, "results": [result] }));
    }
    gate.open().unwrap();
    cloud.done("k");
    assert_eq!(cloud.starts(), 3);
    cloud.run("after", &[], "true");
    cloud.done("after");
    let errors = cloud.service.log().unwrap();
    assert!(!errors.contains("disengaged"), "{errors}");
}

#[test]
fn a_member_refuses_what_its_file_does_not_name_whatever_the_service_believed() {
    let test = "a_member_refuses_what_its_file_does_not_name_whatever_the_service_believed";
    let Some(world) = World::or_skip(test) else { return };
    let cloud = Cloud::serve(world);
    let member = cloud.member("one", 1, "");
    let id = member.endpoint.id.as_str();
    let task = cloud.submit("k", &["--call", "os.getcwd"]).remove(0);
    cloud.waits_for(&task, &["os.getcwd"]);
    // It says that it could; the daemon never said so.
    let shown = cloud.world.service(&["endpoint", "show", "one", "--json"]).unwrap().ok().unwrap();
    let told = presence(&shown.json().unwrap(), id);
    say(&cloud, id, 1, "clutch.presence", &told);
    poll::until("it was placed there, and came back", SOON, || {
        Ok((cloud.shown(&task)["task"]["attempt"].as_u64() > Some(1)).then_some(()))
    })
    .unwrap();
    cloud.waits_for(&task, &["os.getcwd", TOPIC]);
    let direct = ["submit", "one", "--key", "direct", "--call", "os.getcwd"];
    cloud.world.service(&direct).unwrap().ok().unwrap();
    cloud.world.wait("direct").unwrap();
    assert_eq!(cloud.world.result("direct").unwrap()["state"], "rejected");
    cloud.run("after", &[], "true");
    cloud.done("after");
}

/// The presence of a session of the active state, with a function that it does not have.
fn presence(shown: &Value, id: &str) -> Value {
    // A session of a disk that is as old as can be: none counts as later.
    let instance = uuid::Uuid::from_u128(0x1234_5678_u128 << 32 | u128::from(u32::MAX));
    let instances = shown["endpoint"]["instances"].as_array().unwrap();
    let active = instances.iter().find(|it| it["role"] == "active").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    json!({
        "endpoint_id": id, "state_id": active["state"], "instance": instance,
        "role": "active", "pending": 0,
        "details": {
            "version": "0", "host": "elsewhere", "slots": 1, "free": 1, "topics": [TOPIC],
            "functions": [{ "name": "os.getcwd" }], "started_at_ms": now, "clock_ms": now,
        },
    })
}
