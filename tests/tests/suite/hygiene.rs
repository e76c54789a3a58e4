//! The hygiene of processes: a daemon and its tasks inherit nothing unwanted from the
//! process that started the daemon, signals do to it what they should, and no process of a
//! task is left, however it tried to get away.

use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{escapes, poll, skip};
use std::path::Path;
use std::process::Command;

struct Place {
    endpoint: Endpoint,
    daemon: Daemon,
    _service: Daemon,
    world: World,
}

fn place(test: &str, wrapper: &[&str], settings: &str) -> Option<Place> {
    let world = World::or_skip(test)?;
    let endpoint = world.provision("lab").unwrap();
    let file = std::fs::read_to_string(&endpoint.config).unwrap();
    std::fs::write(&endpoint.config, format!("{file}\n{settings}")).unwrap();
    let service = world.serve().unwrap();
    let daemon = world.run_in(wrapper, &endpoint, &["--slots", "1"]).unwrap();
    Some(Place { endpoint, daemon, _service: service, world })
}

impl Place {
    /// The output of a task.
    fn output(&self, key: &str, argv: &[&str]) -> String {
        let line = [&["--"], argv].concat();
        self.world.submit(&self.endpoint, key, &line, SOON).unwrap().ok().unwrap();
        self.world.result(key).unwrap()["result"]["stdout"].as_str().unwrap_or_default().to_owned()
    }
}

/// A task's own signals, session, descriptors and timers.
const LOOK: &str = r#"
import os
OWN = (13, 25, 32, 33)  # Python ignores two, and the C library two of its own
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print("blocked", int(lines["SigBlk"], 16))
print("ignored", [n for n in range(1, 65) if int(lines["SigIgn"], 16) >> (n - 1) & 1 and n not in OWN])
print("session", os.getsid(0) == os.getpid())
try:
    os.open("/dev/tty", os.O_RDWR)
    print("terminal")
except OSError:
    print("no terminal")
own = f"/proc/{os.getpid()}/fd"
print("descriptors", sorted(int(fd) for fd in os.listdir(own) if os.path.exists(f"{own}/{fd}")))
print("slack", open("/proc/self/timerslack_ns").read().strip())
print("score", open("/proc/self/oom_score_adj").read().strip())
print("umask", oct(os.umask(0)))
print("nice", os.nice(0))
"#;

/// Starts a program with every signal blocked or ignored that can be, a lock that it
/// holds, an odd umask, and the kernel asked to spare it.
const ODD: &str = r#"
import fcntl, os, signal, sys
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.umask(0o727)
os.nice(3)
for number in range(1, 65):
    if number not in (9, 19, 32, 33):
        signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
try:
    open("/proc/self/oom_score_adj", "w").write("-500")
except OSError:
    pass
os.execvp(sys.argv[2], sys.argv[2:])
"#;

#[test]
fn a_task_inherits_what_is_meant_for_it_and_nothing_else() {
    let test = "a_task_inherits_what_is_meant_for_it_and_nothing_else";
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let odd = folder.path().join("odd.py");
    std::fs::write(&odd, ODD).unwrap();
    if !has_python(test) {
        return;
    }
    let wrapper = ["python3", &odd.display().to_string(), &lock.display().to_string()];
    let Some(mut place) = place(test, &wrapper, "") else { return };
    let expected = "blocked 0\nignored []\nsession True\nno terminal\ndescriptors [0, 1, 2]\n\
                    slack 50000\nscore 0\numask 0o27\n";
    let nice = Command::new("nice").output().unwrap().stdout;
    let nice: i32 = std::str::from_utf8(&nice).unwrap().trim().parse().unwrap();
    let expected = format!("{expected}nice {}\n", nice + 3);
    assert_eq!(place.output("look", &["python3", "-c", LOOK]), expected);
    let free = Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap();
    assert!(free.success(), "the daemon holds a lock of the one who started it");
    // Blocked and ignored as they were: one TERM is enough.
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}

fn has_python(test: &str) -> bool {
    let version = Command::new("python3").arg("--version").output();
    let there = version.is_ok_and(|output| output.status.success());
    if !there {
        skip::because(test, "there is no python3");
    }
    there
}

#[test]
fn a_walltime_holds_under_a_daemon_that_was_started_with_signals_blocked() {
    let test = "a_walltime_holds_under_a_daemon_that_was_started_with_signals_blocked";
    if !has_python(test) {
        return;
    }
    let code = "import os, signal, sys\n\
                signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n\
                os.execvp(sys.argv[1], sys.argv[1:])";
    let settings = "[engine]\ngrace = \"300s\"";
    let Some(place) = place(test, &["python3", "-c", code], settings) else { return };
    let line = ["--walltime", "1s", "--", "sleep", "300"];
    // It ends by TERM: the grace is longer than this waits.
    let output = place.world.submit(&place.endpoint, "k", &line, SOON).unwrap();
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert_eq!(place.world.result("k").unwrap()["result"]["signal"], 15);
}

#[test]
fn a_closed_terminal_stops_a_daemon_in_order_and_no_stray_signal_ends_it() {
    let test = "a_closed_terminal_stops_a_daemon_in_order_and_no_stray_signal_ends_it";
    if !has_python(test) {
        return;
    }
    let close = tempfile::tempdir().unwrap();
    let close = close.path().join("close");
    let wrapper = ["python3", "-c", TERMINAL, &close.display().to_string()];
    let Some(mut place) = place(test, &wrapper, "") else { return };
    for name in ["USR1", "USR2", "ALRM", "PIPE", "PROF", "VTALRM", "XFSZ", "RTMIN", "RTMAX"] {
        place.daemon.signal(name).unwrap();
    }
    let go = place.world.folder().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let submit = ["submit", "lab", "--key", "k", "--", "sh", "-c", &script];
    place.world.service(&submit).unwrap().ok().unwrap();
    let daemon = place.daemon.pid();
    let runs = || Ok((children(daemon) > 0).then_some(()));
    poll::until("the task to run", SOON, runs).unwrap();
    place.daemon.signal("HUP").unwrap();
    let read = "read the configuration again: nothing in it has changed";
    place.daemon.wait_for(read, SOON).unwrap();
    std::fs::write(&close, "").unwrap();
    let stopping = "stopping: running tasks may finish; a second signal stops them";
    place.daemon.wait_for(stopping, SOON).unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(place.daemon.wait(SOON).unwrap(), 0);
    place.world.wait("k").unwrap().ok().unwrap();
    assert_eq!(place.world.result("k").unwrap()["attempt"], 1);

    let mut other = place.world.run(&place.endpoint).unwrap();
    other.signal("QUIT").unwrap();
    assert_eq!(other.wait(SOON).unwrap(), 0);
    // The service as well.
    let service = &mut place._service;
    for name in ["USR1", "USR2", "ALRM", "PROF"] {
        service.signal(name).unwrap();
    }
    service.signal("HUP").unwrap();
    assert_eq!(service.wait(SOON).unwrap(), 0);
}

/// Starts a program on a terminal, which it closes when a file is there.
const TERMINAL: &str = r#"
import fcntl, os, sys, termios, time
master, slave = os.openpty()
if os.fork() == 0:
    os.setsid()  # the terminal has to outlive the program that it belongs to
    os.close(slave)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    os._exit(0)
os.close(master)
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"#;

fn children(of: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.map(|list| list.split_whitespace().count()).sum()
}

#[test]
fn a_daemon_under_nohup_stays_when_its_terminal_is_closed() {
    let test = "a_daemon_under_nohup_stays_when_its_terminal_is_closed";
    let Some(mut place) = place(test, &["nohup"], "") else { return };
    place.daemon.signal("HUP").unwrap();
    place.output("k", &["true"]);
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}

#[test]
fn nothing_gets_away_from_a_task_that_ends() {
    let test = "nothing_gets_away_from_a_task_that_ends";
    let Some(place) = escaping(test) else { return };
    let program = escapes::program(place.world.folder()).unwrap();
    for way in escapes::WAYS {
        let note = place.world.folder().join(way);
        tries(&place, &program, way, &note, &[], &[]);
        assert_eq!(escapes::alive(&program), Vec::<u32>::new(), "{way}");
        assert!(note.metadata().unwrap().len() > 0, "{way}: nothing got out at first");
    }
    assert_eq!(escapes::zombies(place.daemon.pid()), 0);
}

#[test]
fn nothing_gets_away_from_a_walltime() {
    let test = "nothing_gets_away_from_a_walltime";
    let Some(place) = escaping(test) else { return };
    let program = escapes::program(place.world.folder()).unwrap();
    for way in ["double", "exec", "deaf", "reaper", "chain", "bomb"] {
        let note = place.world.folder().join(way);
        tries(&place, &program, way, &note, &["--walltime", "1s"], &["stay"]);
        assert_eq!(place.world.result(way).unwrap()["state"], "timed_out");
        assert_eq!(escapes::alive(&program), Vec::<u32>::new(), "{way}");
    }
    assert_eq!(escapes::zombies(place.daemon.pid()), 0);
}

fn escaping(test: &str) -> Option<Place> {
    has_python(test).then(|| place(test, &[], "[engine]\ngrace = \"1s\""))?
}

fn tries(place: &Place, program: &Path, way: &str, note: &Path, terms: &[&str], stay: &[&str]) {
    let (program, note) = (program.display().to_string(), note.display().to_string());
    let line = [terms, &["--", "python3", &program, way, &note], stay].concat();
    place.world.submit(&place.endpoint, way, &line, SOON).unwrap();
}

#[test]
fn orphans_that_end_do_not_stay_as_zombies_of_the_daemon() {
    let test = "orphans_that_end_do_not_stay_as_zombies_of_the_daemon";
    if !has_python(test) {
        return;
    }
    let Some(place) = place(test, &[], "") else { return };
    let chain = "import os\nfor k in range(600):\n    os.fork() and os._exit(0)\n    os.setsid()";
    place.output("chain", &["python3", "-c", chain]);
    let daemon = place.daemon.pid();
    assert_eq!(escapes::zombies(daemon), 0);
    // While a task runs on, too, and whatever its orphans did to their marks.
    let go = place.world.folder().join("go");
    let many = format!(
        "import os, resource, time\n\
         if os.fork() == 0:\n    \
             os.setsid()\n    \
             resource.setrlimit(15, (1 << 40, 1 << 40))\n    \
             for k in range(600):\n        \
                 os.fork() and os._exit(0)\n        \
                 os.setsid()\n    \
             open('{0}.out', 'w')\n    \
             os._exit(0)\n\
         os.wait()\n\
         while not os.path.exists('{0}'): time.sleep(0.01)",
        go.display()
    );
    let submit = ["submit", "lab", "--key", "many", "--", "python3", "-c", &many];
    place.world.service(&submit).unwrap().ok().unwrap();
    let out = go.with_extension("out");
    poll::until("the last of them", SOON, || Ok(out.exists().then_some(()))).unwrap();
    let none = || Ok((escapes::zombies(daemon) == 0).then_some(()));
    poll::until("all to be reaped", SOON, none).unwrap();
    std::fs::write(&go, "").unwrap();
    place.world.wait("many").unwrap().ok().unwrap();
}

#[test]
fn a_sandbox_deeper_than_a_path_ends_no_daemon() {
    let test = "a_sandbox_deeper_than_a_path_ends_no_daemon";
    if !has_python(test) {
        return;
    }
    let Some(mut place) = place(test, &[], "") else { return };
    let deep = "import os\nfor k in range(16000):\n    os.mkdir('d'); os.chdir('d')";
    place.output("deep", &["python3", "-c", deep]);
    // And one that a killed daemon left.
    let note = place.world.folder().join("deep");
    let stays = format!("{deep}\nopen('{}', 'w')\nimport time; time.sleep(300)", note.display());
    let submit = ["submit", "lab", "--key", "left", "--no-rerun", "--", "python3", "-c", &stays];
    place.world.service(&submit).unwrap().ok().unwrap();
    poll::until("it to be deep", SOON, || Ok(note.exists().then_some(()))).unwrap();
    place.daemon.kill().unwrap();
    place.daemon = place.world.run(&place.endpoint).unwrap();
    place.world.wait("left").unwrap();
    assert_eq!(place.world.result("left").unwrap()["state"], "interrupted");
    let state = place.world.folder().join("state/clutch/endpoints").join(&place.endpoint.id);
    let left = || std::fs::read_dir(state.join("sandbox")).unwrap().flatten().count();
    let none = || Ok((left() <= 1).then_some(()));
    poll::until("the sandboxes to be gone, but a spare one", SOON, none).unwrap();
    assert_eq!(place.daemon.stop(SOON).unwrap(), 0);
}

#[test]
fn as_process_1_of_a_container_a_daemon_reaps_and_lets_nothing_away() {
    let test = "as_process_1_of_a_container_a_daemon_reaps_and_lets_nothing_away";
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let may = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        skip::because(test, "this user may not make namespaces");
        return;
    }
    if !has_python(test) {
        return;
    }
    let Some(place) = place(test, &wrapper, "[engine]\ngrace = \"1s\"") else { return };
    let daemon = child(place.daemon.pid()).unwrap();
    let program = escapes::program(place.world.folder()).unwrap();
    for way in ["double", "exec", "chain", "bomb"] {
        tries(&place, &program, way, &place.world.folder().join(way), &[], &[]);
        assert_eq!(escapes::alive(&program), Vec::<u32>::new(), "{way}");
    }
    let chain = "import os\nfor k in range(600):\n    os.fork() and os._exit(0)\n    os.setsid()";
    place.output("many", &["python3", "-c", chain]);
    let none = || Ok((escapes::zombies(daemon) == 0).then_some(()));
    poll::until("all to be reaped", SOON, none).unwrap();
}

/// The first child of a process.
fn child(of: u32) -> Option<u32> {
    let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    list.split_whitespace().next()?.parse().ok()
}
