//! Messages in the task queue that are no tasks: each that names one is answered for, the
//! others are kept, and none holds up what is good.

use super::stage::{Site, Stage};
use super::{Play, Row, Seen};
use crate::poll;
use crate::world::SOON;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

/// How often bad messages come between good tasks, and how many of each kind.
const ROUNDS: usize = 4;
const OF_EACH: usize = 15;

pub(super) const ROWS: &[Row] = &[Row::new(
    "unreadable-tasks",
    "among 4,500 tasks come 300 messages that cannot be read, of 5 kinds; the 240 that name a \
     task end as rejected, once each, and all 300 are kept as dead letters, which doctor counts",
    Play::Beside(unreadable),
)
.since("the last of them")];

/// A message that cannot be read, of each kind, with its properties; the last names nothing.
fn bad(id: &str) -> [(Value, Vec<u8>); 5] {
    let task = json!({ "id": id, "work": { "process": { "argv": ["true"] } } });
    let envelope = |version: u32, task: &Value| {
        json!({ "version": version, "type": "clutch.tasks", "tasks": [task] }).to_string()
    };
    let mut below = task.clone();
    below["attempt"] = json!(-1);
    let whole = envelope(1, &task);
    let cut = whole[..whole.len() - 20].to_owned();
    [
        (json!({}), envelope(1, &below).into_bytes()),
        (json!({}), envelope(2, &task).into_bytes()),
        (json!({}), cut.into_bytes()),
        (json!({ "correlation_id": id }), b"no JSON".to_vec()),
        (json!({}), b"\xff\xfe".to_vec()),
    ]
}

/// Puts bad messages into the task queue, and returns the tasks that they name.
fn spoil(stage: &Stage) -> Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    for _ in 0..OF_EACH {
        for kind in 0..bad("").len() {
            let id = uuid::Uuid::now_v7().to_string();
            let (properties, body) = bad(&id)[kind].clone();
            stage.world.vhost().publish("", &stage.tasks_queue(), properties, &body)?;
            if kind + 1 < bad("").len() {
                named.insert(id);
            }
        }
    }
    Ok(named)
}

/// The tasks that ended as rejected.
fn rejected(stage: &Stage) -> Result<BTreeSet<String>> {
    let list = ["tasks", "--json", "--status", "rejected", "--limit", "1000"];
    let tasks = stage.world.service(&list)?.ok()?.json_lines()?;
    Ok(tasks.iter().filter_map(|task| Some(task["id"].as_str()?.to_owned())).collect())
}

fn unreadable(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    let mut named = BTreeSet::new();
    for _ in 0..ROUNDS {
        stage.submit(750, "")?;
        named.append(&mut spoil(&stage)?);
    }
    let last = Instant::now();
    stage.submit(1500, "")?;
    let recovery = stage.recovery(last)?;
    poll::until("every task that is named to be rejected", SOON, || {
        Ok((rejected(&stage)?.len() >= named.len()).then_some(()))
    })?;
    let all = ROUNDS * OF_EACH * bad("").len();
    let told = format!("{all} letters: messages that could not be read");
    poll::until("all of them to be dead letters, which doctor counts", SOON, || {
        Ok(stage.world.service(&["doctor"])?.text().contains(&told).then_some(()))
    })?;
    let letters = stage.world.vhost().take("dead-letters", 1000)?.len();
    let rejected = rejected(&stage)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let seen = seen.must(letters == all, || format!("{letters} dead letters, not {all}"));
    let seen = seen.must(rejected == named, || {
        format!("{} tasks are rejected, {} are named", rejected.len(), named.len())
    });
    Ok(seen.note(format!("{} rejected, {letters} dead letters", rejected.len())))
}
