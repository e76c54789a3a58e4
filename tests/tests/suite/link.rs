//! Faults of the link: none makes a task run twice, none loses one.

use crate::running;
use clutch_tests::binaries;
use clutch_tests::broker::{Private, Vhost};
use clutch_tests::gate::Gate;
use clutch_tests::oracle::Runs;
use clutch_tests::process::Daemon;
use clutch_tests::world::SOON;
use clutch_tests::{poll, scenario, skip};
use serde_json::Value;

#[test]
fn a_task_may_take_longer_than_the_brokers_consumer_timeout() {
    let test = "a_task_may_take_longer_than_the_brokers_consumer_timeout";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let long = scenario::long_task(binaries::folder().unwrap()).unwrap();
    assert!(long.holds(), "{long:?}");
}

/// Closes connections until the daemon says that it lost its link, and returns
/// what it said. The management API learns of a connection only after a while,
/// and still lists some that are gone.
fn cut(vhost: &Vhost, daemon: &mut Daemon) -> Value {
    poll::until("the link to be lost", SOON, || {
        vhost.close_connections()?;
        daemon.next("disengaged")
    })
    .unwrap()
}

#[test]
fn closed_connections_repeat_and_lose_nothing() {
    let Some(mut run) = running("closed_connections_repeat_and_lose_nothing") else { return };
    let runs = Runs::at(&run.world.folder().join("runs"));
    // Three gates, so that tasks run at each of the three faults.
    let gate = |number: usize| Gate::new(run.world.folder(), &number.to_string());
    let wait: Vec<String> = (1..=3)
        .map(|number| format!("[ $1 -lt {} ] || {}", number * 30, gate(number).line()))
        .collect();
    let argv = runs.command(&format!("{}; echo $1", wait.join("; ")), &["{}"]);
    let mut submit = vec!["submit", "lab", "--key", "k", "--array", "1-120", "--"];
    submit.extend(argv.iter().map(String::as_str));
    run.world.service(&submit).unwrap().ok().unwrap();
    for number in 1..=3 {
        poll::until("tasks to stand at the gate", SOON, || {
            Ok((runs.read()?.len() >= number * 30).then_some(()))
        })
        .unwrap();
        cut(run.world.vhost(), &mut run.daemon);
        run.daemon.wait_for("engaged", SOON).unwrap();
        gate(number).open().unwrap();
    }
    run.world.wait("k").unwrap().ok().unwrap();
    let started = runs.read().unwrap();
    assert_eq!(started.len(), 120);
    assert!(started.values().all(|times| *times == 1), "a link fault repeated a task");
    let stdout = run.world.service(&["results", "--key", "k", "--stdout-only"]).unwrap();
    assert_eq!(stdout.text().lines().count(), 120);
}

#[test]
fn idle_daemons_notice_a_closed_connection_and_come_back() {
    let test = "idle_daemons_notice_a_closed_connection_and_come_back";
    let Some(mut run) = running(test) else { return };
    for daemon in [&mut run.daemon, &mut run.service] {
        let lost = cut(run.world.vhost(), daemon);
        assert!(lost["fault"].as_str().unwrap().contains("closed"), "{lost}");
        daemon.wait_for("engaged", SOON).unwrap();
    }
    run.world.submit(&run.endpoint, "k", &["--", "true"], SOON).unwrap().ok().unwrap();
}
