//! The inbox: order, room, and what is overtaken.

use super::*;
use clutch_common::id::TaskId;
use clutch_common::task::{Call, Process};

fn held(seq: u64, stdin: usize) -> Held {
    let process =
        Process { argv: vec!["true".into()], stdin: vec![0; stdin].into(), ..Process::default() };
    Held {
        seq: Seq(seq),
        task: Arc::new(Task::new(TaskId::new(), process)),
        started: false,
        accepted_at_ms: None,
        deaths: Deaths::default(),
        standing: Standing::Clear,
        stop: StopSignal::new(),
    }
}

fn taken(inbox: &mut Inbox) -> Vec<u64> {
    std::iter::from_fn(|| inbox.take()).map(|held| held.seq.0).collect()
}

fn put(inbox: &mut Inbox, tasks: impl IntoIterator<Item = Held>) {
    tasks.into_iter().for_each(|held| inbox.put(held));
}

fn inbox(max_tasks: usize, max_bytes: usize) -> Inbox {
    Inbox::new(Bounds { max_tasks, max_bytes })
}

#[test]
fn tasks_leave_in_the_order_they_came() {
    let mut inbox = inbox(10, 1 << 20);
    put(&mut inbox, (1..4).map(|seq| held(seq, 0)));
    assert_eq!(taken(&mut inbox), [1, 2, 3]);
}

#[test]
fn a_task_that_must_wait_for_another_suspect_is_overtaken_and_holds_up_none() {
    let mut inbox = inbox(10, 1 << 20);
    let with = |seq, standing| Held { standing, ..held(seq, 0) };
    put(
        &mut inbox,
        [
            with(1, Standing::Suspect),
            with(2, Standing::Clear),
            with(3, Standing::Suspect),
            with(4, Standing::LastChance),
            with(5, Standing::Suspect),
            with(6, Standing::Poisoned),
            with(7, Standing::Clear),
        ],
    );
    assert_eq!(taken(&mut inbox), [1, 2, 3, 6, 7]);
    assert_eq!(inbox.waiting(), 2);
    inbox.free(&with(1, Standing::Suspect));
    assert!(taken(&mut inbox).is_empty());
    inbox.free(&with(3, Standing::Suspect));
    assert_eq!(taken(&mut inbox), [4], "apart from all others under suspicion");
    put(&mut inbox, [with(8, Standing::Clear)]);
    assert_eq!(taken(&mut inbox), [8]);
    inbox.free(&with(4, Standing::LastChance));
    assert_eq!(taken(&mut inbox), [5]);
}

#[test]
fn calls_of_a_busy_function_are_overtaken_and_keep_their_order() {
    let mut inbox = inbox(20, 1 << 20);
    inbox.limit([("one".into(), 1), ("two".into(), 2), ("many".into(), 4)].into());
    let call = |seq, function: &str| {
        let call = Call::new(function, "[]".parse().unwrap());
        let task = Arc::new(Task::of(TaskId::new(), Work::Call(call)));
        Held { task, ..held(seq, 0) }
    };
    let one: Vec<Held> = [1, 2, 3, 10].map(|seq| call(seq, "one")).into();
    put(&mut inbox, one.clone());
    put(&mut inbox, [held(4, 0), call(5, "two"), call(6, "many"), call(7, "two"), call(8, "two")]);
    put(&mut inbox, [held(9, 0)]);
    assert_eq!(taken(&mut inbox), [1, 4, 5, 6, 7, 9]);
    assert_eq!(inbox.waiting(), 4);
    inbox.free(&one[0]);
    put(&mut inbox, [held(11, 0)]);
    assert_eq!(taken(&mut inbox), [2, 11]);
    inbox.free(&call(5, "two"));
    inbox.free(&one[1]);
    assert_eq!(taken(&mut inbox), [3, 8]);
    let suspect = Held { standing: Standing::Suspect, ..call(12, "one") };
    put(&mut inbox, [suspect, call(13, "one")]);
    assert!(taken(&mut inbox).is_empty());
    inbox.free(&one[2]);
    assert_eq!(taken(&mut inbox), [10]);
    inbox.free(&one[3]);
    assert_eq!(taken(&mut inbox), [12]);
    assert_eq!(inbox.waiting(), 1);
}

#[test]
fn a_running_task_counts_until_it_is_freed() {
    let mut inbox = inbox(1, 1 << 20);
    put(&mut inbox, [held(1, 0)]);
    let running = inbox.take().unwrap();
    assert_eq!(inbox.room(), 0);
    inbox.free(&running);
    assert!(inbox.room() > 0);
}

#[test]
fn nothing_leaves_while_it_is_shut() {
    let mut inbox = inbox(10, 1 << 20);
    inbox.shut();
    put(&mut inbox, [held(1, 0)]);
    assert!(taken(&mut inbox).is_empty());
    assert_eq!((inbox.waiting(), inbox.tasks()), (1, 1));
    inbox.open();
    assert_eq!(taken(&mut inbox), [1]);
}

#[test]
fn all_that_waits_can_be_taken_out_with_its_room() {
    let mut inbox = inbox(10, 1 << 20);
    inbox.shut();
    assert!(!inbox.holds_back());
    put(&mut inbox, [Held { standing: Standing::Suspect, ..held(1, 0) }, held(2, 0)]);
    assert!(inbox.holds_back());
    inbox.unsecure_waiting();
    assert_eq!((inbox.waiting(), inbox.tasks()), (0, 2));
    let all = inbox.take_unsecured();
    assert_eq!(all.iter().map(|one| one.held.seq.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(inbox.tasks(), 0);
    put(&mut inbox, [Held { standing: Standing::LastChance, ..held(3, 0) }]);
    assert!(inbox.open());
    assert_eq!(taken(&mut inbox), [3], "no suspect runs");
}

#[test]
fn what_is_handed_back_has_run_nowhere() {
    let mut inbox = inbox(10, 1 << 20);
    inbox.limit([("one".into(), 1)].into());
    let call = |seq| {
        let call = Call::new("one", "[]".parse().unwrap());
        Held { task: Arc::new(Task::of(TaskId::new(), Work::Call(call))), ..held(seq, 0) }
    };
    put(&mut inbox, [call(1), call(2)]);
    assert_eq!(taken(&mut inbox), [1]);
    inbox.put_unsecured(UnsecuredTask { held: call(3), before: None });
    inbox.take_unsecured();
    assert!(taken(&mut inbox).is_empty(), "the first still runs");
}

#[test]
fn a_task_that_is_not_secured_has_its_room_and_does_not_start() {
    let mut inbox = inbox(2, 1 << 20);
    inbox.put_unsecured(UnsecuredTask { held: held(1, 0), before: None });
    assert_eq!((inbox.room(), inbox.tasks(), inbox.waiting()), (1, 1, 0));
    assert_eq!(inbox.secure(7), [Seq(1)]);
    assert_eq!((inbox.room(), inbox.tasks(), inbox.waiting()), (1, 1, 1));
    let held = inbox.take().unwrap();
    inbox.free(&held);
    assert_eq!((inbox.room(), inbox.tasks()), (2, 0));
}

#[test]
fn bytes_bound_it_as_well_and_one_large_task_still_fits_an_empty_inbox() {
    let mut inbox = inbox(10, 10_000);
    assert!(inbox.room() > 0);
    put(&mut inbox, [held(1, 100_000)]);
    assert_eq!(inbox.room(), 0);
    let running = inbox.take().unwrap();
    inbox.free(&running);
    assert!(inbox.room() > 0);
}

/// How many of `tasks` are poisoned by kills from outside that hit whatever runs.
fn poisoned_by(kills: u64, tasks: u64, slots: usize, limit: u64) -> u64 {
    let mut deaths = vec![0; usize::try_from(tasks).unwrap()];
    let mut poisoned = 0;
    for _ in 0..=kills {
        let mut inbox = inbox(1000, 1 << 20);
        for (seq, count) in (0..).zip(&deaths).filter(|(_, count)| **count != u64::MAX) {
            let deaths = Deaths { count: *count, last_started_at_ms: 1 };
            put(&mut inbox, [Held { standing: Standing::after(deaths, limit), ..held(seq, 0) }]);
        }
        let mut running = 0;
        while running < slots {
            let Some(taken) = inbox.take() else { break };
            let count = &mut deaths[usize::try_from(taken.seq.0).unwrap()];
            if taken.standing == Standing::Poisoned {
                *count = u64::MAX;
                poisoned += 1;
            } else {
                running += 1;
                *count += 1;
            }
        }
    }
    poisoned
}

#[test]
fn kills_from_outside_poison_one_innocent_each_once_the_limit_is_near_and_never_a_group() {
    for (limit, slots) in [(3, 1), (3, 8), (3, 64), (2, 8), (5, 16)] {
        for kills in 0..12 {
            let most = (kills + 1_u64).saturating_sub(limit);
            let found = poisoned_by(kills, 200, slots, limit);
            assert!(found <= most, "{kills} kills, {slots} slots, limit {limit}: {found}");
        }
    }
    assert_eq!(poisoned_by(3, 200, 64, 3), 1, "the third kill counts against one of 64");
}
