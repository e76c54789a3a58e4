//! How tasks start, what they see, and what is kept of them.

use super::*;
use crate::execution::events::Noted;
use crate::execution::os::spawn;
use clutch_common::wire::StreamName;
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test]
async fn exit_zero_succeeds_and_is_measured() {
    let rig = rig();
    let before = now_ms();
    let report = rig.sh("echo out; echo err >&2").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Succeeded, Some(0)));
    assert_eq!((report.signal, report.reason), (None, None));
    assert_eq!((text(&report.stdout), text(&report.stderr)), ("out\n", "err\n"));
    let started = report.started_at_ms.unwrap();
    assert!(before <= started && started <= report.ended_at_ms);
    assert!(report.cpu_ms.is_some());
}

#[tokio::test]
async fn another_exit_code_fails_and_keeps_the_output() {
    let report = rig().sh("echo half; exit 7").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(7)));
    assert_eq!((text(&report.stdout), report.reason), ("half\n", None));
}

#[tokio::test]
async fn a_signal_fails_with_its_name() {
    let report = rig().sh("kill -USR1 $$; sleep 60").await;
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, None));
    assert_eq!(report.signal, Some(10));
    assert_eq!(report.reason.as_deref(), Some("killed by SIGUSR1 (10)"));
}

#[tokio::test]
async fn a_kill_from_outside_is_told_from_ours() {
    let report = rig().sh("kill -KILL $$").await;
    assert_eq!((report.outcome, report.signal), (Outcome::Failed, Some(9)));
    assert!(report.reason.unwrap().contains("possibly out of memory"));
}

#[tokio::test]
async fn what_cannot_start_fails_with_words() {
    let rig = rig_with(|config| config.sandbox = SandboxPolicy::Remove);
    let file = rig.note("file");
    std::fs::write(&file, "not a program").unwrap();
    let script = rig.note("script");
    std::fs::write(&script, "no first line").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut nowhere = task(&["true"]);
    process(&mut nowhere).cwd = Some("/no/such/folder".into());
    let huge = "x".repeat(4 << 20);
    for (task, words) in [
        (task(&["no-such-program"]), "PATH ("),
        (task(&["/no/such/program"]), "no such file"),
        (task(&[&file]), "chmod +x"),
        (task(&["/tmp"]), "it is a folder"),
        (task(&[&script]), "#!/bin/sh"),
        (task(&["true", &huge]), "standard input"),
        (task(&["true", "a\0b"]), "nul"),
        (task(&[]), "argv is empty"),
        (nowhere, "'/no/such/folder' does not exist"),
    ] {
        let report = rig.run(&task).await;
        assert_eq!(report.outcome, Outcome::Failed, "{words}");
        assert_eq!((report.exit_code, report.signal, report.started_at_ms), (None, None, None));
        let reason = report.reason.unwrap();
        assert!(reason.contains(words), "'{reason}' lacks '{words}'");
    }
    let left = std::fs::read_dir(&rig.executor.config.sandbox_root).unwrap().count();
    assert_eq!(left, 0, "sandboxes of tasks that did not start were left");
}

#[tokio::test]
async fn arguments_arrive_as_they_are_without_a_shell() {
    let report = rig().run(&task(&["printf", "%s|", "a b", "$HOME", "*", "", "grüß"])).await;
    assert_eq!(text(&report.stdout), "a b|$HOME|*||grüß|");
}

#[tokio::test]
async fn tasks_see_who_they_are_and_their_own_variables_but_no_secrets() {
    let mut rig = rig();
    // What an endpoint's environment would hold; setting variables of this
    // process would be a race with the other tests.
    for (name, hidden) in [
        ("CLUTCH_BROKER", true),
        ("CLUTCH_ENDPOINT_CONFIG", true),
        ("CREDENTIALS_DIRECTORY", true),
        ("NOTIFY_SOCKET", true),
        ("HOME", false),
        ("PATH", false),
    ] {
        assert_eq!(spawn::hides(OsStr::new(name)), hidden, "{name}");
    }
    // One that is there however the tests are started.
    let plain = |name: &String| name.len() > 3 && name != "PATH" && !spawn::hides(OsStr::new(name));
    let secret = std::env::vars().map(|(name, _)| name).find(plain);
    let secret = secret.expect("needs a variable that is set");
    let mut task = task(&["env"]);
    let environment = &mut process(&mut task).env;
    environment.insert("MINE".into(), "a=b c".into());
    environment.insert("CLUTCH_TASK_ID".into(), "forged".into());
    environment.insert("CLUTCH_CORES".into(), "64".into());
    (task.attempt, task.cores) = (4, 3);
    let seen = rig.run(&task).await;
    let sets = |line: &str| line.strip_prefix(&secret).is_some_and(|rest| rest.starts_with('='));
    assert!(text(&seen.stdout).lines().any(sets), "{secret} was not seen");
    Arc::get_mut(&mut rig.executor.spawner).unwrap().hidden = vec![secret.clone().into()];
    let seen = rig.run(&task).await;
    let seen: Vec<&str> = text(&seen.stdout).lines().collect();
    assert!(!seen.iter().any(|line| sets(line)), "a hidden variable was seen");
    let config = &rig.executor.config;
    for expected in [
        "MINE=a=b c".to_owned(),
        format!("CLUTCH_TASK_ID={}", task.id),
        "CLUTCH_ATTEMPT=4".to_owned(),
        "CLUTCH_CORES=3".to_owned(),
        format!("CLUTCH_ENDPOINT_ID={}", config.endpoint_id),
        format!("CLUTCH_STATE_ID={}", config.state_id),
        format!("PATH={}", std::env::var("PATH").unwrap()),
    ] {
        assert_eq!(seen.iter().filter(|line| **line == expected).count(), 1, "{expected}");
    }
    assert!(!seen.contains(&"CLUTCH_TASK_ID=forged"));
}

#[tokio::test]
async fn a_task_works_in_its_sandbox_or_where_it_says() {
    let rig = rig();
    let mut task = task(&["pwd"]);
    let sandbox = rig.executor.config.sandbox_root.join(format!("{}.1", task.id));
    let report = rig.run(&task).await;
    assert_eq!(text(&report.stdout).trim_end(), sandbox.to_str().unwrap());
    process(&mut task).cwd = Some("/usr".into());
    assert_eq!(text(&rig.run(&task).await.stdout), "/usr\n");
}

#[tokio::test]
async fn the_policy_decides_what_becomes_of_a_sandbox() {
    use SandboxPolicy::{Keep, KeepFailed, Remove};
    for (policy, script, kept) in [
        (Remove, "echo x > file; mkdir -p a/b; chmod 0 a", false),
        (Remove, "echo x > file; exit 1", false),
        (Keep, "echo x > file", true),
        (KeepFailed, "echo x > file", false),
        (KeepFailed, "echo x > file; exit 1", true),
    ] {
        let rig = rig_with(|config| config.sandbox = policy);
        let task = sh(script);
        let sandbox = rig.executor.config.sandbox_root.join(format!("{}.1", task.id));
        rig.run(&task).await;
        assert_eq!(sandbox.join("file").exists(), kept, "{policy:?}: {script}");
        assert_eq!(sandbox.exists(), kept, "{policy:?}: {script}");
    }
}

#[tokio::test]
async fn long_output_keeps_head_and_tail() {
    let rig = rig_with(|config| config.capture_limit = 1000);
    let report = rig.sh("printf start; head -c 10000000 /dev/zero | tr '\\0' x; printf end").await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(report.stdout.omitted, 10_000_008 - 1000);
    let text = text(&report.stdout);
    assert!(text.starts_with("startxxx") && text.ends_with("xxxend"));
    assert!(text.contains("\n[... 9999008 bytes omitted ...]\n"));
    assert!(text.len() < 1100);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept() {
    let report = rig().sh(r"printf '\377\000\n\376'").await;
    assert_eq!(report.stdout.bytes, b"\xff\0\n\xfe");
}

#[tokio::test]
async fn a_mebibyte_of_input_arrives_whole() {
    let mut task = task(&["sha256sum"]);
    process(&mut task).stdin = vec![b'a'; 1 << 20].into();
    let report = rig().run(&task).await;
    let sum = "9bc1b2a288b26af7257a36277ae3816a7d4f16e89c1e7e77d0a5c48bad62b360";
    assert_eq!(text(&report.stdout), format!("{sum}  -\n"));
}

#[tokio::test]
async fn input_and_output_flow_at_the_same_time() {
    let rig = rig_with(|config| config.capture_limit = 4 << 20);
    let mut task = task(&["cat"]);
    let input: Vec<u8> = (0..2 << 20).map(|index: u32| (index % 251) as u8).collect();
    process(&mut task).stdin = input.clone().into();
    let report = rig.run(&task).await;
    assert!(report.stdout.bytes == input, "cat gave something else");
}

#[tokio::test]
async fn input_may_stay_unread() {
    let mut task = task(&["true"]);
    process(&mut task).stdin = vec![b'a'; 1 << 20].into();
    let report = rig().run(&task).await;
    assert_eq!((report.outcome, report.reason), (Outcome::Succeeded, None));
}

#[tokio::test]
async fn without_input_there_is_none() {
    let report = rig().run(&task(&["cat"])).await;
    assert_eq!((report.outcome, report.stdout.bytes.len()), (Outcome::Succeeded, 0));
}

#[tokio::test]
async fn cpu_time_and_memory_are_those_of_the_task() {
    let report =
        rig().run(&task(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1000M", "count=1"])).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    assert!(report.peak_memory_bytes.unwrap() > 1_000_000_000, "{report:?}");
    assert!(report.cpu_ms.unwrap() > 0);
}

#[tokio::test]
async fn a_sandbox_that_its_task_left_as_it_was_is_the_next_tasks() {
    let rig = rig();
    let look = || task(&["stat", "-c", "%i %a", "."]);
    let (first, used, last) = (look(), sh("stat -c '%i %a' .; echo x > file"), look());
    let mut seen = Vec::new();
    for task in [&first, &used, &last] {
        let sandbox = rig.executor.config.sandbox_root.join(format!("{}.1", task.id));
        seen.push(text(&rig.run(task).await.stdout).to_string());
        assert!(!sandbox.exists());
    }
    assert!(seen.iter().all(|seen| seen.trim_end().ends_with(" 700")), "{seen:?}");
    assert_eq!(seen[0], seen[1], "it was not given again");
    let root = rig.executor.config.sandbox_root.clone();
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "one waits");
    drop(rig.executor);
    assert_eq!(std::fs::read_dir(&root).map_or(0, Iterator::count), 0, "none stays");
}

#[tokio::test]
async fn a_folder_for_sandboxes_that_was_removed_is_made_again() {
    let rig = rig();
    std::fs::remove_dir_all(rig.root.path().join("sandboxes")).unwrap();
    let report = rig.sh("touch here").await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.reason);
}

#[tokio::test]
async fn a_host_that_takes_no_sandbox_is_waited_for() {
    let rig = rig();
    let sandboxes = rig.root.path().join("sandboxes");
    std::fs::remove_dir_all(&sandboxes).unwrap();
    std::fs::write(&sandboxes, "in the way").unwrap();
    let task = sh("echo there");
    let running = rig.run(&task);
    tokio::pin!(running);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut running).await;
    assert!(early.is_err(), "it ended as {:?}", early.map(|report| report.reason));
    std::fs::remove_file(&sandboxes).unwrap();
    assert_eq!(running.await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_sink_gets_the_start_and_all_output_of_a_short_and_of_a_long_run() {
    let rig = rig_with(|config| config.capture_limit = 10);
    for pause in ["", "sleep 0.1; "] {
        let task = sh(&format!("printf 0123456789abcdef; {pause}echo late; printf oops >&2"));
        let Work::Process(process) = &task.work else { panic!("not a process") };
        let noted = Arc::new(Noted::default());
        let context = RunContext { events: noted.events(), ..RunContext::default() };
        let Ended::Finished(report) = rig.executor.run(&task, process, &context).await else {
            panic!("stopped without a request");
        };
        let (starts, output) = noted.taken();
        assert_eq!(starts, [report.started_at_ms.unwrap()]);
        assert_eq!(output[&StreamName::Stdout], b"0123456789abcdeflate\n");
        assert_eq!(output[&StreamName::Stderr], b"oops");
        assert_eq!(report.stdout.omitted, 11, "the report keeps a part only");
    }
}
