//! Reaps the children of this process: the leaders of runs, which it started, and the
//! orphans of runs, which the kernel gave it, as it is a child subreaper.
//!
//! Touches: children that have ended. Promises that a leader is reaped by its run and by
//! nothing else, and that no ended orphan stays a zombie, whatever it did to its tag.

use super::proc::{self, Stat};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::time::sleep;
use wait4::ResUse;

/// The pause between two searches for orphans that have ended.
const PAUSE: Duration = Duration::from_secs(1);

/// The leaders that are not reaped yet. One set for the process, as it has one list of
/// children.
static LEADERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// The right to reap. While it is held, no child of this process is reaped by others, so
/// that a list of children is whole and an id in it stays that of the same process.
#[derive(Debug)]
pub(crate) struct Reaper(MutexGuard<'static, Vec<Pid>>);

/// The orphans of this process.
#[derive(Default, Debug)]
pub(crate) struct Orphans {
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

    /// Adds a leader, on the thread that started it.
    pub(crate) fn add(&mut self, leader: Pid) {
        self.0.push(leader);
    }

    /// Forgets a leader, which is an orphan from here on.
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
    /// from one that had begun before the orphan, and is still there.
    pub(crate) fn other_began_before(&self, orphan: &Stat, leader: Option<Pid>) -> bool {
        let others = self.0.iter().filter(|other| Some(**other) != leader);
        others.copied().filter_map(proc::stat).any(|other| other.start <= orphan.start)
    }

    /// Lists the orphans, and reaps those that have ended.
    ///
    /// # Errors
    /// The kernel does not list children (it was built without that file).
    pub(crate) fn reap_orphans(&self) -> io::Result<Orphans> {
        let mut found = Orphans::default();
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
}

/// Reaps orphans that have ended whenever a child of this process ends: a long run must
/// not fill the host with zombies. Wakes for nothing else.
pub(crate) async fn keep_reaping(mut ended: Signal) {
    while ended.recv().await.is_some() {
        if let Err(error) = Reaper::lock().reap_orphans() {
            tracing::debug!(%error, "orphans that have ended stay until the end of their task");
        }
        sleep(PAUSE).await;
    }
}
