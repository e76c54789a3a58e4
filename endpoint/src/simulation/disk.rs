//! The node of an instance: its disk, and the writer that serves the journal's commands
//! with the disk queue itself. The disk is slow, stalls and is full as the plan has it; what
//! else goes wrong with it is in [`super::device`].

use super::contents::{QueueContent, Written};
use super::device::{Device, Disk};
use super::plan::Mishap;
use super::process::{ENDPOINT, Life};
use super::world::{World, lock};
use crate::storage::disk_queue::{Change, DiskQueue, Options, Parts};
use crate::storage::journal::commit::Pulse;
use crate::storage::journal::writer::{Finding, Group, JournalCommand, Reading, Submission};
use crate::storage::journal::{
    Accepted, DiskError, Journal, JournalError, Recovered, Running, Threads,
};
use crate::storage::spool::Spool;
use clutch_common::id::StateId;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// As many commands as wait for the real writer.
const WAITING_MAX: usize = 1024;
/// How long the journal has patience with the disk.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How many attempts are remembered: all of a run, some of them in runs of the history.
const SEEN_MAX: usize = 1000;

/// A node, whichever process runs on it.
pub(super) struct Node {
    instance: usize,
    disk: Arc<Mutex<Disk>>,
    /// The folder of the file that says which tasks run: a real one.
    folder: TempDir,
    full_until: Mutex<Instant>,
}

impl Node {
    /// The node of an instance, with an empty disk.
    pub(super) fn new(instance: usize) -> Arc<Self> {
        Arc::new(Self {
            instance,
            disk: Arc::new(Mutex::new(Disk::new(instance))),
            folder: tempfile::tempdir().unwrap(),
            full_until: Mutex::new(Instant::now()),
        })
    }

    /// Whether nothing is pending on its disk.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.disk).contents.is_empty()
    }

    fn is_full(&self) -> bool {
        Instant::now() < *lock(&self.full_until)
    }

    /// The parts of the queue on its disk, for a new process.
    fn parts(&self, world: &Arc<World>, life: &Arc<Life>) -> Parts {
        let running = self.folder.path().join("running");
        let power_cut = world.within(0..4) == 0;
        if power_cut && running.exists() {
            // Another boot of the host: no task is to blame.
            std::fs::write(&running, "").unwrap();
        }
        let (running, left) = Running::open(&running).unwrap();
        let mut disk = lock(&self.disk);
        disk.crash(world, power_cut);
        disk.begins(left.iter().map(|run| Written::Death(run.attempt)).collect());
        drop(disk);
        let (world, life, disk) = (Arc::clone(world), Arc::clone(life), Arc::clone(&self.disk));
        let device = Device { world, life, disk };
        Parts {
            spool: Spool::over(Arc::new(device.clone())),
            commit_counter: device.commit_counter(),
            store: Arc::new(device),
            running,
            left,
            new_id: StateId(uuid::Uuid::from_u128(self.instance as u128 + 1)),
            folder: None,
        }
    }

    /// Opens the queue for a new process, and compares it with what must be in it; none if
    /// the process dies, or the disk fails, meanwhile.
    fn open_queue(
        &self,
        world: &Arc<World>,
        life: &Arc<Life>,
    ) -> Option<(DiskQueue, Vec<Accepted>)> {
        let options =
            Options { path: PathBuf::from(&life.name), endpoint_id: ENDPOINT, seen_max: SEEN_MAX };
        let opened = DiskQueue::restore(self.parts(world, life), &options);
        let failed = |error: &dyn std::error::Error| {
            world.note(format_args!("{}: cannot read its disk: {error}", life.name));
            if !life.is_over() && !lock(&self.disk).has_failed {
                world.fail(format!("{} cannot read a sound disk: {error}", life.name));
            }
        };
        let (mut queue, tasks) = opened.inspect_err(|error| failed(error)).ok()?;
        life.runs(&queue.running());
        let finished = {
            let mut disk = lock(&self.disk);
            disk.written(world);
            disk.contents.finished()
        };
        let found =
            QueueContent::read(&mut queue, &finished).inspect_err(|error| failed(error)).ok()?;
        if let Err(differs) = lock(&self.disk).contents.compare(&found, &tasks) {
            world.fail(format!("{} finds on its disk that {differs}", life.name));
        }
        Some((queue, tasks))
    }
}

/// Opens a journal on a node, and gives what was found and the writer; none if the process
/// dies, or the disk fails, meanwhile.
pub(super) fn open(
    world: &Arc<World>,
    life: &Arc<Life>,
    node: &Arc<Node>,
) -> Option<(Journal, Recovered, Writer)> {
    let (queue, tasks) = node.open_queue(world, life)?;
    for task in tasks.iter().filter(|task| task.started) {
        world.tell(|oracle| oracle.may_be_interrupted(task.task.attempt()));
    }
    let pulse = Arc::new(Pulse::new(PathBuf::from(&life.name), STALL_LIMIT));
    let (commands, received) = mpsc::channel(WAITING_MAX);
    let journal = Journal::over(commands, queue.seen(), Arc::clone(&pulse), Threads::default());
    let recovered = Recovered::of(&queue, tasks);
    let (world, life, node) = (Arc::clone(world), Arc::clone(life), Arc::clone(node));
    let writer = Writer { world, life, node, queue, commands: received, pulse };
    Some((journal, recovered, writer))
}

/// The disk failed, or its process is gone.
struct Over;

/// Serves a journal's commands.
pub(super) struct Writer {
    world: Arc<World>,
    life: Arc<Life>,
    node: Arc<Node>,
    queue: DiskQueue,
    commands: mpsc::Receiver<JournalCommand>,
    pulse: Arc<Pulse>,
}

impl Writer {
    /// Works until the journal is closed, the disk fails or the process dies.
    pub(super) async fn serve(mut self) {
        while let Some(first) = self.commands.recv().await {
            let mut group = Group::default();
            group.add(first);
            while !group.is_full()
                && self.world.within(0..16) > 0
                && let Ok(command) = self.commands.try_recv()
            {
                group.add(command);
            }
            if self.serve_group(&mut group).await.is_err() {
                return;
            }
            if let Some(closed) = group.close {
                drop(closed.send(Ok(())));
                return;
            }
        }
    }

    async fn serve_group(&mut self, group: &mut Group) -> Result<(), Over> {
        if group.bytes > 0 {
            self.wait_for_room(group).await?;
        }
        let submissions = std::mem::take(&mut group.submissions);
        self.commit(submissions).await?;
        self.answer(&mut group.readings)?;
        self.find(&mut group.findings)
    }

    /// While the disk is full, only what makes room is done.
    async fn wait_for_room(&mut self, group: &mut Group) -> Result<(), Over> {
        if self.world.mishap(Mishap::FullDisk) {
            let full = self.world.millis(500..60_000);
            self.world.note(format_args!("{}: the disk is full for {full:?}", self.life.name));
            *lock(&self.node.full_until) = Instant::now() + full;
        }
        while self.node.is_full() {
            let releases = group.take_releases();
            self.commit(releases).await?;
            self.answer(&mut group.readings)?;
            if group.close.is_some() {
                for submission in group.submissions.drain(..) {
                    drop(submission.done.send(Err(JournalError::Closed)));
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            while group.close.is_none()
                && let Ok(command) = self.commands.try_recv()
            {
                group.add(command);
            }
        }
        Ok(())
    }

    async fn commit(&mut self, submissions: Vec<Submission>) -> Result<(), Over> {
        if submissions.is_empty() {
            return Ok(());
        }
        self.life.gate.awake().await;
        self.pulse.busy(true);
        let slow = self.world.mishap(Mishap::SlowDisk);
        tokio::time::sleep(self.world.millis(if slow { 100..5_000 } else { 0..15 })).await;
        self.stall("before").await?;
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for submission in submissions {
            changes.extend(submission.changes);
            waiting.push(submission.done);
        }
        self.write(&changes)?;
        self.stall("after").await?;
        self.pulse.busy(false);
        self.life.gate.awake().await;
        for done in waiting {
            drop(done.send(Ok(())));
        }
        Ok(())
    }

    /// Has the queue write changes. What it says is durable has to be so.
    fn write(&mut self, changes: &[Change]) -> Result<(), Over> {
        lock(&self.node.disk).begins(changes.iter().cloned().map(Written::Change).collect());
        let applied = self.queue.apply(changes);
        self.succeeded(applied)?;
        let mut disk = lock(&self.node.disk);
        disk.written(&self.world);
        let (instance, inbox) = (self.node.instance, disk.contents.tasks());
        self.world.judge(|oracle| oracle.holds(instance, inbox));
        Ok(())
    }

    /// The journal ends where the queue fails, which it may only where its disk has.
    fn succeeded<T>(&self, done: Result<T, DiskError>) -> Result<T, Over> {
        done.map_err(|error| {
            if !self.life.is_over() && !lock(&self.node.disk).has_failed {
                self.world.fail(format!("{}: a sound disk failed: {error}", self.life.name));
            }
            self.pulse.fail(JournalError::Failed(Arc::new(error)));
            Over
        })
    }

    /// The disk may stall on either side of a commit. Nothing is written or answered for a
    /// process that is gone.
    async fn stall(&self, when: &str) -> Result<(), Over> {
        if self.world.mishap(Mishap::StalledDisk) {
            self.world.note(format_args!("{}: the disk stalls {when} a commit", self.life.name));
            tokio::time::sleep(2 * STALL_LIMIT).await;
        }
        if self.life.is_over() { Err(Over) } else { Ok(()) }
    }

    fn find(&self, findings: &mut Vec<Finding>) -> Result<(), Over> {
        for Finding { attempts, reply } in findings.drain(..) {
            let held = self.succeeded(self.queue.held(&attempts))?;
            if held != lock(&self.node.disk).contents.held(&attempts) {
                self.world.fail(format!("{}: its disk holds other attempts", self.life.name));
            }
            drop(reply.send(Ok(held)));
        }
        Ok(())
    }

    fn answer(&mut self, readings: &mut Vec<Reading>) -> Result<(), Over> {
        for Reading { from, max, max_bytes, reply } in readings.drain(..) {
            let read = self.queue.outbox(from, max, max_bytes);
            let records = self.succeeded(read)?;
            if let Err(differs) = lock(&self.node.disk).contents.compare_page(from, &records) {
                self.world.fail(format!("{} reads that {differs}", self.life.name));
            }
            drop(reply.send(Ok(records)));
        }
        Ok(())
    }
}
