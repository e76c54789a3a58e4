//! How workers end, and that it is the end of one task at most.

use super::*;

#[tokio::test]
async fn a_worker_that_ends_fails_its_task_and_no_other() {
    let rig = rig();
    let first = rig.pid().await;
    let report = rig.sh("echo bye; exit 3").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(3)));
    assert_eq!(text(&report.stderr), "bye\n");
    let reason = report.reason.unwrap();
    assert!(reason.contains("ended before it answered: exit code 3"), "{reason}");
    let second = rig.pid().await;
    assert!(second != first && is_gone(first));

    let report = rig.sh("kill -9 $$; sleep 60").await;
    assert_eq!((report.outcome, report.signal), (Outcome::Failed, Some(9)));
    assert!(report.reason.unwrap().contains("killed by SIGKILL (9)"));
    let report = rig.sh("exit 0").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(0)));
    assert_eq!(rig.sh(":").await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn an_answer_that_comes_with_the_end_counts() {
    let rig = rig();
    for _ in 0..20 {
        let report = rig.sh("say '{\"value\": 7}'; exit 1").await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.reason);
    }
}

#[tokio::test]
async fn whoever_is_left_of_a_worker_that_ends_goes_with_it() {
    let rig = rig();
    let report = rig.sh("setsid sleep 300 & echo $!; exit 4").await;
    assert_eq!(report.exit_code, Some(4), "{:?}", report.reason);
    let child = text(&report.stderr).trim().parse().unwrap();
    assert!(is_gone(Pid::from_raw(child).unwrap()));
}

#[tokio::test]
async fn a_worker_that_does_not_keep_to_the_protocol_is_replaced() {
    let rig = rig();
    for (script, words) in [
        ("say hello", "'hello' cannot be read"),
        ("say '{}'", "names no call"),
        ("said=1; printf '{\"value\":1}\\n' >&3", "names no call"),
        ("say \"{\\\"call\\\":$call}\"", "not one of value and error"),
        ("say '{\"value\":1}{\"value\":2}'", "cannot be read"),
        ("printf '{\"value\":1}\\nmore\\n' >&3", "more than one line: 'more"),
        ("head -c 9000000 /dev/zero | tr '\\0' x >&3", "a line of more than"),
    ] {
        let pid = rig.pid().await;
        let report = rig.sh(script).await;
        assert_eq!(report.outcome, Outcome::Failed, "{script}");
        let reason = report.reason.unwrap();
        assert!(reason.contains(words) && reason.contains("'run' (sh -c"), "{script}: {reason}");
        assert!(is_gone(pid), "{script}");
    }
    assert_eq!(rig.sh(":").await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn no_call_gets_the_answer_of_another() {
    let rig = rig();
    let go = rig.folder.path().join("go");
    // What was forked for the first call answers it again while the second is under way.
    let script = "(until [ -e go ]; do sleep 0.01; done; say '{\"value\": \"late\"}') & \
                  say '{\"value\": \"first\"}'";
    let first = rig.sh(script).await;
    assert_eq!(first.value.unwrap().text(), "\"first\"");
    let second = rig.sh("touch go; sleep 300").await;
    assert!(go.exists(), "the worker had not begun");
    assert_eq!((second.outcome, second.value), (Outcome::Failed, None));
    let reason = second.reason.unwrap();
    assert!(reason.contains("late") && reason.contains("names call 1"), "{reason}");
    assert_eq!(rig.sh(":").await.outcome, Outcome::Succeeded, "it was replaced");
}

#[tokio::test]
async fn a_call_that_a_noisy_worker_has_not_read_is_another_ones() {
    let rig = rig();
    let first = rig.pid().await;
    // It answers twice and reads no more; the second answer comes when it is asked.
    let script = "say '{\"value\": 1}'; until [ -e asked ]; do sleep 0.01; done; \
                  say '{\"value\": 2}'; sleep 300";
    assert_eq!(rig.sh(script).await.value.unwrap().text(), "1");
    let task = rig.task(":");
    let asked = async {
        until("the worker to be asked", || rig.idle() == 0).await;
        std::fs::write(rig.folder.path().join("asked"), "").unwrap();
    };
    let (report, ()) = tokio::join!(rig.run(&task), asked);
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.reason);
    assert_ne!(report.value.unwrap().text(), first.to_string());
    assert!(is_gone(first));
}

#[tokio::test]
async fn what_is_printed_before_the_hello_keeps_no_worker_from_starting() {
    for noise in ["echo banner; echo '{}'", "printf 'loading 100%%'", ":"] {
        let rig = rig_with(|config| {
            config.spec.command = vec!["sh".into(), "-c".into(), format!("{noise}\n{WORKER}")];
        });
        let report = rig.sh(":").await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{noise}: {:?}", report.reason);
        assert_eq!(text(&report.stderr), "", "it is no call's");
    }
}

#[tokio::test]
async fn a_walltime_ends_only_the_worker_that_exceeds_it() {
    let rig = rig();
    let script = "echo $$; sleep 300 & echo $!; wait";
    let slow = rig.within(Duration::from_secs(1), script);
    let begun = Instant::now();
    let (late, other) = tokio::join!(rig.run(&slow), rig.sh("sleep 2"));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(late.outcome, Outcome::TimedOut);
    assert_eq!(late.reason.as_deref(), Some("stopped at its walltime of 1s"));
    for pid in text(&late.stderr).lines() {
        assert!(is_gone(Pid::from_raw(pid.parse().unwrap()).unwrap()));
    }
    assert_eq!(other.outcome, Outcome::Succeeded, "{:?}", other.reason);
    assert_eq!(rig.sh(":").await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_stop_ends_the_worker_and_says_so() {
    let rig = rig();
    let pid = rig.pid().await;
    let (task, stop) = (rig.task("> begun; sleep 300"), StopSignal::new());
    let asked = async {
        rig.until_there_is("begun").await;
        stop.request(StopReason::Shutdown);
    };
    let (ended, ()) = tokio::join!(rig.ended(&task, &stop), asked);
    assert_eq!(ended, Ended::Stopped(StopReason::Shutdown));
    assert!(is_gone(pid));
    assert_eq!(rig.ended(&task, &stop).await, Ended::Stopped(StopReason::Shutdown));
}

#[tokio::test]
async fn a_worker_is_replaced_when_it_has_served_its_time() {
    let rig = rig_with(|config| (config.recycle_after, config.concurrency) = (Some(2), 1));
    let mut pids = Vec::new();
    for _ in 0..6 {
        pids.push(rig.pid().await);
    }
    assert_eq!((pids[0], pids[2], pids[4]), (pids[1], pids[3], pids[5]));
    assert!(pids[0] != pids[2] && pids[2] != pids[4]);
    assert!(is_gone(pids[0]), "it is gone before the next one comes");
}

#[tokio::test]
async fn a_worker_that_takes_too_much_memory_is_replaced_after_the_call() {
    let rig = rig_with(|config| config.memory_limit = Some(30_000_000));
    let pid = rig.pid().await;
    assert_eq!(rig.pid().await, pid);
    let eat = "x=$(head -c 40000000 /dev/zero | tr '\\0' x)";
    assert_eq!(rig.sh(eat).await.outcome, Outcome::Succeeded);
    assert_ne!(rig.pid().await, pid);
    until("the old one to go", || is_gone(pid)).await;
}

#[tokio::test]
async fn a_worker_that_does_not_come_up_fails_the_task_in_words() {
    let table = [
        ("sleep 300", "did not say hello within 1s"),
        ("echo oops >&2; exit 5", "ended before it was ready: exit code 5"),
        ("echo oops; sleep 300", "did not say hello within 1s"),
        ("echo '{\"clutch\": \"one\"}'; sleep 300", "instead of"),
        ("echo '{\"clutch\": 9}'; sleep 300", "version 9"),
    ];
    for (script, words) in table {
        let rig = rig_with(|config| {
            config.spec.command = ["sh", "-c", script].map(str::to_owned).into();
            // Long enough for those that do not wait for it.
            let silent = words.contains("within 1s");
            let shortage = if silent { Duration::from_secs(1) } else { PATIENCE };
            config.spec.startup_timeout = shortage;
        });
        let report = rig.sh(":").await;
        assert_eq!((report.outcome, report.started_at_ms), (Outcome::Failed, None));
        let reason = report.reason.unwrap();
        assert!(reason.contains(words) && reason.contains("'run'"), "{reason}");
        assert_eq!(text(&report.stderr).contains("oops"), script.contains("oops"));
        assert!(rig.pool.try_out().await.unwrap_err().0.contains(words));
    }
    let rig = rig_with(|config| config.spec.command = vec!["no-such-program".into()]);
    let reason = rig.sh(":").await.reason.unwrap();
    assert!(reason.contains("'no-such-program' could not be started"), "{reason}");
}

#[tokio::test]
async fn a_worker_that_dies_or_speaks_while_it_waits_costs_no_task() {
    let rig = rig();
    for _ in 0..5 {
        let pid = rig.pid().await;
        kill_process(pid, Signal::KILL).unwrap();
        until("it to die", || proc::stat(pid).is_none_or(|stat| stat.zombie)).await;
        assert_ne!(rig.pid().await, pid);
    }
    let pid = rig.pid().await;
    rig.sh("(until [ -e told ]; do sleep 0.01; done; say noise; > said) & say '{\"value\": 1}'")
        .await;
    std::fs::write(rig.folder.path().join("told"), "").unwrap();
    rig.until_there_is("said").await;
    assert_ne!(rig.pid().await, pid);
    rig.pool.close().await;
    assert!(is_gone(pid));
}

#[tokio::test]
async fn the_dead_are_seen_off_while_nobody_calls() {
    let rig = rig();
    let pid = rig.pid().await;
    kill_process(pid, Signal::KILL).unwrap();
    until("it to be reaped", || {
        rig.pool.stop_dead_workers();
        is_gone(pid)
    })
    .await;
    assert_eq!(rig.idle(), 0);
}

#[tokio::test]
async fn at_the_end_workers_may_end_by_themselves_and_none_is_left() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let rig = rig_with(|config| {
        let last = format!("{WORKER}\necho clean > {}\nsleep 0.3", note.path().display());
        config.spec.command = ["sh", "-c", &last].map(str::to_owned).into();
    });
    let pid = rig.pid().await;
    let begun = Instant::now();
    rig.pool.close().await;
    assert!(is_gone(pid) && begun.elapsed() < PATIENCE);
    assert_eq!(std::fs::read_to_string(note.path()).unwrap(), "clean\n");
    assert_eq!(
        rig.ended(&rig.task(":"), &StopSignal::new()).await,
        Ended::Stopped(StopReason::Shutdown)
    );
}
