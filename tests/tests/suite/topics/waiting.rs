//! Until when a task must be placed, and must have started.

use super::{Cloud, TOPIC, on_both};
use clutch_tests::poll;
use clutch_tests::world::SOON;
use std::time::Duration;

/// Longer than `--start-within` and the margin of the clocks here.
const FENCED: Duration = Duration::from_secs(4);
const WITHIN: [&str; 2] = ["--start-within", "2s"];

/// The results of a task that ended elsewhere than where it was placed first.
fn attempt(cloud: &Cloud, task: &str) -> u64 {
    cloud.shown(task)["placement"]["member"]["attempt"].as_u64().unwrap()
}

#[test]
fn a_task_that_nobody_takes_in_time_expires_and_says_who_is_known() {
    let test = "a_task_that_nobody_takes_in_time_expires_and_says_who_is_known";
    on_both(test, |cloud| {
        let asked = ["--place-within", "1s", "--call", "ask"];
        let alone = cloud.submit("alone", &asked).remove(0);
        let _member = cloud.member("idle", 1, "");
        let known = cloud.submit("known", &asked).remove(0);
        for (task, words) in [(&alone, &[TOPIC, "ask"][..]), (&known, &[TOPIC, "ask", "idle"])] {
            let expired = cloud.until_state(task, "expired");
            let reason = expired["results"][0]["reason"].as_str().unwrap_or_default();
            assert!(words.iter().all(|word| reason.contains(word)), "{words:?}: {expired}");
        }
        // One that is placed in time does not expire.
        cloud.run("placed", &["--place-within", "2s"], "sleep 4");
        cloud.done("placed");
    });
}

#[test]
fn a_task_that_runs_longer_than_it_may_take_to_start_is_left_alone() {
    let test = "a_task_that_runs_longer_than_it_may_take_to_start_is_left_alone";
    on_both(test, |cloud| {
        let _members = [cloud.member("one", 1, ""), cloud.member("two", 1, "")];
        let task = cloud.run("k", &WITHIN, "sleep 5").remove(0);
        cloud.done("k");
        assert_eq!(attempt(&cloud, &task), 1);
    });
}

#[test]
fn a_member_that_stands_still_loses_what_waits_to_an_idle_one_and_keeps_what_runs() {
    let test = "a_member_that_stands_still_loses_what_waits_to_an_idle_one_and_keeps_what_runs";
    on_both(test, |cloud| {
        let mut slow = cloud.member("slow", 2, "");
        let (runs, gate) = cloud.gated("runs", &WITHIN);
        cloud.until_started(1);
        slow.daemon.signal("STOP").unwrap();
        let waits = cloud.run("waits", &WITHIN, "true").remove(0);
        poll::until("it is placed", SOON, || {
            Ok((cloud.shown(&waits)["endpoint_name"] == "slow").then_some(()))
        })
        .unwrap();
        let _idle = cloud.member("idle", 1, "");
        cloud.done("waits");
        assert_eq!((attempt(&cloud, &waits), cloud.starts()), (2, 2));
        assert_eq!(cloud.shown(&waits)["endpoint_name"], "idle");
        poll::pause(FENCED);
        slow.daemon.signal("CONT").unwrap();
        gate.open().unwrap();
        cloud.done("runs");
        assert_eq!(attempt(&cloud, &runs[0]), 1);
        // It is a member as before, and what it did not start is not held against it.
        cloud.until_listed("slow", true);
        let after = cloud.run("after", &["--array", "1-20"], "sleep 0.2");
        cloud.done("after");
        assert!(cloud.places(&after).contains_key("slow"));
        assert_eq!(cloud.starts(), 22);
    });
}

#[test]
fn what_a_member_lost_for_good_had_runs_elsewhere_or_ends_as_interrupted() {
    let test = "what_a_member_lost_for_good_had_runs_elsewhere_or_ends_as_interrupted";
    on_both(test, |cloud| {
        let mut lost = cloud.member("lost", 3, "");
        let (again, gate) = cloud.gated("again", &WITHIN);
        let (once, _) = cloud.gated("once", &["--no-rerun"]);
        cloud.until_started(2);
        // A task of its own waits on.
        let own = ["submit", "lost", "--key", "own", "--", "true"];
        lost.daemon.kill().unwrap();
        cloud.world.service(&own).unwrap().ok().unwrap();
        let _other = cloud.member("other", 3, "");
        cloud.world.service(&["endpoint", "lost", "lost"]).unwrap().ok().unwrap();
        let interrupted = cloud.until_state(&once[0], "interrupted");
        assert!(!interrupted["results"][0]["reason"].is_null(), "{interrupted}");
        gate.open().unwrap();
        assert_eq!(cloud.world.wait("again").unwrap().code, 0);
        let shown = cloud.shown(&again[0]);
        // It may be given to the lost one once more, which is not known to be away for 30 s.
        assert!(shown["attempt"].as_u64() >= Some(2), "{shown}");
        assert_eq!(shown["endpoint_name"], "other");
        assert!(cloud.world.result("own").unwrap()["result"].is_null());
    });
}
