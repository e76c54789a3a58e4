//! The tasks of the inbox that wait, in order, each with why. Pure.

use super::{Held, Inbox, Limited, function};
use crate::pending::poison::Standing;
use clutch_common::task::Task;
use std::fmt;
use std::sync::Arc;

/// Why a task waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// Nothing starts before the link is up, or known to be down.
    Link,
    /// The endpoint is drained.
    Resume,
    /// Its acknowledgement is not confirmed.
    Acknowledgement,
    /// It is of a topic, and its claim is not confirmed.
    Claim,
    /// No slot is free.
    Slot,
    /// No further call of this function may run.
    Worker(String),
    /// The daemon died while it ran, and another one with which it died runs.
    Suspects,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it was here before the start, and the link is not up yet"),
            Self::Resume => f.write_str("the endpoint is drained"),
            Self::Acknowledgement => f.write_str(
                "another instance may have it too: its acknowledgement is not confirmed",
            ),
            Self::Claim => f.write_str(
                "it waits for its claim: a task of a topic starts once the broker has confirmed \
                 that it will run here",
            ),
            Self::Slot => f.write_str("all slots are in use"),
            Self::Worker(function) => {
                write!(f, "all workers of the function {function} are busy")
            }
            Self::Suspects => {
                f.write_str("the daemon died while it ran: it runs once no other such task does")
            }
        }
    }
}

/// The step that a task has to pass before it waits for a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// There is none.
    Passed,
    /// The confirm of its acknowledgement.
    Acknowledgement,
    /// The confirm of its claim.
    Claim,
}

/// A task that is accepted and not finished.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The task.
    pub(crate) task: Arc<Task>,
    /// Why it waits; `None` if it has a slot.
    pub(crate) waits: Option<Waits>,
}

impl Inbox {
    /// Lists the first `most` tasks that wait, in the order in which they were accepted;
    /// `drained` says that the endpoint starts none.
    pub(crate) fn waiting_tasks(&self, most: usize, drained: bool) -> Vec<Listed> {
        let mut all: Vec<(&Held, Gate)> = self.all_waiting().collect();
        all.sort_unstable_by_key(|(held, _)| held.seq);
        let why = |held: &Held, gate: Gate| match held.standing {
            _ if gate == Gate::Acknowledgement => Waits::Acknowledgement,
            _ if drained => Waits::Resume,
            _ if self.shut => Waits::Link,
            _ if gate == Gate::Claim => Waits::Claim,
            Standing::Suspect | Standing::LastChance
                if !held.standing.may_start(self.running[0], self.running[1]) =>
            {
                Waits::Suspects
            }
            _ if self.is_busy(held) => Waits::Worker(function(&held.task).to_owned()),
            Standing::Clear | Standing::Suspect | Standing::LastChance | Standing::Poisoned => {
                Waits::Slot
            }
        };
        let listed = |(held, gate): (&Held, Gate)| Listed {
            task: Arc::clone(&held.task),
            waits: Some(why(held, gate)),
        };
        all.into_iter().take(most).map(listed).collect()
    }

    /// The tasks that wait, in no order, each with what it has to pass before it waits for a slot.
    fn all_waiting(&self) -> impl Iterator<Item = (&Held, Gate)> {
        let calls = self.limited.values().flat_map(|function: &Limited| function.waiting.iter());
        let unsecured = self.unsecured.iter().flatten();
        let unsecured = unsecured.map(|unsecured| (&unsecured.held, Gate::Acknowledgement));
        let unclaimed = self.unclaimed.iter().map(|held| (held, Gate::Claim));
        calls
            .chain(self.waiting.iter())
            .chain(self.suspected.iter())
            .map(|held| (held, Gate::Passed))
            .chain(unsecured)
            .chain(unclaimed)
    }

    /// The tasks that wait, in no order.
    pub(crate) fn tasks_waiting(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.all_waiting().map(|(held, _)| &held.task)
    }
}
