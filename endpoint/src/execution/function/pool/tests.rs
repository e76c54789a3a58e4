//! Workers that are real processes, in the language that is everywhere.

mod ending;

use super::*;
use crate::execution::events::Noted;
use crate::execution::function::python::Module;
use crate::execution::function::worker_spec::{OwnedFolders, WorkerSpec};
use crate::execution::os::proc;
use clutch_common::id::{EndpointId, StateId, TaskId};
use clutch_common::task::Work;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use tempfile::TempDir;
use tokio::time::sleep;

/// How long an expected event may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker that runs the script which its one argument names. The script's prints are
/// output; the script answers by `say`, which names the call, or else with the
/// worker's own process id.
const WORKER: &str = r#"
exec 3>&1 1>&2
say() {
    said=1
    case $1 in
    '{"value"'* | '{"error"'*) printf '{"call":%s,%s\n' "$call" "${1#?}" >&3 ;;
    *) printf '%s\n' "$1" >&3 ;;
    esac
}
say '{"clutch": 1}'
while read -r line; do
    said=
    call=${line#*:} call=${call%%,*}
    script=${line#*'"args":["'}
    . "./${script%%'"'*}"
    test "$said" || say "{\"value\": $$}"
done
"#;

struct Rig {
    pool: Pool,
    folder: TempDir,
}

fn rig() -> Rig {
    rig_with(|_| ())
}

fn rig_with(edit: impl FnOnce(&mut FunctionConfig)) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let spec = WorkerSpec {
        function: "run".into(),
        command: ["sh", "-c", WORKER].map(str::to_owned).into(),
        env: [("COLOUR".to_owned(), "red".to_owned())].into(),
        module: Module::within(folder.path()).unwrap(),
        cwd: folder.path().into(),
        owned: OwnedFolders::default(),
        startup_timeout: PATIENCE,
        grace: Duration::from_secs(120),
        capture_limit: 64 * 1024,
    };
    let mut config =
        FunctionConfig { spec, concurrency: 2, recycle_after: None, memory_limit: None };
    edit(&mut config);
    let spawner = Arc::new(Spawner::new(EndpointId::new(), StateId::new()).unwrap());
    Rig { pool: Pool::new(config, spawner), folder }
}

impl Rig {
    async fn ended(&self, task: &Task, stop: &StopSignal) -> Ended {
        let Work::Call(call) = &task.work else { panic!("not a call") };
        let context = RunContext { stop: stop.clone(), ..RunContext::default() };
        self.pool.run(task, call, &context).await
    }

    async fn run(&self, task: &Task) -> Report {
        match self.ended(task, &StopSignal::new()).await {
            Ended::Finished(report) => report,
            Ended::Stopped(_) => panic!("stopped without a request"),
        }
    }

    /// A task that has a worker run a script.
    fn task(&self, script: &str) -> Task {
        let id = TaskId::new();
        let name = format!("script-{id}");
        std::fs::write(self.folder.path().join(&name), script).unwrap();
        let args = clutch_common::task::json::Json::of(&[name]).unwrap();
        Task::of(id, Work::Call(Call::new("run", args)))
    }

    fn within(&self, walltime: Duration, script: &str) -> Task {
        let walltime_ms = Some(u64::try_from(walltime.as_millis()).unwrap());
        Task { walltime_ms, ..self.task(script) }
    }

    async fn sh(&self, script: &str) -> Report {
        self.run(&self.task(script)).await
    }

    /// The process of the worker that is taken next.
    async fn pid(&self) -> Pid {
        let report = self.sh(":").await;
        let value = report.value.unwrap_or_else(|| panic!("{:?}", report.reason));
        Pid::from_raw(value.text().parse().unwrap()).unwrap()
    }

    /// Waits until a script has made a file.
    async fn until_there_is(&self, file: &str) {
        let path = self.folder.path().join(file);
        until(file, || path.exists()).await;
    }

    fn idle(&self) -> usize {
        self.pool.idle().len()
    }
}

fn text(captured: &Captured) -> &str {
    std::str::from_utf8(&captured.bytes).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    proc::stat(pid).is_none()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_worker_is_started_once_and_answers_one_call_after_the_other() {
    let rig = rig();
    let before = now_ms();
    let report = rig.sh("say '{\"value\": [1.50, null]}'").await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.reason);
    assert_eq!(report.value.unwrap().text(), "[1.50, null]");
    assert!(report.started_at_ms.unwrap() >= before);
    let first = rig.pid().await;
    assert_eq!((rig.pid().await, rig.idle()), (first, 1));
}

#[tokio::test]
async fn it_runs_where_and_with_what_the_configuration_says() {
    let rig = rig();
    let report = rig.sh("pwd; echo $COLOUR $CLUTCH_FUNCTION ${CLUTCH_TASK_ID:-none}").await;
    let folder = rig.folder.path().canonicalize().unwrap();
    assert_eq!(text(&report.stderr), format!("{}\nred run none\n", folder.display()));
}

#[tokio::test]
async fn calls_at_once_take_as_many_workers_as_there_may_be() {
    let rig = rig();
    let script = "sleep 0.3";
    let (one, two, three) = tokio::join!(rig.sh(script), rig.sh(script), rig.sh(script));
    let mut pids = [one, two, three].map(|report| report.value.unwrap().text().to_owned());
    pids.sort_unstable();
    assert_ne!(pids[0], pids[2], "two run at once");
    assert!(pids[0] == pids[1] || pids[1] == pids[2], "and no more than two: {pids:?}");
    assert_eq!(rig.idle(), 2);
}

#[tokio::test]
async fn the_worker_that_was_used_last_is_taken_first() {
    let rig = rig();
    tokio::join!(rig.sh("sleep 0.3"), rig.sh("sleep 0.3"));
    let first = rig.pid().await;
    for _ in 0..5 {
        assert_eq!(rig.pid().await, first);
    }
}

#[tokio::test]
async fn what_is_written_during_a_call_is_its_own() {
    let rig = rig_with(|config| config.spec.capture_limit = 20);
    let report = rig.sh("echo out; echo err >&2").await;
    assert_eq!((text(&report.stderr), report.stderr.omitted), ("out\nerr\n", 0));
    let report = rig.sh("say '{\"value\": 1}'; echo late; > written").await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    rig.until_there_is("written").await;
    let report = rig.sh("printf %030d 7").await;
    let kept = text(&report.stderr);
    assert!(!kept.contains("late") && kept.ends_with("0000000007"), "{kept}");
    assert_eq!(report.stderr.omitted, 10);
}

#[tokio::test]
async fn an_error_is_the_tasks_and_the_worker_stays() {
    let rig = rig();
    let pid = rig.pid().await;
    let report = rig.sh("echo trace; say '{\"error\": \"ValueError: no\"}'").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, None));
    assert_eq!(report.reason.as_deref(), Some("ValueError: no"));
    assert_eq!(text(&report.stderr), "trace\n");
    assert_eq!(rig.pid().await, pid);
}

#[tokio::test]
async fn what_is_larger_than_a_pipe_goes_through_both_ways() {
    let rig = rig();
    let mut task = rig.task("say \"{\\\"value\\\": ${#line}}\"");
    let Work::Call(call) = &mut task.work else { panic!("not a call") };
    call.kwargs = Some(format!("{{\"x\":\"{}\"}}", "x".repeat(200_000)).parse().unwrap());
    let report = rig.run(&task).await;
    let length = report.value.unwrap_or_else(|| panic!("{:?}", report.reason)).text().len();
    assert_eq!(length, 6, "the length of the line that the worker read");

    let flood = "head -c 300000 /dev/zero | tr '\\0' ";
    let begin = "printf '{\"call\":%s,\"value\":\"' $call >&3";
    let script = format!("{flood} x; {begin}; {flood} y >&3; say '\"}}'");
    let report = rig.sh(&script).await;
    assert_eq!(report.value.unwrap().text().len(), 300_002);
    assert!(report.stderr.omitted > 200_000);
}

/// Measures how fast calls are by themselves, for a run with `--nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_go_through_two_workers() {
    const QUICK: &str = "$| = 1; print qq({\"clutch\":1}\\n); \
         while (<STDIN>) { /:(\\d+)/; print qq({\"call\":$1,\"value\":null}\\n) }";
    let rig = rig_with(|config| {
        if Path::new("/usr/bin/perl").exists() {
            config.spec.command = ["perl", "-e", QUICK].map(str::to_owned).into();
        }
    });
    let rig = Arc::new(rig);
    let count = std::env::var("CLUTCH_CALLS").map_or(2000, |count| count.parse().unwrap());
    let begun = Instant::now();
    let mut both = JoinSet::new();
    for _ in 0..2 {
        let rig = Arc::clone(&rig);
        both.spawn(async move {
            let task = rig.task(":");
            for _ in 0..count / 2 {
                assert_eq!(rig.run(&task).await.outcome, Outcome::Succeeded);
            }
        });
    }
    both.join_all().await;
    println!("{:.0} calls/s", f64::from(count) / begun.elapsed().as_secs_f64());
}

#[tokio::test]
async fn folders_of_workers_that_were_removed_are_made_again() {
    let rig = rig_with(|config| {
        config.spec.cwd = config.spec.cwd.join("workers/run");
        let python = Some(config.spec.cwd.join("python"));
        config.spec.owned = OwnedFolders { cwd: true, python };
        config.spec.command[2] = WORKER.replace("./$", "../../$");
    });
    let report = rig.sh("pwd >&2; ls python >&2").await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.reason);
    assert!(text(&report.stderr).contains("workers/run\nclutch\n"), "{report:?}");
}

#[tokio::test]
async fn a_sink_gets_the_start_of_a_call() {
    let rig = rig();
    let noted = Arc::new(Noted::default());
    let context = RunContext { events: noted.events(), ..RunContext::default() };
    let task = rig.task(":");
    let Work::Call(call) = &task.work else { panic!("not a call") };
    let Ended::Finished(report) = rig.pool.run(&task, call, &context).await else {
        panic!("stopped without a request");
    };
    assert_eq!(noted.taken().0, [report.started_at_ms.unwrap()]);
}
