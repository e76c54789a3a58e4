//! What changes over time in a run: which instances are to run, what cannot be
//! reached, who is killed or told to stop.

use super::disk::Disk;
use super::plan::Mishap;
use super::process::{Life, live};
use super::world::{World, lock};

use clutch_common::link::Transport;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Which instances are to run.
pub(super) struct Wanted {
    instances: Mutex<BTreeSet<usize>>,
    changed: Notify,
}

impl Wanted {
    /// These are.
    pub(super) fn new(instances: BTreeSet<usize>) -> Arc<Self> {
        Arc::new(Self { instances: Mutex::new(instances), changed: Notify::new() })
    }

    fn change(&self, how: impl FnOnce(&mut BTreeSet<usize>)) {
        how(&mut lock(&self.instances));
        self.changed.notify_waiters();
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
    disk: Arc<Mutex<Disk>>,
    broker: Arc<dyn Transport>,
    wanted: Arc<Wanted>,
) {
    for number in 1.. {
        wanted.until(instance, true).await;
        let life = Life::new(&world, instance, number);
        let stop = CancellationToken::new();
        let mut process = JoinSet::new();
        let own = (Arc::clone(&world), Arc::clone(&life), Arc::clone(&disk), Arc::clone(&broker));
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

/// Changes the weather every now and then, for as long as it is polled.
pub(super) async fn change(world: Arc<World>, wanted: Arc<Wanted>) {
    let instances = world.plan.instances;
    loop {
        tokio::time::sleep(world.millis(100..20_000)).await;
        let instance = world.within(0..instances as u64) as usize;
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
            world.weather().cut_off.insert(instance);
            strike(&world, instance, |life| life.cut_all("the network is gone"));
            tokio::time::sleep(world.millis(1_000..60_000)).await;
            world.weather().cut_off.clear();
        }
        if world.mishap(Mishap::Restart) {
            world.note(format_args!("the broker restarts"));
            world.weather().broker_down = true;
            for instance in 0..instances {
                strike(&world, instance, |life| life.cut_all("the broker stops"));
            }
            tokio::time::sleep(world.millis(100..30_000)).await;
            world.weather().broker_down = false;
        }
    }
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

/// Lets a run come to its end once nothing goes wrong any more: each instance
/// runs alone until nothing is pending with it, so that one that never gets the
/// lease while another lives delivers as well.
pub(super) async fn settle(world: &World, disks: &[Arc<Mutex<Disk>>], wanted: &Wanted) {
    for (instance, disk) in disks.iter().enumerate().cycle() {
        wanted.change(|wanted| *wanted = BTreeSet::from([instance]));
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let missing = world.tell(|oracle| oracle.missing());
            let all_empty = disks.iter().all(|disk| lock(disk).is_empty());
            if missing.is_empty() && all_empty {
                return;
            }
            if lock(disk).is_empty() && disks.len() > 1 {
                break;
            }
        }
    }
}
