//! The executor against real processes. Each test has an executor of its own, with a
//! state folder id of its own, so that none ends another's processes.

mod ending;
mod starting;

use super::*;
use crate::execution::capture::Captured;
use crate::system::troubles::Troubles;
use clutch_common::id::TaskId;
use clutch_common::task::Work;
use clutch_common::task::result::Outcome;
use rustix::process::Pid;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;
use tokio::time::sleep;

/// How long an expected event may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// An executor on a sandbox root of its own.
struct Rig {
    executor: ProcessExecutor,
    root: TempDir,
}

fn rig() -> Rig {
    rig_with(|_| ())
}

fn rig_with(edit: impl FnOnce(&mut ProcessConfig)) -> Rig {
    let root = tempfile::tempdir().unwrap();
    let mut config = ProcessConfig {
        // So long that what does not end by TERM is told from what does.
        grace: Duration::from_secs(120),
        capture_limit: 64 * 1024,
        sandbox: SandboxPolicy::Remove,
        sandbox_root: root.path().join("sandboxes"),
        endpoint_id: EndpointId::new(),
        state_id: StateId::new(),
        was: None,
        troubles: Troubles::default(),
        side: None,
    };
    edit(&mut config);
    Rig { executor: ProcessExecutor::new(config).unwrap(), root }
}

impl Rig {
    /// A file that tasks can write to, outside of their sandboxes.
    fn note(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    async fn run(&self, task: &Task) -> Report {
        match self.ended(task, &StopSignal::new()).await {
            Ended::Finished(report) => report,
            Ended::Stopped(_) => panic!("stopped without a request"),
        }
    }

    async fn ended(&self, task: &Task, stop: &StopSignal) -> Ended {
        let Work::Process(process) = &task.work else { panic!("not a process") };
        let context = RunContext { stop: stop.clone(), ..RunContext::default() };
        self.executor.run(task, process, &context).await
    }

    async fn sh(&self, script: &str) -> Report {
        self.run(&sh(script)).await
    }
}

fn task(argv: &[&str]) -> Task {
    let argv = argv.iter().map(|&argument| argument.into()).collect();
    Task::new(TaskId::new(), Process { argv, ..Process::default() })
}

fn sh(script: &str) -> Task {
    task(&["sh", "-c", script])
}

fn within(walltime: Duration, mut task: Task) -> Task {
    task.walltime_ms = Some(u64::try_from(walltime.as_millis()).unwrap());
    task
}

fn process(task: &mut Task) -> &mut Process {
    let Work::Process(process) = &mut task.work else { panic!("not a process") };
    process
}

fn text(captured: &Captured) -> &str {
    std::str::from_utf8(&captured.bytes).unwrap()
}

/// The process ids that tasks wrote into the file `note`, one a line.
fn pids(note: &str) -> Vec<Pid> {
    let text = std::fs::read_to_string(note).unwrap();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

/// Asserts that `count` processes wrote their ids to `note` and that none of
/// them is there any more, not even as a zombie.
fn assert_gone(note: &str, count: usize) {
    let pids = pids(note);
    assert_eq!(pids.len(), count, "the processes to look for did not start");
    for pid in pids {
        let found = crate::execution::os::proc::stat(pid);
        assert_eq!(found, None, "process {pid} is still there");
    }
}

/// Waits until `count` processes wrote their ids to `note`.
async fn started(note: &str, count: usize) {
    let waited = Instant::now();
    while std::fs::read_to_string(note).unwrap_or_default().lines().count() < count {
        assert!(waited.elapsed() < PATIENCE, "they did not start");
        sleep(Duration::from_millis(10)).await;
    }
}
