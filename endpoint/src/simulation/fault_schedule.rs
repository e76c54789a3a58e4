//! The faults that come over time in a run: processes that are killed, frozen or told to
//! stop, nodes that are lost, and a broker that cannot be reached.

use super::disk::Node;
use super::plan::{Fleet, Mishap};
use super::process::{ENDPOINT, Life, live};
use super::world::{World, lock};

use clutch_common::link::{Connection, Fault, Transport};
use clutch_common::topology;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often the endpoint may run once more before nothing is in force.
const ROUNDS: usize = 3;
/// How long all instances take to stop, or to read what waits for them.
const STOPPED_WITHIN: Duration = Duration::from_secs(120);

/// Which instances are to run.
pub(super) struct Wanted {
    instances: Mutex<BTreeSet<usize>>,
    nodes: Mutex<Nodes>,
    changed: Notify,
}

/// Which nodes there are.
struct Nodes {
    /// Those that are not lost.
    living: BTreeSet<usize>,
    /// The next one to take the place of another.
    spare: usize,
}

impl Wanted {
    /// The first so many are.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let nodes = Nodes { living: (0..count).collect(), spare: count };
        Arc::new(Self {
            instances: Mutex::new((0..count).collect()),
            nodes: Mutex::new(nodes),
            changed: Notify::new(),
        })
    }

    /// The nodes that are not lost.
    pub(super) fn living(&self) -> Vec<usize> {
        lock(&self.nodes).living.iter().copied().collect()
    }

    /// A node is lost, and another one takes its place if there is one, or if
    /// none would be left. Says whether that can be.
    fn lose(&self, world: &World, instance: usize) -> bool {
        let mut nodes = lock(&self.nodes);
        let spare = Some(nodes.spare).filter(|spare| *spare < world.plan.nodes());
        let last = nodes.living.len() == 1;
        if last && spare.is_none() {
            return false;
        }
        nodes.living.remove(&instance);
        if let Some(spare) = spare
            && (last || world.flip())
        {
            nodes.spare += 1;
            nodes.living.insert(spare);
        }
        true
    }

    fn change(&self, how: impl FnOnce(&mut BTreeSet<usize>)) {
        how(&mut lock(&self.instances));
        self.changed.notify_waiters();
    }

    /// All that are not lost are.
    fn all(&self) {
        let living = lock(&self.nodes).living.clone();
        self.change(|wanted| *wanted = living);
    }

    /// Resolves when an instance is wanted, or is not.
    async fn until(&self, instance: usize, wanted: bool) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.instances).contains(&instance) == wanted {
                return;
            }
            changed.await;
        }
    }
}

/// Keeps an instance running while it is wanted, as a supervisor would: starts
/// it again when it has died or given up, and stops it in order when it is not
/// wanted any more.
pub(super) async fn keep_running(
    world: Arc<World>,
    instance: usize,
    node: Arc<Node>,
    broker: Arc<dyn Transport>,
    wanted: Arc<Wanted>,
) {
    for number in 1.. {
        wanted.until(instance, true).await;
        let life = Life::new(&world, instance, number);
        let stop = CancellationToken::new();
        let mut process = JoinSet::new();
        let own = (Arc::clone(&world), Arc::clone(&life), Arc::clone(&node), Arc::clone(&broker));
        process.spawn(live(own.0, own.1, own.2, own.3, stop.clone()));
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = life.over() => break,
                ended = process.join_next() => {
                    match ended {
                        Some(Ok(Ok(()))) => world.note(format_args!("{}: stopped", life.name)),
                        Some(Ok(Err(failure))) => {
                            world.note(format_args!("{}: gave up: {failure}", life.name));
                        }
                        Some(Err(panic)) => world.fail(format!("{} panicked: {panic}", life.name)),
                        None => (),
                    }
                    break;
                }
                () = wanted.until(instance, false), if !stopping => {
                    world.note(format_args!("{}: is told to stop", life.name));
                    stopping = true;
                    stop.cancel();
                }
            }
        }
        life.end();
        process.shutdown().await;
        tokio::time::sleep(world.millis(0..5_000)).await;
    }
}

/// Brings about a fault every now and then, for as long as it is polled.
pub(super) async fn change(world: Arc<World>, wanted: Arc<Wanted>) {
    loop {
        tokio::time::sleep(world.millis(100..20_000)).await;
        let living = wanted.living();
        let instance = living[world.within(0..living.len() as u64) as usize];
        if world.mishap(Mishap::Kill) {
            strike(&world, instance, |life| life.crash("by kill -9"));
        }
        if world.mishap(Mishap::Stop) {
            wanted.change(|wanted| wanted.retain(|other| *other != instance));
            tokio::time::sleep(world.millis(0..90_000)).await;
            wanted.change(|wanted| wanted.extend([instance]));
        }
        if world.mishap(Mishap::Partition) {
            world.note(format_args!("instance {instance} is cut off"));
            world.conditions().cut_off.insert(instance);
            strike(&world, instance, |life| life.cut_all("the network is gone"));
            tokio::time::sleep(world.millis(1_000..60_000)).await;
            world.conditions().cut_off.clear();
        }
        if world.mishap(Mishap::Restart) {
            world.note(format_args!("the broker restarts"));
            world.conditions().broker_down = true;
            for instance in living {
                strike(&world, instance, |life| life.cut_all("the broker stops"));
            }
            tokio::time::sleep(world.millis(100..30_000)).await;
            world.conditions().broker_down = false;
        }
        if world.mishap(Mishap::Freeze) {
            freeze(&world, instance).await;
        }
        if world.plan.recovers() && world.mishap(Mishap::LostNode) && wanted.lose(&world, instance)
        {
            world.note(format_args!("instance {instance} is lost, with its disk"));
            strike(&world, instance, |life| life.crash("with its node"));
            world.tell(|oracle| oracle.gives_up(instance));
            tokio::time::sleep(world.millis(0..10_000)).await;
            wanted.all();
        }
    }
}

/// Freezes an instance for a while; if that is long, the broker gives up on it.
async fn freeze(world: &World, instance: usize) {
    let (frozen, patience) = (world.millis(500..70_000), world.millis(3_000..35_000));
    world.note(format_args!("instance {instance} is frozen for {frozen:?}"));
    strike(world, instance, |life| life.gate.freeze(true));
    tokio::time::sleep(frozen.min(patience)).await;
    if frozen > patience {
        strike(world, instance, |life| life.cut_all("the broker hears nothing any more"));
        tokio::time::sleep(frozen - patience).await;
    }
    world.note(format_args!("instance {instance} goes on"));
    strike(world, instance, |life| life.gate.freeze(false));
}

/// Does something to the processes of an instance.
fn strike(world: &World, instance: usize, how: impl Fn(&Life)) {
    let lives: Vec<Arc<Life>> = {
        let mut lives = world.lives();
        lives.retain(|life| !life.is_over());
        lives.iter().filter(|life| life.instance == instance).cloned().collect()
    };
    lives.iter().for_each(|life| how(life));
}

/// Lets a run come to its end once nothing goes wrong any more. Of rivals, each
/// runs alone until nothing is pending with it, so that one that never gets the
/// lease while another lives delivers as well.
pub(super) async fn settle(world: &World, nodes: &[Arc<Node>], wanted: &Wanted) {
    let living = wanted.living();
    let alone = world.plan.fleet == Fleet::Rivals;
    let is_empty = |instance: &usize| nodes[*instance].is_empty();
    for instance in living.iter().cycle() {
        if alone {
            wanted.change(|wanted| *wanted = BTreeSet::from([*instance]));
        } else {
            wanted.all();
        }
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let missing = world.tell(|oracle| oracle.missing());
            if missing.is_empty() && living.iter().all(is_empty) {
                return;
            }
            if alone && is_empty(instance) {
                break;
            }
        }
    }
}

/// Sees that no cancel and no drain is left in the control queue once all instances have
/// stopped: each was released by its mark or its resume.
pub(super) async fn until_nothing_is_in_force(
    world: &World,
    operator: &dyn Connection,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let queue = topology::control_queue(ENDPOINT);
    let mut left = 0;
    for _ in 0..ROUNDS {
        wanted.change(BTreeSet::clear);
        tokio::time::sleep(STOPPED_WITHIN).await;
        left = operator.waiting(&queue).await?;
        if left == 0 {
            return Ok(());
        }
        wanted.all();
        tokio::time::sleep(STOPPED_WITHIN).await;
    }
    world.fail(format!("{left} orders are in force, and none should be"));
    Ok(())
}
