//! Judges a run: knows what was submitted, what reached which disk and the broker,
//! what started where, and what was recorded, and says which promise was broken.
//! Pure.

use super::process::POISON_AFTER;
use clutch_common::id::Attempt;
use clutch_common::result::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// A promise that was broken, in words.
pub(super) type Broken = String;

/// How a task must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// It runs; `rerun` is the task's own.
    Run {
        /// Whether it may run again after a crash.
        rerun: bool,
    },
    /// It does not run, and ends like this.
    Not(Outcome),
}

/// What became of a task on a disk; durable when the oracle hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It is in the inbox.
    Accepted,
    /// It is about to start.
    Marked,
    /// Its result is in the outbox.
    Finished,
    /// Its result is no longer needed.
    Released,
}

/// What is known of one instance and its disk.
#[derive(Default)]
struct Instance {
    /// On disk, now or earlier.
    durable: BTreeSet<Attempt>,
    marked: BTreeSet<Attempt>,
    /// Started, and the result not on disk.
    running: BTreeSet<Attempt>,
    /// How often its process died while each was noted to run.
    deaths: BTreeMap<Attempt, u64>,
    /// How often each may still start.
    starts_left: BTreeMap<Attempt, u32>,
}

/// The judge of one run.
pub(super) struct Oracle {
    slots: usize,
    inbox_max: usize,
    expected: BTreeMap<Attempt, Expected>,
    confirmed: BTreeSet<Attempt>,
    arrived: BTreeSet<Attempt>,
    recorded: BTreeSet<Attempt>,
    /// How the runs of a task ended.
    ended: BTreeSet<(Attempt, Outcome)>,
    interruptible: BTreeSet<Attempt>,
    /// Delivered to an instance, not acknowledged, and so delivered again; or
    /// published twice.
    handed_on: BTreeSet<Attempt>,
    drained_by: BTreeMap<Attempt, BTreeSet<usize>>,
    consuming: BTreeSet<usize>,
    instances: Vec<Instance>,
}

impl Oracle {
    /// An oracle for so many instances with so many slots, whose inboxes may
    /// hold so many tasks.
    pub(super) fn new(instances: usize, slots: usize, inbox_max: usize) -> Self {
        Self {
            slots,
            inbox_max,
            expected: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            arrived: BTreeSet::new(),
            recorded: BTreeSet::new(),
            ended: BTreeSet::new(),
            interruptible: BTreeSet::new(),
            handed_on: BTreeSet::new(),
            drained_by: BTreeMap::new(),
            consuming: BTreeSet::new(),
            instances: (0..instances).map(|_| Instance::default()).collect(),
        }
    }

    /// A task is about to be published.
    pub(super) fn publishes(&mut self, attempt: Attempt, expected: Expected) {
        self.expected.insert(attempt, expected);
    }

    /// A task will be in the queue twice, so that each instance may get it.
    pub(super) fn publishes_again(&mut self, attempt: Attempt) {
        self.handed_on.insert(attempt);
    }

    /// The broker has confirmed a task.
    pub(super) fn submitted(&mut self, attempt: Attempt) {
        self.confirmed.insert(attempt);
    }

    /// An instance begins to take from the task queue.
    pub(super) fn consumes(&mut self, instance: usize) -> Result<(), Broken> {
        self.consuming.insert(instance);
        if self.consuming.len() == 1 {
            return Ok(());
        }
        Err(format!("the instances {:?} drain the task queue at the same time", self.consuming))
    }

    /// An instance no longer takes from the task queue; these deliveries, not
    /// acknowledged, are the queue's again.
    pub(super) fn leaves(&mut self, instance: usize, unsettled: impl Iterator<Item = Attempt>) {
        self.consuming.remove(&instance);
        self.handed_on.extend(unsettled);
    }

    /// An acknowledgement of a task, or its way to the dead letters, has
    /// reached the broker.
    pub(super) fn settled(&self, by: usize, attempt: Attempt) -> Result<(), Broken> {
        if self.instances[by].durable.contains(&attempt) {
            return Ok(());
        }
        Err(format!("{} was acknowledged and is not on the disk of instance {by}", name(attempt)))
    }

    /// A result has reached the results queue.
    pub(super) fn arrives(&mut self, attempt: Attempt) {
        self.arrived.insert(attempt);
    }

    /// A change is on an instance's disk.
    pub(super) fn stored(
        &mut self,
        on: usize,
        attempt: Attempt,
        change: Change,
    ) -> Result<(), Broken> {
        let instance = &mut self.instances[on];
        match change {
            Change::Accepted => drop(instance.durable.insert(attempt)),
            Change::Marked => drop(instance.marked.insert(attempt)),
            Change::Finished => {
                instance.durable.insert(attempt);
                instance.running.remove(&attempt);
            }
            Change::Released if !self.arrived.contains(&attempt) => {
                let name = name(attempt);
                return Err(format!(
                    "the result of {name} left the outbox and is not at the broker"
                ));
            }
            Change::Released => {}
        }
        Ok(())
    }

    /// A commit has left so many tasks in an instance's inbox.
    pub(super) fn holds(&self, instance: usize, inbox: usize) -> Result<(), Broken> {
        if inbox <= self.inbox_max {
            return Ok(());
        }
        let bound = self.inbox_max;
        Err(format!("the inbox of instance {instance} holds {inbox} tasks, at most {bound} may be"))
    }

    /// A task starts.
    pub(super) fn starts(&mut self, on: usize, attempt: Attempt) -> Result<(), Broken> {
        let what = name(attempt);
        let rerun = match self.expected.get(&attempt) {
            Some(Expected::Run { rerun }) => *rerun,
            Some(Expected::Not(outcome)) => return Err(format!("{what} runs, but is {outcome}")),
            None => return Err(format!("{what} runs, and was never published")),
        };
        let drained_by = self.drained_by.entry(attempt).or_default();
        drained_by.insert(on);
        if drained_by.len() > 1 && !self.handed_on.contains(&attempt) {
            return Err(format!("{what} was drained by the instances {drained_by:?}"));
        }
        let instance = &mut self.instances[on];
        if !rerun && !instance.marked.contains(&attempt) {
            return Err(format!("{what} must not run twice and runs before that is on disk"));
        }
        if instance.deaths.get(&attempt).is_some_and(|deaths| *deaths >= POISON_AFTER) {
            return Err(format!("{what} runs on instance {on}, which died with it too often"));
        }
        let left = instance.starts_left.entry(attempt).or_insert(1);
        if *left == 0 {
            return Err(format!("{what} runs again on instance {on} and did not run at a crash"));
        }
        *left -= 1;
        instance.running.insert(attempt);
        if instance.running.len() <= self.slots {
            return Ok(());
        }
        let running = instance.running.len();
        Err(format!("{running} tasks hold a slot, {} slots there are", self.slots))
    }

    /// A task has come to its end.
    pub(super) fn ends(&mut self, attempt: Attempt, outcome: Outcome) {
        self.ended.insert((attempt, outcome));
    }

    /// A task was stopped before its end; it may start again.
    pub(super) fn stopped(&mut self, on: usize, attempt: Attempt) {
        self.instances[on].running.remove(&attempt);
        self.may_start_again(on, attempt);
    }

    /// An instance's process is gone.
    pub(super) fn gone(&mut self, instance: usize) {
        for attempt in std::mem::take(&mut self.instances[instance].running) {
            self.may_start_again(instance, attempt);
        }
    }

    /// A new process counts a death against a task.
    pub(super) fn died(&mut self, on: usize, attempt: Attempt) {
        *self.instances[on].deaths.entry(attempt).or_default() += 1;
    }

    fn may_start_again(&mut self, on: usize, attempt: Attempt) {
        if self.expected.get(&attempt) == Some(&Expected::Run { rerun: true }) {
            *self.instances[on].starts_left.entry(attempt).or_default() += 1;
        }
    }

    /// A new process finds a task that an earlier one has marked as started.
    pub(super) fn found_started(&mut self, attempt: Attempt) {
        self.interruptible.insert(attempt);
    }

    /// The service has a result; whether it is the first of its attempt.
    pub(super) fn records(&mut self, attempt: Attempt, outcome: Outcome) -> Result<bool, Broken> {
        let fits = match self.expected.get(&attempt) {
            None => false,
            Some(Expected::Not(expected)) => outcome == *expected,
            Some(Expected::Run { rerun }) => match outcome {
                Outcome::Succeeded | Outcome::Failed => self.ended.contains(&(attempt, outcome)),
                Outcome::Interrupted => !rerun && self.interruptible.contains(&attempt),
                Outcome::Poisoned => self.instances.iter().any(|instance| {
                    instance.deaths.get(&attempt).is_some_and(|deaths| *deaths >= POISON_AFTER)
                }),
                Outcome::TimedOut | Outcome::Cancelled | Outcome::Rejected | Outcome::Expired => {
                    false
                }
            },
        };
        if !fits {
            return Err(format!("{} ended as {outcome}, which does not fit", name(attempt)));
        }
        Ok(self.recorded.insert(attempt))
    }

    /// The tasks that were submitted and have no outcome.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = self.confirmed.iter().filter(|attempt| !self.recorded.contains(attempt));
        missing.map(|attempt| name(*attempt)).collect()
    }

    /// How many tasks were submitted.
    pub(super) fn submissions(&self) -> usize {
        self.confirmed.len()
    }
}

/// What an attempt is called in a trace: the number of its task in the run.
pub(super) fn name(attempt: Attempt) -> String {
    let number = attempt.task_id.0.as_u128() & 0xffff_ffff;
    match attempt.attempt {
        1 => format!("t{number}"),
        later => format!("t{number}#{later}"),
    }
}
