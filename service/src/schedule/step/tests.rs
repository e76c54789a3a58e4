//! Decisions case by case, and the promises that hold for every schedule.

use super::*;
use crate::schedule::{
    CatchUp, End, Overlap, PauseCause, Policy, Recurrence, Rule, ScheduleId, ScheduleState, Zone,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const MINUTE: i64 = 60_000;
/// A full hour of the year 2026.
const START: i64 = 1_772_322_000 * 1000;

fn every_minute() -> Rule {
    Rule::new(Recurrence::every(Duration::from_secs(60)), Zone::utc())
}

fn id() -> ScheduleId {
    ScheduleId::of("nightly")
}

fn policy(catch_up: CatchUp, overlap: Overlap) -> Policy {
    Policy { catch_up, overlap, ..Policy::default() }
}

/// Steps until nothing more is due.
fn settle(
    rule: &Rule,
    policy: &Policy,
    state: &mut ScheduleState,
    now_ms: i64,
) -> (Vec<Decision>, Next) {
    let mut decisions = Vec::new();
    loop {
        let step = step(id(), rule, policy, state, now_ms);
        assert!(step.decisions.len() <= DECISIONS);
        assert!(step.next != Next::Again || !step.decisions.is_empty(), "a step without progress");
        step.decisions.iter().for_each(|decision| state.apply(decision));
        decisions.extend(step.decisions);
        if step.next != Next::Again {
            return (decisions, step.next);
        }
    }
}

fn by_hand() -> PauseCause {
    PauseCause::ByHand { reason: None }
}

fn fire(instant_ms: i64) -> Decision {
    Decision::Fire { instant_ms, queued: false, cancel_previous: false }
}

fn skip(instant_ms: i64, reason: SkipReason) -> Decision {
    Decision::Skip { instant_ms, reason }
}

#[test]
fn an_instant_fires_when_it_is_due_and_never_before() {
    let (rule, policy) = (every_minute(), Policy::default());
    let mut state = ScheduleState::added(START);
    let early = settle(&rule, &policy, &mut state, START + MINUTE - 1);
    assert_eq!(early, (vec![], Next::At(START + MINUTE)));
    let due = settle(&rule, &policy, &mut state, START + MINUTE);
    assert_eq!(due, (vec![fire(START + MINUTE)], Next::At(START + 2 * MINUTE)));
    let again = settle(&rule, &policy, &mut state, START + MINUTE);
    assert_eq!(again, (vec![], Next::At(START + 2 * MINUTE)));
}

#[test]
fn missed_instants_are_made_up_for_as_the_policy_says() {
    let down = |catch_up| {
        let mut state = ScheduleState::added(START);
        let policy = policy(catch_up, Overlap::Allow);
        settle(&every_minute(), &policy, &mut state, START + 3 * MINUTE + MINUTE / 2).0
    };
    let (one, two, three) = (START + MINUTE, START + 2 * MINUTE, START + 3 * MINUTE);
    let missed = |at| skip(at, SkipReason::Missed);
    assert_eq!(down(CatchUp::Last), [missed(one), missed(two), fire(three)]);
    assert_eq!(down(CatchUp::All), [fire(one), fire(two), fire(three)]);
    assert_eq!(down(CatchUp::None), [missed(one), missed(two), fire(three)]);
    let daily = Rule::new(Recurrence::Cron("@daily".parse().unwrap()), Zone::utc());
    let midnight = daily.next_after(START).unwrap();
    let late = |catch_up, late_ms| {
        let policy = Policy { window_ms: 2 * 60 * MINUTE, ..policy(catch_up, Overlap::Allow) };
        settle(&daily, &policy, &mut ScheduleState::added(START), midnight + late_ms).0
    };
    for (catch_up, late_ms, fires) in [
        (CatchUp::Last, 2 * 60 * MINUTE, true),
        (CatchUp::Last, 2 * 60 * MINUTE + 1, false),
        (CatchUp::All, 2 * 60 * MINUTE + 1, false),
        (CatchUp::None, MINUTE, true),
        (CatchUp::None, MINUTE + 1, false),
    ] {
        let expected = if fires { fire(midnight) } else { missed(midnight) };
        assert_eq!(late(catch_up, late_ms), [expected], "{catch_up:?} {late_ms}");
    }
}

#[test]
fn an_instant_that_is_late_by_a_moment_was_not_missed() {
    let rule = Rule::new(Recurrence::every(Duration::from_millis(100)), Zone::utc());
    let mut state = ScheduleState::added(START);
    let policy = policy(CatchUp::Last, Overlap::Allow);
    let (decisions, _) = settle(&rule, &policy, &mut state, START + 350);
    assert_eq!(decisions, [fire(START + 100), fire(START + 200), fire(START + 300)]);
}

#[test]
fn an_instant_meets_the_task_of_an_earlier_one_as_the_policy_says() {
    let second = |overlap| {
        let (rule, policy) = (every_minute(), policy(CatchUp::Last, overlap));
        let mut state = ScheduleState::added(START);
        settle(&rule, &policy, &mut state, START + MINUTE);
        let second = settle(&rule, &policy, &mut state, START + 2 * MINUTE).0;
        let third = settle(&rule, &policy, &mut state, START + 3 * MINUTE).0;
        state.ended(End::Succeeded, &policy, START + 3 * MINUTE + 1);
        let end = settle(&rule, &policy, &mut state, START + 3 * MINUTE + 1).0;
        (second, third, end)
    };
    let (two, three) = (START + 2 * MINUTE, START + 3 * MINUTE);
    let overlap = |at| vec![skip(at, SkipReason::Overlap)];
    assert_eq!(second(Overlap::Skip), (overlap(two), overlap(three), vec![]));
    let queued = Decision::Fire { instant_ms: two, queued: true, cancel_previous: false };
    let waits = vec![Decision::Queue { instant_ms: two }];
    assert_eq!(second(Overlap::QueueOne), (waits, overlap(three), vec![queued]));
    assert_eq!(second(Overlap::Allow), (vec![fire(two)], vec![fire(three)], vec![]));
    let cancel =
        |instant_ms| vec![Decision::Fire { instant_ms, queued: false, cancel_previous: true }];
    assert_eq!(second(Overlap::CancelPrevious), (cancel(two), cancel(three), vec![]));
}

#[test]
fn instants_of_a_pause_are_skipped_when_it_ends() {
    let (rule, policy) = (every_minute(), Policy::default());
    let mut state = ScheduleState::added(START);
    state.pause(START + 1, by_hand());
    assert_eq!(settle(&rule, &policy, &mut state, START + 5 * MINUTE), (vec![], Next::Change));
    state.resume(START + 2 * MINUTE + 1);
    let (decisions, next) = settle(&rule, &policy, &mut state, START + 3 * MINUTE);
    let paused = |minute| skip(START + minute * MINUTE, SkipReason::Paused);
    assert_eq!(decisions, [paused(1), paused(2), fire(START + 3 * MINUTE)]);
    assert_eq!(next, Next::At(START + 4 * MINUTE));
}

#[test]
fn failures_in_a_row_pause_a_schedule() {
    let policy = Policy { pause_after: Some(2), ..Policy::default() };
    let mut state = ScheduleState::added(START);
    for (end, paused) in [
        (End::Failed, false),
        (End::Succeeded, false),
        (End::Failed, false),
        (End::Cancelled, false),
        (End::Failed, true),
    ] {
        state.ended(end, &policy, START);
        assert_eq!(state.paused_ms.is_some(), paused, "{end:?}");
    }
    state.pause(START, by_hand());
    assert_eq!(state.pause_cause, Some(PauseCause::Failures { count: 2 }));
    state.resume(START + 1);
    assert_eq!((state.failures, state.paused_ms, &state.pause_cause), (0, None, &None));
    let decision = fire(START + MINUTE);
    state.apply_unplaced(&decision, &policy, START + MINUTE);
    assert_eq!(
        (state.cursor_ms, state.tasks, state.running, state.failures),
        (START + MINUTE, 0, 0, 1)
    );
}

#[test]
fn a_rule_is_over_at_its_end_or_after_its_last_task() {
    let until = Rule { until_ms: Some(START + MINUTE), ..every_minute() };
    let mut state = ScheduleState::added(START);
    let decisions = settle(&until, &Policy::default(), &mut state, START + 9 * MINUTE);
    assert_eq!(decisions, (vec![fire(START + MINUTE)], Next::Over));
    let twice = Rule { max_runs: Some(2), ..every_minute() };
    let mut state = ScheduleState::added(START);
    let queue = policy(CatchUp::All, Overlap::QueueOne);
    let (decisions, next) = settle(&twice, &queue, &mut state, START + 9 * MINUTE);
    let waits = Decision::Queue { instant_ms: START + 2 * MINUTE };
    assert_eq!((decisions, next), (vec![fire(START + MINUTE), waits], Next::Change));
    state.ended(End::Failed, &queue, START + 9 * MINUTE);
    let (decisions, next) = settle(&twice, &queue, &mut state, START + 10 * MINUTE);
    assert_eq!((decisions.len(), next), (1, Next::Over));
    assert_eq!(state.tasks, 2);
}

#[test]
fn a_fixed_delay_counts_from_the_end_of_the_task() {
    let rule = Rule::new(Recurrence::after_end(Duration::from_secs(60)), Zone::utc());
    let policy = Policy::default();
    let mut state = ScheduleState::added(START);
    assert_eq!(settle(&rule, &policy, &mut state, START).1, Next::At(START + MINUTE));
    let late = START + 90 * MINUTE;
    let (decisions, next) = settle(&rule, &policy, &mut state, late);
    assert_eq!((decisions, next), (vec![fire(START + MINUTE)], Next::Change));
    state.ended(End::Succeeded, &policy, late + 5);
    assert_eq!(settle(&rule, &policy, &mut state, late + 5).1, Next::At(late + 5 + MINUTE));
    let from = Rule { from_ms: Some(START + 10), ..rule };
    let (decisions, _) =
        settle(&from, &policy, &mut ScheduleState::added(START - 90 * MINUTE), START + 10);
    assert_eq!(decisions, [fire(START + 10)]);
}

#[test]
fn a_long_absence_is_told_in_few_records_and_small_steps() {
    let rule = Rule::new(Recurrence::every(Duration::from_secs(1)), Zone::utc());
    let mut state = ScheduleState::added(START);
    let missed = 1_000_000;
    let (decisions, _) = settle(&rule, &Policy::default(), &mut state, START + missed * 1000);
    assert!(decisions.len() <= 102, "{} decisions", decisions.len());
    let counts = decisions.iter().map(|decision| match decision {
        Decision::SkipMany { count, .. } => *count,
        Decision::Fire { .. } | Decision::Queue { .. } | Decision::Skip { .. } => 1,
    });
    assert_eq!(counts.sum::<u64>(), u64::try_from(missed).unwrap());
}

#[test]
fn a_clock_that_is_set_back_fires_nothing_twice() {
    let (rule, policy) = (every_minute(), policy(CatchUp::All, Overlap::Allow));
    let mut state = ScheduleState::added(START);
    settle(&rule, &policy, &mut state, START + 60 * MINUTE);
    let back = settle(&rule, &policy, &mut state, START);
    assert_eq!(back, (vec![], Next::At(START + 61 * MINUTE)));
}

/// A schedule of any kind that has no more than some hundred instants in a day.
fn rules() -> impl Strategy<Value = Rule> {
    let recurrence = prop_oneof![
        (300_u64..90_000).prop_map(|s| Recurrence::every(Duration::from_secs(s))),
        prop::sample::select(vec!["*/10 * * * *", "30 2 * * *", "0 */2 * * *", "5,55 1-3 * * *"])
            .prop_map(|text| Recurrence::Cron(text.parse().unwrap())),
        prop::sample::select(vec!["*:0/15", "Mon..Fri 02:30", "*-*~01 01:30:30"])
            .prop_map(|text| Recurrence::Calendar(text.parse().unwrap())),
    ];
    let zones = vec!["UTC", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll"];
    let zone = prop::sample::select(zones).prop_map(|name| name.parse::<Zone>().unwrap());
    (recurrence, zone, 0_i64..400_000, prop::option::of(1_u64..40)).prop_map(
        |(recurrence, zone, jitter_ms, max_runs)| Rule {
            jitter_ms,
            max_runs,
            ..Rule::new(recurrence, zone)
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    let catch_up = prop::sample::select(vec![CatchUp::Last, CatchUp::All, CatchUp::None]);
    let overlaps = [Overlap::Skip, Overlap::QueueOne, Overlap::Allow, Overlap::CancelPrevious];
    let overlap = prop::sample::select(overlaps.to_vec());
    (catch_up, overlap, 1000_i64..200_000_000, prop::option::of(1_u32..4)).prop_map(
        |(catch_up, overlap, window_ms, pause_after)| Policy {
            catch_up,
            window_ms,
            overlap,
            pause_after,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// By any clock, each instant up to the cursor has exactly one decision, in order, and none
    /// has it before it is due.
    #[test]
    fn each_instant_has_one_record_and_none_is_early(
        rule in rules(),
        policy in policies(),
        changes in prop::collection::vec((0_u8..8, -7_200_000_i64..30_000_000), 1..60),
    ) {
        let mut state = ScheduleState::added(START);
        let (mut now, mut ahead) = (START, START);
        let mut told: BTreeMap<i64, u32> = BTreeMap::new();
        let mut waiting = None;
        for (change, by) in changes {
            now = (now + by).max(START);
            ahead = ahead.max(now);
            match change {
                0 => state.pause(now, by_hand()),
                1 => state.resume(now),
                2..=4 if state.running > 0 => state.ended(
                    [End::Succeeded, End::Failed, End::Cancelled][usize::from(change) - 2],
                    &policy,
                    now,
                ),
                _ => {}
            }
            let (decisions, next) = settle(&rule, &policy, &mut state, now);
            for decision in decisions {
                let (first, last, count) = match decision {
                    Decision::Fire { instant_ms, queued: true, .. } => {
                        prop_assert_eq!(waiting.take(), Some(instant_ms));
                        continue;
                    }
                    Decision::Queue { instant_ms } => {
                        prop_assert_eq!(waiting.replace(instant_ms), None);
                        (instant_ms, instant_ms, 1)
                    }
                    Decision::Fire { instant_ms, .. } | Decision::Skip { instant_ms, .. } => {
                        (instant_ms, instant_ms, 1)
                    }
                    Decision::SkipMany { first_ms, last_ms, count, .. } => (first_ms, last_ms, count),
                };
                prop_assert!(rule.due_at(id(), last) <= now, "{} at {}", last, now);
                let mut at = first;
                for _ in 1..count {
                    *told.entry(at).or_default() += 1;
                    at = rule.next_after(at).unwrap();
                }
                prop_assert_eq!(at, last);
                *told.entry(at).or_default() += 1;
            }
            if let Next::At(at) = next {
                prop_assert!(at > now, "waits for {} at {}", at, now);
            }
        }
        let instants: Vec<i64> =
            std::iter::successors(rule.next_after(START), |at| rule.next_after(*at))
                .take_while(|at| *at <= state.cursor_ms)
                .collect();
        prop_assert!(told.values().all(|times| *times == 1), "{:?}", told);
        prop_assert_eq!(told.into_keys().collect::<Vec<_>>(), instants);
        prop_assert!(rule.max_runs.is_none_or(|most| state.tasks <= most));
    }

    /// The jitter of an instant is always the same, and ends before the next instant.
    #[test]
    fn jitter_keeps_the_order_of_instants(rule in rules(), after in START..START + 10_000_000) {
        let instant = rule.next_after(after).unwrap();
        let due = rule.due_at(id(), instant);
        prop_assert_eq!(due, rule.due_at(id(), instant));
        prop_assert!(instant <= due && due - instant <= rule.jitter_ms);
        prop_assert!(due < rule.next_after(instant).unwrap());
    }
}
