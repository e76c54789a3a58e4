//! Measures a task's memory: its peak, and whether the kernel ran out of it. Reads `/proc` and the endpoint's own control group.

use crate::execution::os::proc;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel counts memory of a process in steps that can be off by this
/// much, in bytes.
const SLACK: u64 = 1 << 20;

/// Counts the processes in the endpoint's control group, tasks among them,
/// that the kernel's out-of-memory killer has ended.
#[derive(Debug)]
pub(super) struct OomKills {
    file: Option<File>,
}

impl OomKills {
    /// Finds the counter; without control groups there is none.
    pub(super) fn find() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { file: counters(&groups).into_iter().find_map(|path| File::open(path).ok()) }
    }

    /// Returns how many so far; `None` without a counter.
    pub(super) fn count(&self) -> Option<u64> {
        let mut text = [0; 1024];
        let length = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        parse_count(std::str::from_utf8(&text[..length]).ok()?)
    }
}

/// Lists where the counter may be, by the contents of `/proc/self/cgroup`.
fn counters(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.events"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => continue,
        };
        found.push(PathBuf::from(format!("{mount}{path}/{name}")));
        // In a container the path may be the host's, and the mount its own.
        found.push(PathBuf::from(format!("{mount}/{name}")));
    }
    found
}

fn parse_count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Tells a process's peak memory from the endpoint's own.
///
/// A new process shares the endpoint's memory until it becomes its program,
/// and the kernel counts that as its peak. So a peak no higher than the
/// endpoint's says nothing about the task.
#[derive(Debug, Default)]
pub(super) struct OwnPeak {
    /// The highest peak of this process known so far, in bytes.
    known: AtomicU64,
}

impl OwnPeak {
    /// Returns `peak` if it is the task's.
    pub(super) fn tell(&self, peak: u64) -> Option<u64> {
        let above = |own: u64| peak > own.saturating_add(SLACK);
        if !above(self.known.load(Ordering::Relaxed)) {
            return None;
        }
        let own = proc::own_peak_memory()?;
        self.known.fetch_max(own, Ordering::Relaxed);
        above(own).then_some(peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_looked_for_where_the_groups_are() {
        let groups = "4:memory:/job/7\n3:cpu,cpuacct:/job\n0::/user.slice/a.service\n";
        let found: Vec<String> =
            counters(groups).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            found,
            [
                "/sys/fs/cgroup/memory/job/7/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
                "/sys/fs/cgroup/user.slice/a.service/memory.events",
                "/sys/fs/cgroup/memory.events",
            ]
        );
        assert!(counters("").is_empty());
    }

    #[test]
    fn both_generations_of_groups_are_read() {
        assert_eq!(parse_count("low 0\noom 9\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(parse_count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(parse_count("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn only_a_peak_above_the_endpoints_own_is_the_tasks() {
        let own = OwnPeak::default();
        assert_eq!(own.tell(1), None);
        let peak = proc::own_peak_memory().unwrap();
        assert_eq!(own.tell(peak), None);
        let high = peak + (64 << 20);
        assert_eq!(own.tell(high), Some(high));
    }
}
