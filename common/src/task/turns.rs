//! The order of starts where tasks of several priorities wait: the first of the highest level is
//! next, but after [`OVERTAKES`] starts in a row that overtook the task that waits longest, that
//! task is. So a task with `k` tasks before it has its turn at the `8 (k + 1)`th start at the latest,
//! whatever comes after it. Pure.

use super::priority::Priority;

/// How many starts in a row may overtake the task that waits longest.
pub const OVERTAKES: u8 = 7;

/// How often in a row the task that waits longest was overtaken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    overtakes: u8,
}

/// The first task of those that wait at one level; `A` grows with the order in which they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Front<A> {
    /// The level.
    pub level: Priority,
    /// Its place in the order.
    pub age: A,
}

/// The front that is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn<A> {
    /// The front.
    pub front: Front<A>,
    /// Whether it overtakes the task that waits longest.
    overtakes: bool,
}

impl Turns {
    /// The front that is next; nothing changes before it is [taken](Turns::took).
    #[must_use]
    pub fn next<A: Copy + Ord>(
        self,
        fronts: impl IntoIterator<Item = Front<A>>,
    ) -> Option<Turn<A>> {
        let mut fronts = fronts.into_iter();
        let first = fronts.next()?;
        let (mut oldest, mut highest) = (first, first);
        for front in fronts {
            if front.age < oldest.age {
                oldest = front;
            }
            if front.level > highest.level
                || (front.level == highest.level && front.age < highest.age)
            {
                highest = front;
            }
        }
        let front = if self.overtakes >= OVERTAKES { oldest } else { highest };
        Some(Turn { front, overtakes: front.age != oldest.age })
    }

    /// Notes that a turn was taken.
    pub fn took<A>(&mut self, turn: &Turn<A>) {
        self.overtakes = if turn.overtakes { self.overtakes.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Tasks that wait, by level, each as the number in which it came.
    #[derive(Default)]
    struct Waiting {
        levels: [VecDeque<usize>; 5],
        turns: Turns,
        came: usize,
    }

    impl Waiting {
        fn come(&mut self, level: Priority) {
            self.levels[level.index()].push_back(self.came);
            self.came += 1;
        }

        fn start(&mut self) -> Option<(Priority, usize)> {
            let fronts = Priority::ALL.into_iter().filter_map(|level| {
                let age = *self.levels[level.index()].front()?;
                Some(Front { level, age })
            });
            let turn = self.turns.next(fronts)?;
            self.turns.took(&turn);
            self.levels[turn.front.level.index()].pop_front();
            Some((turn.front.level, turn.front.age))
        }

        fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
            self.levels.iter().flatten().copied()
        }
    }

    #[test]
    fn the_highest_level_goes_first_and_the_oldest_at_every_eighth_start() {
        let mut waiting = Waiting::default();
        (0..3).for_each(|_| waiting.come(Priority::Lowest));
        (0..20).for_each(|_| waiting.come(Priority::Highest));
        let started: Vec<usize> = std::iter::from_fn(|| waiting.start()).map(|one| one.1).collect();
        let expected: Vec<usize> =
            (3..10).chain([0]).chain(10..17).chain([1]).chain(17..23).chain([2]).collect();
        assert_eq!(started, expected);
    }

    #[test]
    fn one_level_alone_goes_in_the_order_in_which_it_came() {
        let mut waiting = Waiting::default();
        (0..100).for_each(|_| waiting.come(Priority::Low));
        assert!(std::iter::from_fn(|| waiting.start()).map(|one| one.1).eq(0..100));
    }

    proptest! {
        /// Whatever comes, and whenever a slot is free.
        #[test]
        fn a_task_with_k_before_it_starts_at_the_8_k_plus_1_th_start(
            steps in prop::collection::vec(prop::option::of(0..5_usize), 1..400),
        ) {
            let mut waiting = Waiting::default();
            // Of each that waits: at which start it has to start at the latest.
            let mut due: Vec<(usize, usize)> = Vec::new();
            let mut starts = 0;
            for step in steps {
                if let Some(level) = step {
                    let before = waiting.waiting().count();
                    due.push((waiting.came, starts + 8 * (before + 1)));
                    waiting.come(Priority::ALL[level]);
                } else if let Some((level, started)) = waiting.start() {
                    starts += 1;
                    due.retain(|(one, _)| *one != started);
                    prop_assert!(due.iter().all(|(_, at)| *at > starts), "{due:?} at {starts}");
                    let older = waiting.levels[level.index()].iter().all(|one| *one > started);
                    prop_assert!(older, "of one level, the first starts first");
                }
            }
        }

        /// Of eight starts, at least seven are of the highest level that waits.
        #[test]
        fn seven_of_eight_starts_are_of_the_highest_level(
            below in prop::collection::vec(0..4_usize, 1..40),
            above in 1..60_usize,
        ) {
            let mut waiting = Waiting::default();
            below.iter().for_each(|level| waiting.come(Priority::ALL[*level]));
            (0..above).for_each(|_| waiting.come(Priority::Highest));
            let (mut highest, mut starts) = (0, 0);
            while highest < above {
                let (level, _) = waiting.start().unwrap();
                starts += 1;
                highest += usize::from(level == Priority::Highest);
            }
            prop_assert!(starts <= above + above / 7, "{starts} starts for {above}");
        }
    }
}
