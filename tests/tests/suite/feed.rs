//! Events as a client of the API reads them, with real daemons.

use crate::running;
use clutch_tests::api_events::{Event, Events};
use clutch_tests::gate::Gate;
use clutch_tests::world::{SOON, World};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn socket(world: &World) -> PathBuf {
    world.folder().join("service/clutch.sock")
}

/// Reads the first event, which opens the answer.
fn opened(world: &World, query: &str, after: Option<&str>) -> (Events, Event) {
    let mut events = Events::open(&socket(world), query, after).unwrap();
    let first = events.next_event().unwrap();
    (events, first)
}

#[test]
fn a_client_that_is_cut_off_again_and_again_is_told_of_every_outcome_once() {
    let test = "a_client_that_is_cut_off_again_and_again_is_told_of_every_outcome_once";
    const TASKS: u64 = 300;
    let Some(it) = running(test) else { return };
    let (mut events, open) = opened(&it.world, "key=many&kinds=recorded,outcome", None);
    assert_eq!(open.kind, "open");
    let array = format!("1-{TASKS}");
    it.world.submit(&it.endpoint, "many", &["--array", &array, "--", "true"], SOON).unwrap();
    let mut seen: BTreeMap<(String, u64), u32> = BTreeMap::new();
    let (mut last, mut cuts) = (open.id, 0);
    while seen.len() < 2 * TASKS as usize {
        let event = events.next_event().unwrap();
        let index = event.data["index"].as_u64().unwrap();
        *seen.entry((event.kind, index)).or_default() += 1;
        last = event.id;
        if seen.len().is_multiple_of(50) {
            drop(events);
            let (again, first) = opened(&it.world, "key=many&kinds=recorded,outcome", Some(&last));
            assert_eq!((first.kind.as_str(), &first.data["resumed"]), ("open", &true.into()));
            (events, cuts) = (again, cuts + 1);
        }
    }
    assert!(cuts >= 10 && seen.values().all(|times| *times == 1), "{cuts} cuts: {seen:?}");
    // Nothing more comes: what follows is of another submission.
    it.world.submit(&it.endpoint, "last", &["--", "true"], SOON).unwrap();
    let (mut events, _) = opened(&it.world, "kinds=outcome", Some(&last));
    assert_eq!(events.next_event().unwrap().data["key"], "last");
}

#[test]
fn what_runs_what_it_tells_and_how_its_endpoint_is_come_as_events() {
    let test = "what_runs_what_it_tells_and_how_its_endpoint_is_come_as_events";
    let Some(mut it) = running(test) else { return };
    let (mut events, _) = opened(&it.world, "endpoint=lab", None);
    let gate = Gate::new(it.world.folder(), "k");
    let script = format!("echo '50% half way' >> \"$CLUTCH_PROGRESS\"; {}", gate.line());
    let submit = ["submit", "lab", "--key", "long", "--shell", "--", &script];
    it.world.service(&submit).unwrap().ok().unwrap();
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "progress") {
        let event = events.next_event().unwrap();
        if event.kind == "progress" {
            assert_eq!(event.data["progress"]["message"], "half way", "{event:?}");
            assert_eq!(event.data["state"], "running");
        }
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["recorded", "submitted", "running", "progress"]);
    gate.open().unwrap();
    let outcome = events.next_event().unwrap();
    assert_eq!((outcome.kind.as_str(), &outcome.data["state"]), ("outcome", &"succeeded".into()));
    it.daemon.stop(SOON).unwrap();
    let offline = events.next_event().unwrap();
    assert_eq!((offline.kind.as_str(), &offline.data["status"]), ("endpoint", &"offline".into()));
    // Another run of the service knows nothing of this one's events, and says so.
    it.service.kill().unwrap();
    let _service = it.world.serve().unwrap();
    assert_eq!(opened(&it.world, "", Some(&offline.id)).1.kind, "reset");
}
