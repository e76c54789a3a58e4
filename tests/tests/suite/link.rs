//! Faults of the link: none makes a task run twice, none loses one.

use crate::running;
use clutch_tests::binaries;
use clutch_tests::broker::Private;
use clutch_tests::oracle::Runs;
use clutch_tests::world::SOON;
use clutch_tests::{poll, scenario, skip};

#[test]
fn a_task_may_take_longer_than_the_brokers_consumer_timeout() {
    let test = "a_task_may_take_longer_than_the_brokers_consumer_timeout";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let long = scenario::long_task(binaries::folder().unwrap()).unwrap();
    assert!(long.holds(), "{long:?}");
}

#[test]
fn closed_connections_repeat_and_lose_nothing() {
    let Some(mut run) = running("closed_connections_repeat_and_lose_nothing") else { return };
    let runs = Runs::at(&run.world.folder().join("runs"));
    let argv = runs.command("sleep 0.05; echo $1", &["{}"]);
    let mut submit = vec!["submit", "lab", "--key", "k", "--array", "1-120", "--"];
    submit.extend(argv.iter().map(String::as_str));
    run.world.service(&submit).unwrap().ok().unwrap();
    for round in 1..=3 {
        poll::until("more tasks to start", SOON, || {
            Ok((runs.read()?.len() >= round * 20).then_some(()))
        })
        .unwrap();
        let closed = poll::until("connections to close", SOON, || {
            Ok(Some(run.world.vhost().close_connections()?).filter(|closed| *closed > 0))
        })
        .unwrap();
        assert!(closed > 0);
        run.daemon.wait_for("disengaged", SOON).unwrap();
        run.daemon.wait_for("engaged", SOON).unwrap();
    }
    run.world.service(&["wait", "--key", "k", "--timeout", "28s"]).unwrap().ok().unwrap();
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
    poll::until("all connections to close", SOON, || {
        Ok((run.world.vhost().close_connections()? > 0).then_some(()))
    })
    .unwrap();
    let lost = run.daemon.wait_for("disengaged", SOON).unwrap();
    assert!(lost["fault"].as_str().unwrap().contains("closed"), "{lost}");
    run.daemon.wait_for("engaged", SOON).unwrap();
    run.service.wait_for("engaged", SOON).unwrap();
    run.world.submit(&run.endpoint, "k", &["--", "true"], SOON).unwrap().ok().unwrap();
}
