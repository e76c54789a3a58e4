//! How tasks end: nothing of them is left, whatever they tried.

use super::*;
use crate::execution::os::proc;
use crate::execution::os::run_tag::SpawnLock;
use std::process::Command;

const SECOND: Duration = Duration::from_secs(1);
/// Long enough for a shell to start, set its traps and note its processes.
const WALLTIME: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_walltime_ends_the_whole_tree() {
    let rig = rig();
    let note = rig.note("pids");
    let script = format!("echo $$ >> {note}; sleep 300 & echo $! >> {note}; sleep 300");
    let begin = Instant::now();
    let report = rig.run(&within(WALLTIME, sh(&script))).await;
    assert!(begin.elapsed() >= WALLTIME && begin.elapsed() < PATIENCE);
    assert_eq!((report.outcome, report.signal), (Outcome::TimedOut, Some(15)));
    assert_eq!(report.reason.as_deref(), Some("stopped at its walltime of 3s"));
    assert_gone(&note, 2);
}

#[tokio::test]
async fn what_finishes_in_time_is_not_touched_by_its_walltime() {
    let mut task = sh("sleep 0.2; exit 3");
    task.walltime_ms = Some(u64::MAX);
    let report = rig().run(&task).await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(3)));
}

/// Scripts that leave behind a process which got away from its parent, its
/// group and its session, and wrote its id.
fn escapees(note: &str) -> [(&'static str, String); 3] {
    let sleeper = format!("echo \\$\\$ >> {note}; exec sleep 300");
    [
        ("double fork", format!("setsid sh -c '(sh -c \"{sleeper}\" &)'")),
        (
            "cleared environment",
            format!("env -i setsid sh -c 'echo $$ >> {note}; exec sleep 300' &"),
        ),
        (
            "everything",
            format!(
                "env -i setsid sh -c 'cd /; (setsid sh -c \"{sleeper}\" >/dev/null 2>&1 </dev/null &)'"
            ),
        ),
    ]
}

#[tokio::test]
async fn no_process_escapes_a_walltime() {
    let rig = rig();
    let runs = escapees("NOTE").into_iter().enumerate().map(|(index, (how, escape))| {
        let (rig, note) = (&rig, rig.note(&index.to_string()));
        let script = format!("{}; sleep 300", escape.replace("NOTE", &note));
        async move {
            let report = rig.run(&within(WALLTIME, sh(&script.replace("&;", "&")))).await;
            assert_eq!(report.outcome, Outcome::TimedOut, "{how}");
            assert_gone(&note, 1);
        }
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test]
async fn nobody_outlives_the_end_of_the_first_process() {
    let rig = rig();
    for (index, (how, escape)) in escapees("NOTE").into_iter().enumerate() {
        let note = rig.note(&index.to_string());
        let wait = format!("while ! test -s {note}; do sleep 0.01; done");
        let script = format!("{}; {wait}", escape.replace("NOTE", &note));
        let begin = Instant::now();
        let report = rig.sh(&script.replace("&;", "&")).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{how}");
        assert_eq!(
            report.reason.as_deref(),
            Some("1 process it left running ended with it"),
            "{how}"
        );
        assert!(begin.elapsed() < PATIENCE, "{how}");
        assert_gone(&note, 1);
    }
}

#[tokio::test]
async fn whoever_ignores_term_is_killed_after_the_grace() {
    let rig = rig_with(|config| config.grace = SECOND);
    let note = rig.note("pids");
    let script = format!(
        "trap '' TERM; echo $$ >> {note}; sleep 300 & echo $! >> {note}; while :; do sleep 1; done"
    );
    let begin = Instant::now();
    let report = rig.run(&within(WALLTIME, sh(&script))).await;
    let took = begin.elapsed();
    assert!(took >= WALLTIME + SECOND && took < PATIENCE, "{took:?}");
    assert_eq!((report.outcome, report.signal), (Outcome::TimedOut, Some(9)));
    assert_gone(&note, 2);
}

#[tokio::test]
async fn whoever_heeds_term_has_the_grace_to_clean_up() {
    let script = "trap 'sleep 0.3; echo clean; exit 9' TERM; while :; do sleep 0.05; done";
    let report = rig().run(&within(WALLTIME, sh(script))).await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::TimedOut, Some(9)));
    assert_eq!(text(&report.stdout), "clean\n");
}

#[tokio::test]
async fn a_stopped_tree_ends_without_waiting_for_the_grace() {
    let rig = rig();
    let note = rig.note("pids");
    let script =
        format!("sleep 300 & echo $! >> {note}; kill -STOP $!; echo $$ >> {note}; kill -STOP $$");
    let begin = Instant::now();
    let report = rig.run(&within(WALLTIME, sh(&script))).await;
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert_gone(&note, 2);
}

#[tokio::test]
async fn a_background_process_that_holds_the_output_holds_up_nothing() {
    let rig = rig();
    let note = rig.note("pids");
    let begin = Instant::now();
    let report = rig.sh(&format!("sleep 300 & echo $! > {note}; echo done")).await;
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!((report.outcome, text(&report.stdout)), (Outcome::Succeeded, "done\n"));
    assert_gone(&note, 1);
}

#[tokio::test]
async fn a_stranger_that_holds_the_output_holds_up_nothing() {
    // It opens the task's output through /proc, but is not of its tree.
    let rig = rig();
    let (note, held) = (rig.note("pids"), rig.note("held"));
    let wait = format!("until [ -e {held} ]; do sleep 0.01; done");
    let task = sh(&format!("echo done; echo $$ > {note}; {wait}"));
    let stranger = async {
        started(&note, 1).await;
        let output = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/fd/1", pids(&note)[0]))
            .unwrap();
        std::fs::write(&held, "").unwrap();
        output
    };
    let both = async { tokio::join!(rig.run(&task), stranger) };
    let (report, _still_open) = timeout(PATIENCE, both).await.expect("the run is held up");
    assert_eq!((report.outcome, text(&report.stdout)), (Outcome::Succeeded, "done\n"));
}

#[tokio::test]
async fn stop_ends_the_tree_and_says_so() {
    let rig = rig();
    let note = rig.note("pids");
    let script = format!("echo $$ >> {note}; setsid sleep 300 & echo $! >> {note}; sleep 300");
    let (task, stop) = (sh(&script), StopSignal::new());
    let asked = async {
        started(&note, 2).await;
        stop.request(StopReason::Shutdown);
    };
    let (ended, ()) = tokio::join!(rig.ended(&task, &stop), asked);
    assert_eq!(ended, Ended::Stopped(StopReason::Shutdown));
    assert_gone(&note, 2);
    let sandboxes = std::fs::read_dir(&rig.executor.config.sandbox_root).unwrap().count();
    assert_eq!(sandboxes, 0);
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let rig = rig();
    let note = rig.note("ran");
    let stop = StopSignal::new();
    stop.request(StopReason::Shutdown);
    let ended = rig.ended(&sh(&format!("touch {note}")), &stop).await;
    assert_eq!(ended, Ended::Stopped(StopReason::Shutdown));
    assert!(!Path::new(&note).exists());
}

#[tokio::test]
async fn an_abandoned_run_does_not_run_on() {
    let rig = rig();
    let note = rig.note("pids");
    let task = sh(&format!("echo $$ > {note}; exec sleep 300"));
    tokio::select! {
        _ = rig.run(&task) => panic!("it ended by itself"),
        () = started(&note, 1) => {}
    }
    let pid = pids(&note)[0];
    let waited = Instant::now();
    while proc::stat(pid).is_some_and(|stat| !stat.zombie) {
        assert!(waited.elapsed() < PATIENCE, "it runs on");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn orphans_that_end_during_a_long_run_do_not_stay_as_zombies() {
    let rig = rig();
    let note = rig.note("pids");
    let orphan = format!("(setsid sh -c 'echo $$ >> {note}' &)");
    let task = sh(&format!("{orphan}; {orphan}; sleep 1.5; {orphan}; sleep 600"));
    let stop = StopSignal::new();
    let look = async {
        started(&note, 3).await;
        let waited = Instant::now();
        while pids(&note).into_iter().any(|pid| proc::stat(pid).is_some()) {
            assert!(waited.elapsed() < PATIENCE, "zombies were left");
            sleep(Duration::from_millis(50)).await;
        }
        stop.request(StopReason::Shutdown);
    };
    let (ended, ()) = tokio::join!(rig.ended(&task, &stop), look);
    assert_eq!(ended, Ended::Stopped(StopReason::Shutdown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_do_not_meet() {
    let rig = rig();
    let runs = (0..50).map(|index| {
        let note = rig.note(&format!("{index}"));
        let escape = format!("(env -i setsid sh -c 'echo $$ >> {note}; exec sleep 300' &)");
        let wait = format!("while ! test -s {note}; do sleep 0.02; done");
        let script = format!("{escape}; {wait}; cat; exit {}", index % 3);
        let (mut task, rig) = (sh(&script), &rig);
        process(&mut task).stdin = format!("input {index}").as_str().into();
        async move {
            // A third of them is over long before the others.
            sleep(Duration::from_millis(index % 3 * 300)).await;
            let report = rig.run(&task).await;
            assert_gone(&note, 1);
            (index, report)
        }
    });
    for (index, report) in futures_util::future::join_all(runs).await {
        assert_eq!(text(&report.stdout), format!("input {index}"));
        assert_eq!(report.exit_code, Some(i32::try_from(index % 3).unwrap()), "{report:?}");
        assert!(report.reason.unwrap().contains("1 process it left running"));
    }
}

#[tokio::test]
async fn a_sweep_ends_what_a_killed_endpoint_left_and_nobody_else() {
    let stale = rig();
    let other = rig();
    let note = stale.note("pids");
    // As left by a daemon that was killed: no leader that is known,
    // tags in the environment, and a descendant that cleared its own.
    let start = |rig: &Rig, script: String| {
        let _turn = SpawnLock::take();
        Command::new("setsid")
            .args(["sh", "-c", &script])
            .envs(rig.executor.spawner.tags.environment(sh("").attempt()))
            .spawn()
            .unwrap()
    };
    let script = format!(
        "echo $$ >> {note}; env -i setsid sh -c 'echo $$ >> {note}; exec sleep 300' & sleep 300"
    );
    let mut left = start(&stale, script);
    let mut bystander = start(&other, "exec sleep 300".into());
    started(&note, 2).await;
    let sandbox = stale.executor.config.sandbox_root.join("old.1");
    std::fs::create_dir(&sandbox).unwrap();
    std::fs::write(sandbox.join("file"), "x").unwrap();

    // The test itself is the parent of one of them: it is reaped here, unless
    // the sweep comes first.
    let reaped = tokio::task::spawn_blocking(move || left.wait().ok());
    let swept = stale.executor.sweep_stale().await;
    reaped.await.unwrap();

    assert_eq!((swept.survivors, swept.sandboxes), (0, 1));
    assert!(swept.processes >= 2, "{swept:?}");
    let alive = |pid| proc::stat(pid).is_some_and(|stat| !stat.zombie);
    assert!(!pids(&note).into_iter().any(alive));
    assert!(!sandbox.exists());
    assert_eq!(bystander.try_wait().unwrap(), None, "a bystander was ended");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert_eq!(stale.executor.sweep_stale().await, Swept::default());
}
