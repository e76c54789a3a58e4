//! The order of effects: nothing is acknowledged before it is on the disk, as
//! the system saw it.

use crate::heavy;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{poll, skip, trace};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

/// More than there are cores: commits are then shared, and the test is short.
const SLOTS: &str = "16";
/// How often each kind of task is submitted in bulk.
const ROUNDS: usize = 10;
/// How many tasks come alone, of the first kind and of the last.
const ALONE: usize = 25;
/// The kinds of tasks: how many are in a round, and how many bytes each has
/// besides. The last one's payload is spooled.
const KINDS: [(usize, usize); 3] = [(500, 0), (250, 1000), (250, 3000)];

#[test]
fn no_task_is_acknowledged_before_a_sync_covers_it() {
    let test = "no_task_is_acknowledged_before_a_sync_covers_it";
    if let Some(missing) = trace::missing() {
        return skip::because(test, &missing);
    }
    let Some(world) = World::or_skip(test) else { return };
    if !world.broker().starts_with("amqp://") {
        return skip::because(test, "the broker's connections are encrypted");
    }
    let _turn = heavy();
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let path = world.folder().join("trace");
    let mut daemon = traced(&world, &endpoint, &path);
    let submitted = play(&world);
    let pid = daemon.pid();
    assert_eq!(daemon.stop(SOON).unwrap(), 0);
    poll::until("the end of the trace", SOON, || Ok(trace::is_whole(&path, pid)?.then_some(())))
        .unwrap();

    let state = world.folder().join("state/clutch/endpoints").join(&endpoint.id);
    let trace = BufReader::new(File::open(&path).unwrap());
    let proof = trace::judge(trace, &state.canonicalize().unwrap()).unwrap();
    println!("{proof}");
    let first: Vec<String> = proof.breaches.iter().take(5).map(ToString::to_string).collect();
    assert!(first.is_empty(), "{proof}, the first of them:\n{}", first.join("\n"));
    // What was to be seen was seen. A task that ends before its group is written
    // is in no inbox, and its payload in no spool.
    assert_eq!(proof.tasks, submitted, "{proof}");
    assert!(proof.tasks >= 10_000, "{proof}");
    assert!(proof.in_inbox >= 9_000 && proof.spooled >= 2_000, "{proof}");
    assert!(proof.acknowledgements >= 50 && proof.syncs >= 50, "{proof}");
}

/// An endpoint whose calls are written to a file.
fn traced(world: &World, endpoint: &Endpoint, path: &Path) -> Daemon {
    let path = path.display().to_string();
    let wrapper = [&trace::COMMAND[..], &["-o", &path]].concat();
    world.run_in(&wrapper, endpoint, &["--slots", SLOTS]).unwrap()
}

/// Submits tasks of all kinds, alone and many at a time, waits until they have
/// succeeded, and says how many there were.
fn play(world: &World) -> usize {
    let alone = (0..ALONE).flat_map(|_| [(1, KINDS[0].1), (1, KINDS[2].1)]);
    let submissions: Vec<_> = alone.chain((0..ROUNDS).flat_map(|_| KINDS)).collect();
    for (number, (count, size)) in submissions.iter().enumerate() {
        let (key, array) = (number.to_string(), format!("1-{count}"));
        let pad = format!("PAD={}", "x".repeat(*size));
        let options = ["submit", "lab", "--key", &key, "--cwd", "/", "--env", &pad];
        let tasks = ["--array", &array, "--", "/bin/true"];
        world.service(&[&options[..], &tasks].concat()).unwrap().ok().unwrap();
    }
    for number in 0..submissions.len() {
        let wait = ["wait", "--key", &number.to_string(), "--timeout", "9m"];
        world.service_within(&wait, Duration::from_secs(600)).unwrap().ok().unwrap();
    }
    submissions.iter().map(|(count, _)| count).sum()
}
