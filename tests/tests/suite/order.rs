//! The order of effects: nothing is acknowledged before it is on the disk, as
//! the system saw it.

use crate::heavy;
use clutch_tests::process::Daemon;
use clutch_tests::trace::Proof;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{poll, skip, trace};
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

/// The kinds of tasks: how many are in a round, and how many bytes each has
/// besides. The last one's payload is spooled.
const KINDS: [(usize, usize); 3] = [(500, 0), (250, 1000), (250, 3000)];
/// How many rounds there are of tasks that run, and of those that wait.
const BUSY: usize = 2;
const BURST: usize = 8;
/// How many tasks come alone, of the first kind and of the last.
const ALONE: usize = 25;
/// Room for a burst, which is acknowledged in many pieces.
const INBOX: &str = "\n[inbox]\nmax_tasks = 20000\nmax_bytes = 67108864\nprefetch = 8\n";

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
    let mut config = File::options().append(true).open(&endpoint.config).unwrap();
    config.write_all(INBOX.as_bytes()).unwrap();
    let _service = world.serve().unwrap();
    let runs = [busy(&world, &endpoint), burst(&world, &endpoint)];

    for proof in &runs {
        println!("{proof}");
        let first: Vec<String> = proof.breaches.iter().take(5).map(ToString::to_string).collect();
        assert!(first.is_empty(), "{proof}, the first of them:\n{}", first.join("\n"));
        assert!(proof.acknowledgements >= 10 && proof.syncs >= 10, "{proof}");
    }
    // What was to be seen was seen. A task that ends before its group is written
    // is in no inbox, and its payload in no spool.
    let sum = |count: fn(&Proof) -> usize| runs.iter().map(count).sum::<usize>();
    assert_eq!(sum(|proof| proof.tasks), 2 * ALONE + (BUSY + BURST) * 1000);
    assert!(sum(|proof| proof.in_inbox) >= 9_000);
    assert!(sum(|proof| proof.spooled) >= 2_000);
}

/// Tasks come alone and many at a time, and run to their end while others come.
fn busy(world: &World, endpoint: &Endpoint) -> Proof {
    let (mut daemon, path) = traced(world, endpoint, "busy");
    let alone = (0..ALONE).flat_map(|_| [(1, KINDS[0].1), (1, KINDS[2].1)]);
    let submissions: Vec<_> = alone.chain((0..BUSY).flat_map(|_| KINDS)).collect();
    for (number, (count, size)) in submissions.iter().enumerate() {
        submit(world, &format!("busy{number}"), *count, *size);
    }
    for number in 0..submissions.len() {
        world.wait(&format!("busy{number}")).unwrap().ok().unwrap();
    }
    let pid = daemon.pid();
    assert_eq!(daemon.stop(SOON).unwrap(), 0);
    judged(world, endpoint, &path, pid)
}

/// Many tasks wait for the endpoint, which takes them in as fast as it can, runs
/// some of them, and is killed when all are acknowledged.
fn burst(world: &World, endpoint: &Endpoint) -> Proof {
    for round in 0..BURST {
        for (number, (count, size)) in KINDS.iter().enumerate() {
            submit(world, &format!("burst{round}-{number}"), *count, *size);
        }
    }
    let queue = format!("{}.tasks", endpoint.id);
    let waiting = |wanted: fn(u64) -> bool| {
        let depth = || Ok(world.vhost().depth(&queue)?.filter(|depth| wanted(*depth)));
        poll::until("the broker to count what waits", SOON, depth).unwrap();
    };
    waiting(|depth| depth > 0);
    let (mut daemon, path) = traced(world, endpoint, "burst");
    waiting(|depth| depth == 0);
    let pid = daemon.pid();
    daemon.signal("KILL").unwrap();
    assert_eq!(daemon.wait(SOON).unwrap(), 128 + 9);
    judged(world, endpoint, &path, pid)
}

fn submit(world: &World, key: &str, count: usize, size: usize) {
    let (pad, array) = (format!("PAD={}", "x".repeat(size)), format!("1-{count}"));
    let options = ["submit", "lab", "--key", key, "--cwd", "/", "--env", &pad];
    let tasks = ["--array", &array, "--", "/bin/true"];
    world.service(&[&options[..], &tasks].concat()).unwrap().ok().unwrap();
}

/// An endpoint, and the file that its system calls are written to.
fn traced(world: &World, endpoint: &Endpoint, name: &str) -> (Daemon, PathBuf) {
    let path = world.folder().join(format!("{name}.trace"));
    let output = path.display().to_string();
    let wrapper = [&trace::COMMAND[..], &["-o", &output]].concat();
    (world.run_in(&wrapper, endpoint, &[]).unwrap(), path)
}

fn judged(world: &World, endpoint: &Endpoint, path: &Path, pid: u32) -> Proof {
    let whole = || Ok(trace::is_whole(path, pid)?.then_some(()));
    poll::until("the end of the trace", SOON, whole).unwrap();
    let state = world.folder().join("state/clutch/endpoints").join(&endpoint.id);
    let trace = BufReader::new(File::open(path).unwrap());
    trace::judge(trace, &state.canonicalize().unwrap()).unwrap()
}
