//! The share of each member, and what is placed first.

use super::on_both;
use clutch_tests::poll;
use clutch_tests::world::SOON;
use std::collections::BTreeMap;

/// The lines that tasks wrote.
fn lines(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn members_are_given_work_by_their_slots_and_none_more_than_its_credit() {
    let test = "members_are_given_work_by_their_slots_and_none_more_than_its_credit";
    on_both(test, |cloud| {
        let _big = cloud.member("big", 4, "");
        let _small = cloud.member("small", 1, "");
        let (tasks, gate) = cloud.gated("k", &["--array", "1-30"]);
        cloud.until_started(5);
        let places = BTreeMap::from([("big".to_owned(), 4), ("small".to_owned(), 1)]);
        assert_eq!(cloud.places(&tasks), places);
        cloud.waits_for(&tasks[29], &["credit"]);
        // Another one that comes is not idle while there is work.
        let _third = cloud.member("third", 2, "");
        cloud.until_started(7);
        assert_eq!(cloud.places(&tasks).values().sum::<usize>(), 7);
        gate.open().unwrap();
        cloud.done("k");
    });
}

#[test]
fn work_is_shared_four_to_one_while_it_flows() {
    on_both("work_is_shared_four_to_one_while_it_flows", |cloud| {
        let _big = cloud.member("big", 4, "");
        let _small = cloud.member("small", 1, "");
        let tasks = cloud.run("k", &["--array", "1-60"], "sleep 0.2");
        cloud.done("k");
        let small = cloud.places(&tasks)["small"];
        assert!((6..=20).contains(&small), "{small} of 60, not about 12");
    });
}

#[test]
fn urgent_tasks_are_placed_first() {
    on_both("urgent_tasks_are_placed_first", |cloud| {
        let _member = cloud.member("one", 1, "");
        let (_, gate) = cloud.gated("gate", &[]);
        cloud.until_started(1);
        let order = cloud.world.folder().join("order");
        let note = |what: &str| format!("echo {what} >> '{}'", order.display());
        for level in ["lowest", "normal", "highest"] {
            cloud.run(level, &["--array", "1-3", "--priority", level], &note(level));
        }
        gate.open().unwrap();
        cloud.all_done(&["gate", "lowest", "normal", "highest"]);
        let order = lines(&order);
        let at = |level: &str| order.iter().position(|line| line == level).unwrap();
        assert_eq!(order.len(), 9);
        assert_eq!(at("highest"), 0, "{order:?}");
        assert!(at("normal") < at("lowest") || at("lowest") >= 3, "{order:?}");
    });
}

#[test]
fn two_submissions_take_turns() {
    on_both("two_submissions_take_turns", |cloud| {
        let _member = cloud.member("one", 1, "");
        let (_, gate) = cloud.gated("gate", &[]);
        cloud.until_started(1);
        let order = cloud.world.folder().join("order");
        for name in ["first", "second"] {
            let note = format!("echo {name} >> '{}'", order.display());
            cloud.run(name, &["--array", "1-20"], &note);
        }
        gate.open().unwrap();
        cloud.all_done(&["gate", "first", "second"]);
        let order = lines(&order);
        let first = order[..20].iter().filter(|line| *line == "first").count();
        assert_eq!(order.len(), 40);
        assert!((8..=12).contains(&first), "{first} of the first half: {order:?}");
    });
}

#[test]
fn a_task_for_an_endpoint_itself_does_not_wait_behind_a_topic() {
    on_both("a_task_for_an_endpoint_itself_does_not_wait_behind_a_topic", |cloud| {
        let _member = cloud.member("one", 2, "");
        let (_, gate) = cloud.gated("gate", &["--array", "1-2"]);
        cloud.until_started(2);
        let order = cloud.world.folder().join("order");
        let note = |what: &str| format!("echo {what} >> '{}'", order.display());
        cloud.run("topic", &["--array", "1-40"], &note("topic"));
        let direct = ["submit", "one", "--key", "direct", "--json", "--shell", "--"];
        let note = note("direct");
        let direct = [&direct[..], &[&note]].concat();
        let direct = cloud.world.service(&direct).unwrap().ok().unwrap().json().unwrap();
        let direct = direct["ids"][0].as_str().unwrap().to_owned();
        cloud.until_state(&direct, "accepted");
        gate.open().unwrap();
        cloud.all_done(&["gate", "topic", "direct"]);
        let at = lines(&order).iter().position(|line| line == "direct").unwrap();
        assert!(at < 10, "{at} tasks of the topic were before it");
    });
}

#[test]
fn a_wide_task_counts_as_so_many() {
    on_both("a_wide_task_counts_as_so_many", |cloud| {
        let _member = cloud.member("one", 4, "");
        let (wide, gate) = cloud.gated("wide", &["--cores", "3"]);
        cloud.until_started(1);
        let (narrow, other) = cloud.gated("narrow", &["--array", "1-5"]);
        cloud.until_started(2);
        assert_eq!(cloud.places(&narrow).values().sum::<usize>(), 1);
        gate.open().unwrap();
        poll::until("the others to have its room", SOON, || {
            Ok((cloud.places(&narrow).values().sum::<usize>() >= 4).then_some(()))
        })
        .unwrap();
        other.open().unwrap();
        cloud.all_done(&["wide", "narrow"]);
        assert_eq!(wide.len(), 1);
    });
}
