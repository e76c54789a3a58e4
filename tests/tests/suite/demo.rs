//! `clutch-service demo`: proves what it says, notices what is wrong, and
//! leaves nothing behind that it was not asked to leave.

use clutch_tests::binaries::{self, SERVICE};
use clutch_tests::gate::Gate;
use clutch_tests::leash::alive;
use clutch_tests::poll;
use clutch_tests::process::{Daemon, Output, run};
use clutch_tests::world::{SOON, World};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a demonstration may take on a busy machine.
const WHOLE: Duration = Duration::from_secs(240);
/// Tasks that take their time, so that the link is cut before all have run.
const SLOW: &str = "[ -z \"$CLUTCH_TASK_ID\" ] || sleep 0.02";

/// Where demonstrations make their folders, and a `sha256sum` of the test's own.
struct Hall {
    folder: TempDir,
}

impl Hall {
    /// Every call of `sha256sum` runs `first` before the real one.
    fn new(first: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("clutch-test-").tempdir().unwrap();
        let (bin, temporary) = (folder.path().join("bin"), folder.path().join("tmp"));
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(temporary).unwrap();
        let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join("sha256sum"))
            .find(|program| program.is_file())
            .unwrap();
        let script = format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", real.display());
        let program = bin.join("sha256sum");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn environment(&self) -> [(String, String); 2] {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let path = std::env::var("PATH").unwrap();
        [("PATH".to_owned(), format!("{}:{path}", at("bin"))), ("TMPDIR".to_owned(), at("tmp"))]
    }

    fn demo(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::folder().unwrap().join(SERVICE));
        command.arg("demo").args(arguments).envs(self.environment());
        run(command, b"", WHOLE).unwrap()
    }

    /// The folders that demonstrations have left.
    fn left(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no number '{name}' in {report}"))
}

/// Plays it, and checks what it says of itself.
fn holds(arguments: &[&str]) {
    let hall = Hall::new(SLOW);
    let output = hall.demo(&[&["--json", "--files", "300"], arguments].concat());
    let report = output.ok().unwrap().json().unwrap();
    assert_eq!(report["holds"], true, "{report}");
    for count in ["files", "submitted", "recorded", "equal", "started"] {
        assert_eq!(number(&report, count), 300, "{count}: {report}");
    }
    for none in ["surplus", "known_while_cut"] {
        assert_eq!(number(&report, none), 0, "{none}: {report}");
    }
    assert!(number(&report, "started_again") <= number(&report, "slots"), "{report}");
    assert!(number(&report, "started_while_cut") > 0, "{report}");
    assert!(number(&report, "results_on_disk") > 0, "{report}");
    assert!(number(&report, "link_down_ms") > 0, "{report}");
    assert_eq!(report["exit_codes"], serde_json::json!([0, 0]));
    assert_eq!(hall.left(), Vec::<PathBuf>::new());
}

#[test]
fn the_proof_holds_over_a_folder() {
    holds(&[]);
}

#[test]
fn the_proof_holds_over_a_broker() {
    let Some(world) = World::or_skip("the_proof_holds_over_a_broker") else { return };
    let url = world.vhost().url();
    holds(&["--amqp", &url]);
    let again = Hall::new("").demo(&["--json", "--files", "8", "--amqp", &url]);
    assert_eq!(again.ok().unwrap().json().unwrap()["holds"], true);
    world.provision("lab").unwrap();
}

/// A service that is away for a while finds every result where it was.
#[test]
fn a_broker_with_somebodys_results_is_refused_and_keeps_them() {
    let test = "a_broker_with_somebodys_results_is_refused_and_keeps_them";
    let Some(world) = World::or_skip(test) else { return };
    let lab = world.provision("lab").unwrap();
    let mut service = world.serve().unwrap();
    let mut endpoint = world.run_with(&lab, &["--slots", "3"]).unwrap();
    let (gate, started) = (Gate::new(world.folder(), "open"), world.folder().join("started"));
    let script = format!("echo >>'{}'; {}; echo $0", started.display(), gate.line());
    let submit = ["submit", "lab", "--key", "k", "--array", "1-3", "--", "sh", "-c", &script, "{}"];
    world.service(&submit).unwrap().ok().unwrap();
    poll::until("every task to start", SOON, || {
        Ok((std::fs::read(&started).unwrap_or_default().len() == 3).then_some(()))
    })
    .unwrap();
    assert_eq!(service.stop(SOON).unwrap(), 0);
    gate.open().unwrap();
    assert_eq!(endpoint.stop(SOON).unwrap(), 0);

    let hall = Hall::new("");
    let output = hall.demo(&["--files", "8", "--amqp", &world.vhost().url()]);
    assert_eq!(output.code, 77, "{}", output.stderr);
    assert!(output.stderr.contains("a vhost of its own"), "{}", output.stderr);
    assert_eq!(hall.left(), Vec::<PathBuf>::new());

    let _service = world.serve().unwrap();
    world.wait("k").unwrap().ok().unwrap();
    let output = world.service(&["results", "--key", "k", "--stdout-only"]).unwrap();
    assert_eq!(output.ok().unwrap().text(), "1\n2\n3\n");
}

#[test]
fn one_wrong_output_fails_the_proof_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("once").display().to_string();
    let wrong = format!(
        "if [ -n \"$CLUTCH_TASK_ID\" ] && mkdir {once} 2>/dev/null; then\n\
         echo \"0000  $2\"; echo \"$2\" >{once}/file; exit; fi"
    );
    let hall = Hall::new(&wrong);
    let output = hall.demo(&["--files", "40"]);
    let file = std::fs::read_to_string(Path::new(&once).join("file")).unwrap();
    assert_eq!(output.code, 1, "{}", output.stderr);
    let expected = format!("{}: its task printed \"0000", file.trim());
    assert!(output.stderr.contains(&expected), "{}", output.stderr);
    assert!(
        output.stderr.contains("39 results equal to what sha256sum prints"),
        "{}",
        output.stderr
    );
    let left = hall.left();
    assert_eq!(left.len(), 1);
    assert!(output.stderr.contains(&left[0].display().to_string()), "{}", output.stderr);
    assert!(left[0].join("endpoint.log").is_file() && left[0].join("service.log").is_file());
}

/// Ends what a demonstration left, however the test ends.
struct Left(Vec<u32>);

impl Left {
    fn signal(&self, name: &str) {
        for pid in self.0.iter().filter(|pid| alive(**pid)) {
            Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
        }
    }

    fn wait(&self) {
        poll::until("both to end", SOON, || {
            Ok((!self.0.iter().any(|pid| alive(*pid))).then_some(()))
        })
        .unwrap();
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

/// Daemons that are kept go on without the demonstration.
fn keeps(arguments: &[&str]) {
    let hall = Hall::new("");
    let output = hall.demo(&[&["--json", "--keep", "--files", "40"], arguments].concat());
    let report = output.ok().unwrap().json().unwrap();
    let kept = &report["kept"];
    let pid = |name: &str| u32::try_from(number(kept, name)).unwrap();
    let left = Left(vec![pid("endpoint_pid"), pid("service_pid")]);
    assert!(left.0.iter().all(|pid| alive(*pid)));
    let folder = PathBuf::from(kept["folder"].as_str().unwrap());
    assert_eq!(hall.left(), std::slice::from_ref(&folder));
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);

    let mut submit = Command::new(binaries::folder().unwrap().join(SERVICE));
    submit.args(["submit", "demo", "--wait", "--", "echo", "still here"]);
    submit.env("CLUTCH_STATE", folder.join("service"));
    assert_eq!(run(submit, b"", 2 * SOON).unwrap().ok().unwrap().text(), "still here\n");
    left.signal("TERM");
    left.wait();
}

#[test]
fn what_is_kept_goes_on_over_a_folder() {
    keeps(&[]);
}

#[test]
fn what_is_kept_goes_on_over_a_broker() {
    let Some(world) = World::or_skip("what_is_kept_goes_on_over_a_broker") else { return };
    keeps(&["--amqp", &world.vhost().url()]);
}

#[test]
fn nothing_outlives_a_demonstration_that_is_ended() {
    for (signal, code) in [("TERM", 130), ("KILL", 137)] {
        let hall = Hall::new(SLOW);
        let program = binaries::folder().unwrap().join(SERVICE);
        let arguments = ["demo".to_owned()];
        let logs = hall.folder.path().join("logs");
        let mut demo = Daemon::start(&program, &arguments, &hall.environment(), &logs).unwrap();
        let started = poll::until("both daemons", 2 * SOON, || {
            let log = demo.log()?;
            Ok(log.lines().find(|line| line.contains("an endpoint (process")).map(str::to_owned))
        })
        .unwrap();
        let pids = started.split("(process ").skip(1);
        let left =
            Left(pids.map(|rest| rest.split(')').next().unwrap().parse().unwrap()).collect());
        assert!(left.0.len() == 2 && left.0.iter().all(|pid| alive(*pid)), "{started}");
        demo.signal(signal).unwrap();
        assert_eq!(demo.wait(SOON).unwrap(), code);
        left.wait();
        poll::until("its folder to go", SOON, || Ok(hall.left().is_empty().then_some(()))).unwrap();
    }
}

/// Provisioning is never so far that what it makes stays behind.
#[test]
fn a_demonstration_ended_while_it_provisions_removes_its_folder() {
    for made in ["", "service", "service/clutch.db", "spool", "endpoint.toml"] {
        let hall = Hall::new(SLOW);
        let program = binaries::folder().unwrap().join(SERVICE);
        let logs = hall.folder.path().join("logs");
        let mut demo =
            Daemon::start(&program, &["demo".to_owned()], &hall.environment(), &logs).unwrap();
        let until = Instant::now() + SOON;
        while !hall.left().first().is_some_and(|folder| folder.join(made).exists()) {
            assert!(Instant::now() < until, "'{made}' was not made: {}", demo.log().unwrap());
            std::thread::yield_now();
        }
        demo.signal("TERM").unwrap();
        assert_eq!(demo.wait(SOON).unwrap(), 130, "{made}");
        assert_eq!(hall.left(), Vec::<PathBuf>::new(), "{made}");
        assert!(demo.log().unwrap().contains("their folder is removed"), "{made}");
    }
}

#[test]
fn a_place_that_does_not_do_is_told_before_anything_starts() {
    let hall = Hall::new("");
    let long = hall.folder.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    let demo = |name: &str, value: &Path| {
        let mut command = Command::new(binaries::folder().unwrap().join(SERVICE));
        command.args(["demo", "--files", "8"]).envs(hall.environment()).env(name, value);
        run(command, b"", WHOLE).unwrap()
    };
    let output = demo("TMPDIR", &long);
    assert_eq!(output.code, 73, "{}", output.stderr);
    assert!(output.stderr.contains("TMPDIR"), "{}", output.stderr);
    assert!(!output.stderr.contains("--state"), "{}", output.stderr);
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
    let output = demo("PATH", &long);
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("no sha256sum in PATH"), "{}", output.stderr);
    assert_eq!(hall.left(), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_shown_is_refused_in_words() {
    let hall = Hall::new("");
    let empty = hall.folder.path().join("tmp");
    let empty = empty.display().to_string();
    let output = hall.demo(&["--folder", &empty]);
    assert_eq!(output.code, 64);
    assert!(output.stderr.contains("no readable file"), "{}", output.stderr);
    let output = hall.demo(&["--amqp", "amqps://user:sesame@broker.invalid"]);
    assert_eq!(output.code, 64);
    assert!(output.stderr.contains("amqp://"), "{}", output.stderr);
    assert!(!output.stderr.contains("sesame"), "{}", output.stderr);
}
