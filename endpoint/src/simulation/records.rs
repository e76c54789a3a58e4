//! What the service of a run has on record: tasks, their attempts in doubt, and
//! the states of the endpoint's instances; it decides as `design/0008-failover.md`
//! has it. Pure.

use clutch_common::id::{Attempt, StateId, TaskId};
use clutch_common::task::Task;
use clutch_common::task::result::{Loss, TaskResult};
use clutch_common::wire::{Presence, ROLL_CALL_MAX, Role, RollCall};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// A task and how far it is.
struct Entry {
    /// As it is published next, or was last.
    task: Task,
    /// The attempts that have a result.
    recorded: Vec<u32>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Submitted,
    Resubmitting,
    Done,
}

/// What is known of a state.
struct State {
    id: StateId,
    instance: Uuid,
    role: Role,
    /// It may have accepted what is not answered.
    holds: bool,
    /// It was active, and another one has been since.
    superseded: bool,
    was_active: bool,
    given_up: bool,
    heard: Instant,
}

impl State {
    fn is_active(&self) -> bool {
        self.role == Role::Active && !self.superseded
    }

    fn counts(&self) -> bool {
        self.holds && !self.given_up
    }
}

/// What follows from a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is the task's end.
    Done,
    /// It is kept; another attempt is under way.
    Kept,
    /// It has come before.
    Known,
    /// The attempt is asked for.
    Ask,
    /// The task is submitted again.
    Resubmit,
    /// The task ends as interrupted.
    Interrupt,
    /// A loss without consequence.
    PassBy,
}

/// The records.
pub(super) struct Records {
    /// Losses have consequences, and states are given up.
    recovers: bool,
    lost_after: Duration,
    tasks: BTreeMap<TaskId, Entry>,
    /// Attempts that nobody may have, and whether they were asked for.
    doubts: BTreeMap<TaskId, bool>,
    states: Vec<State>,
}

impl Records {
    /// Empty ones.
    pub(super) fn new(recovers: bool, lost_after: Duration) -> Self {
        let (tasks, doubts, states) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { recovers, lost_after, tasks, doubts, states }
    }

    /// The broker has a task.
    pub(super) fn submitted(&mut self, task: Task) {
        let entry = Entry { task, recorded: Vec::new(), stage: Stage::Submitted };
        self.tasks.entry(entry.task.id).or_insert(entry);
    }

    /// Takes in a result.
    pub(super) fn record(&mut self, result: &TaskResult, now: Instant) -> Verdict {
        let of = |state: &&mut State| Some(state.id) == result.state_id;
        if let Some(state) = self.states.iter_mut().find(of) {
            state.heard = now;
        }
        let Attempt { task_id, attempt } = result.attempt();
        let Some(entry) = self.tasks.get_mut(&task_id) else { return Verdict::PassBy };
        let current = entry.task.attempt;
        let verdict = match result.lost {
            Some(_) if !self.recovers || attempt != current || entry.stage == Stage::Done => {
                return Verdict::PassBy;
            }
            Some(Loss::HandedBack) => {
                self.doubts.insert(task_id, false);
                return Verdict::Ask;
            }
            Some(Loss::Unknown | Loss::Delivered) if entry.task.rerun => {
                entry.task.attempt += 1;
                entry.stage = Stage::Resubmitting;
                Verdict::Resubmit
            }
            Some(Loss::Unknown | Loss::Delivered) => {
                entry.recorded.push(attempt);
                entry.stage = Stage::Done;
                Verdict::Interrupt
            }
            None if entry.recorded.contains(&attempt) => return Verdict::Known,
            None => {
                entry.recorded.push(attempt);
                if attempt < current || entry.stage == Stage::Done {
                    return Verdict::Kept;
                }
                entry.stage = Stage::Done;
                Verdict::Done
            }
        };
        self.doubts.remove(&task_id);
        verdict
    }

    /// Takes in what an instance says of itself; says which states are given up.
    pub(super) fn hear(&mut self, presence: &Presence, now: Instant) -> Vec<StateId> {
        let active = self.states.iter().find(|state| state.is_active());
        let active = active.map(|state| (state.id, state.instance));
        if !self.states.iter().any(|state| state.id == presence.state_id) {
            self.states.push(State {
                id: presence.state_id,
                instance: presence.instance,
                role: presence.role,
                holds: false,
                superseded: false,
                was_active: false,
                given_up: false,
                heard: now,
            });
        }
        let mut replaces = false;
        for state in self.states.iter_mut().filter(|state| state.id == presence.state_id) {
            state.heard = now;
            if presence.role == Role::Standby && presence.is_from_before(state.instance) {
                return Vec::new();
            }
            state.role = presence.role;
            state.given_up = false;
            state.holds = presence.role == Role::Active || presence.pending > 0;
            if presence.role == Role::Standby {
                return Vec::new();
            }
            state.instance = presence.instance;
            if active == Some((state.id, state.instance)) {
                return Vec::new();
            }
            replaces = !state.was_active && !presence.standby;
            state.was_active = true;
            state.superseded = false;
        }
        self.doubts.values_mut().for_each(|asked| *asked = false);
        let mut given_up = Vec::new();
        for other in self.states.iter_mut().filter(|state| state.id != presence.state_id) {
            other.superseded = true;
            if replaces && other.counts() && self.recovers {
                other.given_up = true;
                given_up.push(other.id);
            }
        }
        if !given_up.is_empty() {
            self.doubt_all();
        }
        given_up
    }

    /// Gives up a state that was silent for too long while another was active.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<StateId> {
        let active = self.states.iter().find(|state| state.is_active())?.id;
        let silent = self.states.iter_mut().find(|state| {
            state.id != active && state.counts() && now >= state.heard + self.lost_after
        })?;
        silent.given_up = true;
        let id = silent.id;
        self.doubt_all();
        Some(id)
    }

    fn doubt_all(&mut self) {
        let open = self.tasks.iter().filter(|(_, entry)| entry.stage != Stage::Done);
        self.doubts.extend(open.map(|(id, _)| (*id, false)));
    }

    /// What the active state is to be asked, unless another one may have it.
    pub(super) fn next_to_ask(&mut self) -> Option<RollCall> {
        let active = self.states.iter().find(|state| state.is_active())?;
        let (active, instance) = (active.id, active.instance);
        if self.states.iter().any(|state| state.id != active && state.counts()) {
            return None;
        }
        let mut attempts = Vec::new();
        for (task_id, asked) in self.doubts.iter_mut().filter(|(_, asked)| !**asked) {
            if let Some(entry) = self.tasks.get(task_id)
                && entry.stage == Stage::Submitted
                && attempts.len() < ROLL_CALL_MAX
            {
                *asked = true;
                attempts.push(entry.task.attempt());
            }
        }
        (!attempts.is_empty()).then_some(RollCall { state_id: active, instance, attempts })
    }

    /// A task whose next attempt is to be published; it counts as published.
    pub(super) fn next_to_resubmit(&mut self) -> Option<Task> {
        let mut open = self.tasks.values_mut();
        let entry = open.find(|entry| entry.stage == Stage::Resubmitting)?;
        entry.stage = Stage::Submitted;
        Some(entry.task.clone())
    }
}
