//! The system's figures of a running process: how often its threads woke, how
//! long they ran, and what of its memory is its own.
//!
//! Touches: `/proc`, reading.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The threads of a process at one moment.
pub(crate) struct Threads(BTreeMap<u32, Thread>);

struct Thread {
    /// How often it has waited for something, and woke.
    wakes: u64,
    ran: Duration,
}

/// The work of threads between two moments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Activity {
    /// How often they woke.
    pub(crate) wakes: u64,
    /// How long they ran, all together.
    pub(crate) ran: Duration,
}

impl Threads {
    /// Those of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/task");
        let listing = fs::read_dir(&folder).with_context(|| format!("process {pid} is gone"))?;
        let mut threads = BTreeMap::new();
        for entry in listing {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().parse().context("a thread's id")?;
            // One that ended since it was listed did nothing more.
            if let Some(thread) = Thread::read(&entry.path()) {
                threads.insert(id, thread);
            }
        }
        Ok(Self(threads))
    }

    /// Their work since an earlier moment. The work of a thread that has ended since is not
    /// known.
    pub(crate) fn since(&self, earlier: &Self) -> Activity {
        let mut activity = Activity::default();
        for (id, thread) in &self.0 {
            let before = earlier.0.get(id);
            activity.wakes += thread.wakes - before.map_or(0, |before| before.wakes);
            activity.ran += thread.ran - before.map_or(Duration::ZERO, |before| before.ran);
        }
        activity
    }
}

impl Thread {
    fn read(folder: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let wakes = field(&read("status")?, "voluntary_ctxt_switches:")?;
        let ran = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
        Some(Self { wakes, ran: Duration::from_nanos(ran) })
    }
}

/// Memory of a process in bytes, with what it shares counted by its share.
pub(crate) fn own_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let text = text.with_context(|| format!("process {pid} is gone"))?;
    Ok(field(&text, "Pss:").context("the system tells no share of memory")? * 1024)
}

/// The number after a field's name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_wakes() {
        let pid = std::process::id();
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let (woke, woken) = std::sync::mpsc::sync_channel::<()>(1);
        let waiting = std::thread::spawn(move || {
            while wait.recv().is_ok() {
                woke.send(()).unwrap();
            }
        });
        let before = Threads::of(pid).unwrap();
        for _ in 0..20 {
            go.send(()).unwrap();
            woken.recv().unwrap();
        }
        let after = Threads::of(pid).unwrap();
        assert!(after.since(&before).wakes > 0);
        assert_eq!(after.since(&after).wakes, 0);
        drop(go);
        waiting.join().unwrap();
    }

    #[test]
    fn a_process_has_memory_of_its_own() {
        assert!(own_memory(std::process::id()).unwrap() > 0);
        assert!(own_memory(0).is_err() && Threads::of(0).is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nPss:   12 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(text, "Pss:"), Some(12));
        assert_eq!(field(text, "Rss:"), None);
    }
}
