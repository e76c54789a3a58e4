//! The children of this process: the leaders of runs, which it started, and the orphans
//! that fell to it, as it is a child subreaper.
//!
//! Touches: reaps what has ended. Promises that a leader is reaped by its run and by
//! nothing else, and that no orphan that has ended stays, whatever it did to its tags.

use super::proc::{self, Stat};
use super::process_tree::ProcessTree;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::time::sleep;
use wait4::ResUse;

/// How often orphans that have ended are looked for at most.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the orphans are looked at in a row, while some of them end.
const LOOKS: usize = 64;

/// The leaders that are not reaped yet. There is one set in the process, as there is one
/// list of its children.
static LEADERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// The right to reap. While it is held no child of this process goes away, so that a list
/// of them is whole and an id in it stays that of the same process.
#[derive(Debug)]
pub(crate) struct Reaper(MutexGuard<'static, Vec<Pid>>);

/// What a look at the orphans found.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// Those that are alive.
    pub(crate) alive: Vec<Stat>,
    /// How many had ended, and were reaped.
    pub(crate) reaped: usize,
}

impl Reaper {
    /// Waits for the right.
    pub(crate) fn lock() -> Self {
        Self(LEADERS.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a leader, on the thread that started it.
    pub(crate) fn add(&mut self, leader: Pid) {
        self.0.push(leader);
    }

    /// Leaves a leader to itself: it is an orphan from here on.
    pub(crate) fn abandon(&mut self, leader: Pid) {
        self.0.retain(|one| *one != leader);
    }

    /// Reaps a leader if it has ended.
    ///
    /// # Errors
    /// How it ended cannot be learned.
    pub(crate) fn reap(&mut self, leader: Pid) -> io::Result<Option<ResUse>> {
        let usage = wait4::try_wait4_pid(leader.as_raw_nonzero().get().unsigned_abs());
        if !matches!(usage, Ok(None)) {
            self.0.retain(|one| *one != leader);
        }
        usage
    }

    /// Whether an orphan without a tag may come from another run than that of `leader`:
    /// from one that had begun before, and is still there.
    pub(crate) fn other_began_before(&self, orphan: &Stat, leader: Option<Pid>) -> bool {
        let others = self.0.iter().filter(|other| Some(**other) != leader);
        others.copied().filter_map(proc::stat).any(|other| other.start <= orphan.start)
    }

    /// Looks at the orphans, and reaps those that have ended.
    ///
    /// # Errors
    /// The kernel does not tell who they are.
    pub(crate) fn look(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for pid in proc::first_threads_children()? {
            if self.0.contains(&pid) {
                continue;
            }
            match proc::stat(pid) {
                Some(stat) if !stat.zombie => found.alive.push(stat),
                _ => {
                    found.reaped += 1;
                    let reaped = waitpid(Some(pid), WaitOptions::NOHANG);
                    tracing::trace!(%pid, ?reaped, "an orphan has ended");
                }
            }
        }
        Ok(found)
    }

    /// The orphans of a tree that are alive. What forks and ends all the time is looked
    /// at again, as its next process may have come after the last look.
    ///
    /// # Errors
    /// `WouldBlock` while they go on to end, else the kernel does not tell who they are.
    pub(crate) fn orphans_of(&self, tree: &ProcessTree) -> io::Result<Vec<Stat>> {
        for _ in 0..LOOKS {
            let mut found = self.look()?;
            if found.reaped == 0 {
                found.alive.retain(|orphan| tree.claims(orphan, self));
                return Ok(found.alive);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Reaps orphans that have ended whenever children of this process have: a long run must
/// not fill the host with zombies. Wakes for nothing else.
pub(crate) async fn keep_reaping(mut ended: Signal) {
    while ended.recv().await.is_some() {
        if let Err(error) = Reaper::lock().look() {
            tracing::debug!(%error, "orphans that have ended stay until the end of their task");
        }
        sleep(PAUSE).await;
    }
}
