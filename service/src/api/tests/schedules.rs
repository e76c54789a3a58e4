//! Schedules in the API: sets with faults, owners, pauses, and removal.

use super::{Service, service};
use crate::api::schedules::{Changed, SchedulePage, SchedulesAnswer};
use crate::failure::{GENERAL, USAGE, exit_code};
use crate::model::{Occurrence, RemovedSchedule, ScheduleChange, ScheduleDetail};
use crate::schedule::PauseCause;
use serde_json::{Value, json};

/// A schedule of each hour.
fn hourly(name: &str, endpoint: &str) -> Value {
    json!({ "name": name, "spec": {
        "endpoint": endpoint,
        "rule": { "recurrence": { "every_ms": 3_600_000 } },
        "task": { "argv": ["true"] },
    }})
}

impl Service {
    async fn apply(&self, set: Value) -> anyhow::Result<SchedulesAnswer> {
        self.client.post("/v1/schedules", &set).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, rest: &str, body: Value) -> T {
        self.client.post(&format!("/v1/schedules/{rest}"), &body).await.unwrap()
    }
}

#[tokio::test]
async fn every_schedule_of_a_set_with_a_fault_is_named_and_nothing_is_changed() {
    let service = service(false).await;
    let mut bad = hourly("bad", "lab");
    bad["spec"]["rule"]["jitter_ms"] = json!(-1);
    let set =
        json!({ "schedules": [hourly("a b", "lab"), bad, hourly("c", "lab"), hourly("c", "lab")] });
    let error = service.apply(set).await.unwrap_err();
    let words = error.to_string();
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!((exit_code(&error), lines.len()), (USAGE, 3), "{words}");
    assert!(lines[0].starts_with("a b: ") && lines[1].starts_with("bad: the jitter"), "{words}");
    assert!(lines[2].starts_with("c: it is there twice"), "{words}");
    let set = json!({ "schedules": [hourly("a", "x"), hourly("b", "lab"), hourly("c", "y")] });
    let error = service.apply(set).await.unwrap_err();
    let expected = "a: there is no endpoint 'x': known are lab\nc: there is no endpoint 'y': known are \
                    lab";
    assert_eq!((exit_code(&error), error.to_string()), (GENERAL, expected.to_owned()));
    for wrong in [
        json!({ "schedules": [], "prune": true }),
        json!({ "schedules": [], "owner": "" }),
        json!({ "schedules": [], "owner": "x".repeat(201) }),
    ] {
        assert_eq!(exit_code(&service.apply(wrong).await.unwrap_err()), USAGE);
    }
    let page: SchedulePage = service.client.get("/v1/schedules", &[]).await.unwrap();
    assert_eq!(page.schedules.len(), 0);
}

#[tokio::test]
async fn a_schedule_is_paused_with_its_reason_run_and_removed_with_its_open_tasks() {
    let service = service(false).await;
    let dry = json!({ "schedules": [hourly("a", "lab")], "dry_run": true });
    assert_eq!(service.apply(dry).await.unwrap().schedules[0].change, ScheduleChange::Added);
    let shown = || service.client.get::<ScheduleDetail>("/v1/schedules/a", &[]);
    assert!(shown().await.unwrap_err().to_string().contains("there is no schedule 'a'"));
    service.apply(json!({ "schedules": [hourly("a", "lab")] })).await.unwrap();
    let detail = shown().await.unwrap();
    assert_eq!((detail.next_ms.len(), detail.next_ms[0] % 3_600_000), (5, 0));
    let reason = json!({ "reason": "full" });
    assert!(service.ask::<Changed>("a/pause", reason.clone()).await.changed);
    assert!(!service.ask::<Changed>("a/pause", json!({})).await.changed);
    let detail = shown().await.unwrap();
    let cause = PauseCause::ByHand { reason: Some("full".to_owned()) };
    assert_eq!((detail.summary.pause_cause, detail.next_ms), (Some(cause), vec![]));
    let long = json!({ "reason": "x".repeat(201) });
    let refused = service.client.post::<Changed>("/v1/schedules/a/pause", &long).await;
    assert_eq!(exit_code(&refused.unwrap_err()), USAGE);
    assert!(service.ask::<Changed>("a/resume", json!({})).await.changed);
    let ran: Occurrence = service.ask("a/run", json!({})).await;
    let removed: RemovedSchedule = service.ask("a/remove", json!({})).await;
    let expected =
        RemovedSchedule { name: "a".to_owned(), open: 1, tasks: vec![ran.task.unwrap()] };
    assert_eq!(removed, expected);
}
