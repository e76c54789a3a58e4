//! The disk queue against a model, and against damage.

use super::record::{self, Space};
use super::store::Writes;
use super::*;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::result::Outcome;
use clutch_common::task::{Process, Task};
use clutch_common::wire;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;
use uuid::Uuid;

mod copying;
mod dying;
mod looking;
mod sharing;
mod spooling;

/// A payload that does not fit into a record.
const LARGE: usize = record::INLINE_MAX + 1;

fn options(path: &Path, seen_max: usize) -> Options {
    Options { path: path.to_owned(), endpoint_id: EndpointId(Uuid::nil()), seen_max }
}

fn open(folder: &TempDir) -> (DiskQueue, Vec<Accepted>) {
    DiskQueue::open(&options(folder.path(), 1000)).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn task(len: usize) -> Arc<Task> {
    let argv = vec!["x".repeat(len)];
    Arc::new(Task::new(
        TaskId::new(),
        Process { argv: argv.into_iter().map(Into::into).collect(), ..Process::default() },
    ))
}

fn finish(inbox: Option<u64>, out: u64, attempt: Attempt, len: usize) -> Change {
    let result = Arc::new(Finished { attempt, bytes: vec![b'r'; len] });
    Change::Finish { inbox: inbox.map(Seq), out: OutSeq(out), result }
}

fn accept(seq: u64, task: &Arc<Task>) -> Change {
    Change::Accept { seq: Seq(seq), task: task.clone(), secured: true }
}

fn accept_unsecured(seq: u64, task: &Arc<Task>) -> Change {
    Change::Accept { seq: Seq(seq), task: task.clone(), secured: false }
}

fn names(folder: &TempDir) -> Vec<String> {
    let files = std::fs::read_dir(folder.path().join("spool")).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The spool files that records refer to.
fn needed(queue: &DiskQueue) -> Vec<String> {
    let found = [Space::Inbox, Space::Outbox].map(|space| queue.records.members(space, 0).unwrap());
    let files: BTreeSet<u64> =
        found.into_iter().flatten().filter_map(|one| one.unwrap().ok()?.file()).collect();
    files.iter().map(|file| format!("{file:016x}")).collect()
}

/// Changes one byte in the middle of the value of the only record in `space`.
fn damage(queue: &DiskQueue, space: Space) {
    let records: Vec<_> = queue.records.scan(space, &[space as u8]).collect();
    let [Ok((key, value))] = &records[..] else { panic!("{} records", records.len()) };
    let mut value = value.clone();
    let middle = value.len() / 2;
    value[middle] ^= 0x40;
    let mut writes = Writes::default();
    writes.put_raw(key, value);
    queue.records.commit(writes).unwrap();
}

fn only_result(queue: &mut DiskQueue) -> (OutboxRecord, clutch_common::task::result::TaskResult) {
    let mut records = queue.outbox(OutSeq(0), 10, usize::MAX).unwrap();
    assert_eq!(records.len(), 1);
    let record = records.remove(0);
    let result = wire::decode_result(&record.bytes).unwrap();
    assert_eq!(result.attempt(), record.attempt);
    (record, result)
}

/// The content that the queue must have.
#[derive(Default)]
struct Model {
    /// Each with whether it was started, and whether it is secured.
    inbox: BTreeMap<u64, (Arc<Task>, bool, bool)>,
    outbox: BTreeMap<u64, (Attempt, usize)>,
    seen: BTreeMap<TaskId, u32>,
    next: (u64, u64),
}

#[derive(Clone, Debug)]
enum Action {
    Accept { large: bool, secured: bool },
    Secure { which: prop::sample::Index },
    Start { which: prop::sample::Index },
    Finish { which: prop::sample::Index, large: bool },
    FinishUnknown,
    HandBack { which: prop::sample::Index },
    Release { which: prop::sample::Index },
    Commit,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (prop::bool::weighted(0.3), any::<bool>())
            .prop_map(|(large, secured)| Action::Accept { large, secured }),
        2 => any::<prop::sample::Index>().prop_map(|which| Action::Secure { which }),
        2 => any::<prop::sample::Index>().prop_map(|which| Action::Start { which }),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.3))
            .prop_map(|(which, large)| Action::Finish { which, large }),
        1 => Just(Action::FinishUnknown),
        1 => any::<prop::sample::Index>().prop_map(|which| Action::HandBack { which }),
        3 => any::<prop::sample::Index>().prop_map(|which| Action::Release { which }),
        4 => Just(Action::Commit),
        1 => Just(Action::Reopen),
    ]
}

fn pick<V>(map: &BTreeMap<u64, V>, which: prop::sample::Index) -> Option<u64> {
    let keys: Vec<u64> = map.keys().copied().collect();
    (!keys.is_empty()).then(|| keys[which.index(keys.len())])
}

impl Model {
    /// Applies an action, and says what change it is to the queue.
    fn step(&mut self, action: &Action) -> Option<Change> {
        match action {
            Action::Accept { large, secured } => {
                let task = task(if *large { LARGE } else { 10 });
                let seq = self.next.0;
                self.next.0 += 1;
                self.seen.insert(task.id, 1);
                self.inbox.insert(seq, (task.clone(), false, *secured));
                let change = if *secured { accept } else { accept_unsecured };
                Some(change(seq, &task))
            }
            Action::Secure { which } => {
                let seq = pick(&self.inbox, *which)?;
                self.inbox.get_mut(&seq)?.2 = true;
                Some(Change::Secure { seq: Seq(seq) })
            }
            Action::Start { which } => {
                let seq = pick(&self.inbox, *which)?;
                self.inbox.get_mut(&seq)?.1 = true;
                Some(Change::Start { seq: Seq(seq) })
            }
            Action::Finish { which, large } => {
                let seq = pick(&self.inbox, *which)?;
                let (task, ..) = self.inbox.remove(&seq)?;
                Some(self.finish(Some(seq), task.attempt(), if *large { LARGE } else { 10 }))
            }
            Action::FinishUnknown => {
                let attempt = Attempt { task_id: TaskId::new(), attempt: 3 };
                Some(self.finish(None, attempt, 10))
            }
            Action::HandBack { which } => {
                let seq = pick(&self.inbox, *which)?;
                let (task, ..) = self.inbox.remove(&seq)?;
                let finish = self.finish(None, task.attempt(), 10);
                self.seen.remove(&task.id);
                let Change::Finish { out, result, .. } = finish else { return None };
                Some(Change::HandBack { inbox: Seq(seq), before: None, out, result })
            }
            Action::Release { which } => {
                let out = pick(&self.outbox, *which)?;
                self.outbox.remove(&out);
                Some(Change::Release { out: OutSeq(out) })
            }
            Action::Commit | Action::Reopen => None,
        }
    }

    fn finish(&mut self, inbox: Option<u64>, attempt: Attempt, len: usize) -> Change {
        let out = self.next.1;
        self.next.1 += 1;
        self.seen.insert(attempt.task_id, attempt.attempt);
        self.outbox.insert(out, (attempt, len));
        finish(inbox, out, attempt, len)
    }

    fn check(&self, queue: &mut DiskQueue, tasks: Option<&[Accepted]>) {
        let outbox: BTreeMap<u64, (Attempt, usize)> = queue
            .outbox(OutSeq(0), usize::MAX, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|record| (record.seq.0, (record.attempt, record.bytes.len())))
            .collect();
        assert_eq!(outbox, self.outbox);
        assert_eq!(queue.waiting(), self.outbox.len() as u64);
        assert_eq!(queue.next_numbers(), (Seq(self.next.0), OutSeq(self.next.1)));
        for (task, attempt) in &self.seen {
            assert_eq!(queue.seen().highest(*task).unwrap(), Some(*attempt));
        }
        for (attempt, _) in self.outbox.values() {
            let seen = self.seen.get(&attempt.task_id).copied();
            assert_eq!(queue.seen().highest(attempt.task_id).unwrap(), seen);
        }
        assert_eq!(queue.seen().highest(TaskId::new()).unwrap(), None);
        let Some(tasks) = tasks else { return };
        let found = tasks.iter().map(|t| (t.seq.0, &t.task, t.started, t.unsecured.is_none()));
        let found: Vec<_> = found.collect();
        let kept = self.inbox.iter();
        let expected: Vec<_> = kept.map(|(seq, (task, a, b))| (*seq, &**task, *a, *b)).collect();
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_its_model(actions in prop::collection::vec(action(), 1..120)) {
        let folder = folder();
        let (mut queue, _) = open(&folder);
        let mut model = Model::default();
        let mut changes = Vec::new();
        for action in actions {
            let change = model.step(&action);
            if let Some(Change::Accept { task, .. }) = &change {
                queue.seen().note(task.attempt());
            } else if let Some(Change::HandBack { result, .. }) = &change {
                queue.seen().forget(result.attempt, None);
            }
            changes.extend(change);
            if matches!(action, Action::Commit | Action::Reopen) {
                queue.apply(&changes).unwrap();
                changes.clear();
                model.check(&mut queue, None);
            }
            if matches!(action, Action::Reopen) {
                drop(queue);
                let (again, tasks) = open(&folder);
                queue = again;
                model.check(&mut queue, Some(&tasks));
            }
        }
        queue.apply(&changes).unwrap();
        prop_assert_eq!(names(&folder), needed(&queue));
    }
}

#[test]
fn what_begins_and_ends_in_one_group_leaves_only_the_memory_of_it() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let task = task(LARGE);
    let out = OutSeq(0);
    queue
        .apply(&[
            accept(0, &task),
            Change::Start { seq: Seq(0) },
            finish(Some(0), 0, task.attempt(), LARGE),
            Change::Release { out },
        ])
        .unwrap();
    for space in [Space::Inbox, Space::Outbox, Space::Started] {
        assert!(queue.records.scan(space, &[space as u8]).next().is_none());
    }
    assert!(names(&folder).is_empty());
    drop(queue);
    let (queue, tasks) = open(&folder);
    assert!(tasks.is_empty());
    assert_eq!(queue.seen().highest(task.id).unwrap(), Some(1));
    assert_eq!(queue.next_numbers(), (Seq(1), OutSeq(1)), "names are never used again");
}

#[test]
fn the_last_finished_are_remembered_and_older_ones_forgotten() {
    let (folder, keep, all) = (folder(), 80, 400);
    let options = options(folder.path(), keep);
    let (mut queue, _) = DiskQueue::open(&options).unwrap();
    let finished: Vec<Attempt> =
        (0..all).map(|_| Attempt { task_id: TaskId::new(), attempt: 2 }).collect();
    for (number, group) in finished.chunks(7).enumerate() {
        let first = number as u64 * 7;
        let changes: Vec<Change> =
            (first..).zip(group).map(|(out, attempt)| finish(None, out, *attempt, 1)).collect();
        queue.apply(&changes).unwrap();
    }
    for reopened in [false, true] {
        if reopened {
            drop(queue);
            queue = DiskQueue::open(&options).unwrap().0;
        }
        let known: Vec<bool> = finished
            .iter()
            .map(|attempt| queue.seen().highest(attempt.task_id).unwrap().is_some())
            .collect();
        let forgotten = known.iter().take_while(|known| !**known).count();
        assert!(known[forgotten..].iter().all(|known| *known), "the oldest go first");
        assert!((keep..=keep * 5 / 4).contains(&(all - forgotten)), "{forgotten} forgotten");
    }
}

#[test]
fn a_damaged_inbox_record_becomes_a_rejected_result() {
    for len in [10, LARGE] {
        let folder = folder();
        let (mut queue, _) = open(&folder);
        let task = task(len);
        queue.apply(&[accept(0, &task), Change::Start { seq: Seq(0) }]).unwrap();
        damage(&queue, Space::Inbox);
        drop(queue);
        let (mut queue, tasks) = open(&folder);
        assert!(tasks.is_empty());
        let (record, result) = only_result(&mut queue);
        assert_eq!((result.task_id, result.outcome), (task.id, Outcome::Rejected));
        assert!(result.reason.unwrap().contains("submit it again"));
        assert_eq!(result.state_id, Some(queue.state_id()));
        assert_eq!(queue.seen().highest(task.id).unwrap(), Some(1));
        assert!(queue.records.scan(Space::Quarantine, b"q").next().is_some());
        queue.apply(&[Change::Release { out: record.seq }]).unwrap();
        drop(queue);
        let (mut queue, tasks) = open(&folder);
        assert!(tasks.is_empty() && queue.outbox(OutSeq(0), 1, 1).unwrap().is_empty());
    }
}

#[test]
fn a_damaged_result_becomes_an_interrupted_one_in_its_place() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let attempt = Attempt { task_id: TaskId::new(), attempt: 4 };
    queue.apply(&[finish(None, 9, attempt, 100)]).unwrap();
    damage(&queue, Space::Outbox);
    let (record, result) = only_result(&mut queue);
    assert_eq!((record.seq, record.attempt), (OutSeq(9), attempt));
    assert_eq!(result.outcome, Outcome::Interrupted);
    drop(queue);
    let (mut queue, _) = open(&folder);
    assert_eq!(only_result(&mut queue), (record, result), "it is told once");
}

#[test]
fn a_lost_or_torn_spool_file_is_told_by_a_result() {
    let tear = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let lose = |path: &Path| std::fs::remove_file(path).unwrap();
    for (torn, words) in [(true, "was cut"), (false, "missing")] {
        let folder = folder();
        let (mut queue, _) = open(&folder);
        let (lost, task) = (Attempt { task_id: TaskId::new(), attempt: 1 }, task(LARGE));
        queue.apply(&[accept(0, &task), finish(None, 0, lost, LARGE)]).unwrap();
        drop(queue);
        for name in names(&folder) {
            let file = folder.path().join("spool").join(name);
            if torn { tear(&file) } else { lose(&file) }
        }
        let (mut queue, tasks) = open(&folder);
        assert!(tasks.is_empty());
        let records = queue.outbox(OutSeq(0), 10, usize::MAX).unwrap();
        let results: Vec<_> =
            records.iter().map(|record| wire::decode_result(&record.bytes).unwrap()).collect();
        let outcomes: Vec<_> = results.iter().map(|result| result.outcome).collect();
        assert_eq!(outcomes, [Outcome::Interrupted, Outcome::Rejected]);
        assert_eq!([results[0].task_id, results[1].task_id], [lost.task_id, task.id]);
        assert!(results.iter().all(|result| result.reason.as_ref().unwrap().contains(words)));
    }
}

#[test]
fn reading_the_outbox_is_bounded_but_never_stuck() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let changes: Vec<Change> = (0..5)
        .map(|out| finish(None, out, Attempt { task_id: TaskId::new(), attempt: 1 }, 100))
        .collect();
    queue.apply(&changes).unwrap();
    let mut read = |from: u64, max, max_bytes| -> Vec<u64> {
        let records = queue.outbox(OutSeq(from), max, max_bytes).unwrap();
        records.iter().map(|record| record.seq.0).collect()
    };
    assert_eq!(read(0, 2, 1000), [0, 1]);
    assert_eq!(read(2, 10, 250), [2, 3]);
    assert_eq!(read(4, 10, 1), [4]);
    assert!(read(5, 10, 1000).is_empty());
    assert!(read(u64::MAX, 10, 1000).is_empty());
}

#[test]
fn damaged_counters_are_found_anew() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
    queue.apply(&[accept(6, &task(1)), finish(None, 9, attempt, 1)]).unwrap();
    damage(&queue, Space::Counters);
    drop(queue);
    let (queue, _) = open(&folder);
    assert_eq!(queue.next_numbers(), (Seq(7), OutSeq(10)));
    assert_eq!(queue.waiting(), 1);
}

#[test]
fn the_state_id_is_made_once() {
    let folder = folder();
    let first = open(&folder).0.state_id();
    assert_eq!(open(&folder).0.state_id(), first);
}

#[test]
fn another_format_is_refused_in_words() {
    let folder = folder();
    let (queue, _) = open(&folder);
    let mut writes = Writes::default();
    writes.put(&record::named(Space::Meta, "format"), &record::encode_numbers(&[7]));
    queue.records.commit(writes).unwrap();
    drop(queue);
    let Err(error) = DiskQueue::open(&options(folder.path(), 1)) else { panic!("it opened") };
    assert!(error.to_string().contains("has format 7, this build reads format 1"), "{error}");
}

#[test]
fn a_store_that_cannot_be_read_is_an_error_with_advice_and_not_a_panic() {
    let folder = folder();
    drop(open(&folder));
    std::fs::write(folder.path().join("queue/conf"), "segment_size: many\nxxxxxxxx").unwrap();
    let Err(error) = DiskQueue::open(&options(folder.path(), 1)) else { panic!("it opened") };
    assert!(error.to_string().contains("move the folder aside"), "{error}");
}

#[test]
fn a_store_that_lost_its_last_commits_is_refused_and_not_silently_shorter() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    queue.apply(&[accept(0, &task(1))]).unwrap();
    queue.apply(&[accept(1, &task(1))]).unwrap();
    // As if the store had come back as it was one commit ago.
    let before =
        super::queue::Counters { seq: 1, commits: queue.counters.commits - 1, ..queue.counters };
    let mut writes = Writes::default();
    writes.put(&[Space::Counters as u8], &before.encode());
    queue.records.commit(writes).unwrap();
    drop(queue);
    let Err(error) = DiskQueue::open(&options(folder.path(), 1)) else { panic!("it opened") };
    assert!(error.to_string().contains("its last 1 commits are missing"), "{error}");
}

#[test]
fn a_folder_of_another_endpoint_is_refused_by_its_name() {
    let folder = folder();
    let ours = options(folder.path(), 100);
    drop(DiskQueue::open(&ours).unwrap());
    let theirs = Options { endpoint_id: EndpointId::new(), ..ours.clone() };
    let error = DiskQueue::open(&theirs).err().unwrap();
    assert!(error.to_string().contains(&ours.endpoint_id.to_string()), "{error}");
    DiskQueue::open(&ours).unwrap();
}

#[test]
fn a_task_that_is_not_secured_is_found_with_what_was_known_before_it() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let (new, later) = (task(10), task(10));
    let later = Arc::new(Task { attempt: 3, ..Task::clone(&later) });
    let earlier = Attempt { attempt: 2, ..later.attempt() };
    let changes =
        [finish(None, 0, earlier, 10), accept_unsecured(0, &new), accept_unsecured(1, &later)];
    queue.apply(&changes).unwrap();
    drop(queue);
    let (mut queue, tasks) = open(&folder);
    let unsecured: Vec<_> = tasks.iter().map(|task| task.unsecured).collect();
    assert_eq!(unsecured, [None, Some(2)].map(|before| Some(Unsecured { before })));
    queue.apply(&[Change::Secure { seq: Seq(1) }, finish(Some(0), 1, new.attempt(), 10)]).unwrap();
    assert!(queue.records.scan(Space::Unsecured, &[Space::Unsecured as u8]).next().is_none());
    drop(queue);
    assert_eq!(open(&folder).1.iter().map(|task| task.unsecured).collect::<Vec<_>>(), [None]);
}
