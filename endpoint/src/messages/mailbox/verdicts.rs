//! The verdicts about messages that wait no longer. Pure, bounded.

use super::{KEPT, Moment, VERDICTS_MAX};
use crate::messages::letter::{Letter, LetterKey, LetterOrigin};
use clutch_common::id::TaskId;
use clutch_common::wire::Judgement;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A verdict, and the last copy that it covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Decided {
    verdict: Judgement,
    copy: u32,
    /// Its place in the order of verdicts.
    place: u64,
}

/// The verdicts about messages to one task.
#[derive(Debug, Default)]
struct TaskVerdicts {
    known: HashMap<LetterKey, Decided>,
    /// When the task ended.
    ended: Option<Moment>,
}

/// Verdicts by message, the last [`VERDICTS_MAX`] of them; those about messages to a task that
/// has ended, for [`KEPT`].
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    tasks: HashMap<TaskId, TaskVerdicts>,
    order: BTreeMap<u64, LetterKey>,
    /// The ends of tasks, in order.
    ends: BTreeSet<(Moment, TaskId)>,
    next: u64,
}

impl Verdicts {
    /// The verdict that stands for a copy of a message. That it was taken stands for each copy;
    /// any other verdict for copies up to the one that it is about, as a later one is another try.
    pub(super) fn about(&self, key: &LetterKey, copy: u32) -> Option<Judgement> {
        let decided = self.get(key)?;
        let stands = matches!(decided.verdict, Judgement::Taken(_)) || copy <= decided.copy;
        stands.then_some(decided.verdict)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The last verdict about a message.
    pub(super) fn last(&self, key: &LetterKey) -> Option<Judgement> {
        Some(self.get(key)?.verdict)
    }

    fn get(&self, key: &LetterKey) -> Option<&Decided> {
        self.tasks.get(&key.to)?.known.get(key)
    }

    /// Notes a verdict.
    pub(super) fn decide(&mut self, letter: &Letter, verdict: Judgement) {
        self.next += 1;
        // A sender that is here is told in this moment, and no copy is under way.
        let copy = if letter.origin == LetterOrigin::Here { 0 } else { letter.copy() };
        let decided = Decided { verdict, copy, place: self.next };
        let known = &mut self.tasks.entry(letter.to).or_default().known;
        if let Some(before) = known.insert(letter.key(), decided) {
            self.order.remove(&before.place);
        }
        self.order.insert(self.next, letter.key());
        while self.order.len() > VERDICTS_MAX
            && let Some((_, key)) = self.order.pop_first()
            && let Some(task) = self.tasks.get_mut(&key.to)
        {
            task.known.remove(&key);
            if task.known.is_empty() {
                self.forget(key.to);
            }
        }
    }

    /// Notes that a task has ended.
    pub(super) fn ended(&mut self, task: TaskId, now: Moment) {
        self.lives(task);
        if let Some(verdicts) = self.tasks.get_mut(&task) {
            verdicts.ended = Some(now);
            self.ends.insert((now, task));
        }
    }

    /// Notes that a task has not ended, or another attempt at it is here.
    pub(super) fn lives(&mut self, task: TaskId) {
        let ended = self.tasks.get_mut(&task).and_then(|verdicts| verdicts.ended.take());
        if let Some(at) = ended {
            self.ends.remove(&(at, task));
        }
    }

    /// Forgets the verdicts about messages to tasks that ended long ago.
    pub(super) fn pass(&mut self, now: Moment) {
        while let Some((at, task)) = self.ends.first().copied()
            && at + KEPT <= now
        {
            self.forget(task);
        }
    }

    fn forget(&mut self, task: TaskId) {
        let Some(verdicts) = self.tasks.remove(&task) else { return };
        if let Some(at) = verdicts.ended {
            self.ends.remove(&(at, task));
        }
        for decided in verdicts.known.values() {
            self.order.remove(&decided.place);
        }
    }
}
