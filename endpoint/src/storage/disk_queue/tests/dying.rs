//! Deaths of the daemon as the queue counts them.

use super::*;

/// Opens the queue as after the death of a daemon that ran `attempts`.
fn died_with(folder: &TempDir, attempts: &[Attempt]) -> DiskQueue {
    let queue = open(folder).0;
    let running = queue.running();
    for attempt in attempts {
        std::mem::forget(running.note(*attempt, None));
    }
    drop(queue);
    open(folder).0
}

fn count(queue: &DiskQueue, attempt: Attempt) -> u64 {
    queue.deaths().get(&attempt).map_or(0, |deaths| deaths.count)
}

#[test]
fn a_death_is_counted_once_and_forgotten_with_the_result() {
    let folder = folder();
    let (guilty, neighbour) = (task(1), task(1));
    let mut queue = open(&folder).0;
    queue.apply(&[accept(0, &guilty), accept(1, &neighbour)]).unwrap();
    drop(queue);
    for deaths in 1..3 {
        let queue = died_with(&folder, &[guilty.attempt(), neighbour.attempt()]);
        assert_eq!(count(&queue, guilty.attempt()), deaths);
        drop(queue);
        assert_eq!(count(&open(&folder).0, guilty.attempt()), deaths, "opening counts nothing");
    }
    let mut queue = open(&folder).0;
    queue.apply(&[finish(Some(0), 0, guilty.attempt(), 1)]).unwrap();
    drop(queue);
    let queue = open(&folder).0;
    assert_eq!([count(&queue, guilty.attempt()), count(&queue, neighbour.attempt())], [0, 2]);
}

#[test]
fn a_task_that_kills_before_its_acceptance_is_on_disk_is_counted_as_well() {
    let folder = folder();
    let guilty = task(1);
    drop(died_with(&folder, &[guilty.attempt()]));
    let mut queue = died_with(&folder, &[guilty.attempt()]);
    assert_eq!(count(&queue, guilty.attempt()), 2);
    queue.apply(&[accept(0, &guilty)]).unwrap();
    drop(queue);
    assert_eq!(count(&open(&folder).0, guilty.attempt()), 2);
}

#[test]
fn a_damaged_count_goes_into_quarantine_and_counting_begins_anew() {
    let folder = folder();
    let guilty = task(1);
    let queue = died_with(&folder, &[guilty.attempt()]);
    let (raw, _) =
        queue.records.scan(Space::Deaths, &[Space::Deaths as u8]).next().unwrap().unwrap();
    let mut writes = Writes::default();
    writes.put_raw(&raw, vec![1, 2, 3]);
    queue.records.commit(writes).unwrap();
    drop(queue);
    let queue = died_with(&folder, &[guilty.attempt()]);
    assert_eq!(count(&queue, guilty.attempt()), 1);
    let start = [Space::Quarantine as u8];
    assert_eq!(queue.records.scan(Space::Quarantine, &start).count(), 1);
}
