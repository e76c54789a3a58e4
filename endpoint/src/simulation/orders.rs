//! Judges how an endpoint obeys its service in a run: knows which cancels, marks, drains and
//! resumes were sent, what each instance has obeyed, and what has left the queues. Pure.
//!
//! A cancel is *in force* from when the broker has it until it has left the control queue, a drain
//! until the service sends its resume.

use super::oracle::{Broken, name};
use clutch_common::id::{Attempt, TaskId};
use clutch_common::wire::{Cancel, Steering};
use std::collections::{BTreeMap, BTreeSet};

/// The highest attempt at each task that a cancel covers.
type Covered = BTreeMap<TaskId, u32>;

/// Orders that were sent to the control queue.
#[derive(Default)]
struct Sent {
    /// How many copies of each are in the queue, or with its reader, by number.
    copies: BTreeMap<u64, u64>,
    /// The numbers of those that the broker has confirmed.
    confirmed: BTreeSet<u64>,
}

impl Sent {
    /// The number of one up to a number that has not left the queue.
    fn left(&self, up_to: u64) -> Option<u64> {
        let mut copies = self.copies.range(..=up_to);
        copies.find(|(_, copies)| **copies > 0).map(|(number, _)| *number)
    }

    fn leaves(&mut self, number: u64) {
        let copies = self.copies.entry(number).or_default();
        *copies = copies.saturating_sub(1);
    }
}

/// The oracle's knowledge of what one instance has obeyed.
#[derive(Default)]
struct Obedience {
    /// The cancels that it has obeyed, by number and by what they cover.
    numbers: BTreeSet<u64>,
    covered: Covered,
    /// The attempts that it had not finished then, and is stopping.
    stopping: BTreeSet<Attempt>,
    /// The cancels and the drains that were in force when its session began.
    bound: Vec<u64>,
    drained: Vec<u64>,
    /// How many tasks have started since it obeyed a drain that holds.
    starts: Option<usize>,
}

/// The judge of what the service asks for in one run.
pub(super) struct Orders {
    /// All that the service has asked to cancel.
    named: Covered,
    cancels: Sent,
    /// The highest number that a mark was sent with.
    mark_sent: u64,
    /// The marks that have not left the task queue.
    marks: BTreeSet<u64>,
    drains: Sent,
    /// The number of the last resume.
    resumed: u64,
    instances: Vec<Obedience>,
    /// The tasks that have ended as cancelled.
    cancelled: BTreeSet<TaskId>,
    /// The instances that have had a drain for so long that no task may start.
    still: BTreeSet<usize>,
}

impl Orders {
    /// A judge of so many instances.
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            named: Covered::new(),
            cancels: Sent::default(),
            mark_sent: 0,
            marks: BTreeSet::new(),
            drains: Sent::default(),
            resumed: 0,
            instances: (0..nodes).map(|_| Obedience::default()).collect(),
            cancelled: BTreeSet::new(),
            still: BTreeSet::new(),
        }
    }

    /// The service is about to send an order.
    pub(super) fn sends(&mut self, order: &Steering) {
        match order {
            Steering::Cancel(cancel) => {
                *self.cancels.copies.entry(cancel.number).or_default() += 1;
                cover(&mut self.named, cancel);
            }
            Steering::Drain(drain) => *self.drains.copies.entry(drain.number).or_default() += 1,
            Steering::Resume(resume) => {
                self.resumed = resume.number;
                self.still.clear();
                self.instances.iter_mut().for_each(|one| one.starts = None);
            }
            Steering::Follow(_) | Steering::Report(_) | Steering::Urgent(_) | Steering::Post(_) => {
            }
        }
    }

    /// The broker has an order.
    pub(super) fn has(&mut self, order: &Steering) {
        match order {
            Steering::Cancel(cancel) => drop(self.cancels.confirmed.insert(cancel.number)),
            Steering::Drain(drain) => drop(self.drains.confirmed.insert(drain.number)),
            Steering::Resume(_)
            | Steering::Follow(_)
            | Steering::Report(_)
            | Steering::Urgent(_)
            | Steering::Post(_) => (),
        }
    }

    /// The service is about to send a mark.
    pub(super) fn sends_mark(&mut self, up_to: u64) {
        self.mark_sent = up_to;
        self.marks.insert(up_to);
    }

    /// An instance begins a session.
    pub(super) fn begins(&mut self, instance: usize) {
        let left = |number: &&u64| self.cancels.copies.get(number).is_some_and(|left| *left > 0);
        let one = &mut self.instances[instance];
        one.bound = self.cancels.confirmed.iter().filter(left).copied().collect();
        one.drained = self.drains.confirmed.range(self.resumed + 1..).copied().collect();
        one.starts = None;
    }

    /// An instance reads tasks.
    pub(super) fn takes(&self, instance: usize) -> Result<(), Broken> {
        let one = &self.instances[instance];
        if let Some(missed) = one.bound.iter().find(|number| !one.numbers.contains(number)) {
            return Err(format!("instance {instance} takes tasks before it obeys cancel {missed}"));
        }
        match one.drained.iter().find(|number| **number > self.resumed) {
            Some(drain) => {
                Err(format!("instance {instance} takes tasks in spite of drain {drain}"))
            }
            None => Ok(()),
        }
    }

    /// An instance has obeyed a cancel or a drain. What a cancel names and it has on its disk still,
    /// it is stopping; a crash may forget that.
    pub(super) fn obeys(
        &mut self,
        instance: usize,
        order: &Steering,
        has: impl Fn(Attempt) -> Option<Attempt>,
    ) {
        let one = &mut self.instances[instance];
        if let Steering::Drain(drain) = order
            && drain.number > self.resumed
        {
            one.starts.get_or_insert(0);
        }
        let Steering::Cancel(cancel) = order else { return };
        one.numbers.insert(cancel.number);
        let (stopping, attempts): (Vec<Attempt>, Vec<Attempt>) =
            cancel.attempts.iter().partition(|attempt| has(**attempt).is_some());
        one.stopping.extend(stopping.into_iter().filter_map(has));
        cover(&mut one.covered, &Cancel { number: cancel.number, attempts });
    }

    /// An instance's process is gone.
    pub(super) fn gone(&mut self, instance: usize) {
        let one = &mut self.instances[instance];
        one.stopping.clear();
        one.starts = None;
    }

    /// An order has left the control queue.
    pub(super) fn settled(&mut self, order: &Steering) -> Result<(), Broken> {
        match order {
            Steering::Cancel(Cancel { number, .. }) if *number > self.mark_sent => {
                Err(format!("cancel {number} has left the queue before its mark came"))
            }
            Steering::Drain(drain) if drain.number > self.resumed => {
                Err(format!("drain {} has left the queue before its resume came", drain.number))
            }
            Steering::Cancel(cancel) => {
                self.cancels.leaves(cancel.number);
                Ok(())
            }
            Steering::Drain(drain) => {
                self.drains.leaves(drain.number);
                Ok(())
            }
            Steering::Resume(resume) => match self.drains.left(resume.number) {
                Some(drain) => {
                    Err(format!("resume {} has left the queue before drain {drain}", resume.number))
                }
                None => Ok(()),
            },
            Steering::Follow(_) | Steering::Report(_) | Steering::Urgent(_) | Steering::Post(_) => {
                Ok(())
            }
        }
    }

    /// A mark has left the task queue: each cancel that it covers has left its own, or another mark
    /// covers it.
    pub(super) fn mark_settled(&mut self, up_to: u64) -> Result<(), Broken> {
        self.marks.remove(&up_to);
        match self.cancels.left(up_to) {
            Some(cancel) if self.marks.range(cancel..).next().is_none() => {
                Err(format!("the mark up to {up_to} has left before cancel {cancel}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// These instances have had a drain for long, and nothing fails: no task starts.
    pub(super) fn hold_still(&mut self, instances: &BTreeSet<usize>) {
        self.still.clone_from(instances);
    }

    /// An instance does not have the lease any more.
    pub(super) fn leaves(&mut self, instance: usize) {
        self.still.remove(&instance);
        self.instances[instance].starts = None;
    }

    /// A task starts, where there are so many slots. It is `excused` where it may be with several
    /// instances.
    pub(super) fn starts(
        &mut self,
        on: usize,
        attempt: Attempt,
        excused: bool,
        slots: usize,
    ) -> Result<(), Broken> {
        let what = name(attempt);
        if self.has_obeyed(on, attempt) || self.instances[on].stopping.contains(&attempt) {
            return Err(format!("{what} starts on instance {on}, which has obeyed its cancel"));
        }
        if !excused && self.cancelled.contains(&attempt.task_id) {
            return Err(format!("{what} starts on instance {on}, and has ended as cancelled"));
        }
        // Those that had their slots when the drain came may be about to start.
        let starts = self.instances[on].starts.as_mut().map_or(0, |starts| {
            *starts += 1;
            *starts
        });
        if self.still.contains(&on) || starts > slots {
            return Err(format!("{what} starts on instance {on}, which is drained"));
        }
        Ok(())
    }

    /// A task comes to its end by itself.
    pub(super) fn ends(&self, on: usize, attempt: Attempt) -> Result<(), Broken> {
        if !self.has_obeyed(on, attempt) && !self.instances[on].stopping.contains(&attempt) {
            return Ok(());
        }
        let what = name(attempt);
        Err(format!("{what} runs to its end on instance {on}, which has obeyed its cancel"))
    }

    /// A task has ended as cancelled.
    pub(super) fn cancelled(&mut self, task: TaskId) {
        self.cancelled.insert(task);
    }

    /// Whether the service has asked to cancel an attempt.
    pub(super) fn names(&self, attempt: Attempt) -> bool {
        covers(&self.named, attempt)
    }

    fn has_obeyed(&self, instance: usize, attempt: Attempt) -> bool {
        covers(&self.instances[instance].covered, attempt)
    }
}

fn cover(covered: &mut Covered, cancel: &Cancel) {
    for Attempt { task_id, attempt } in &cancel.attempts {
        let highest = covered.entry(*task_id).or_default();
        *highest = (*highest).max(*attempt);
    }
}

fn covers(covered: &Covered, attempt: Attempt) -> bool {
    covered.get(&attempt.task_id).is_some_and(|highest| *highest >= attempt.attempt)
}
