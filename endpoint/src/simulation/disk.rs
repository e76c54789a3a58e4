//! A disk in a run: what was committed, and the writer that serves the journal's
//! commands over it. It keeps what was committed when the process dies, and
//! nothing else. It is slow, stalls, breaks and is full as the weather has it.

use super::oracle::{self, name};
use super::plan::Mishap;
use super::process::Life;
use super::world::{World, lock};
use crate::storage::disk_queue::{Change, Unsecured};
use crate::storage::journal::commit::Pulse;
use crate::storage::journal::writer::{Command, Finding, Group, Reading, Submission};
use crate::storage::journal::{
    Accepted, DiskError, Finished, Journal, JournalError, Origin, OutSeq, OutboxRecord,
};
use crate::storage::journal::{Deaths, Recovered, Running, Seen, Seq};
use clutch_common::id::{Attempt, StateId, TaskId};
use clutch_common::task::Task;
use clutch_common::task::result::Loss;
use clutch_common::wire;
use std::collections::{BTreeMap, HashMap, HashSet};
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

/// A task in the inbox.
struct Kept {
    task: Arc<Task>,
    started: bool,
    secured: bool,
}

/// What is on a disk.
pub(super) struct Disk {
    instance: usize,
    state_id: StateId,
    inbox: BTreeMap<Seq, Kept>,
    outbox: BTreeMap<OutSeq, Arc<Finished>>,
    seen: BTreeMap<TaskId, u32>,
    next: (Seq, OutSeq),
    deaths: HashMap<Attempt, Deaths>,
    commits: u64,
    /// Where it is noted which tasks run: a real file.
    folder: TempDir,
    full_until: Instant,
}

impl Disk {
    /// The empty disk of an instance.
    pub(super) fn new(instance: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            instance,
            state_id: StateId(uuid::Uuid::from_u128(instance as u128 + 1)),
            inbox: BTreeMap::new(),
            outbox: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: (Seq(0), OutSeq(0)),
            deaths: HashMap::new(),
            commits: 0,
            folder: tempfile::tempdir().unwrap(),
            full_until: Instant::now(),
        }))
    }

    /// Whether nothing is pending on it.
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    fn is_full(&self) -> bool {
        Instant::now() < self.full_until
    }

    fn apply(&mut self, world: &World, change: &Change) {
        let stored = |attempt, change| {
            world.judge(|oracle| oracle.stored(self.instance, attempt, change));
        };
        match change {
            Change::Accept { seq, task, secured } => {
                stored(task.attempt(), oracle::Change::Accepted);
                self.next.0 = self.next.0.max(Seq(seq.0 + 1));
                let (task, started, secured) = (Arc::clone(task), false, *secured);
                self.inbox.insert(*seq, Kept { task, started, secured });
            }
            Change::Secure { seq } => {
                if let Some(kept) = self.inbox.get_mut(seq) {
                    stored(kept.task.attempt(), oracle::Change::Secured);
                    kept.secured = true;
                }
            }
            Change::Start { seq } => {
                if let Some(kept) = self.inbox.get_mut(seq) {
                    stored(kept.task.attempt(), oracle::Change::Marked);
                    kept.started = true;
                }
            }
            Change::Finish { inbox, out, result } => {
                stored(result.attempt, told_by(result));
                self.next.1 = self.next.1.max(OutSeq(out.0 + 1));
                self.outbox.insert(*out, Arc::clone(result));
                self.saw(result.attempt);
                self.deaths.remove(&result.attempt);
                inbox.map(|seq| self.inbox.remove(&seq));
            }
            Change::HandBack { inbox, out, result } => {
                stored(result.attempt, told_by(result));
                self.next.1 = self.next.1.max(OutSeq(out.0 + 1));
                self.outbox.insert(*out, Arc::clone(result));
                self.inbox.remove(inbox);
            }
            Change::Release { out } => {
                if let Some(result) = self.outbox.remove(out) {
                    stored(result.attempt, oracle::Change::Released(lost(&result)));
                }
            }
        }
    }

    /// Counts the deaths of the daemon that ran before, as a queue does.
    fn count_deaths(&mut self, world: &World) -> Arc<Running> {
        let (running, left) = Running::open(&self.folder.path().join("running")).unwrap();
        for run in left {
            let deaths = self.deaths.entry(run.attempt).or_default();
            deaths.count += 1;
            deaths.last_started_at_ms = run.started_at_ms;
            world.note(format_args!("death {} with {}", deaths.count, name(run.attempt)));
            world.tell(|oracle| oracle.died(self.instance, run.attempt));
        }
        Arc::new(running)
    }

    fn saw(&mut self, attempt: Attempt) {
        let highest = self.seen.entry(attempt.task_id).or_default();
        *highest = attempt.attempt.max(*highest);
    }

    fn held(&self, attempts: &HashSet<Attempt>) -> HashSet<Attempt> {
        let inbox = self.inbox.values().map(|kept| kept.task.attempt());
        let outbox = self.outbox.values().map(|result| result.attempt);
        inbox.chain(outbox).filter(|attempt| attempts.contains(attempt)).collect()
    }

    fn outbox(&self, from: OutSeq, max: usize, max_bytes: usize) -> Vec<OutboxRecord> {
        let mut bytes = 0;
        let records = self.outbox.range(from..).take(max).enumerate();
        let fitting = records.take_while(|(index, (_, result))| {
            bytes += result.bytes.len();
            *index == 0 || bytes <= max_bytes
        });
        let record = |(_, (seq, result)): (usize, (&OutSeq, &Arc<Finished>))| OutboxRecord {
            seq: *seq,
            attempt: result.attempt,
            bytes: result.bytes.clone(),
        };
        fitting.map(record).collect()
    }
}

/// What a result in the outbox says.
fn told_by(result: &Finished) -> oracle::Change {
    match lost(result) {
        Some(Loss::Unknown) => oracle::Change::Disowned,
        Some(Loss::HandedBack) => oracle::Change::HandedBack,
        Some(Loss::Delivered) => oracle::Change::SaidDelivered,
        None => oracle::Change::Finished,
    }
}

/// Why a result may not be the end of its task.
fn lost(result: &Finished) -> Option<Loss> {
    wire::decode_result(&result.bytes).unwrap().lost
}

/// The journal's memory of what was seen.
struct Remembered(Mutex<BTreeMap<TaskId, u32>>);

impl Seen for Remembered {
    fn note(&self, attempt: Attempt) {
        let mut seen = lock(&self.0);
        let highest = seen.entry(attempt.task_id).or_default();
        *highest = attempt.attempt.max(*highest);
    }

    fn forget(&self, attempt: Attempt, before: Option<u32>) {
        let mut seen = lock(&self.0);
        if seen.get(&attempt.task_id) == Some(&attempt.attempt) {
            match before {
                Some(before) => seen.insert(attempt.task_id, before),
                None => seen.remove(&attempt.task_id),
            };
        }
    }

    fn highest(&self, task: TaskId) -> Result<Option<u32>, DiskError> {
        Ok(lock(&self.0).get(&task).copied())
    }
}

/// Opens a journal over a disk, and gives what was found and the writer.
pub(super) fn open(
    world: &Arc<World>,
    life: &Arc<Life>,
    disk: &Arc<Mutex<Disk>>,
) -> (Journal, Recovered, Writer) {
    let mut found = lock(disk);
    let running = found.count_deaths(world);
    life.runs(&running);
    let pulse = Arc::new(Pulse::new(PathBuf::from(&life.name), STALL_LIMIT));
    let (commands, received) = mpsc::channel(WAITING_MAX);
    let seen = Box::new(Remembered(Mutex::new(found.seen.clone())));
    let mut tasks = Vec::new();
    for (seq, Kept { task, started, secured }) in &found.inbox {
        let before = seen.highest(task.id).unwrap();
        seen.note(task.attempt());
        if *started {
            world.tell(|oracle| oracle.may_be_interrupted(task.attempt()));
        }
        let unsecured = (!secured).then_some(Unsecured { before });
        tasks.push(Accepted { seq: *seq, task: Task::clone(task), started: *started, unsecured });
    }
    let journal = Journal::over(commands, found.next, seen, Arc::clone(&pulse), None);
    let recovered = Recovered {
        state_id: found.state_id,
        origin: Origin::Own,
        durable: Arc::default(),
        age: found.commits,
        tasks,
        outbox: found.outbox.len() as u64,
        next_out: found.next.1,
        deaths: found.deaths.clone(),
        running,
    };
    let writer = Writer {
        world: Arc::clone(world),
        life: Arc::clone(life),
        disk: Arc::clone(disk),
        commands: received,
        pulse,
    };
    (journal, recovered, writer)
}

/// The disk failed, or its process is gone.
struct Over;

/// Serves a journal's commands.
pub(super) struct Writer {
    world: Arc<World>,
    life: Arc<Life>,
    disk: Arc<Mutex<Disk>>,
    commands: mpsc::Receiver<Command>,
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
        self.answer(&mut group.readings);
        self.find(&mut group.findings);
        Ok(())
    }

    /// While the disk is full, only what makes room is done.
    async fn wait_for_room(&mut self, group: &mut Group) -> Result<(), Over> {
        if self.world.mishap(Mishap::FullDisk) {
            let full = self.world.millis(500..60_000);
            self.world.note(format_args!("{}: the disk is full for {full:?}", self.life.name));
            lock(&self.disk).full_until = Instant::now() + full;
        }
        while lock(&self.disk).is_full() {
            let releases = group.take_releases();
            self.commit(releases).await?;
            self.answer(&mut group.readings);
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

    async fn commit(&self, submissions: Vec<Submission>) -> Result<(), Over> {
        if submissions.is_empty() {
            return Ok(());
        }
        self.life.gate.awake().await;
        self.pulse.busy(true);
        let slow = self.world.mishap(Mishap::SlowDisk);
        tokio::time::sleep(self.world.millis(if slow { 100..5_000 } else { 0..15 })).await;
        self.meet_mishaps("before").await?;
        let changes = submissions.iter().flat_map(|submission| &submission.changes);
        {
            let mut disk = lock(&self.disk);
            disk.commits += 1;
            for change in changes {
                self.world.note(format_args!("{}: committed: {}", self.life.name, words(change)));
                disk.apply(&self.world, change);
            }
            let (instance, inbox) = (disk.instance, disk.inbox.len());
            self.world.judge(|oracle| oracle.holds(instance, inbox));
        }
        self.meet_mishaps("after").await?;
        self.pulse.busy(false);
        self.life.gate.awake().await;
        for submission in submissions {
            drop(submission.done.send(Ok(())));
        }
        Ok(())
    }

    /// What may go wrong on either side of a commit. Nothing is written or
    /// answered for a process that is gone.
    async fn meet_mishaps(&self, when: &str) -> Result<(), Over> {
        if self.world.mishap(Mishap::CrashAtCommit) {
            self.life.crash(&format!("{when} a commit"));
        }
        if self.world.mishap(Mishap::StalledDisk) {
            self.world.note(format_args!("{}: the disk stalls {when} a commit", self.life.name));
            tokio::time::sleep(2 * STALL_LIMIT).await;
        }
        if self.world.mishap(Mishap::BrokenDisk) {
            self.world.note(format_args!("{}: the disk breaks {when} a commit", self.life.name));
            self.pulse.fail(self.pulse.broken());
            return Err(Over);
        }
        if self.life.is_over() { Err(Over) } else { Ok(()) }
    }

    fn find(&self, findings: &mut Vec<Finding>) {
        for Finding { attempts, reply } in findings.drain(..) {
            drop(reply.send(Ok(lock(&self.disk).held(&attempts))));
        }
    }

    fn answer(&self, readings: &mut Vec<Reading>) {
        for Reading { from, max, max_bytes, reply } in readings.drain(..) {
            drop(reply.send(Ok(lock(&self.disk).outbox(from, max, max_bytes))));
        }
    }
}

fn words(change: &Change) -> String {
    match change {
        Change::Accept { seq, task, .. } => {
            format!("accept {} as {}", name(task.attempt()), seq.0)
        }
        Change::Secure { seq } => format!("secure {}", seq.0),
        Change::Start { seq } => format!("start {}", seq.0),
        Change::Finish { out, result, .. } => {
            format!("finish {} as {}", name(result.attempt), out.0)
        }
        Change::HandBack { out, result, .. } => {
            format!("hand back {} as {}", name(result.attempt), out.0)
        }
        Change::Release { out } => format!("release {}", out.0),
    }
}
