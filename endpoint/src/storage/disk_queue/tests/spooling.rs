//! Spool files as the queue shares, counts and removes them.

use super::*;
use crate::storage::disk_queue::history::RUN;
use crate::storage::disk_queue::sled_store::SEGMENT;
use crate::storage::disk_queue::spill_policy::MANY_RESULTS;

#[test]
fn damage_in_a_shared_file_hits_only_its_own_record() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let attempts = [(); 3].map(|()| Attempt { task_id: TaskId::new(), attempt: 1 });
    let changes: Vec<Change> =
        (0..).zip(attempts).map(|(out, attempt)| finish(None, out, attempt, LARGE)).collect();
    queue.apply(&changes).unwrap();
    let [name] = &names(&folder)[..] else { panic!("one file for the group") };
    let file = folder.path().join("spool").join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 3 * LARGE);
    bytes[LARGE] = b'?';
    std::fs::write(&file, bytes).unwrap();
    let records = queue.outbox(OutSeq(0), 10, usize::MAX).unwrap();
    assert_eq!(records[1].attempt, attempts[1]);
    let told = wire::decode_result(&records[1].bytes).unwrap();
    assert!(told.outcome == Outcome::Interrupted && told.reason.unwrap().contains(name));
    for sound in [&records[0], &records[2]] {
        assert_eq!(sound.bytes, vec![b'r'; LARGE]);
    }
    drop(queue);
    let (mut queue, _) = open(&folder);
    assert_eq!(queue.outbox(OutSeq(0), 10, usize::MAX).unwrap(), records);
    let release = Change::Release { out: OutSeq(0) };
    queue.apply(&[release.clone(), release]).unwrap();
    assert_eq!(queue.waiting(), 2);
    assert!(file.exists(), "the third is still in it");
    queue.apply(&[Change::Release { out: OutSeq(1) }, Change::Release { out: OutSeq(2) }]).unwrap();
    assert_eq!(names(&folder), [format!("{name}.damaged")]);
}

#[test]
fn a_group_shares_one_spool_file_that_goes_with_its_last_record() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let tasks = [(); 3].map(|()| task(LARGE));
    let accepted: Vec<_> = (0..).zip(&tasks).map(|(seq, task)| accept(seq, task)).collect();
    queue.apply(&accepted).unwrap();
    let first = names(&folder);
    assert_eq!(first.len(), 1);
    for (seq, last) in [(0, false), (2, false), (1, true)] {
        let task = &tasks[usize::try_from(seq).unwrap()];
        queue.apply(&[finish(Some(seq), seq, task.attempt(), 1)]).unwrap();
        assert_eq!(names(&folder).is_empty(), last);
        drop(queue);
        queue = open(&folder).0;
        assert_eq!(names(&folder).is_empty(), last, "counted anew");
    }
    for seq in [3, 4] {
        queue.apply(&[accept(seq, &task(LARGE))]).unwrap();
    }
    assert_eq!((names(&folder).len(), names(&folder)), (2, needed(&queue)));
}

#[test]
fn spool_files_that_nobody_refers_to_are_swept() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    queue.apply(&[accept(0, &task(LARGE))]).unwrap();
    drop(queue);
    let kept = names(&folder);
    for orphan in ["00000000000000ff", "0000000000000007", "0000000000000000.tmp", "what"] {
        std::fs::write(folder.path().join("spool").join(orphan), "x").unwrap();
    }
    let (_queue, tasks) = open(&folder);
    assert_eq!((tasks.len(), names(&folder)), (1, kept));
}

#[test]
fn churn_leaves_no_waste_and_no_unsynced_files_of_the_store() {
    for (groups, len) in [(200, record::INLINE_MAX), (20, 15_000)] {
        let (folder, live) = (folder(), 64);
        let (mut queue, _) = open(&folder);
        let tasks: Vec<_> = (0..groups * live).map(|_| task(len / 2)).collect();
        for (group, batch) in tasks.chunks(live).enumerate() {
            let first = (group * live) as u64;
            let accepted: Vec<_> =
                (first..).zip(batch).map(|(seq, task)| accept(seq, task)).collect();
            queue.apply(&accepted).unwrap();
            let finished: Vec<_> = (first..)
                .zip(batch)
                .map(|(seq, task)| finish(Some(seq), seq, task.attempt(), len))
                .collect();
            queue.apply(&finished).unwrap();
            assert_eq!(std::fs::read_dir(folder.path().join("queue/blobs")).unwrap().count(), 0);
            let released: Vec<_> =
                (first..).take(live).map(|out| Change::Release { out: OutSeq(out) }).collect();
            queue.apply(&released).unwrap();
            assert!(names(&folder).len() <= seen_runs(&queue), "only what is remembered is left");
        }
        let size = std::fs::metadata(folder.path().join("queue/db")).unwrap().len();
        // Inbox and outbox at once, twice that, and segments that wait to be reused.
        let bound = 2 * (2 * live * record::INLINE_MAX) as u64 + 12 * SEGMENT as u64;
        assert!(size < bound, "{size} bytes on disk, expected less than {bound}");
        let passed = (groups * live * len * 3 / 2) as u64;
        assert!(passed > 2 * bound, "the test must be able to fail");
    }
}

#[test]
fn where_results_gather_they_lie_in_files_that_go_with_them() {
    const GROUP: u64 = 500;
    let (folder, many) = (folder(), MANY_RESULTS + 4 * GROUP);
    let (mut queue, _) = open(&folder);
    let results: Vec<Change> = (0..many)
        .map(|out| finish(None, out, Attempt { task_id: TaskId::new(), attempt: 1 }, 100))
        .collect();
    for group in results.chunks(GROUP as usize) {
        queue.apply(group).unwrap();
    }
    assert_eq!((needed(&queue).len(), queue.waiting()), (4, many));
    drop(queue);
    queue = open(&folder).0;
    assert_eq!(needed(&queue).len(), 4, "counted anew");
    let last = queue.outbox(OutSeq(many - 3), 10, usize::MAX).unwrap();
    assert_eq!(last.len(), 3);
    assert!(last.iter().all(|record| record.bytes == vec![b'r'; 100]));
    for first in (0..many).step_by(GROUP as usize) {
        let released: Vec<Change> =
            (first..first + GROUP).map(|out| Change::Release { out: OutSeq(out) }).collect();
        queue.apply(&released).unwrap();
    }
    assert_eq!((queue.waiting(), needed(&queue)), (0, vec![]));
    assert!(names(&folder).len() <= seen_runs(&queue), "only what is remembered is left");
}

fn seen_runs(queue: &DiskQueue) -> usize {
    let entries = queue.records.scan(Space::Seen, &[Space::Seen as u8]);
    entries.filter(|entry| entry.as_ref().is_ok_and(|(_, value)| value[4] == RUN)).count()
}
