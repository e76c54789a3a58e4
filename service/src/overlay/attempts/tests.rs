//! Tests of the overlay's table.

use super::*;
use clutch_common::id::{Attempt, StateId};
use clutch_common::task::result::Outcome;
use clutch_common::wire::Load;
use uuid::Uuid;

const NOW: u64 = 1_000_000;

fn task(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

fn endpoint() -> EndpointId {
    EndpointId(Uuid::from_u128(7))
}

fn events(complete: bool, attempts: &[(u128, u32, Phase)]) -> Events {
    let event = |&(number, attempt, phase): &(u128, u32, Phase)| AttemptEvent {
        attempt: Attempt { task_id: task(number), attempt },
        phase,
        since_ms: 5,
        accepted_at_ms: None,
        progress: None,
        waits_for: None,
        waits: Vec::new(),
    };
    Events {
        endpoint_id: endpoint(),
        state_id: StateId(Uuid::nil()),
        instance: Uuid::nil(),
        at_ms: NOW + 100,
        complete,
        load: None,
        attempts: attempts.iter().map(event).collect(),
        output: Vec::new(),
    }
}

/// The rows of these tasks, all of one submission.
fn rows(numbers: &[u128]) -> BTreeMap<TaskId, TaskRow> {
    let row = |&number: &u128| {
        let index = u64::try_from(number).unwrap();
        (task(number), TaskRow { row: index, submission: Some(1), index: Some(index), attempt: 1 })
    };
    numbers.iter().map(row).collect()
}

fn result(number: u128, attempt: u32) -> TaskResult {
    let attempt = Attempt { task_id: task(number), attempt };
    TaskResult::not_run(attempt, Outcome::Expired, "late".into(), endpoint(), 5)
}

fn counts(table: &Attempts) -> (u64, u64) {
    let PhaseCounts { accepted, running } = table.in_submission(1);
    assert_eq!(table.at_endpoint(endpoint()), table.in_submission(1));
    (accepted, running)
}

#[test]
fn a_task_is_counted_where_it_is_until_its_result() {
    let mut table = Attempts::default();
    let first = events(false, &[(1, 1, Phase::Accepted), (2, 1, Phase::Accepted)]);
    assert_eq!(table.unknown(&first), [task(1), task(2)]);
    table.apply(&first, &rows(&[1, 2]), NOW);
    assert_eq!(counts(&table), (2, 0));
    let second = events(false, &[(2, 1, Phase::Running)]);
    assert_eq!(table.unknown(&second), []);
    table.apply(&second, &rows(&[]), NOW);
    assert_eq!(counts(&table), (1, 1));
    assert_eq!(table.running_at(endpoint()), [(task(2), 5)]);
    table.ended(&[result(2, 1), result(3, 1)]);
    assert_eq!(counts(&table), (1, 0));
    table.ended(&[result(1, 1)]);
    assert_eq!((counts(&table), table.bytes, table.submissions.len()), ((0, 0), 0, 0));
}

#[test]
fn a_task_that_is_not_in_the_records_is_left_out() {
    let mut table = Attempts::default();
    table.apply(&events(true, &[(1, 1, Phase::Running)]), &rows(&[]), NOW);
    assert!(table.is_empty());
}

#[test]
fn a_complete_message_replaces_what_was_told_before() {
    let mut table = Attempts::default();
    table.apply(
        &events(false, &[(1, 1, Phase::Running), (2, 1, Phase::Accepted)]),
        &rows(&[1, 2]),
        NOW,
    );
    table.apply(&events(true, &[(2, 1, Phase::Running)]), &rows(&[]), NOW);
    assert_eq!(counts(&table), (0, 1));
    assert_eq!((table.phase(task(1)), table.phase(task(2))), (None, Some(Phase::Running)));
    table.apply(&events(true, &[]), &rows(&[]), NOW);
    assert!(table.is_empty() && table.bytes == 0);
}

#[test]
fn an_earlier_attempt_changes_nothing_and_a_later_one_replaces() {
    let mut table = Attempts::default();
    table.apply(&events(false, &[(1, 2, Phase::Running)]), &rows(&[1]), NOW);
    table.apply(&events(false, &[(1, 1, Phase::Accepted)]), &rows(&[1]), NOW);
    table.ended(&[result(1, 1)]);
    assert_eq!(table.task(task(1), NOW).unwrap().attempt, 2);
    table.apply(&events(false, &[(1, 3, Phase::Accepted)]), &rows(&[1]), NOW);
    let live = table.task(task(1), NOW).unwrap();
    assert_eq!((live.attempt, live.phase, counts(&table)), (3, Phase::Accepted, (1, 0)));
    // The records have a later one.
    let later = BTreeMap::from([(task(4), TaskRow { attempt: 2, ..rows(&[4])[&task(4)] })]);
    table.apply(&events(false, &[(4, 1, Phase::Running)]), &later, NOW);
    assert_eq!(table.phase(task(4)), None);
}

#[test]
fn progress_stays_until_there_is_new() {
    let mut table = Attempts::default();
    let mut told = events(false, &[(1, 1, Phase::Running)]);
    let (fraction, data) =
        (Some(0.5), Some(format!("[{}]", "1,".repeat(3000) + "1").parse().unwrap()));
    told.attempts[0].progress =
        Some(TaskProgress { fraction, message: Some("é".repeat(500)), data, at_ms: 3 });
    table.apply(&told, &rows(&[1]), NOW);
    table.apply(&events(false, &[(1, 1, Phase::Running)]), &rows(&[]), NOW);
    let progress = table.task(task(1), NOW).unwrap().progress.unwrap();
    assert_eq!((progress.fraction, progress.data), (Some(0.5), None), "the data is too large");
    assert_eq!(progress.message.unwrap(), "é".repeat(400), "a long message is cut");
}

#[test]
fn an_endpoint_that_is_not_heard_for_long_is_stale_by_the_services_clock() {
    let mut table = Attempts::default();
    let mut told = events(true, &[(1, 1, Phase::Running)]);
    told.load = Some(Load { slots: 4, ..Load::default() });
    table.apply(&told, &rows(&[1]), NOW);
    let at = |now| (table.task(task(1), now).unwrap().stale, table.load(endpoint(), now).unwrap());
    let (stale, load) = at(NOW + STALE_AFTER_MS);
    assert_eq!((stale, load.stale, load.load.slots, load.clock_ahead_ms), (false, false, 4, 100));
    let (stale, load) = at(NOW + STALE_AFTER_MS + 1);
    assert!(stale && load.stale);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let mut table = Attempts { bytes: MAX_BYTES - TASK_BYTES, ..Attempts::default() };
    table.apply(
        &events(false, &[(1, 1, Phase::Running), (2, 1, Phase::Running)]),
        &rows(&[1, 2]),
        NOW,
    );
    assert_eq!((table.phase(task(1)), table.phase(task(2))), (Some(Phase::Running), None));
    // A task that is known makes room for itself.
    table.apply(&events(false, &[(1, 1, Phase::Accepted)]), &rows(&[]), NOW);
    assert_eq!(table.phase(task(1)), Some(Phase::Accepted));
}
