//! Cancelling tasks of a topic, and a service or a member that is started again between.

use super::on_both;
use clutch_tests::poll;
use clutch_tests::world::SOON;

#[test]
fn tasks_are_cancelled_before_and_after_they_are_placed() {
    on_both("tasks_are_cancelled_before_and_after_they_are_placed", |cloud| {
        let mut member = cloud.member("one", 1, "");
        let (runs, gate) = cloud.gated("runs", &[]);
        cloud.until_started(1);
        let waits = cloud.run("waits", &["--array", "1-3"], "true");
        cloud.world.service(&["cancel", &waits[0]]).unwrap().ok().unwrap();
        let cancelled = cloud.until_state(&waits[0], "cancelled");
        assert!(cancelled["results"][0]["started_at_ms"].is_null(), "{cancelled}");
        cloud.world.service(&["cancel", &runs[0]]).unwrap().ok().unwrap();
        cloud.until_state(&runs[0], "cancelled");
        cloud.until_state(&waits[1], "succeeded");
        cloud.until_state(&waits[2], "succeeded");
        // One that is in the queue of a member that does not read it.
        member.daemon.signal("STOP").unwrap();
        let placed = cloud.run("placed", &[], "true").remove(0);
        poll::until("it is placed", SOON, || {
            Ok((cloud.shown(&placed)["endpoint_name"] == "one").then_some(()))
        })
        .unwrap();
        cloud.world.service(&["cancel", "--no-wait", &placed]).unwrap();
        member.daemon.signal("CONT").unwrap();
        cloud.until_state(&placed, "cancelled");
        gate.open().unwrap();
        assert_eq!(cloud.starts(), 3, "what was cancelled did not start");
    });
}

#[test]
fn a_service_that_is_killed_goes_on_where_it_was() {
    on_both("a_service_that_is_killed_goes_on_where_it_was", |mut cloud| {
        let _members = [cloud.member("one", 2, ""), cloud.member("two", 1, "")];
        let (tasks, gate) = cloud.gated("k", &["--array", "1-20"]);
        cloud.until_started(3);
        let before = cloud.places(&tasks);
        cloud.restart_service();
        assert_eq!(cloud.places(&tasks), before);
        cloud.run("later", &["--array", "1-20"], "true");
        gate.open().unwrap();
        cloud.done("k");
        cloud.done("later");
    });
}

#[test]
fn the_end_of_a_task_is_told_once_after_the_service_was_away() {
    on_both("the_end_of_a_task_is_told_once_after_the_service_was_away", |mut cloud| {
        let _member = cloud.member("one", 1, "");
        let (tasks, gate) = cloud.gated("k", &["--array", "1-2"]);
        cloud.until_started(1);
        cloud.service.kill().unwrap();
        gate.open().unwrap();
        cloud.restart_service();
        cloud.done("k");
        let shown = cloud.shown(&tasks[0]);
        assert_eq!(shown["results"].as_array().map(Vec::len), Some(1), "{shown}");
        assert_eq!(cloud.starts(), 2);
    });
}

#[test]
fn a_drained_member_is_given_nothing() {
    on_both("a_drained_member_is_given_nothing", |cloud| {
        let _drained = cloud.member("drained", 1, "");
        cloud.world.service(&["endpoint", "drain", "drained"]).unwrap().ok().unwrap();
        cloud.until_listed("drained", false);
        let task = cloud.run("k", &[], "true").remove(0);
        cloud.waits_for(&task, &["drain"]);
        let _other = cloud.member("other", 1, "");
        cloud.done("k");
        assert_eq!(cloud.shown(&task)["endpoint_name"], "other");
        cloud.world.service(&["endpoint", "resume", "drained"]).unwrap().ok().unwrap();
        cloud.until_listed("drained", true);
    });
}

#[test]
fn a_member_that_is_killed_runs_again_what_it_had_claimed() {
    on_both("a_member_that_is_killed_runs_again_what_it_had_claimed", |cloud| {
        let mut member = cloud.member("one", 2, "");
        let (tasks, gate) = cloud.gated("k", &["--array", "1-6"]);
        cloud.until_started(2);
        cloud.restart(&mut member);
        cloud.until_started(4);
        gate.open().unwrap();
        assert_eq!(cloud.world.wait("k").unwrap().code, 0);
        let runs = cloud.runs.read().unwrap();
        let twice = runs.values().filter(|times| **times > 1).count();
        assert_eq!((runs.len(), twice), (6, 2), "{tasks:?}");
    });
}
