//! Tasks and results share records: they go one by one, are damaged, and read again by
//! the next start, as if each lay alone.

use super::*;
use crate::storage::disk_queue::record::{Key, MEMBERS_MAX};
use crate::storage::disk_queue::spill_policy::MANY_RESULTS;

/// How many results a group has.
const GROUP: u64 = 500;
/// How large a result is, in bytes: a group of them is worth a file.
const LEN: usize = 100;

/// A queue in which `groups` groups have gathered, and their attempts; as many
/// results as make others gather lie before them.
fn gathered(folder: &TempDir, groups: u64) -> (DiskQueue, Vec<Attempt>) {
    let (mut queue, _) = open(folder);
    let attempts: Vec<Attempt> = (0..MANY_RESULTS + groups * GROUP)
        .map(|_| Attempt { task_id: TaskId::new(), attempt: 1 })
        .collect();
    let results: Vec<Change> =
        (0..).zip(&attempts).map(|(out, attempt)| finish(None, out, *attempt, LEN)).collect();
    for group in results.chunks(GROUP as usize) {
        queue.apply(group).unwrap();
    }
    (queue, attempts)
}

fn release(queue: &mut DiskQueue, outs: impl Iterator<Item = u64>) {
    let changes: Vec<Change> = outs.map(|out| Change::Release { out: OutSeq(out) }).collect();
    queue.apply(&changes).unwrap();
}

/// The names of all results from `from` on.
fn all(queue: &mut DiskQueue, from: u64) -> Vec<u64> {
    let records = queue.outbox(OutSeq(from), usize::MAX, usize::MAX).unwrap();
    records.iter().map(|record| record.seq.0).collect()
}

/// The keys of the records of a kind, and how many each holds.
fn records(queue: &DiskQueue, space: Space) -> Vec<(Vec<u8>, usize)> {
    let entries = queue.records.scan(space, &[space as u8]).map(Result::unwrap);
    entries.map(|(raw, _)| (raw.clone(), Key::decode(&raw).unwrap().members.len())).collect()
}

/// How many records the results that gathered have.
fn gathered_records(queue: &DiskQueue) -> usize {
    let start = record::numbered(Space::Outbox, MANY_RESULTS);
    queue.records.scan(Space::Outbox, &start).count()
}

fn spoil(queue: &DiskQueue, key: &[u8]) {
    let mut value = queue.records.get(key).unwrap().unwrap();
    value[9] ^= 0x40;
    let mut writes = Writes::default();
    writes.put_raw(key, value);
    queue.records.commit(writes).unwrap();
}

#[test]
fn results_that_gather_share_records_and_are_read_in_order() {
    let folder = folder();
    let (mut queue, attempts) = gathered(&folder, 2);
    assert_eq!(gathered_records(&queue), 2 * (GROUP as usize).div_ceil(MEMBERS_MAX));
    let total = MANY_RESULTS + 2 * GROUP;
    for from in [
        0,
        MANY_RESULTS - 1,
        MANY_RESULTS,
        MANY_RESULTS + 5,
        MANY_RESULTS + GROUP - 1,
        total - 1,
        total,
    ] {
        let records = queue.outbox(OutSeq(from), 40, usize::MAX).unwrap();
        let names: Vec<u64> = records.iter().map(|record| record.seq.0).collect();
        assert_eq!(names, (from..total.min(from + 40)).collect::<Vec<u64>>());
        for record in records {
            let attempt = attempts[usize::try_from(record.seq.0).unwrap()];
            assert_eq!((record.attempt, record.bytes), (attempt, vec![b'r'; LEN]));
        }
    }
}

#[test]
fn what_is_released_out_of_a_record_is_gone_after_the_next_start_and_nothing_else_is() {
    let folder = folder();
    let (mut queue, _) = gathered(&folder, 1);
    let total = MANY_RESULTS + GROUP;
    let gone: BTreeSet<u64> = (MANY_RESULTS..total).filter(|out| out % 3 == 0).collect();
    release(&mut queue, gone.iter().copied());
    release(&mut queue, gone.iter().copied().chain([total + 7]));
    let left: Vec<u64> = (MANY_RESULTS..total).filter(|out| !gone.contains(out)).collect();
    for _ in 0..2 {
        assert_eq!(all(&mut queue, MANY_RESULTS), left);
        assert_eq!(queue.waiting(), MANY_RESULTS + left.len() as u64);
        drop(queue);
        queue = open(&folder).0;
    }
    assert_eq!(needed(&queue).len(), 1);
    release(&mut queue, left.into_iter());
    assert_eq!(
        (gathered_records(&queue), needed(&queue).len(), queue.waiting()),
        (0, 0, MANY_RESULTS)
    );
}

#[test]
fn a_payload_damaged_in_a_file_is_told_in_its_place_and_hits_no_other() {
    let folder = folder();
    let (mut queue, attempts) = gathered(&folder, 1);
    let [name] = &needed(&queue)[..] else { panic!("one file for the group") };
    let file = folder.path().join("spool").join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    // The first of a record, two in the middle of one, and the last of all.
    let hit: BTreeSet<u64> = [0, 20, 22, GROUP - 1].into();
    for out in &hit {
        bytes[usize::try_from(*out).unwrap() * LEN + 3] = b'?';
    }
    std::fs::write(&file, bytes).unwrap();
    let names: Vec<u64> = (MANY_RESULTS..MANY_RESULTS + GROUP).collect();
    for _ in 0..2 {
        assert_eq!(all(&mut queue, MANY_RESULTS), names, "in order, and all");
        assert_eq!(queue.waiting(), MANY_RESULTS + GROUP);
        for record in queue.outbox(OutSeq(MANY_RESULTS), usize::MAX, usize::MAX).unwrap() {
            assert_eq!(record.attempt, attempts[usize::try_from(record.seq.0).unwrap()]);
            if hit.contains(&(record.seq.0 - MANY_RESULTS)) {
                let told = wire::decode_result(&record.bytes).unwrap();
                assert_eq!(told.outcome, Outcome::Interrupted);
            } else {
                assert_eq!(record.bytes, vec![b'r'; LEN]);
            }
        }
        drop(queue);
        queue = open(&folder).0;
    }
    release(&mut queue, names.into_iter());
    assert_eq!((gathered_records(&queue), queue.waiting()), (0, MANY_RESULTS));
}

#[test]
fn a_damaged_record_of_several_says_which_they_were() {
    let folder = folder();
    let (mut queue, attempts) = gathered(&folder, 1);
    let hit = records(&queue, Space::Outbox)
        .into_iter()
        .find(|(raw, _)| record::number(raw) == Some(MANY_RESULTS + MEMBERS_MAX as u64));
    spoil(&queue, &hit.unwrap().0);
    // Of one record that is damaged two are released before it is read.
    let lost: BTreeSet<u64> = (MANY_RESULTS + 18..MANY_RESULTS + 2 * MEMBERS_MAX as u64).collect();
    release(&mut queue, MANY_RESULTS + 16..MANY_RESULTS + 18);
    let mut names: Vec<u64> = (MANY_RESULTS..MANY_RESULTS + GROUP).collect();
    names.drain(16..18);
    for _ in 0..2 {
        assert_eq!(all(&mut queue, MANY_RESULTS), names, "in order, and all");
        assert_eq!(queue.waiting(), MANY_RESULTS + GROUP - 2);
        for record in queue.outbox(OutSeq(MANY_RESULTS), usize::MAX, usize::MAX).unwrap() {
            assert_eq!(record.attempt, attempts[usize::try_from(record.seq.0).unwrap()]);
            let told = wire::decode_result(&record.bytes).ok().map(|result| result.outcome);
            let expected = lost.contains(&record.seq.0).then_some(Outcome::Interrupted);
            assert_eq!(told, expected);
        }
        drop(queue);
        queue = open(&folder).0;
    }
    release(&mut queue, names.into_iter());
    assert_eq!((gathered_records(&queue), queue.waiting()), (0, MANY_RESULTS));
}

/// A queue with `count` small tasks that were accepted together, and the tasks.
fn accepted(folder: &TempDir, count: u64) -> (DiskQueue, Vec<Arc<Task>>) {
    let (mut queue, _) = open(folder);
    let tasks: Vec<Arc<Task>> = (0..count).map(|_| task(10)).collect();
    let changes: Vec<Change> = (0..).zip(&tasks).map(|(seq, task)| accept(seq, task)).collect();
    queue.apply(&changes).unwrap();
    (queue, tasks)
}

#[test]
fn small_tasks_and_results_of_a_commit_share_records_until_the_last_is_gone() {
    let folder = folder();
    let (mut queue, tasks) = accepted(&folder, 100);
    let held: Vec<usize> = records(&queue, Space::Inbox).iter().map(|record| record.1).collect();
    assert_eq!(held.iter().sum::<usize>(), 100);
    assert!(held.len() < 50 && held.iter().all(|held| *held <= MEMBERS_MAX), "{held:?}");
    let mut left: BTreeSet<u64> = (0..100).collect();
    let mut outs = 0..;
    for group in [&[3, 1, 50, 99][..], &[0, 2], &[51, 98]] {
        let changes = group.iter().map(|seq| {
            left.remove(seq);
            let attempt = tasks[usize::try_from(*seq).unwrap()].attempt();
            finish(Some(*seq), outs.next().unwrap(), attempt, 10)
        });
        queue.apply(&changes.collect::<Vec<_>>()).unwrap();
        drop(queue);
        let (again, found) = open(&folder);
        queue = again;
        let found: Vec<(u64, Attempt)> =
            found.iter().map(|found| (found.seq.0, found.task.attempt())).collect();
        let kept = left.iter().map(|seq| (*seq, tasks[usize::try_from(*seq).unwrap()].attempt()));
        assert_eq!(found, kept.collect::<Vec<_>>());
    }
    assert_eq!(records(&queue, Space::Outbox).iter().map(|r| r.1).collect::<Vec<_>>(), [4, 2, 2]);
    release(&mut queue, 0..8);
    let changes: Vec<Change> = left
        .iter()
        .map(|seq| {
            let attempt = tasks[usize::try_from(*seq).unwrap()].attempt();
            finish(Some(*seq), seq + 8, attempt, record::INLINE_MAX)
        })
        .collect();
    queue.apply(&changes).unwrap();
    assert!(records(&queue, Space::Inbox).is_empty());
    assert!(records(&queue, Space::Outbox).iter().all(|record| record.1 == 1), "none has room");
}

#[test]
fn a_damaged_record_of_several_tasks_makes_a_result_for_each() {
    let folder = folder();
    let (queue, tasks) = accepted(&folder, 20);
    let (raw, held) = records(&queue, Space::Inbox).remove(0);
    assert!(held > 1);
    spoil(&queue, &raw);
    drop(queue);
    let (mut queue, found) = open(&folder);
    assert_eq!(found.len(), 20 - held);
    assert_eq!(found[0].task.id, tasks[held].id);
    let results = queue.outbox(OutSeq(0), 100, usize::MAX).unwrap();
    let lost: Vec<Attempt> = results.iter().map(|result| result.attempt).collect();
    assert_eq!(lost, tasks[..held].iter().map(|task| task.attempt()).collect::<Vec<_>>());
    assert_eq!(queue.next_numbers().0, Seq(20));
}

#[test]
fn a_task_that_cannot_be_read_leaves_its_record_to_the_others() {
    let folder = folder();
    let (queue, tasks) = accepted(&folder, 3);
    let (raw, 3) = records(&queue, Space::Inbox).remove(0) else { panic!("one record") };
    let value = queue.records.get(&raw).unwrap().unwrap();
    let contents = record::split(record::unseal(&raw, &value).unwrap(), 3).unwrap();
    let content = record::join(&[contents[0], b"not a task", contents[2]]);
    let mut writes = Writes::default();
    writes.put(&raw, &content);
    queue.records.commit(writes).unwrap();
    drop(queue);
    for _ in 0..2 {
        let (mut queue, found) = open(&folder);
        let found: Vec<TaskId> = found.iter().map(|found| found.task.id).collect();
        assert_eq!(found, [tasks[0].id, tasks[2].id]);
        assert_eq!(only_result(&mut queue).1.task_id, tasks[1].id);
        assert_eq!(queue.records.scan(Space::Quarantine, b"q").count(), 1);
    }
}

#[test]
fn attempts_that_finish_one_by_one_share_records_until_a_run_is_full() {
    let folder = folder();
    // Of 1000 attempts to be kept, 125 are a run.
    let (mut queue, _) = open(&folder);
    let attempts: Vec<Attempt> =
        (0..150).map(|_| Attempt { task_id: TaskId::new(), attempt: 1 }).collect();
    for (out, attempt) in (0..).zip(&attempts) {
        let before = seen_records(&queue);
        let release = Change::Release { out: OutSeq(out) };
        queue.apply(&[finish(None, out, *attempt, 1), release]).unwrap();
        assert!(seen_records(&queue) <= before + 1);
        assert!(seen_records(&queue) <= 20, "{out}: {}", seen_records(&queue));
        if out % 10 == 3 {
            drop(queue);
            queue = open(&folder).0;
        }
    }
    assert_eq!(seen_records(&queue), 1 + 25_usize.div_ceil(8));
    let known = |attempt: &Attempt| queue.seen().highest(attempt.task_id).unwrap() == Some(1);
    assert!(attempts.iter().all(known));
}

fn seen_records(queue: &DiskQueue) -> usize {
    queue.records.scan(Space::Seen, &[Space::Seen as u8]).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever was put and taken in whatever groups, and whichever records are damaged
    /// then: each task that was pending is still there or has a result that says so, each
    /// result is there or told in its place, all in order, and nothing is left in the end.
    #[test]
    fn damage_to_any_records_is_told_for_each_that_they_hold(
        groups in prop::collection::vec(prop::collection::vec((0..3u8, any::<prop::sample::Index>()), 1..40), 1..8),
        hits in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let folder = folder();
        let (mut queue, _) = open(&folder);
        let mut model = Model::default();
        for group in groups {
            let mut changes = Vec::new();
            for (what, which) in group {
                let (secured, large) = (true, which.index(7) == 0);
                changes.extend(model.step(&match what {
                    0 => Action::Accept { large, secured },
                    1 => Action::Finish { which, large },
                    _ => Action::Release { which },
                }));
            }
            queue.apply(&changes).unwrap();
        }
        let mut lost = BTreeSet::new();
        for hit in hits {
            let all = [Space::Inbox, Space::Outbox].map(|space| records(&queue, space)).concat();
            if all.is_empty() {
                continue;
            }
            let raw = &all[hit.index(all.len())].0;
            let key = Key::decode(raw).unwrap();
            if lost.insert(key.members[0].attempt) {
                spoil(&queue, raw);
                lost.extend(key.members.iter().map(|member| member.attempt));
            }
        }
        drop(queue);
        let (mut queue, found) = open(&folder);
        let kept: Vec<u64> = found.iter().map(|task| task.seq.0).collect();
        let expected = model.inbox.iter().filter(|(_, task)| !lost.contains(&task.0.attempt()));
        prop_assert_eq!(kept, expected.map(|(seq, _)| *seq).collect::<Vec<_>>());
        let results = queue.outbox(OutSeq(0), usize::MAX, usize::MAX).unwrap();
        prop_assert!(results.is_sorted_by(|a, b| a.seq < b.seq));
        prop_assert_eq!(queue.waiting(), results.len() as u64);
        let pending = model.inbox.values().map(|task| task.0.attempt());
        let told = pending.filter(|attempt| lost.contains(attempt)).collect::<BTreeSet<_>>();
        let before = results.iter().take_while(|result| !told.contains(&result.attempt));
        let before: Vec<_> = before.map(|result| (result.seq.0, result.attempt)).collect();
        let kept = model.outbox.iter().map(|(seq, result)| (*seq, result.0));
        prop_assert_eq!(before, kept.collect::<Vec<_>>());
        prop_assert_eq!(results.len(), model.outbox.len() + told.len());
        for result in &results {
            let says = wire::decode_result(&result.bytes).is_ok();
            prop_assert_eq!(says, lost.contains(&result.attempt));
        }
        release(&mut queue, results.iter().map(|result| result.seq.0));
        prop_assert!(records(&queue, Space::Outbox).is_empty());
    }
}
