//! Seeded simulation: the endpoint's own subscriber, ledger, engine, publisher, session,
//! clutch and disk queue, against a broker, stores and files in memory, with a clock that
//! stands still while anything can go on.
//!
//! A seed determines a run: how many instances and tasks there are, whether they
//! share the endpoint, what goes wrong, and when. Faults come before and after each effect: an acknowledgement
//! that reached the broker though the endpoint saw an error and one that did not,
//! a commit that is on disk though the process died before it knew, and so on. An
//! oracle watches every effect and judges the end: each submitted task has exactly
//! one outcome, no link fault makes a task run twice, a crash repeats at most what
//! held a slot. Instances that share their endpoint are frozen, cut off and lost with
//! their disks, and the service asks for tasks that no instance may have: no task is
//! drained by two of them, and none is lost between them. Tasks start in the order of their
//! priorities, and none waits for ever. The service cancels tasks meanwhile,
//! drains the endpoint and resumes it: nothing that an obeyed cancel names starts, whichever
//! instance obeyed it, a drained instance starts nothing, and nothing stays in force. In some runs
//! tasks are of a topic: the instances claim them by clocks that are up to 15 s off, and the service
//! fences what it finds unclaimed. None starts without a claim at the broker, and a fenced one
//! never.
//!
//! | variable | meaning |
//! |---|---|
//! | `CLUTCH_SIMULATE_SEEDS` | `A..B`: the seeds to run; 0..500 without it |
//! | `CLUTCH_SIMULATE_TRACE` | set: the trace of every run is printed |

mod broker;
mod claims;
mod contents;
mod device;
mod disk;
mod executor;
mod fault_schedule;
mod freeze;
mod inlet;
mod media;
mod oracle;
mod order;
mod orders;
mod outlet;
mod plan;
mod process;
mod records;
mod rng;
mod service;
mod steering;
mod trace;
mod wire;
mod world;

use clutch_common::link::{self, Fault, Terms, Transport};
use clutch_common::topology::{self, QueueKind};
use disk::Node;
use fault_schedule::Wanted;
use process::ENDPOINT;
use service::Service;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use trace::Trace;
use world::World;

/// In how much of its own time a run must come to its end after the faults.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);

/// The outcome of a run.
struct Run {
    broken: Option<String>,
    trace: Trace,
    tasks: usize,
}

/// Plays the run of a seed.
fn run(seed: u64) -> Run {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let name = format!("memory:simulation-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new(seed);
        let broker = link::transport(&name, &Terms::default()).unwrap();
        if let Err(fault) = play(&world, &broker).await {
            world.fail(format!("the service's own link failed: {fault}"));
        }
        let tasks = world.tell(|oracle| oracle.submissions());
        let (broken, trace) = world.end();
        Run { broken, trace, tasks }
    })
}

async fn play(world: &Arc<World>, broker: &Arc<dyn Transport>) -> Result<(), Fault> {
    let operator = broker.connect("operator").await?;
    operator.declare(&topology::shared(QueueKind::Classic)).await?;
    operator.declare(&topology::endpoint(ENDPOINT, QueueKind::Classic)).await?;
    let nodes: Vec<Arc<Node>> = (0..world.plan.nodes()).map(Node::new).collect();
    let wanted = Wanted::new(world.plan.instances());
    let service = Service::new(world, broker);

    let mut collecting = JoinSet::new();
    let collector = Arc::clone(&service);
    collecting.spawn(async move { collector.collect().await });
    let mut instances = JoinSet::new();
    for (instance, node) in nodes.iter().enumerate() {
        let (world, broker, node) = (Arc::clone(world), Arc::clone(broker), Arc::clone(node));
        instances.spawn(fault_schedule::keep_running(
            world,
            instance,
            node,
            broker,
            Arc::clone(&wanted),
        ));
    }
    let mut faults = JoinSet::new();
    faults.spawn(fault_schedule::change(Arc::clone(world), Arc::clone(&wanted)));
    let faults_end = async {
        let (published, ()) =
            tokio::join!(service.publish(), tokio::time::sleep(world.plan.faults_last));
        faults.shutdown().await;
        world.end_faults();
        published
    };
    let steered = async { if world.plan.recovers() { service.steer().await } else { Ok(()) } };
    tokio::select! {
        biased;
        () = world.broken.cancelled() => return Ok(()),
        (published, steered) = async { tokio::join!(faults_end, steered) } => {
            published?;
            steered?;
        }
    }
    let settled = async {
        fault_schedule::settle(world, &nodes, &wanted).await;
        fault_schedule::until_nothing_is_in_force(world, operator.as_ref(), &wanted).await
    };
    tokio::select! {
        biased;
        () = world.broken.cancelled() => (),
        settled = settled => settled?,
        () = tokio::time::sleep(PATIENCE) => {
            let missing = world.tell(|oracle| oracle.missing());
            world.fail(format!("{PATIENCE:?} after the last fault something is pending: {missing:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: &str = "CLUTCH_SIMULATE_SEEDS";
    const TRACE: &str = "CLUTCH_SIMULATE_TRACE";

    fn seeds() -> std::ops::Range<u64> {
        let Ok(wish) = std::env::var(SEEDS) else { return 0..500 };
        let (from, to) = wish.split_once("..").expect("seeds are A..B");
        from.parse().unwrap()..to.parse().unwrap()
    }

    #[test]
    fn every_seed_keeps_the_promises() {
        let (seeds, all) = (seeds(), std::env::var_os(TRACE).is_some());
        let (mut tasks, count) = (0, seeds.end - seeds.start);
        for seed in seeds {
            let run = run(seed);
            if all || run.broken.is_some() {
                for line in run.trace.into_lines() {
                    println!("{line}");
                }
            }
            if let Some(broken) = run.broken {
                panic!("seed {seed}: {broken}\nreplay it: cargo xtask simulate --seed {seed}");
            }
            tasks += run.tasks;
        }
        println!("{count} seeds, {tasks} tasks");
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        for seed in 0..20 {
            let [one, two] = [run(seed).trace, run(seed).trace];
            let same = one.hash() == two.hash();
            let lines = one.into_lines().into_iter().zip(two.into_lines());
            let differs = lines.enumerate().find(|(_, (one, two))| one != two);
            assert!(same, "seed {seed}: the runs part at {differs:#?}");
        }
    }
}
