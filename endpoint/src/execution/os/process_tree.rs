//! The process tree of a run: its first process, the leader, and all processes that come
//! from it. Reads `/proc`; descent is decided purely.
//!
//! As this process is a child subreaper, an orphaned descendant of a run becomes its
//! child, whatever it did to its session, its environment and its limits. So no member
//! is out of reach, and an empty list of orphans proves that none is left. An orphan
//! without a [tag](super::run_tag) may come from any run that had begun before it; it is
//! taken for a member of the last of those that is still there.

use super::proc::{self, Stat};
use super::reaper::Reaper;
use super::run_tag::RunTag;
use rustix::process::{Pid, getppid};
use std::collections::{HashMap, HashSet};
use std::io;

/// How many times in a row the orphans are listed while some of them end.
const LOOKS: usize = 64;

/// The processes of one run, or of all runs on a state folder.
#[derive(Clone, Debug)]
pub(crate) struct ProcessTree {
    /// The first process, which must not have been reaped yet: that keeps its id, and
    /// its group's, from being given to another process. `None` for the runs of an
    /// earlier daemon.
    leader: Option<Pid>,
    tag: RunTag,
}

impl ProcessTree {
    /// Creates the tree of a running or unreaped `leader`.
    pub(crate) fn of(leader: Pid, tag: RunTag) -> Self {
        Self { leader: Some(leader), tag }
    }

    /// Creates the tree of all processes that bear `tag`, and their descendants.
    pub(crate) fn tagged(tag: RunTag) -> Self {
        Self { leader: None, tag }
    }

    /// Returns the leader.
    pub(crate) fn leader(&self) -> Option<Pid> {
        self.leader
    }

    /// Lists all members, zombies and the leader included.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn members(&self) -> io::Result<Vec<Stat>> {
        let since = self.since();
        let mut all = proc::processes()?;
        all.retain(|stat| stat.start >= since);
        let above = ancestry();
        all.retain(|stat| !above.contains(&stat.pid));
        let orphans = match self.leader {
            Some(_) => self.orphans(&Reaper::lock()).unwrap_or_default(),
            None => Vec::new(),
        };
        let shown = all.iter().filter(|stat| self.has(stat)).map(|stat| stat.pid);
        let roots = shown.chain(orphans.iter().map(|orphan| orphan.pid)).collect();
        Ok(with_descendants(&all, roots))
    }

    /// Lists the living orphans of the tree. Where orphans have ended, they are listed
    /// again, as a process that forks and ends may have left another one since.
    ///
    /// # Errors
    /// `WouldBlock` while they go on to end, else the kernel does not list them.
    pub(crate) fn orphans(&self, reaper: &Reaper) -> io::Result<Vec<Stat>> {
        for _ in 0..LOOKS {
            let mut found = reaper.reap_orphans()?;
            if found.reaped == 0 {
                found.alive.retain(|orphan| self.claims(orphan, reaper));
                return Ok(found.alive);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Whether an orphan of this process belongs to the tree: by its tag or its group, or
    /// because no other run is left that it may come from.
    fn claims(&self, orphan: &Stat, reaper: &Reaper) -> bool {
        orphan.start >= self.since()
            && (self.has(orphan)
                || self.leader.is_some() && !reaper.other_began_before(orphan, self.leader))
    }

    /// Returns the start of the leader: no member can be older.
    fn since(&self) -> u64 {
        self.leader.and_then(proc::stat).map_or(0, |leader| leader.start)
    }

    /// Whether a process belongs to the tree by its group or its tag.
    fn has(&self, stat: &Stat) -> bool {
        let led = self.leader.is_some() && (stat.group == self.leader);
        led || Some(stat.pid) == self.leader || self.tag.is_on(stat.pid)
    }
}

/// Returns this process and those it descends from, which are never members.
fn ancestry() -> HashSet<Pid> {
    let mut above: HashSet<Pid> = proc::own_pid().into_iter().collect();
    let mut next = getppid();
    while let Some(pid) = next
        && above.insert(pid)
    {
        next = proc::stat(pid).and_then(|stat| stat.parent);
    }
    above
}

/// Returns the processes in `roots` and all that descend from them.
fn with_descendants(all: &[Stat], roots: Vec<Pid>) -> Vec<Stat> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for stat in all {
        if let Some(parent) = stat.parent {
            children.entry(parent).or_default().push(stat.pid);
        }
    }
    let mut found = HashSet::new();
    let mut open = roots;
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    all.iter().filter(|stat| found.contains(&stat.pid)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat((pid, parent): (i32, i32)) -> Stat {
        Stat {
            pid: Pid::from_raw(pid).unwrap(),
            parent: Pid::from_raw(parent),
            group: None,
            zombie: false,
            start: 0,
        }
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_no_others() {
        // 1 ── 10 ── 11 ── 12     and 30, a root of its own, ── 31
        //  └── 20 ── 21
        let all: Vec<Stat> =
            [(12, 11), (1, 0), (11, 10), (10, 1), (20, 1), (21, 20), (31, 30), (30, 1)]
                .into_iter()
                .map(stat)
                .collect();
        let roots = [10, 30].into_iter().filter_map(Pid::from_raw).collect();
        let mut found: Vec<i32> = with_descendants(&all, roots)
            .into_iter()
            .map(|stat| stat.pid.as_raw_nonzero().get())
            .collect();
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12, 30, 31]);
    }

    #[test]
    fn a_process_is_not_its_own_member() {
        let above = ancestry();
        assert!(above.contains(&proc::own_pid().unwrap()));
        assert!(above.contains(&getppid().unwrap()));
    }
}
