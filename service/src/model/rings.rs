//! Finds tasks that wait for each other in a ring. Pure.

use clutch_common::id::TaskId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most rings that are told.
const MAX_RINGS: usize = 20;

/// The tasks that each task waits for.
type Waits = BTreeMap<TaskId, BTreeSet<TaskId>>;

/// The shortest ring from a task on; nothing if it is in none.
pub(crate) fn ring_of(waits: &Waits, task: TaskId) -> Option<Vec<TaskId>> {
    let mut came_from: BTreeMap<TaskId, TaskId> = BTreeMap::new();
    let mut open = VecDeque::from([task]);
    while let Some(at) = open.pop_front() {
        for next in waits.get(&at).into_iter().flatten() {
            if *next == task {
                let mut ring = vec![at];
                while let Some(before) = ring.last().and_then(|at| came_from.get(at)) {
                    ring.push(*before);
                }
                ring.reverse();
                return Some(ring);
            }
            if !came_from.contains_key(next) {
                came_from.insert(*next, at);
                open.push_back(*next);
            }
        }
    }
    None
}

/// Rings of tasks, each from the task with the smallest id on, at most [`MAX_RINGS`]. Where rings
/// share tasks, one of them is told.
pub(crate) fn rings(waits: &Waits) -> Vec<Vec<TaskId>> {
    let mut told: BTreeSet<TaskId> = BTreeSet::new();
    let mut found = Vec::new();
    for task in in_rings(waits) {
        if found.len() == MAX_RINGS {
            break;
        }
        let ring = if told.contains(&task) { None } else { ring_of(waits, task) };
        if let Some(ring) = ring.filter(|ring| ring.iter().all(|one| !told.contains(one))) {
            told.extend(&ring);
            found.push(ring);
        }
    }
    found
}

/// The tasks that are left when those are taken away, again and again, that wait for none or that
/// none waits for: only these can be in a ring.
fn in_rings(waits: &Waits) -> BTreeSet<TaskId> {
    let mut left: BTreeSet<TaskId> = waits.keys().copied().collect();
    loop {
        let waited_for: BTreeSet<TaskId> =
            left.iter().filter_map(|task| waits.get(task)).flatten().copied().collect();
        let waits_for_one = |task: &TaskId| {
            waits.get(task).is_some_and(|others| others.iter().any(|other| left.contains(other)))
        };
        let next: BTreeSet<TaskId> = left
            .iter()
            .filter(|task| waited_for.contains(task) && waits_for_one(task))
            .copied()
            .collect();
        if next.len() == left.len() {
            return next;
        }
        left = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn id(number: u128) -> TaskId {
        TaskId(Uuid::from_u128(number))
    }

    fn waits(edges: &[(u128, u128)]) -> Waits {
        let mut waits = Waits::new();
        for (from, to) in edges {
            waits.entry(id(*from)).or_default().insert(id(*to));
        }
        waits
    }

    #[test]
    fn a_ring_is_found_from_each_of_its_tasks_and_a_chain_is_none() {
        let all = waits(&[(1, 2), (2, 3), (3, 1), (4, 1), (3, 5), (5, 6)]);
        assert_eq!(ring_of(&all, id(1)), Some(vec![id(1), id(2), id(3)]));
        assert_eq!(ring_of(&all, id(3)), Some(vec![id(3), id(1), id(2)]));
        for outside in [4, 5, 6, 7] {
            assert_eq!(ring_of(&all, id(outside)), None, "{outside}");
        }
        assert_eq!(rings(&all), [vec![id(1), id(2), id(3)]]);
        assert_eq!(rings(&waits(&[(1, 2), (2, 3)])), Vec::<Vec<TaskId>>::new());
    }

    #[test]
    fn a_task_that_waits_for_itself_is_a_ring_and_two_rings_are_told_apart() {
        let all = waits(&[(1, 1), (2, 3), (3, 2), (3, 4)]);
        assert_eq!(rings(&all), [vec![id(1)], vec![id(2), id(3)]]);
    }

    proptest! {
        #[test]
        fn every_ring_is_one_and_none_is_left_out(
            edges in prop::collection::vec((0_u128..8, 0_u128..8), 0..20),
        ) {
            let all = waits(&edges);
            let found = rings(&all);
            for ring in &found {
                let next = ring.iter().skip(1).chain(ring.first());
                for (from, to) in ring.iter().zip(next) {
                    prop_assert!(all[from].contains(to), "{:?}", ring);
                }
            }
            let any = (0..8).any(|task| ring_of(&all, id(task)).is_some());
            prop_assert_eq!(any, !found.is_empty());
        }
    }
}
