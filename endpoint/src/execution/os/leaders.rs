//! The first processes of the runs that are under way, found among this process's children
//! by what they were started with. Reads only.

use super::proc;
use super::run_tag::{ATTEMPT, STATE_ID, TASK_ID};
use clutch_common::id::{Attempt, StateId};
use rustix::process::Pid;
use std::collections::HashMap;
use std::fs;

/// Finds the first process of each run on a state folder.
pub(crate) fn of_runs(state_id: StateId) -> HashMap<Attempt, u32> {
    let state = state_id.to_string();
    let leader = |pid: Pid| {
        let environ = proc::environ(pid);
        let value = |name: &str| {
            let entries = environ.split(|&byte| byte == 0);
            let mut entries = entries.filter_map(|entry| std::str::from_utf8(entry).ok());
            entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        };
        let own = value(STATE_ID)? == state;
        let attempt = Attempt {
            task_id: value(TASK_ID)?.parse().ok()?,
            attempt: value(ATTEMPT)?.parse().ok()?,
        };
        own.then_some((attempt, u32::try_from(pid.as_raw_nonzero().get()).ok()?))
    };
    // An orphan of a run is a child as well, and comes after the leader.
    let mut found = HashMap::new();
    for (attempt, pid) in children().into_iter().filter_map(leader) {
        found.entry(attempt).or_insert(pid);
    }
    found
}

/// Lists the children of all threads of this process.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = |list: String| -> Vec<Pid> {
        list.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw))
            .collect()
    };
    let mut all: Vec<Pid> = lists.flat_map(pids).collect();
    all.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn a_leader_is_found_by_its_environment_and_another_states_is_not() {
        let (ours, theirs) = (StateId::new(), StateId::new());
        let attempt = Attempt { task_id: TaskId::new(), attempt: 3 };
        let mut child = Command::new("sleep")
            .arg("60")
            .env(STATE_ID, ours.to_string())
            .env(TASK_ID, attempt.task_id.to_string())
            .env(ATTEMPT, "3")
            .spawn()
            .unwrap();
        // The environment of a program that was just started cannot be read yet.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut found = of_runs(ours);
        while found.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = of_runs(ours);
        }
        let others = of_runs(theirs);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.get(&attempt), Some(&child.id()));
        assert_eq!(others, HashMap::new());
    }
}
