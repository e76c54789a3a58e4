//! Pending work against a model: whatever is accepted, taken, finished, handed back and
//! released in any order, the room, the order and the counts are those of a plain list, and
//! the changes for the disk are those of a queue that would lose nothing.

use super::*;
use clutch_common::id::{StateId, TaskId};
use clutch_common::task::Process;
use proptest::prelude::*;
use proptest::sample::Index;

const BOUND: usize = 8;

fn task() -> Arc<Task> {
    let process = Process { argv: vec!["true".into()], ..Process::default() };
    Arc::new(Task::new(TaskId::new(), process))
}

fn result(attempt: Attempt) -> Arc<Finished> {
    Arc::new(Finished { attempt, bytes: vec![0; 10] })
}

/// Pending work after `tasks` were accepted and `results` finished, released or not.
fn pending(tasks: u64, results: u64, undelivered: u64) -> Pending {
    let bounds = Bounds { max_tasks: BOUND, max_bytes: 1 << 20 };
    let mut found = Recovered::empty(StateId::new());
    (found.next_task, found.next_out, found.outbox) = (Seq(tasks), OutSeq(results), undelivered);
    Pending::restore(&mut found, Limits { bounds, poison_after: 3 })
}

#[derive(Clone, Debug)]
enum Action {
    Accept(usize),
    AcceptUnsecured(usize),
    Secure(usize),
    Take,
    Finish(Index),
    Reject,
    HandBack,
    HandBackAll,
    Confirm(Index),
    Shut,
    Open,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1..4usize).prop_map(Action::Accept),
        2 => (1..4usize).prop_map(Action::AcceptUnsecured),
        2 => (0..4usize).prop_map(Action::Secure),
        5 => Just(Action::Take),
        4 => any::<Index>().prop_map(Action::Finish),
        1 => Just(Action::Reject),
        1 => Just(Action::HandBack),
        1 => Just(Action::HandBackAll),
        4 => any::<Index>().prop_map(Action::Confirm),
        1 => Just(Action::Shut),
        2 => Just(Action::Open),
    ]
}

/// The same as lists, and what a disk has that makes all changes at once.
#[derive(Default)]
struct Model {
    shut: bool,
    unsecured: Vec<u64>,
    waiting: Vec<u64>,
    running: Vec<Held>,
    outbox: Vec<u64>,
    next: (u64, u64),
    disk: (Vec<u64>, Vec<u64>),
}

impl Model {
    fn step(&mut self, pending: &mut Pending, action: &Action) {
        let changes = match action {
            Action::Accept(count) => {
                let accepted = self.numbers(*count);
                self.waiting.extend(accepted);
                pending.accept((0..*count).map(|_| task()).collect(), 1, result).1
            }
            Action::AcceptUnsecured(count) => {
                let accepted = self.numbers(*count);
                self.unsecured.extend(accepted);
                pending.accept_unsecured((0..*count).map(|_| (None, task())).collect(), 1, result).1
            }
            Action::Secure(count) => {
                let count = (*count).min(self.unsecured.len());
                self.waiting.extend(self.unsecured.drain(..count));
                pending.secure(count)
            }
            Action::Take => {
                let held = pending.take();
                let expected =
                    (!self.shut && !self.waiting.is_empty()).then(|| self.waiting.remove(0));
                assert_eq!(held.as_ref().map(|held| held.seq.0), expected);
                self.running.extend(held);
                vec![]
            }
            Action::Finish(which) => {
                if self.running.is_empty() {
                    return;
                }
                let held = self.running.remove(which.index(self.running.len()));
                self.finish(pending, Some(&held))
            }
            Action::Reject => self.finish(pending, None),
            Action::HandBackAll if !self.running.is_empty() => return,
            Action::HandBack | Action::HandBackAll => {
                if matches!(action, Action::HandBackAll) {
                    pending.unsecure_waiting();
                    self.unsecured.append(&mut self.waiting);
                }
                let (outs, changes) = pending.hand_back(result);
                let count = self.unsecured.drain(..).count() as u64;
                assert_eq!(
                    outs,
                    (self.next.1..self.next.1 + count).map(OutSeq).collect::<Vec<_>>()
                );
                self.outbox.extend(outs.iter().map(|out| out.0));
                self.next.1 += count;
                changes
            }
            Action::Confirm(which) => {
                if self.outbox.is_empty() {
                    return;
                }
                let out = OutSeq(self.outbox.remove(which.index(self.outbox.len())));
                pending.release(&[out])
            }
            Action::Shut => {
                self.shut = true;
                pending.shut();
                vec![]
            }
            Action::Open => {
                self.shut = false;
                pending.open();
                vec![]
            }
        };
        self.write(changes);
    }

    fn numbers(&mut self, count: usize) -> std::ops::Range<u64> {
        let first = self.next.0;
        self.next.0 += count as u64;
        first..self.next.0
    }

    fn finish(&mut self, pending: &mut Pending, held: Option<&Held>) -> Vec<Change> {
        let attempt = held.map_or_else(|| task().attempt(), |held| held.task.attempt());
        let (out, change) = pending.finish(held, result(attempt));
        assert_eq!(out, OutSeq(self.next.1), "numbers are given in order");
        self.outbox.push(out.0);
        self.next.1 += 1;
        vec![change]
    }

    fn write(&mut self, changes: Vec<Change>) {
        let (inbox, outbox) = &mut self.disk;
        for change in changes {
            match change {
                Change::Accept { seq, .. } => inbox.push(seq.0),
                Change::Secure { seq } | Change::Start { seq } => assert!(inbox.contains(&seq.0)),
                Change::Finish { inbox: seq, out, .. } => {
                    inbox.retain(|there| Some(Seq(*there)) != seq);
                    outbox.push(out.0);
                }
                Change::HandBack { inbox: seq, out, .. } => {
                    inbox.retain(|there| *there != seq.0);
                    outbox.push(out.0);
                }
                Change::Release { out } => outbox.retain(|there| *there != out.0),
            }
        }
    }

    fn check(&self, pending: &mut Pending) {
        let tasks = self.unsecured.len() + self.waiting.len() + self.running.len();
        assert_eq!(pending.tasks(), tasks);
        assert_eq!(pending.room(), BOUND.saturating_sub(tasks));
        assert_eq!(pending.waiting(), self.waiting.len());
        assert_eq!(pending.has_unsecured(), !self.unsecured.is_empty());
        assert_eq!(pending.holds_back(), self.shut && !self.waiting.is_empty());
        assert_eq!(pending.undelivered(), self.outbox.len() as u64);
        let running = self.running.iter().map(|held| held.seq.0);
        let mut inbox: Vec<u64> =
            self.unsecured.iter().chain(&self.waiting).copied().chain(running).collect();
        inbox.sort_unstable();
        assert_eq!((&inbox, &self.outbox), (&self.disk.0, &self.disk.1), "disk and memory part");
        let mut found = Vec::new();
        let mut from = OutSeq(0);
        loop {
            match pending.results(from, 3, usize::MAX) {
                Next::Fresh(results) => {
                    found.extend(results.iter().map(|(seq, _)| seq.0));
                    from = OutSeq(found[found.len() - 1] + 1);
                }
                // All that this disk has is in memory as well.
                Next::Disk(next) => from = next,
                Next::None => break,
            }
        }
        assert_eq!(found, self.outbox);
    }
}

proptest! {
    #[test]
    fn pending_work_is_its_model(actions in prop::collection::vec(action(), 1..80)) {
        let mut pending = pending(0, 0, 0);
        let mut model = Model::default();
        for action in &actions {
            let before = (model.waiting.len(), model.outbox.len(), pending.room());
            model.step(&mut pending, action);
            model.check(&mut pending);
            let wakes = pending.take_wakes();
            let more = model.waiting.len() > before.0 || matches!(action, Action::Open);
            prop_assert!(wakes.engine || !more || model.waiting.is_empty() || model.shut || before.0 > 0);
            prop_assert!(wakes.publisher || model.outbox.len() <= before.1);
            prop_assert!(wakes.subscriber || pending.room() <= before.2);
        }
    }
}

#[test]
fn a_result_that_was_released_is_not_sent_though_the_disk_has_it() {
    let mut pending = pending(0, 5, 5);
    pending.release(&[OutSeq(1), OutSeq(3)]);
    pending.release(&[OutSeq(3)]);
    assert_eq!(pending.undelivered(), 3);
    let record = |seq| {
        let attempt = task().attempt();
        OutboxRecord { seq: OutSeq(seq), attempt, bytes: Vec::new() }
    };
    let all = || (0..5).map(record).collect::<Vec<_>>();
    let seqs = |records: Vec<OutboxRecord>| records.iter().map(|r| r.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(pending.unreleased(OutSeq(0)..OutSeq(5), all())), [0, 2, 4]);
    pending.released(&[OutSeq(1), OutSeq(3)]);
    assert_eq!(seqs(pending.unreleased(OutSeq(0)..OutSeq(5), all())), [0, 1, 2, 3, 4]);
}

#[test]
fn a_task_that_was_started_and_must_not_run_again_is_under_no_suspicion() {
    let mut found = Recovered::empty(StateId::new());
    for (seq, rerun, started) in [(0, false, true), (1, true, true)] {
        let task = Task { rerun, ..Task::clone(&task()) };
        found.deaths.insert(task.attempt(), Deaths { count: 2, last_started_at_ms: 0 });
        found.tasks.push(Accepted { seq: Seq(seq), task, started, unsecured: None });
    }
    let bounds = Bounds { max_tasks: BOUND, max_bytes: 1 << 20 };
    let mut pending = Pending::restore(&mut found, Limits { bounds, poison_after: 3 });
    let standings: Vec<_> =
        std::iter::from_fn(|| pending.take()).map(|held| held.standing).collect();
    assert_eq!(standings, [Standing::Clear, Standing::LastChance]);
}
