//! The events of each tick.

use super::*;
use clutch_common::id::TaskId;

fn attempt() -> Attempt {
    Attempt { task_id: TaskId::new(), attempt: 1 }
}

fn run(attempt: Attempt, started_at_ms: u64) -> NotedRun {
    NotedRun { attempt, started_at_ms, accepted_at_ms: Some(started_at_ms) }
}

fn waiting(seq: u64, accepted_at_ms: u64) -> WaitingTask {
    let accepted_at_ms = Some(accepted_at_ms);
    WaitingTask { seq: Seq(seq), attempt: attempt(), accepted_at_ms, waits_for: None }
}

fn progress(at_ms: u64) -> TaskProgress {
    TaskProgress { fraction: Some(0.5), message: None, data: None, at_ms }
}

fn load(running: u64) -> Load {
    Load { slots: 4, running, ..Load::default() }
}

/// Every message of a tick, in short.
fn tick(gatherer: &mut Gatherer, now_ms: u64, seen: Seen) -> Vec<(bool, Vec<(Attempt, Phase)>)> {
    gatherer.gather(now_ms, seen);
    let all = std::iter::from_fn(|| gatherer.next());
    let short = |told: NextEvents| {
        let attempts = told.attempts.iter().map(|event| (event.attempt, event.phase)).collect();
        (told.complete, attempts)
    };
    all.map(short).collect()
}

fn seen(running: &[NotedRun], waiting: &[WaitingTask]) -> Seen {
    let (running, waiting) = (running.to_vec(), waiting.to_vec());
    Seen { load: load(running.len() as u64), running, waiting, ..Seen::default() }
}

#[test]
fn an_attempt_is_told_once_it_is_a_second_in_a_phase_and_once_only() {
    let mut gatherer = Gatherer::default();
    let (one, two) = (run(attempt(), 10_000), waiting(7, 10_500));
    let (first, second) = (one.attempt, two.attempt);
    let at = |gatherer: &mut Gatherer, now, running: &[NotedRun], waiting: &[WaitingTask]| {
        tick(gatherer, now, seen(running, waiting))
    };
    let (running, waits) = (&[one][..], &[two][..]);
    assert_eq!(at(&mut gatherer, 10_900, running, waits), [(true, vec![])]);
    let told = at(&mut gatherer, 11_000, running, waits);
    assert_eq!(told, [(false, vec![(first, Phase::Running)])]);
    let told = at(&mut gatherer, 11_900, running, waits);
    assert_eq!(told, [(false, vec![(second, Phase::Accepted)])]);
    assert_eq!(gatherer.next_waiting(12_000), Seq(8));
    assert_eq!(at(&mut gatherer, 12_900, running, &[]), []);
    let both = [running[0], run(second, 12_800)];
    assert_eq!(at(&mut gatherer, 13_000, &both, &[]), [(false, vec![])], "the load");
    let told = at(&mut gatherer, 13_900, &both, &[]);
    assert_eq!(told, [(false, vec![(second, Phase::Running)])]);
}

#[test]
fn an_attempt_that_has_a_slot_and_is_not_started_is_told_as_accepted_until_it_runs() {
    let mut gatherer = Gatherer::default();
    let (starts, quick) = (waiting(3, 9000), waiting(4, 9000));
    let attempt = starts.attempt;
    let with = |slotted: &[&WaitingTask], running: &[NotedRun]| Seen {
        slotted: slotted.iter().map(|one| (*one).clone()).collect(),
        load: load(1),
        running: running.to_vec(),
        ..Seen::default()
    };
    assert_eq!(tick(&mut gatherer, 10_000, with(&[&starts, &quick], &[])), [(true, vec![])]);
    let accepted = [(false, vec![(attempt, Phase::Accepted)])];
    assert_eq!(tick(&mut gatherer, 11_000, with(&[&starts], &[])), accepted);
    assert_eq!(tick(&mut gatherer, 12_000, with(&[&starts], &[])), [], "it was told");
    let again = [(true, vec![(attempt, Phase::Accepted)])];
    assert_eq!(tick(&mut gatherer, 40_000, with(&[&starts], &[])), again);
    let runs = run(attempt, 40_500);
    assert_eq!(tick(&mut gatherer, 41_000, with(&[&starts], &[runs])), []);
    let running = [(false, vec![(attempt, Phase::Running)])];
    assert_eq!(tick(&mut gatherer, 42_000, with(&[&starts], &[runs])), running);
}

#[test]
fn new_progress_is_told_and_old_progress_is_not() {
    let mut gatherer = Gatherer::default();
    let one = run(attempt(), 10_000);
    let with =
        |at_ms| Seen { progress: [(one.attempt, progress(at_ms))].into(), ..seen(&[one], &[]) };
    tick(&mut gatherer, 11_000, seen(&[one], &[]));
    gatherer.gather(12_000, with(11_500));
    let told = gatherer.next().unwrap();
    assert_eq!(told.attempts[0].progress, Some(progress(11_500)));
    assert_eq!(tick(&mut gatherer, 13_000, with(11_500)), []);
    assert_eq!(tick(&mut gatherer, 14_000, with(13_500)).len(), 1);
}

#[test]
fn all_is_told_every_thirty_seconds_and_when_it_is_asked_for() {
    let mut gatherer = Gatherer::default();
    let (one, two) = (run(attempt(), 0), waiting(7, 0));
    let all = [(one.attempt, Phase::Running), (two.attempt, Phase::Accepted)];
    let complete = [(true, all.to_vec())];
    let at = |gatherer: &mut Gatherer, now| {
        tick(gatherer, now, seen(&[one], std::slice::from_ref(&two)))
    };
    assert_eq!(at(&mut gatherer, 10_000), complete);
    assert_eq!(gatherer.next_waiting(39_999), Seq(8));
    assert_eq!(gatherer.next_waiting(40_000), Seq(0));
    assert_eq!(tick(&mut gatherer, 39_999, seen(&[one], &[])), []);
    assert_eq!(at(&mut gatherer, 40_000), complete);
    gatherer.ask_complete();
    assert_eq!(at(&mut gatherer, 41_000), complete);
}

#[test]
fn no_message_names_more_than_a_thousand_attempts() {
    let mut gatherer = Gatherer::default();
    let many: Vec<WaitingTask> = (0..2500).map(|seq| waiting(seq, 0)).collect();
    let told = tick(&mut gatherer, 5_000, seen(&[], &many));
    let sizes: Vec<_> = told.iter().map(|(complete, some)| (*complete, some.len())).collect();
    assert_eq!(sizes, [(true, 1000), (false, 1000), (false, 500)]);
    gatherer.ask_complete();
    gatherer.gather(6_000, seen(&[], &many));
    gatherer.next();
    assert!(!gatherer.is_drained(), "the rest waits for the next tick");
}

#[test]
fn that_nothing_is_pending_any_more_is_told_once() {
    let mut gatherer = Gatherer::default();
    tick(&mut gatherer, 5_000, seen(&[run(attempt(), 0)], &[]));
    gatherer.rest(load(0));
    assert_eq!(
        gatherer.next(),
        Some(NextEvents { complete: true, load: load(0), attempts: vec![] })
    );
    gatherer.rest(load(0));
    assert_eq!(gatherer.next(), None);
}

#[test]
fn sends_and_receives_are_told_once_they_are_a_second_old_and_again_when_they_end() {
    let mut gatherer = Gatherer::default();
    let one = run(attempt(), 1000);
    let wait = |since_ms| MessageWait {
        since_ms,
        addressees: vec!["in".to_owned()],
        to: None,
        from: None,
    };
    let mut told = |now_ms, waits: Vec<MessageWait>| {
        let waits = BTreeMap::from([(one.attempt, waits)]);
        gatherer.gather(now_ms, Seen { waits, ..seen(&[one], &[]) });
        let all = std::iter::from_fn(|| gatherer.next()).flat_map(|told| told.attempts);
        all.map(|event| event.waits).collect::<Vec<_>>()
    };
    assert_eq!(told(5000, vec![wait(4500)]), [vec![]], "it runs, and the wait is young");
    assert_eq!(told(5400, vec![wait(4500)]), Vec::<Vec<MessageWait>>::new());
    assert_eq!(told(5500, vec![wait(4500)]), [vec![wait(4500)]]);
    assert_eq!(told(6500, vec![wait(4500)]), Vec::<Vec<MessageWait>>::new());
    assert_eq!(told(7500, vec![]), [vec![]], "it is over");
}
