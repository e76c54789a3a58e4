//! The timers of very many schedules: the service wakes when the next is due, and not before.

use crate::heavy;
use clutch_tests::process::Daemon;
use clutch_tests::world::{SOON, World};
use clutch_tests::{api, poll};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCHEDULES: u64 = 10_000;
/// How long the service is watched.
const WINDOW: Duration = Duration::from_secs(10);
/// How many more wake-ups there may be then: less than one a second for each part that would
/// look by itself.
pub(crate) const MORE: u64 = 10;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A schedule that has its first instant at a moment, and then one each day.
fn daily(name: &str, from_ms: u64) -> Value {
    let rule = json!({ "recurrence": { "every_ms": 86_400_000 }, "from_ms": from_ms });
    json!({ "name": name, "spec": { "endpoint": "lab", "rule": rule, "task": { "argv": ["true"] } } })
}

fn add(socket: &Path, schedules: &[Value]) {
    // A request has a megabyte at most.
    for some in schedules.chunks(1000) {
        api::post(socket, "/v1/schedules", &json!({ "schedules": some })).unwrap();
    }
}

/// How often a daemon wakes in the window, once it has come to rest.
pub(crate) fn wakes(service: &Daemon) -> u64 {
    poll::until("the daemon to come to rest", SOON, || {
        let before = service.wakes()?;
        poll::pause(Duration::from_secs(1));
        Ok((service.wakes()? - before < MORE).then_some(()))
    })
    .unwrap();
    let before = service.wakes().unwrap();
    poll::pause(WINDOW);
    service.wakes().unwrap() - before
}

#[test]
fn ten_thousand_schedules_wake_an_idle_service_when_the_next_is_due_and_not_before() {
    let test = "ten_thousand_schedules_wake_an_idle_service_when_the_next_is_due_and_not_before";
    let Some(world) = World::or_skip(test) else { return };
    world.provision("lab").unwrap();
    let service = world.serve().unwrap();
    let socket = world.folder().join("service/clutch.sock");
    let _alone = heavy();
    let without = wakes(&service);
    let later = now_ms() + 3_600_000;
    let many: Vec<Value> =
        (0..SCHEDULES).map(|number| daily(&format!("d{number}"), later + number)).collect();
    add(&socket, &many);
    let due = |name: &str| {
        let shown = api::get(&socket, &format!("/v1/schedules/{name}")).unwrap();
        shown["due_at_ms"].as_u64().unwrap()
    };
    // All are looked at once.
    let last = format!("d{}", SCHEDULES - 1);
    poll::until("the schedules to be looked at", SOON, || {
        Ok((due("d0") == later && due(&last) == later + SCHEDULES - 1).then_some(()))
    })
    .unwrap();
    let with = wakes(&service);
    println!("{without} wake-ups without schedules, {with} with {SCHEDULES}");
    assert!(with <= without + MORE, "{with} wake-ups with schedules, {without} without");
    let soon = now_ms() + 1000;
    add(&socket, &[daily("soon", soon)]);
    let occurrence = poll::until("the next one that is due", SOON, || {
        let shown = api::get(&socket, "/v1/schedules/soon")?;
        Ok(shown["occurrences"].get(0).cloned())
    });
    let occurrence = occurrence.unwrap();
    assert_eq!(occurrence["instant_ms"].as_u64(), Some(soon));
    assert!(occurrence["recorded_at_ms"].as_u64() >= Some(soon), "{occurrence}");
}
