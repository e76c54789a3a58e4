//! Judges a run: knows what was submitted, what reached which disk and the broker,
//! what started where, and what was recorded, and says which promise was broken.
//! Pure.

use super::claims::Claimed;
use super::order::StartOrder;
use super::orders::Orders;
use super::plan::Plan;
use super::process::POISON_AFTER;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::Task;
use clutch_common::task::priority::Priority;
use clutch_common::task::result::{Loss, Outcome};
use clutch_common::wire::Steering;
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

/// A change of a task on a disk; durable when the oracle hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TaskChange {
    /// It is in the inbox.
    Accepted,
    /// No other instance can have it.
    Secured,
    /// It is about to start.
    Marked,
    /// Its result is in the outbox.
    Finished,
    /// It is forgotten, and that was told.
    HandedBack,
    /// It was asked for and is not known; it will not run.
    Disowned,
    /// It is of a topic and will not run there.
    NotStarted,
    /// It was asked for, and its result had been delivered.
    SaidDelivered,
    /// Its result is no longer needed; why it may not be the task's end.
    Released(Option<Loss>),
}

/// The oracle's knowledge of one instance and its disk.
#[derive(Default)]
struct Instance {
    /// On disk, now or earlier.
    durable: BTreeSet<Attempt>,
    marked: BTreeSet<Attempt>,
    released: BTreeSet<Attempt>,
    secured: BTreeSet<Attempt>,
    disowned: BTreeSet<Attempt>,
    finished: BTreeSet<Attempt>,
    /// Its disk is lost, or the service does not wait for it any more: what it
    /// had runs elsewhere.
    given_up: bool,
    /// Started, and the result not on disk, each with the slots that it takes.
    running: BTreeMap<Attempt, usize>,
    order: StartOrder,
    /// How often its process died while each was noted to run.
    deaths: BTreeMap<Attempt, u64>,
    /// How often each may still start.
    starts_left: BTreeMap<Attempt, u32>,
}

/// The judge of one run.
pub(super) struct Oracle {
    /// The orders of the service, and how the instances obey them.
    pub(super) orders: Orders,
    pub(super) claimed: Claimed,
    /// Tasks start only when no other instance can have them.
    careful: bool,
    slots: usize,
    inbox_max: usize,
    expected: BTreeMap<Attempt, Expected>,
    confirmed: BTreeSet<Attempt>,
    arrived: Vec<(Attempt, Option<Loss>)>,
    recorded: BTreeSet<Attempt>,
    /// The attempt with the result that is its task's end.
    concluded: BTreeMap<TaskId, Attempt>,
    /// How the runs of a task ended.
    ended: BTreeSet<(Attempt, Outcome)>,
    interruptible: BTreeSet<Attempt>,
    /// They held a slot when a process ended.
    cut_down: BTreeSet<Attempt>,
    /// Published twice; or delivered to an instance that is not careful, not
    /// acknowledged, and so delivered again.
    handed_on: BTreeSet<Attempt>,
    drained_by: BTreeMap<Attempt, BTreeSet<usize>>,
    consuming: BTreeSet<usize>,
    /// The instances that the service will hear to be active: once, and since they
    /// consume.
    introduced: BTreeSet<usize>,
    known: BTreeSet<usize>,
    instances: Vec<Instance>,
}

impl Oracle {
    /// An oracle for a run in which inboxes may hold `inbox_max` tasks.
    pub(super) fn new(plan: &Plan, inbox_max: usize) -> Self {
        Self {
            orders: Orders::new(plan.nodes()),
            claimed: Claimed::default(),
            careful: plan.is_careful(),
            slots: plan.slots,
            inbox_max,
            expected: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            arrived: Vec::new(),
            recorded: BTreeSet::new(),
            concluded: BTreeMap::new(),
            cut_down: BTreeSet::new(),
            ended: BTreeSet::new(),
            interruptible: BTreeSet::new(),
            handed_on: BTreeSet::new(),
            drained_by: BTreeMap::new(),
            consuming: BTreeSet::new(),
            introduced: BTreeSet::new(),
            known: BTreeSet::new(),
            instances: (0..plan.nodes()).map(|_| Instance::default()).collect(),
        }
    }

    /// A task is about to be published.
    pub(super) fn publishes(&mut self, attempt: Attempt, expected: Expected) {
        self.expected.insert(attempt, expected);
    }

    /// How an attempt must end.
    pub(super) fn expects(&self, attempt: Attempt) -> Option<Expected> {
        self.expected.get(&attempt).copied()
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
        self.known.remove(&instance);
        self.consuming.insert(instance);
        self.orders.begins(instance);
        if self.consuming.len() == 1 {
            return Ok(());
        }
        Err(format!("the instances {:?} drain the task queue at the same time", self.consuming))
    }

    /// The message that an instance is active has reached the results queue.
    pub(super) fn introduces(&mut self, instance: usize) {
        self.introduced.insert(instance);
        self.known.insert(instance);
    }

    /// An instance reads what was delivered.
    pub(super) fn takes(&self, instance: usize) -> Result<(), Broken> {
        let heard = if self.careful { &self.known } else { &self.introduced };
        if heard.contains(&instance) {
            return self.orders.takes(instance);
        }
        Err(format!("instance {instance} takes tasks, and the service may not know that it does"))
    }

    /// An instance no longer takes from the task queue; these deliveries, not
    /// acknowledged, are the queue's again.
    pub(super) fn leaves(&mut self, instance: usize, unsettled: impl Iterator<Item = Attempt>) {
        self.consuming.remove(&instance);
        self.orders.leaves(instance);
        if !self.careful {
            self.handed_on.extend(unsettled);
        }
    }

    /// An acknowledgement of a task, or its way to the dead letters, has
    /// reached the broker.
    pub(super) fn settled(&self, by: usize, attempt: Attempt) -> Result<(), Broken> {
        // A later attempt supersedes an earlier one.
        let known = attempt..=Attempt { attempt: u32::MAX, ..attempt };
        if self.instances[by].durable.range(known).next().is_some() {
            return Ok(());
        }
        Err(format!("{} was acknowledged and is not on the disk of instance {by}", name(attempt)))
    }

    /// A result has reached the results queue.
    pub(super) fn arrives(&mut self, attempt: Attempt, lost: Option<Loss>) {
        if !self.arrived.contains(&(attempt, lost)) {
            self.arrived.push((attempt, lost));
        }
    }

    /// A disk is lost, or the service does not wait any more for what is on it.
    pub(super) fn gives_up(&mut self, instance: usize) {
        self.instances[instance].given_up = true;
    }

    /// A change is on an instance's disk.
    pub(super) fn stored(
        &mut self,
        on: usize,
        attempt: Attempt,
        change: TaskChange,
    ) -> Result<(), Broken> {
        // What a cancel names is answered whether or not the answer proves anything.
        if change == TaskChange::Disowned && !self.orders.names(attempt) {
            self.is_nowhere(on, attempt)?;
        }
        let instance = &mut self.instances[on];
        match change {
            TaskChange::Accepted => drop(instance.durable.insert(attempt)),
            TaskChange::Secured => drop(instance.secured.insert(attempt)),
            TaskChange::Marked => drop(instance.marked.insert(attempt)),
            TaskChange::Finished => {
                instance.durable.insert(attempt);
                instance.running.remove(&attempt);
                instance.order.leaves(attempt);
                if !instance.finished.insert(attempt) {
                    return Err(format!("instance {on} has two results of {}", name(attempt)));
                }
            }
            TaskChange::Disowned => {
                instance.durable.insert(attempt);
                instance.order.leaves(attempt);
                if !instance.disowned.insert(attempt) {
                    return Err(format!("instance {on} says twice it has not {}", name(attempt)));
                }
            }
            TaskChange::NotStarted => {
                instance.secured.remove(&attempt);
                instance.order.leaves(attempt);
                instance.disowned.insert(attempt);
            }
            TaskChange::HandedBack => {
                instance.secured.remove(&attempt);
                instance.order.is_handed_back(attempt);
            }
            TaskChange::Released(lost) if !self.arrived.contains(&(attempt, lost)) => {
                let name = name(attempt);
                return Err(format!(
                    "the result of {name} left the outbox and is not at the broker"
                ));
            }
            TaskChange::Released(_) => drop(instance.released.insert(attempt)),
            TaskChange::SaidDelivered if instance.released.contains(&attempt) => {}
            TaskChange::SaidDelivered => {
                let name = name(attempt);
                return Err(format!("instance {on} says that {name} was delivered, which it has"));
            }
        }
        Ok(())
    }

    /// An instance says that it does not know an attempt: no other instance that is not given
    /// up may have it for certain. An attempt that was published twice may come late.
    fn is_nowhere(&self, says: usize, attempt: Attempt) -> Result<(), Broken> {
        let has = |instance: &Instance| instance.secured.contains(&attempt) && !instance.given_up;
        match self.instances.iter().position(has) {
            Some(other) if !self.handed_on.contains(&attempt) => {
                let what = name(attempt);
                Err(format!("instance {says} says {what} is lost, which instance {other} has"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A commit has left so many tasks in an instance's inbox.
    pub(super) fn holds(&self, instance: usize, inbox: usize) -> Result<(), Broken> {
        if inbox <= self.inbox_max {
            return Ok(());
        }
        let bound = self.inbox_max;
        Err(format!("the inbox of instance {instance} holds {inbox} tasks, at most {bound} may be"))
    }

    /// A task that is on an instance's disk may start there.
    pub(super) fn may_start(&mut self, on: usize, seq: u64, attempt: Attempt, priority: Priority) {
        self.instances[on].order.comes(attempt, priority, seq);
    }

    /// A task starts.
    pub(super) fn starts(&mut self, on: usize, task: &Task) -> Result<(), Broken> {
        let (attempt, cores) = (task.attempt(), task.cores as usize);
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
        self.supersedes(on, attempt)?;
        let excused = self.handed_on.contains(&attempt) || self.instances[on].given_up;
        self.orders.starts(on, attempt, excused, self.slots)?;
        let instance = &mut self.instances[on];
        if instance.disowned.contains(&attempt) {
            return Err(format!("{what} runs on instance {on}, which has said it has it not"));
        }
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
        instance.running.insert(attempt, cores);
        instance.order.starts(attempt, task.priority, self.slots as u64)?;
        let taken: usize = instance.running.values().sum();
        if taken <= self.slots {
            return Ok(());
        }
        Err(format!("tasks hold {taken} slots, {} slots there are", self.slots))
    }

    /// A task runs as one attempt: others that have run were cut down with the
    /// process, are on a disk that is lost, or were published twice.
    fn supersedes(&self, on: usize, attempt: Attempt) -> Result<(), Broken> {
        let all = Attempt { attempt: 0, ..attempt }..=Attempt { attempt: u32::MAX, ..attempt };
        // One that is given up may be back, with what it has.
        if self.instances[on].given_up {
            return Ok(());
        }
        for (other, on) in self.drained_by.range(all).filter(|(other, _)| **other != attempt) {
            let excused = self.cut_down.contains(other)
                || self.handed_on.contains(other)
                || self.handed_on.contains(&attempt)
                || on.iter().any(|instance| self.instances[*instance].given_up);
            if !excused {
                let (what, other) = (name(attempt), name(*other));
                return Err(format!("{what} runs, and {other} has run on instance {on:?}"));
            }
        }
        Ok(())
    }

    /// A task has come to its end.
    pub(super) fn ends(
        &mut self,
        on: usize,
        attempt: Attempt,
        outcome: Outcome,
    ) -> Result<(), Broken> {
        self.ended.insert((attempt, outcome));
        self.orders.ends(on, attempt)
    }

    /// A task was stopped, or not started, because it is cancelled; it does not start again,
    /// unless a crash forgets that.
    pub(super) fn cut_off(&mut self, attempt: Attempt) {
        self.cut_down.insert(attempt);
    }

    /// An instance has obeyed a cancel or a drain.
    pub(super) fn obeys(&mut self, on: usize, order: &Steering) {
        let instance = &self.instances[on];
        let has = |named: Attempt| {
            let mut known = instance.durable.range(Attempt { attempt: 0, ..named }..=named);
            known.find(|attempt| !instance.finished.contains(attempt)).copied()
        };
        self.orders.obeys(on, order, has);
    }

    /// The service takes a task for cancelled by the word that an attempt at it is nowhere, or by
    /// its own.
    pub(super) fn cancels(&mut self, attempt: Attempt) -> Result<(), Broken> {
        self.orders.cancelled(attempt.task_id);
        let has = |instance: &Instance| {
            let there =
                instance.secured.contains(&attempt) && !instance.finished.contains(&attempt);
            there && !instance.given_up
        };
        match self.instances.iter().position(has) {
            Some(other) if !self.handed_on.contains(&attempt) => {
                Err(format!("{} ends as cancelled, and instance {other} has it", name(attempt)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// No instance that has the lease may start a task until the next resume.
    pub(super) fn hold_still(&mut self) {
        self.orders.hold_still(&self.consuming);
    }

    /// A task was stopped before its end; it may start again.
    pub(super) fn stopped(&mut self, on: usize, attempt: Attempt) {
        self.instances[on].running.remove(&attempt);
        self.cut_down.insert(attempt);
        self.may_start_again(on, attempt);
    }

    /// An instance's process is gone.
    pub(super) fn gone(&mut self, instance: usize) {
        self.orders.gone(instance);
        self.instances[instance].order.ends();
        for (attempt, _) in std::mem::take(&mut self.instances[instance].running) {
            self.cut_down.insert(attempt);
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

    /// A new process finds a task that an earlier one has marked as started; or
    /// no instance has one that must not run again.
    pub(super) fn may_be_interrupted(&mut self, attempt: Attempt) {
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
        let fits = fits || outcome == Outcome::Cancelled && self.may_be_cancelled(attempt);
        if !fits {
            return Err(format!("{} ended as {outcome}, which does not fit", name(attempt)));
        }
        Ok(self.recorded.insert(attempt))
    }

    /// Whether an attempt may end as cancelled: the service has asked for that, and it did not
    /// run to its end, or a crash forgot that it did.
    fn may_be_cancelled(&self, attempt: Attempt) -> bool {
        let has_ended = self.ended.iter().any(|(ended, _)| *ended == attempt);
        self.orders.names(attempt) && (!has_ended || self.cut_down.contains(&attempt))
    }

    /// The service takes the result of an attempt for its task's end.
    pub(super) fn concludes(&mut self, attempt: Attempt) -> Result<(), Broken> {
        let Some(before) = self.concluded.insert(attempt.task_id, attempt) else { return Ok(()) };
        Err(format!("{} is its task's end, which {} was before", name(attempt), name(before)))
    }

    /// The tasks that were submitted and have no outcome.
    pub(super) fn missing(&self) -> Vec<String> {
        let open = |attempt: &&Attempt| !self.concluded.contains_key(&attempt.task_id);
        let missing = self.confirmed.iter().filter(open);
        missing.map(|attempt| name(*attempt)).collect()
    }

    /// How many tasks were submitted.
    pub(super) fn submissions(&self) -> usize {
        self.confirmed.len()
    }
}

/// The name of an attempt in a trace: the number of its task in the run.
pub(super) fn name(attempt: Attempt) -> String {
    let number = attempt.task_id.0.as_u128() & 0xffff_ffff;
    match attempt.attempt {
        1 => format!("t{number}"),
        later => format!("t{number}#{later}"),
    }
}
