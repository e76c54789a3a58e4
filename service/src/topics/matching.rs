//! Which task goes to which member. Pure.
//!
//! Topics take turns, one task each. Of a topic, priorities take turns as everywhere
//! ([`Turns`](clutch_common::task::turns::Turns)), and within one the lowest turn is first. A task goes to the member with the
//! lowest part of its credit in use; a kind of which the first task finds no member is left for
//! this time, and holds up no other kind.

use super::catalogue::{Catalogue, TaskPlacement};
use clutch_common::id::EndpointId;
use clutch_common::task::priority::Priority;
use clutch_common::task::turns::Front;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its turn.
    pub(crate) turn: i64,
    /// Its row.
    pub(crate) task: i64,
    /// How many slots it takes.
    pub(crate) cores: u64,
    /// Its attempt.
    pub(crate) attempt: u32,
    /// How long it may take to start.
    pub(crate) start_within_ms: u64,
}

/// The tasks that wait, of each kind and priority in the order of their turns.
pub(crate) trait Fronts {
    /// Why they could not be read.
    type Error;

    /// Up to `limit` of them, after a turn and a row.
    ///
    /// # Errors
    /// They could not be read.
    fn page(
        &mut self,
        kind: i64,
        priority: Priority,
        after: (i64, i64),
        limit: usize,
    ) -> Result<Vec<Waiting>, Self::Error>;
}

/// A task that goes to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The task's row.
    pub(crate) task: i64,
    /// Its turn.
    pub(crate) turn: i64,
    /// Where it goes, and on which terms.
    pub(crate) placed: TaskPlacement,
}

/// The outcome of one matching.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    /// The tasks that are placed, in order.
    pub(crate) assignments: Vec<Assignment>,
    /// Kinds and priorities of which no task waits.
    pub(crate) empty: Vec<(i64, Priority)>,
    /// Kinds of which a task waits that found no member.
    pub(crate) stuck: BTreeSet<i64>,
}

/// The smallest page, and the largest.
const PAGES: (usize, usize) = (8, 512);

/// The tasks of one kind and priority, read as far as they are needed.
struct Queue {
    read: VecDeque<Waiting>,
    after: (i64, i64),
    page: usize,
    over: bool,
}

impl Queue {
    fn new() -> Self {
        Self { read: VecDeque::new(), after: (i64::MIN, i64::MIN), page: PAGES.0, over: false }
    }

    fn fill<F: Fronts>(&mut self, fronts: &mut F, of: (i64, Priority)) -> Result<(), F::Error> {
        if self.read.is_empty() && !self.over {
            let page = fronts.page(of.0, of.1, self.after, self.page)?;
            self.over = page.len() < self.page;
            self.page = (self.page * 4).min(PAGES.1);
            if let Some(last) = page.last() {
                self.after = (last.turn, last.task);
            }
            self.read.extend(page);
        }
        Ok(())
    }
}

/// One topic's queues, and of each priority the first tasks by kind.
#[derive(Default)]
struct TopicQueues {
    queues: BTreeMap<(i64, Priority), Queue>,
    firsts: [BTreeSet<((i64, i64), i64)>; 5],
}

impl TopicQueues {
    fn put<F: Fronts>(
        &mut self,
        fronts: &mut F,
        of: (i64, Priority),
        matched: &mut Matched,
    ) -> Result<(), F::Error> {
        let Some(queue) = self.queues.get_mut(&of) else { return Ok(()) };
        queue.fill(fronts, of)?;
        match queue.read.front() {
            Some(first) => {
                self.firsts[of.1.index()].insert(((first.turn, first.task), of.0));
            }
            None => matched.empty.push(of),
        }
        Ok(())
    }

    /// Leaves a kind for this time.
    fn leave(&mut self, kind: i64) {
        self.firsts.iter_mut().for_each(|firsts| firsts.retain(|(_, of)| *of != kind));
    }
}

impl Catalogue {
    /// Places up to `limit` tasks; they are noted as of a transaction under way.
    ///
    /// # Errors
    /// The tasks that wait could not be read.
    pub(crate) fn place<F: Fronts>(
        &mut self,
        fronts: &mut F,
        limit: usize,
        now_ms: u64,
    ) -> Result<Matched, F::Error> {
        let mut matched = Matched::default();
        let mut topics: BTreeMap<String, TopicQueues> = BTreeMap::new();
        for of in self.open.clone() {
            let Some(kind) = self.kinds.get(&of.0) else { continue };
            let topic = topics.entry(kind.topic.clone()).or_default();
            if self.find(of.0, 1, now_ms).is_none() {
                matched.stuck.insert(of.0);
                continue;
            }
            topic.queues.insert(of, Queue::new());
            topic.put(fronts, of, &mut matched)?;
        }
        while matched.assignments.len() < limit {
            let Some(name) = self.next_topic(&topics) else { break };
            let Some(topic) = topics.get_mut(&name) else { break };
            if !self.place_one(&name, topic, fronts, now_ms, &mut matched)? {
                topics.remove(&name);
            }
            self.last_topic = Some(name);
        }
        Ok(matched)
    }

    /// The topic after the last one.
    fn next_topic(&self, topics: &BTreeMap<String, TopicQueues>) -> Option<String> {
        let after = self.last_topic.as_ref();
        let later = topics.keys().find(|name| after.is_none_or(|after| *name > after));
        later.or_else(|| topics.keys().next()).cloned()
    }

    /// Places the next task of a topic; returns whether there was one that found a member.
    fn place_one<F: Fronts>(
        &mut self,
        name: &str,
        topic: &mut TopicQueues,
        fronts: &mut F,
        now_ms: u64,
        matched: &mut Matched,
    ) -> Result<bool, F::Error> {
        loop {
            let turns = self.turns.entry(name.to_owned()).or_default();
            let firsts = Priority::ALL.into_iter().filter_map(|level| {
                let (age, _) = topic.firsts[level.index()].first()?;
                Some(Front { level, age: *age })
            });
            let Some(turn) = turns.next(firsts) else { return Ok(false) };
            let priority = turn.front.level;
            let Some((_, kind)) = topic.firsts[priority.index()].first().copied() else {
                return Ok(false);
            };
            let of = (kind, priority);
            let Some(first) = topic.queues.get(&of).and_then(|queue| queue.read.front()).copied()
            else {
                return Ok(false);
            };
            let Some(member) = self.find(kind, first.cores, now_ms) else {
                topic.leave(kind);
                matched.stuck.insert(kind);
                continue;
            };
            self.turns.entry(name.to_owned()).or_default().took(&turn);
            topic.firsts[priority.index()].pop_first();
            if let Some(queue) = topic.queues.get_mut(&of) {
                queue.read.pop_front();
            }
            self.assign(kind, first, member, now_ms, matched);
            topic.put(fronts, of, matched)?;
            return Ok(true);
        }
    }

    fn assign(
        &mut self,
        kind: i64,
        first: Waiting,
        member: EndpointId,
        now_ms: u64,
        matched: &mut Matched,
    ) {
        let Waiting { turn, task, cores, attempt, start_within_ms } = first;
        let start_by_ms = now_ms.saturating_add(start_within_ms);
        let placed = TaskPlacement { member, kind, attempt, cores, start_by_ms, claimed: false };
        self.place_uncommitted(task, placed.clone(), now_ms);
        matched.assignments.push(Assignment { task, turn, placed });
    }
}
