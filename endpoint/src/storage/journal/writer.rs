//! The writer: the thread that owns the disk queue. It takes all commands that wait as one
//! *group*, bounded by changes and bytes, makes its changes durable in one commit and
//! answers the callers. A lone change that a caller waits for is committed at once, many
//! share one sync. A few acceptances or releases, which no caller waits for, linger for
//! what follows them: mostly the task's end, with which it need not be written.
//!
//! When the file system runs low it stops writing, says so once, and goes on by
//! itself when there is room. Releases, which make room, are still written meanwhile, as
//! long as half of the reserve is left.

use super::commit::Pulse;
use super::notifier::Notifier;
use super::{JournalError, Probe, linger};
use crate::storage::disk_queue::{Change, DiskQueue, Error, OutSeq, OutboxRecord};
use crate::system::troubles::Troubles;
use clutch_common::id::Attempt;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The most changes in a group.
const GROUP_CHANGES: usize = 512;

/// A group that has this many bytes takes no more: it bounds the spool file that
/// the group shares, and what the store holds in memory until it is written.
const GROUP_BYTES: usize = 512 * 1024;

/// How long a group lingers while no caller waits for it, and from how many changes on it
/// does not.
const LINGER: Duration = Duration::from_millis(2);
const LINGER_CHANGES: usize = 16;

/// The subject of the trouble that a full disk is.
const DISK_FULL: &str = "disk full";
/// How often a full disk is looked at again.
const FULL_INTERVAL: Duration = Duration::from_secs(1);

/// A request to the writer.
pub(crate) enum JournalCommand {
    Submit(Submission),
    Read(Reading),
    Find(Finding),
    Close(oneshot::Sender<Result<(), JournalError>>),
}

/// Changes that one call makes.
pub(crate) struct Submission {
    pub(crate) changes: Vec<Change>,
    /// About how many bytes they add to the disk; 0 for those that make room.
    pub(crate) bytes: usize,
    pub(crate) done: oneshot::Sender<Result<(), JournalError>>,
}

impl Submission {
    /// Whether something is held up until it is durable: by all changes but the acceptance
    /// of a task that may run already, and a release.
    fn presses(&self) -> bool {
        let presses = |change: &Change| match change {
            Change::Accept { secured, .. } => !secured,
            Change::Release { .. } => false,
            Change::Secure { .. }
            | Change::Start { .. }
            | Change::Finish { .. }
            | Change::HandBack { .. } => true,
        };
        self.changes.is_empty() || self.changes.iter().any(presses)
    }
}

/// A request to read the outbox.
pub(crate) struct Reading {
    pub(crate) from: OutSeq,
    pub(crate) max: usize,
    pub(crate) max_bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<OutboxRecord>, JournalError>>,
}

/// A request for the attempts, of some, that are in the inbox or in the outbox.
pub(crate) struct Finding {
    pub(crate) attempts: HashSet<Attempt>,
    pub(crate) reply: oneshot::Sender<Result<HashSet<Attempt>, JournalError>>,
}

/// Requests that are served together.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) submissions: Vec<Submission>,
    pub(crate) readings: Vec<Reading>,
    pub(crate) findings: Vec<Finding>,
    changes: usize,
    pub(crate) bytes: usize,
    /// Whether something is held up until it is durable.
    presses: bool,
    pub(crate) close: Option<oneshot::Sender<Result<(), JournalError>>>,
}

impl Group {
    /// Adds a command.
    pub(crate) fn add(&mut self, command: JournalCommand) {
        match command {
            JournalCommand::Submit(submission) => {
                self.changes += submission.changes.len();
                self.bytes += submission.bytes;
                self.presses |= submission.presses();
                self.submissions.push(submission);
            }
            JournalCommand::Read(reading) => self.readings.push(reading),
            JournalCommand::Find(finding) => self.findings.push(finding),
            JournalCommand::Close(done) => self.close = Some(done),
        }
    }

    /// Whether it may linger for more.
    fn lingers(&self) -> bool {
        !self.presses
            && self.changes < LINGER_CHANGES
            && self.readings.is_empty()
            && self.findings.is_empty()
            && self.close.is_none()
    }

    /// Whether it takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.close.is_some()
            || self.changes + self.readings.len() + self.findings.len() >= GROUP_CHANGES
            || self.bytes >= GROUP_BYTES
    }

    /// Removes and returns the submissions that only release results which are on disk. An
    /// empty submission stays: it stands for all that was handed over before it.
    pub(crate) fn take_releases(&mut self) -> Vec<Submission> {
        let held: HashSet<OutSeq> = self
            .submissions
            .iter()
            .flat_map(|submission| &submission.changes)
            .filter_map(|change| match change {
                Change::Finish { out, .. } | Change::HandBack { out, .. } => Some(*out),
                Change::Accept { .. }
                | Change::Secure { .. }
                | Change::Start { .. }
                | Change::Release { .. } => None,
            })
            .collect();
        let (now, later) =
            std::mem::take(&mut self.submissions).into_iter().partition(|submission| {
                let frees =
                    |change: &Change| matches!(change, Change::Release { out } if !held.contains(out));
                !submission.changes.is_empty() && submission.changes.iter().all(frees)
            });
        self.submissions = later;
        now
    }
}

/// The disk failed; the pulse knows why.
struct Failed;

/// The outcome of waiting for room.
#[derive(PartialEq, Eq)]
enum Room {
    Found,
    ClosedFirst,
}

pub(super) struct Writer {
    queue: DiskQueue,
    commands: mpsc::Receiver<JournalCommand>,
    pulse: Arc<Pulse>,
    notifier: Notifier,
    probe: Probe,
    reserve: u64,
    troubles: Troubles,
}

impl Writer {
    pub(super) fn new(
        queue: DiskQueue,
        commands: mpsc::Receiver<JournalCommand>,
        (pulse, notifier, troubles): (Arc<Pulse>, Notifier, Troubles),
        probe: Probe,
        reserve: u64,
    ) -> Self {
        Self { queue, commands, pulse, notifier, probe, reserve, troubles }
    }

    /// Works until the journal is closed, dropped, or fails.
    pub(super) fn run(self) {
        let (pulse, hold) = (self.pulse.clone(), self.queue.hold());
        // The store panics on some kinds of damage.
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| self.work()));
        if ended.is_err() {
            pulse.fail(pulse.broken());
        }
        if pulse.failure().is_some() {
            std::mem::forget(hold);
            return;
        }
        drop(hold);
        if let Ok(Some(closed)) = ended {
            // The caller may have stopped waiting.
            drop(closed.send(Ok(())));
        }
    }

    fn work(mut self) -> Option<oneshot::Sender<Result<(), JournalError>>> {
        while let Some(first) = self.commands.blocking_recv() {
            let mut group = Group::default();
            group.add(first);
            self.gather(&mut group);
            self.linger(&mut group);
            // On failure the group is dropped, and its callers ask the pulse why.
            self.serve(&mut group).ok()?;
            if group.close.is_some() {
                return group.close;
            }
        }
        None
    }

    fn failed(&self, error: Error) -> Failed {
        let path = self.queue.path();
        self.pulse.fail(match self.queue.is_here() {
            Ok(false) => JournalError::Displaced { path: path.to_owned() },
            Ok(true) | Err(_) => JournalError::Failed(Arc::new(error)),
        });
        Failed
    }

    fn gather(&mut self, group: &mut Group) {
        while !group.is_full() {
            match self.commands.try_recv() {
                Ok(command) => group.add(command),
                Err(_) => return,
            }
        }
    }

    fn linger(&mut self, group: &mut Group) {
        let until = Instant::now() + LINGER;
        while group.lingers()
            && let Some(command) = linger::receive(&mut self.commands, until)
        {
            group.add(command);
            self.gather(group);
        }
    }

    /// Takes all commands that wait, as a release may be behind a change that needs room.
    /// The prefetch and the slots bound how many there are.
    fn gather_all(&mut self, group: &mut Group) {
        while group.close.is_none()
            && let Ok(command) = self.commands.try_recv()
        {
            group.add(command);
        }
    }

    fn serve(&mut self, group: &mut Group) -> Result<(), Failed> {
        if !group.submissions.is_empty() && self.wait_for_room(group)? == Room::ClosedFirst {
            for submission in group.submissions.drain(..) {
                drop(submission.done.send(Err(JournalError::Closed)));
            }
        }
        let submissions = std::mem::take(&mut group.submissions);
        self.commit(submissions)?;
        self.answer(&mut group.readings)?;
        self.find(&mut group.findings)
    }

    fn commit(&mut self, submissions: Vec<Submission>) -> Result<(), Failed> {
        if submissions.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut waiting = Vec::with_capacity(submissions.len());
        for submission in submissions {
            changes.extend(submission.changes);
            waiting.push(submission.done);
        }
        self.pulse.busy(true);
        self.queue.apply(&changes).map_err(|error| self.failed(error))?;
        self.pulse.busy(false);
        self.notifier.tell(waiting);
        Ok(())
    }

    fn answer(&mut self, readings: &mut Vec<Reading>) -> Result<(), Failed> {
        for Reading { from, max, max_bytes, reply } in readings.drain(..) {
            self.pulse.busy(true);
            let records = self.queue.outbox(from, max, max_bytes);
            let records = records.map_err(|error| self.failed(error))?;
            self.pulse.busy(false);
            drop(reply.send(Ok(records)));
        }
        Ok(())
    }

    /// Looks for attempts, once all that was submitted before is committed.
    fn find(&mut self, findings: &mut Vec<Finding>) -> Result<(), Failed> {
        for Finding { attempts, reply } in findings.drain(..) {
            self.pulse.busy(true);
            let held = self.queue.held(&attempts).map_err(|error| self.failed(error))?;
            self.pulse.busy(false);
            drop(reply.send(Ok(held)));
        }
        Ok(())
    }

    /// How much room has to be free for a group to be written.
    fn needed(&self, group: &Group) -> u64 {
        match group.bytes as u64 {
            0 => self.for_releases(),
            bytes => self.reserve.saturating_add(bytes),
        }
    }

    /// How much room has to be free for releases to be written: they make room
    /// in the end, but take some first, and a store that finds none has failed.
    fn for_releases(&self) -> u64 {
        self.reserve / 2
    }

    /// Waits until the file system has room for `group` beside the reserve.
    fn wait_for_room(&mut self, group: &mut Group) -> Result<Room, Failed> {
        let mut full = false;
        loop {
            let free =
                (self.probe)().map_err(|error| self.failed(self.queue.failed_to_look(error)))?;
            let ahead = self
                .queue
                .reserve_room()
                .map_err(|error| self.failed(self.queue.failed_to_look(error)))?;
            if ahead && free >= self.needed(group) {
                if full {
                    self.troubles.end(DISK_FULL);
                    tracing::info!("there is room on the disk again: going on");
                }
                return Ok(Room::Found);
            }
            if !std::mem::replace(&mut full, true) {
                let folder = self.queue.path().display();
                let words = format!("{free} bytes are free where the state folder {folder} is");
                self.troubles.begin(DISK_FULL, &words);
                tracing::error!(
                    folder = %self.queue.path().display(),
                    free_bytes = free,
                    reserve_bytes = self.reserve,
                    "the disk of the state folder is nearly full: free some space there. No task \
                     is accepted and no result stored until then; nothing is lost"
                );
            }
            if free >= self.for_releases() {
                let releases = group.take_releases();
                self.commit(releases)?;
            }
            self.answer(&mut group.readings)?;
            if group.close.is_some() || self.commands.is_closed() && self.commands.is_empty() {
                return Ok(Room::ClosedFirst);
            }
            // Waking early now and then does no harm.
            std::thread::park_timeout(FULL_INTERVAL);
            self.gather_all(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk_queue::{Finished, Seq};
    use clutch_common::id::{Attempt, TaskId};
    use clutch_common::task::{Process, Task};

    fn lingers(changes: Vec<Change>, then: Option<JournalCommand>) -> bool {
        let mut group = Group::default();
        let (done, _) = oneshot::channel();
        group.add(JournalCommand::Submit(Submission { changes, bytes: 0, done }));
        then.into_iter().for_each(|command| group.add(command));
        group.lingers()
    }

    #[test]
    fn only_a_few_changes_that_nobody_waits_for_wait_for_more() {
        let task = Arc::new(Task::new(TaskId::new(), Process::default()));
        let accept = |secured| Change::Accept { seq: Seq(0), task: Arc::clone(&task), secured };
        let release = || Change::Release { out: OutSeq(0) };
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        let result = Arc::new(Finished { attempt, bytes: Vec::new() });
        let finish = Change::Finish { inbox: None, out: OutSeq(0), result };
        let (seq, many) = (Seq(0), LINGER_CHANGES);
        for (changes, expected) in [
            (vec![accept(true)], true),
            (vec![release()], true),
            (vec![accept(true), release()], true),
            ((1..many).map(|_| release()).collect(), true),
            ((0..many).map(|_| release()).collect(), false),
            (vec![accept(false)], false),
            (vec![release(), finish], false),
            (vec![accept(true), Change::Start { seq }], false),
            (vec![Change::Secure { seq }], false),
            (vec![], false),
        ] {
            assert_eq!(lingers(changes.clone(), None), expected, "{changes:?}");
        }
        let (reply, _) = oneshot::channel();
        let reading = Reading { from: OutSeq(0), max: 1, max_bytes: 1, reply };
        assert!(!lingers(vec![release()], Some(JournalCommand::Read(reading))));
        let (closed, _) = oneshot::channel();
        assert!(!lingers(vec![release()], Some(JournalCommand::Close(closed))));
    }
}
