//! Terminates a process tree: `SIGTERM`, a grace, then `SIGKILL`, until no member is left.
//!
//! Touches: signals to members. Reaps orphans that have ended, but not the leader, which
//! its run reaps. Promises that a signal reaches a member or no process at all, even
//! where the kernel has given a member's id to another process.

use super::proc::{self, Stat};
use super::process_tree::ProcessTree;
use super::reaper::Reaper;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};
use std::collections::HashSet;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long members may take to die once killed. Only processes that hang in
/// the kernel, or that belong to another user, take longer.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The pauses between two looks: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How many times in a row orphans are listed and killed, until a time when none of them
/// has forked since it was listed.
const PASSES: usize = 500;
/// How many times in a row when no new orphan turns up.
const IDLE_PASSES: usize = 20;

/// The result of a termination.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Terminated {
    /// How many members were signalled, without the leader.
    pub(crate) signalled: usize,
    /// Members that are still there although they were killed.
    pub(crate) survivors: Vec<Pid>,
}

/// Asks every member to end (`SIGTERM`, and `SIGCONT` for those stopped), kills those
/// that are left after `grace`, and returns when all are gone, where the leader may be a
/// zombie; at the latest 10 s after `grace`.
pub(crate) async fn terminate(tree: &ProcessTree, grace: Duration) -> Terminated {
    let mut terminator = Terminator { tree: tree.clone(), signalled: HashSet::new() };
    let started = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        let elapsed = started.elapsed();
        let kill = elapsed >= grace;
        let round = tokio::task::spawn_blocking(move || {
            let left = terminator.round(kill);
            (terminator, left)
        });
        let Ok((back, left)) = round.await else {
            return Terminated::default(); // the runtime is going down
        };
        terminator = back;
        let left = left.unwrap_or_else(|error| terminator.without_proc(&error));
        if left.is_empty() || elapsed >= grace.saturating_add(KILL_LIMIT) {
            return terminator.over(left);
        }
        let until_kill = grace.saturating_sub(started.elapsed());
        tokio::time::sleep(if kill { pause } else { pause.min(until_kill) }).await;
        pause = if until_kill.is_zero() && !kill { PAUSE.0 } else { PAUSE.1.min(pause * 2) };
    }
}

/// A termination under way.
struct Terminator {
    tree: ProcessTree,
    /// Members that were signalled, each by its id and its start.
    signalled: HashSet<(Pid, u64)>,
}

impl Terminator {
    /// Lists the tree once, and asks new members to end, or kills all. Returns the
    /// members that have not ended yet.
    fn round(&mut self, kill: bool) -> io::Result<Vec<Pid>> {
        if kill && let Some(leader) = self.tree.leader() {
            // At one stroke, so that no member can fork away from it.
            drop_gone("kill a process group", kill_process_group(leader, Signal::KILL));
        }
        let mut left = Vec::new();
        for member in self.tree.members()? {
            if member.zombie {
                left.extend(self.unreaped(&member));
                continue;
            }
            left.push(member.pid);
            self.signal(&member, kill);
        }
        if self.tree.leader().is_some() {
            left.extend(self.orphans(kill));
        }
        left.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        left.dedup();
        Ok(left)
    }

    /// Signals the orphans as well: a process that forks and ends faster than all
    /// processes can be listed is among them, under another id each time. Returns those
    /// that are left.
    fn orphans(&mut self, kill: bool) -> Vec<Pid> {
        let (passes, mut idle) = if kill { (PASSES, 0) } else { (1, 0) };
        let mut left = Vec::new();
        for _ in 0..passes {
            let reaper = Reaper::lock();
            let orphans = match self.tree.orphans(&reaper) {
                Ok(orphans) => orphans,
                // The next orphan is not known yet, but there is one.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    left = self.tree.leader().into_iter().collect();
                    continue;
                }
                // Without the list of orphans, tags and parents are all there is.
                Err(_) => return Vec::new(),
            };
            let mut new = false;
            for orphan in &orphans {
                new |= self.signal(orphan, kill);
            }
            left = orphans.into_iter().map(|orphan| orphan.pid).collect();
            idle = if new { 0 } else { idle + 1 };
            if left.is_empty() || idle > IDLE_PASSES {
                break;
            }
        }
        left
    }

    /// Signals one member; returns whether it is the first time.
    fn signal(&mut self, member: &Stat, kill: bool) -> bool {
        let new = self.signalled.insert((member.pid, member.start));
        if kill {
            send(member, &[Signal::KILL]);
        } else if new {
            send(member, &[Signal::TERM, Signal::CONT]);
        }
        new
    }

    /// Returns a zombie that has still to be reaped: by its dying parent, or by this
    /// process once the kernel has made it an orphan.
    fn unreaped(&self, zombie: &Stat) -> Option<Pid> {
        // Children of this process are reaped when orphans are listed next.
        if Some(zombie.pid) == self.tree.leader() || zombie.parent == proc::own_pid() {
            return None;
        }
        // Zombies of an earlier daemon are reaped by the process that inherited them.
        self.tree.leader().map(|_| zombie.pid)
    }

    /// Kills the leader's group, which is all that is known without `/proc`.
    fn without_proc(&self, error: &io::Error) -> Vec<Pid> {
        tracing::error!(
            %error,
            "the processes of a task could not be listed: only its process group was killed; mount /proc"
        );
        if let Some(leader) = self.tree.leader() {
            drop_gone("kill a process group", kill_process_group(leader, Signal::KILL));
        }
        Vec::new()
    }

    fn over(self, survivors: Vec<Pid>) -> Terminated {
        let leader = self.tree.leader();
        let signalled = self.signalled.iter().filter(|(pid, _)| Some(*pid) != leader).count();
        Terminated { signalled, survivors }
    }
}

/// Sends `signals` to the process that `to` was read from, and to no other.
fn send(to: &Stat, signals: &[Signal]) {
    let handle = pidfd_open(to.pid, PidfdFlags::empty());
    if proc::stat(to.pid).map(|now| now.start) != Some(to.start) {
        return; // gone, or its id is another process's by now
    }
    for &signal in signals {
        let sent = match &handle {
            Ok(handle) => pidfd_send_signal(handle, signal),
            Err(_) => kill_process(to.pid, signal), // a kernel without pidfd
        };
        drop_gone("signal a process", sent);
    }
}

/// Ignores that a process is gone already: that was wanted.
fn drop_gone(doing: &str, result: Result<(), Errno>) {
    match result {
        Ok(()) | Err(Errno::SRCH | Errno::CHILD) => {}
        Err(error) => tracing::debug!(%error, doing, "a process was left alone"),
    }
}
