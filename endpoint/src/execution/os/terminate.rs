//! Ends a tree: asks, waits, then kills, until nobody is left.
//!
//! Touches: signals to members. Orphans that end are reaped; a leader is not, as its run
//! does that. Promises that a signal
//! reaches a member or nobody, even where ids are given out anew.

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
/// the kernel, or that belong to somebody else, take longer.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The pauses between two looks: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How often orphans are killed in a row, in the hope that one of them has not forked
/// since it was seen.
const PASSES: usize = 500;
/// … and how often when there is no new one.
const IDLE_PASSES: usize = 20;

/// What an ending came to.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Terminated {
    /// How many members were told to end, without the leader.
    pub(crate) told: usize,
    /// Members that are still there although they were killed.
    pub(crate) survivors: Vec<Pid>,
}

/// Tells every member to end (`SIGTERM`, and `SIGCONT` for those stopped),
/// kills those that are left after `grace`, and returns when all are gone,
/// the leader at least to a zombie; at the latest 10 s after `grace`.
pub(crate) async fn terminate(tree: &ProcessTree, grace: Duration) -> Terminated {
    let mut terminator = Terminator { tree: tree.clone(), told: HashSet::new() };
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

struct Terminator {
    tree: ProcessTree,
    /// Members that were told to end, each by its id and its start.
    told: HashSet<(Pid, u64)>,
}

impl Terminator {
    /// One look at the tree: tells those to end that were not told before,
    /// or kills everybody. Returns who is not over yet.
    fn round(&mut self, kill: bool) -> io::Result<Vec<Pid>> {
        if kill && let Some(leader) = self.tree.leader() {
            // At one stroke, so that nobody can fork away from it.
            drop_gone("kill a process group", kill_process_group(leader, Signal::KILL));
        }
        let mut left = Vec::new();
        for member in self.tree.members()? {
            if member.zombie {
                left.extend(self.reap(&member));
                continue;
            }
            left.push(member.pid);
            self.tell(&member, kill);
        }
        if self.tree.leader().is_some() {
            left.extend(self.orphans(kill));
        }
        left.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        left.dedup();
        Ok(left)
    }

    /// Tells the orphans as well: what forks and ends faster than all processes can be
    /// listed is among them, under another id each time. Returns those that are left.
    fn orphans(&mut self, kill: bool) -> Vec<Pid> {
        let (passes, mut idle) = if kill { (PASSES, 0) } else { (1, 0) };
        let mut left = Vec::new();
        for _ in 0..passes {
            let reaper = Reaper::lock();
            let orphans = match reaper.orphans_of(&self.tree) {
                Ok(orphans) => orphans,
                // Who is next is not known yet, but there is somebody.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    left = self.tree.leader().into_iter().collect();
                    continue;
                }
                // Without the list, what all processes show is all there is to go by.
                Err(_) => return Vec::new(),
            };
            let mut news = false;
            for orphan in &orphans {
                news |= self.tell(orphan, kill);
            }
            left = orphans.into_iter().map(|orphan| orphan.pid).collect();
            idle = if news { 0 } else { idle + 1 };
            if left.is_empty() || idle > IDLE_PASSES {
                break;
            }
        }
        left
    }

    /// Tells one to end; tells whether it was not told before.
    fn tell(&mut self, member: &Stat, kill: bool) -> bool {
        let news = self.told.insert((member.pid, member.start));
        if kill {
            send(member, &[Signal::KILL]);
        } else if news {
            send(member, &[Signal::TERM, Signal::CONT]);
        }
        news
    }

    /// Sees a zombie off; returns it if that is not possible yet, because its
    /// dying parent has still to leave it to this process.
    fn reap(&self, zombie: &Stat) -> Option<Pid> {
        // This process's own are reaped by the next look at the orphans.
        if Some(zombie.pid) == self.tree.leader() || zombie.parent == proc::own_pid() {
            return None;
        }
        // A former endpoint's zombies are for whoever inherited them.
        self.tree.leader().map(|_| zombie.pid)
    }

    /// Without `/proc`, the leader's group is all there is to go by.
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
        let told = self.told.iter().filter(|(pid, _)| Some(*pid) != leader).count();
        Terminated { told, survivors }
    }
}

/// Sends `signals` to exactly the process that `to` was read from.
fn send(to: &Stat, signals: &[Signal]) {
    let handle = pidfd_open(to.pid, PidfdFlags::empty());
    if proc::stat(to.pid).map(|now| now.start) != Some(to.start) {
        return; // gone, or its id is somebody else's by now
    }
    for &signal in signals {
        let sent = match &handle {
            Ok(handle) => pidfd_send_signal(handle, signal),
            Err(_) => kill_process(to.pid, signal), // a kernel without pidfd
        };
        drop_gone("signal a process", sent);
    }
}

/// That somebody is gone already is what was wanted.
fn drop_gone(doing: &str, result: Result<(), Errno>) {
    match result {
        Ok(()) | Err(Errno::SRCH | Errno::CHILD) => {}
        Err(error) => tracing::debug!(%error, doing, "left alone"),
    }
}
