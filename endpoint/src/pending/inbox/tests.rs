//! The inbox: order, room, and what is overtaken.

use super::*;
use clutch_common::id::TaskId;
use clutch_common::task::priority::Priority;
use clutch_common::task::{Call, Process};
use proptest::prelude::*;

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

/// A task of a priority that takes so many slots.
fn of(seq: u64, priority: Priority, cores: u32) -> Held {
    let task = Task { priority, cores, ..Task::clone(&held(seq, 0).task) };
    Held { task: Arc::new(task), ..held(seq, 0) }
}

#[test]
fn the_urgent_overtake_and_none_is_overtaken_for_ever() {
    let mut inbox = inbox(2000, 1 << 24);
    put(&mut inbox, (0..1000).map(|seq| of(seq, Priority::Normal, 1)));
    put(&mut inbox, [of(1000, Priority::Low, 1), of(1001, Priority::High, 1)]);
    assert_eq!(inbox.take().unwrap().seq, Seq(1001), "before a thousand that came earlier");
    assert_eq!(inbox.take().unwrap().seq, Seq(0));
    put(&mut inbox, (2000..2100).map(|seq| of(seq, Priority::Highest, 1)));
    let started = taken(&mut inbox);
    assert_eq!(started[..8], [2000, 2001, 2002, 2003, 2004, 2005, 2006, 1]);
    assert_eq!(started[8..16], [2007, 2008, 2009, 2010, 2011, 2012, 2013, 2]);
    assert_eq!(started.len(), 1100);
}

#[test]
fn calls_of_a_function_start_by_priority_and_the_oldest_of_them_in_its_turn() {
    let mut inbox = inbox(100, 1 << 20);
    let call = |seq, priority| {
        let call = Call::new("one", "[]".parse().unwrap());
        let task = Task { priority, ..Task::of(TaskId::new(), Work::Call(call)) };
        Held { task: Arc::new(task), ..held(seq, 0) }
    };
    // As those are that an earlier life of the daemon accepted.
    put(&mut inbox, [call(0, Priority::Lowest), call(1, Priority::Highest), held(2, 0)]);
    inbox.limit([("one".into(), 1)].into());
    put(&mut inbox, (3..12).map(|seq| call(seq, Priority::Highest)));
    let first = inbox.take().unwrap();
    assert_eq!((first.seq, taken(&mut inbox)), (Seq(1), vec![2]), "one call may run");
    let (mut running, mut order) = (first, Vec::new());
    for seq in 12..40 {
        inbox.free(&running);
        put(&mut inbox, [call(seq, Priority::Highest)]);
        running = inbox.take().unwrap();
        order.push(running.seq.0);
        // Another task that starts meanwhile takes no turn from the function.
        put(&mut inbox, [held(seq + 100, 0)]);
        assert_eq!(inbox.take().unwrap().seq.0, seq + 100);
    }
    assert_eq!(order.iter().position(|seq| *seq == 0), Some(6), "{order:?}");
}

#[test]
fn a_wide_task_has_its_slots_kept_free_and_one_that_never_fits_leaves() {
    let mut inbox = inbox(100, 1 << 20);
    let free = |free| FreeSlots { free, all: 4 };
    put(&mut inbox, [of(0, Priority::Normal, 4), of(1, Priority::Normal, 1)]);
    assert!(inbox.take_fitting(free(3)).is_none(), "nothing passes it by");
    put(&mut inbox, [of(2, Priority::High, 2)]);
    assert_eq!(inbox.take_fitting(free(3)).unwrap().seq, Seq(2), "but the urgent");
    assert!(inbox.take_fitting(free(1)).is_none());
    assert_eq!(inbox.take_fitting(free(4)).unwrap().seq, Seq(0));
    assert!(inbox.take_fitting(free(0)).is_none());
    assert_eq!(inbox.take_fitting(free(1)).unwrap().seq, Seq(1));
    put(&mut inbox, [of(3, Priority::Normal, 5)]);
    assert!(inbox.take_fitting(free(0)).is_none());
    assert_eq!(inbox.take_fitting(free(1)).unwrap().seq, Seq(3), "to be rejected");
}

#[test]
fn what_is_put_back_waits_in_its_place() {
    let mut inbox = inbox(100, 1 << 20);
    put(&mut inbox, (0..3).map(|seq| of(seq, Priority::High, 1)));
    let first = inbox.take().unwrap();
    inbox.put_back(first);
    assert_eq!(taken(&mut inbox), [0, 1, 2]);
}

proptest! {
    /// Tasks of any priority and any number of cores, as slots become free.
    #[test]
    fn each_task_leaves_in_its_turn_whatever_it_takes(
        tasks in prop::collection::vec((0..5_usize, 1..6_u32), 1..60),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 300),
    ) {
        const SLOTS: usize = 4;
        let mut inbox = inbox(1000, 1 << 24);
        let (mut running, mut used, mut starts) = (Vec::<Held>::new(), 0, 0);
        let mut due = BTreeMap::new();
        let mut coming = (0..).zip(tasks);
        let mut ends = ends.into_iter();
        loop {
            for (seq, (priority, cores)) in coming.by_ref().take(3) {
                due.insert(seq, starts + 8 * (due.len() + 1));
                put(&mut inbox, [of(seq, Priority::ALL[priority], cores)]);
            }
            while let Some(taken) = inbox.take_fitting(FreeSlots { free: SLOTS - used, all: SLOTS })
            {
                starts += 1;
                prop_assert!(due.remove(&taken.seq.0).is_some_and(|due| starts <= due));
                used += if cores(&taken.task) > SLOTS { 1 } else { cores(&taken.task) };
                prop_assert!(used <= SLOTS);
                running.push(taken);
            }
            if running.is_empty() {
                break;
            }
            let Some(which) = ends.next() else { break };
            let ended = running.swap_remove(which.index(running.len()));
            used -= if cores(&ended.task) > SLOTS { 1 } else { cores(&ended.task) };
            inbox.free(&ended);
        }
        prop_assert!(due.is_empty() && inbox.tasks() == 0, "all have left: {due:?}");
    }
}
