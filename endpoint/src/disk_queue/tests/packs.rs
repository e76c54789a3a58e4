//! Results that gather share records: released one by one, damaged, read again by
//! the next start, they are what they were alone.

use super::*;
use crate::disk_queue::gathering::GATHERED;
use crate::disk_queue::pack::{self, PACK};

/// How many results a group has.
const GROUP: u64 = 500;
/// How large a result is, in bytes: a group of them is worth a file.
const LEN: usize = 100;

/// A queue in which `groups` groups have gathered, and their attempts; as many
/// results as make others gather lie before them.
fn gathered(folder: &TempDir, groups: u64) -> (DiskQueue, Vec<Attempt>) {
    let (mut queue, _) = open(folder);
    let attempts: Vec<Attempt> = (0..GATHERED + groups * GROUP)
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

fn packs(queue: &DiskQueue) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = queue.store.scan(Space::Outbox, &[Space::Outbox as u8]).map(Result::unwrap);
    entries.filter(|(raw, _)| pack::first(raw).is_some()).collect()
}

fn spoil(queue: &DiskQueue, key: &[u8]) {
    let mut value = queue.store.get(key).unwrap().unwrap();
    value[9] ^= 0x40;
    let mut writes = Writes::default();
    writes.put_raw(key, value);
    queue.store.commit(writes).unwrap();
}

#[test]
fn results_that_gather_share_records_and_are_read_in_order() {
    let folder = folder();
    let (mut queue, attempts) = gathered(&folder, 2);
    assert_eq!(packs(&queue).len(), 2 * (GROUP as usize).div_ceil(PACK));
    let total = GATHERED + 2 * GROUP;
    for from in [0, GATHERED - 1, GATHERED, GATHERED + 5, GATHERED + GROUP - 1, total - 1, total] {
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
fn what_is_released_out_of_a_pack_is_gone_after_the_next_start_and_nothing_else_is() {
    let folder = folder();
    let (mut queue, _) = gathered(&folder, 1);
    let total = GATHERED + GROUP;
    let gone: BTreeSet<u64> = (GATHERED..total).filter(|out| out % 3 == 0).collect();
    release(&mut queue, gone.iter().copied());
    release(&mut queue, gone.iter().copied().chain([total + 7]));
    let left: Vec<u64> = (GATHERED..total).filter(|out| !gone.contains(out)).collect();
    for _ in 0..2 {
        assert_eq!(all(&mut queue, GATHERED), left);
        assert_eq!(queue.waiting(), GATHERED + left.len() as u64);
        drop(queue);
        queue = open(&folder).0;
    }
    assert_eq!(needed(&queue).len(), 1);
    release(&mut queue, left.into_iter());
    assert_eq!((packs(&queue).len(), needed(&queue).len(), queue.waiting()), (0, 0, GATHERED));
    assert_eq!(queue.store.scan(Space::Twin, &[Space::Twin as u8]).count(), 0);
}

#[test]
fn a_payload_damaged_in_a_pack_is_told_in_its_place_and_hits_no_other() {
    let folder = folder();
    let (mut queue, attempts) = gathered(&folder, 1);
    let [name] = &needed(&queue)[..] else { panic!("one file for the group") };
    let file = folder.path().join("spool").join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    // The first of a pack, two in the middle of one, and the last of all.
    let hit: BTreeSet<u64> = [0, 20, 22, GROUP - 1].into();
    for out in &hit {
        bytes[usize::try_from(*out).unwrap() * LEN + 3] = b'?';
    }
    std::fs::write(&file, bytes).unwrap();
    let names: Vec<u64> = (GATHERED..GATHERED + GROUP).collect();
    for _ in 0..2 {
        assert_eq!(all(&mut queue, GATHERED), names, "in order, and all");
        assert_eq!(queue.waiting(), GATHERED + GROUP);
        for record in queue.outbox(OutSeq(GATHERED), usize::MAX, usize::MAX).unwrap() {
            assert_eq!(record.attempt, attempts[usize::try_from(record.seq.0).unwrap()]);
            if hit.contains(&(record.seq.0 - GATHERED)) {
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
    assert_eq!((packs(&queue).len(), queue.waiting()), (0, GATHERED));
}

#[test]
fn a_damaged_pack_is_known_by_its_twin() {
    let folder = folder();
    let (mut queue, _) = gathered(&folder, 1);
    spoil(&queue, &pack::key(GATHERED));
    spoil(&queue, &pack::twin(GATHERED + PACK as u64));
    let names: Vec<u64> = (GATHERED..GATHERED + GROUP).collect();
    for _ in 0..2 {
        assert_eq!(all(&mut queue, GATHERED), names);
        assert_eq!(needed(&queue).len(), 1);
        drop(queue);
        queue = open(&folder).0;
    }
    release(&mut queue, names.into_iter());
    assert_eq!((packs(&queue).len(), queue.waiting()), (0, GATHERED));
}
