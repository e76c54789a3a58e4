//! `dead-letters requeue` is killed again and again: no letter is lost, and what was
//! on its way may be there twice.

use super::in_a_folder::put;
use super::{letters, listed, task};
use clutch_tests::poll;
use clutch_tests::world::World;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How many letters there are.
const LETTERS: usize = 400;
/// How often the command is killed at least while it works.
const KILLS: usize = 4;

/// Requeues everything, killed again and again on the way. Returns how often.
fn requeue_all(world: &World) -> usize {
    let mut kills = 0;
    for round in 0..200 {
        let mut command = world.service_command(&["dead-letters", "requeue", "--all"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moment = Duration::from_millis(25 + 9 * (round % 7));
        if poll::until("its end", moment, || Ok(child.try_wait()?)).is_err() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        if kills >= KILLS && listed(world).len() < 50 {
            break;
        }
    }
    letters(world, &["requeue", "--all"]).ok().unwrap();
    assert!(listed(world).is_empty());
    kills
}

fn judge(ids: Vec<String>, kills: usize) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    let twice: usize = counts.values().map(|count| count - 1).sum();
    println!("{kills} kills: {} of {LETTERS} requeued, {twice} once more", counts.len());
    assert_eq!(counts.len(), LETTERS, "letters are lost");
    assert!(kills >= KILLS && twice <= kills, "{twice} duplicates by {kills} kills");
}

fn ids() -> impl Iterator<Item = String> {
    (0..LETTERS).map(|number| number.to_string())
}

#[test]
fn killed_at_any_moment_a_requeue_at_a_broker_loses_nothing() {
    let test = "killed_at_any_moment_a_requeue_at_a_broker_loses_nothing";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let (vhost, queue) = (world.vhost(), format!("{}.tasks", endpoint.id));
    for id in ids() {
        let body = task(&uuid::Uuid::new_v4().to_string());
        vhost.publish("", &queue, json!({ "message_id": id }), &body).unwrap();
    }
    assert_eq!(vhost.refuse(&queue, LETTERS).unwrap().len(), LETTERS);
    let kills = requeue_all(&world);
    let back = vhost.take(&queue, 2 * LETTERS).unwrap();
    let back = back.iter().map(|one| one.properties["message_id"].as_str().unwrap().to_owned());
    judge(back.collect(), kills);
}

#[test]
fn killed_at_any_moment_a_requeue_in_a_folder_loses_nothing() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let queue = format!("{}.tasks", endpoint.id);
    let death = json!([{ "queue": queue, "reason": "rejected", "count": 1 }]);
    let messages: Vec<_> = ids()
        .map(|id| {
            let body = task(&uuid::Uuid::new_v4().to_string());
            (json!({ "message_id": id, "deaths": death }), body)
        })
        .collect();
    put(&world.spool(), "dead-letters", &messages);
    let kills = requeue_all(&world);
    judge(there(&world.spool(), &queue), kills);
}

/// The ids of the messages in a queue.
fn there(spool: &Path, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for producer in std::fs::read_dir(spool.join(format!("queues/{queue}/ready"))).unwrap() {
        for file in std::fs::read_dir(producer.unwrap().path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            let Some((_, header)) = text.split_once('\n') else { continue };
            let mut headers = serde_json::Deserializer::from_str(header).into_iter();
            let headers: Vec<serde_json::Value> = headers.next().unwrap().unwrap();
            ids.extend(headers.iter().map(|one| one["message_id"].as_str().unwrap().to_owned()));
        }
    }
    ids
}
