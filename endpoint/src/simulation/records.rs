//! The records of the service in a run: tasks, their attempts in doubt, and the states of the
//! endpoint's instances. [`clutch_common::failover`] decides what follows from them. Pure.

use super::claims::never_starts;
use clutch_common::failover::{
    self, Consequence, Evidence, Heard, KnownState, PingTimes, Plan, PresenceEffect, TaskStanding,
};
use clutch_common::id::{Attempt, StateId, TaskId};
use clutch_common::task::Task;
use clutch_common::task::result::TaskResult;
use clutch_common::wire::{Presence, ROLL_CALL_MAX, RollCall};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

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
    /// Another attempt waits.
    Resubmitting,
    /// Another attempt is on its way to the broker.
    Placing,
    Done,
}

/// The consequence of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is the task's end.
    Done,
    /// It is kept; another attempt is under way.
    Kept,
    /// It has come before.
    Known,
    /// The attempt is lost.
    Lost(Consequence),
    /// The task is not of this service.
    Unknown,
}

/// The records.
pub(super) struct Records {
    /// Losses have consequences, and states are given up.
    recovers: bool,
    lost_after: Duration,
    tasks: BTreeMap<TaskId, Entry>,
    /// Attempts that no instance may have, and whether they were asked for.
    doubts: BTreeMap<TaskId, bool>,
    /// Since when those are asked for that were asked for before.
    round_since: Instant,
    /// The states that were asked for attempts.
    asked: BTreeSet<(Attempt, StateId)>,
    /// The attempts that were claimed.
    claimed: BTreeSet<Attempt>,
    /// The tasks that are to be cancelled.
    cancelled: BTreeSet<TaskId>,
    states: Vec<KnownState>,
    heard: Heard,
    times: PingTimes,
}

/// The time after which an attempt without a result is asked for again, as by `serve --ask-after`:
/// an endpoint may have taken a report that it had sent before for its answer.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// A moment of the wall clock: the rules only ask whether there was one.
const ONCE: u64 = 0;

impl Records {
    /// Empty ones, of a session that begins now.
    pub(super) fn new(recovers: bool, lost_after: Duration, now: Instant) -> Self {
        Self {
            recovers,
            lost_after,
            tasks: BTreeMap::new(),
            doubts: BTreeMap::new(),
            round_since: now,
            asked: BTreeSet::new(),
            claimed: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            states: Vec::new(),
            heard: Heard::new(),
            times: PingTimes::new(now),
        }
    }

    /// The broker has a task.
    pub(super) fn submitted(&mut self, task: Task) {
        let entry = Entry { task, recorded: Vec::new(), stage: Stage::Submitted };
        self.tasks.entry(entry.task.id).or_insert(entry);
    }

    /// Takes in a result.
    pub(super) fn record(&mut self, result: &TaskResult, now: Instant) -> Verdict {
        self.heard.extend(result.state_id.map(|state| (state, now)));
        let Attempt { task_id, attempt } = result.attempt();
        let Some(entry) = self.tasks.get_mut(&task_id) else { return Verdict::Unknown };
        let (current_attempt, done) = (entry.task.attempt, entry.stage == Stage::Done);
        let verdict = match result.lost {
            Some(_) if !self.recovers => return Verdict::Lost(Consequence::Ignore),
            Some(loss) => {
                let (rerun, in_doubt) = (entry.task.rerun, self.doubts.contains_key(&task_id));
                let cancel = self.cancelled.contains(&task_id).then(|| {
                    let to_ask = failover::to_ask(&self.states).map(|state| state.id);
                    let was_asked = |state| self.asked.contains(&(result.attempt(), state));
                    match result.state_id {
                        Some(state) if to_ask == Some(state) || was_asked(state) => {
                            Evidence::Conclusive
                        }
                        _ => Evidence::Inconclusive,
                    }
                });
                let placed = entry.task.topic.is_some();
                let task = TaskStanding { current_attempt, done, rerun, in_doubt, placed, cancel };
                let consequence = failover::consequence(loss, attempt, task);
                match consequence {
                    Consequence::Ignore | Consequence::Unasked => {
                        return Verdict::Lost(consequence);
                    }
                    Consequence::Ask => {
                        self.doubts.insert(task_id, false);
                        return Verdict::Lost(consequence);
                    }
                    Consequence::Resubmit => {
                        entry.task.attempt += 1;
                        entry.stage = Stage::Resubmitting;
                    }
                    Consequence::Interrupt | Consequence::Cancel => {
                        entry.recorded.push(attempt);
                        entry.stage = Stage::Done;
                    }
                }
                Verdict::Lost(consequence)
            }
            None if entry.recorded.contains(&attempt) => return Verdict::Known,
            None => {
                entry.recorded.push(attempt);
                if attempt < current_attempt || done {
                    return Verdict::Kept;
                }
                entry.stage = Stage::Done;
                Verdict::Done
            }
        };
        self.doubts.remove(&task_id);
        verdict
    }

    /// Takes in a presence; says which states are given up for it.
    pub(super) fn hear(&mut self, presence: &Presence, now: Instant) -> Vec<StateId> {
        self.heard.insert(presence.state_id, now);
        let PresenceEffect { took_over, given_up } =
            failover::apply_presence(&mut self.states, presence, ONCE);
        if took_over {
            self.ask_anew();
        }
        if given_up.is_empty() || !self.recovers {
            return Vec::new();
        }
        self.doubt_all();
        given_up
    }

    /// Gives up the states that were silent for too long while another was active.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<StateId> {
        self.times.read_up_to(now);
        let Plan { give_up, .. } =
            failover::plan(&self.states, self.lost_after, &self.times, &self.heard, now);
        for state in self.states.iter_mut().filter(|state| give_up.contains(&state.id)) {
            state.given_up_at_ms = Some(ONCE);
        }
        if !give_up.is_empty() {
            self.doubt_all();
        }
        give_up
    }

    /// Declares every state lost that may have tasks, as a person would.
    pub(super) fn declare_lost(&mut self) -> Vec<StateId> {
        let lost = failover::declare_lost(&mut self.states, None, ONCE);
        if !lost.is_empty() {
            self.doubt_all();
        }
        lost
    }

    /// Has all that are in doubt asked for again; no state counts as asked.
    fn ask_anew(&mut self) {
        self.doubts.values_mut().for_each(|asked| *asked = false);
        self.asked.clear();
    }

    fn doubt_all(&mut self) {
        let open = self.tasks.iter().filter(|(_, entry)| entry.stage != Stage::Done);
        self.doubts.extend(open.map(|(id, _)| (*id, false)));
    }

    /// The next roll call for the active state, unless another state may have the attempts.
    pub(super) fn next_to_ask(&mut self, now: Instant) -> Option<RollCall> {
        if now >= self.round_since + ASK_AGAIN {
            self.round_since = now;
            self.ask_anew();
        }
        let asked = failover::to_ask(&self.states)?;
        let (state_id, instance) = (asked.id, asked.instance);
        let mut attempts = Vec::new();
        for (task_id, asked) in self.doubts.iter_mut().filter(|(_, asked)| !**asked) {
            if let Some(entry) = self.tasks.get(task_id)
                && entry.stage == Stage::Submitted
                && attempts.len() < ROLL_CALL_MAX
            {
                *asked = true;
                self.asked.insert((entry.task.attempt(), state_id));
                attempts.push(entry.task.attempt());
            }
        }
        (!attempts.is_empty()).then_some(RollCall { state_id, instance, attempts })
    }

    /// The next task to be published as another attempt; it counts as published.
    pub(super) fn next_to_resubmit(&mut self, start_by_ms: u64) -> Option<Task> {
        let mut open = self.tasks.values_mut();
        let entry = open.find(|entry| entry.stage == Stage::Resubmitting)?;
        entry.stage = Stage::Placing;
        entry.task.topic.iter_mut().for_each(|terms| terms.start_by_ms = start_by_ms);
        Some(entry.task.clone())
    }

    /// Takes in claims.
    pub(super) fn claim(&mut self, attempts: &[Attempt]) {
        self.claimed.extend(attempts);
    }

    /// Has tasks published as other attempts of which the last never starts: it was not claimed in
    /// all that was sent until `read_ms`. Returns the attempts.
    pub(super) fn fence(&mut self, read_ms: u64) -> Vec<Attempt> {
        let Self { tasks, claimed, cancelled, doubts, .. } = self;
        let open = tasks.values_mut().filter(|entry| {
            entry.stage == Stage::Submitted
                && never_starts(&entry.task, read_ms)
                && !claimed.contains(&entry.task.attempt())
                && !cancelled.contains(&entry.task.id)
        });
        let fence = |entry: &mut Entry| {
            let fenced = entry.task.attempt();
            entry.task.attempt += 1;
            entry.stage = Stage::Resubmitting;
            doubts.remove(&fenced.task_id);
            fenced
        };
        open.map(fence).collect()
    }

    /// The broker has another attempt at a task.
    pub(super) fn placed(&mut self, task: TaskId) {
        let entry = self.tasks.get_mut(&task).filter(|entry| entry.stage == Stage::Placing);
        entry.into_iter().for_each(|entry| entry.stage = Stage::Submitted);
    }

    /// Requests that those tasks are cancelled, of all without an outcome, that are chosen. Returns
    /// the attempts that waited, which end by that, and those that the endpoint is asked for.
    pub(super) fn cancel(
        &mut self,
        mut chosen: impl FnMut(&TaskId) -> bool,
    ) -> (Vec<Attempt>, Vec<Attempt>) {
        let (mut ended, mut named) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.tasks {
            let to = match entry.stage {
                Stage::Resubmitting => &mut ended,
                Stage::Submitted => &mut named,
                Stage::Placing | Stage::Done => continue,
            };
            if self.cancelled.contains(id) || !chosen(id) {
                continue;
            }
            to.push(entry.task.attempt());
            if entry.stage == Stage::Resubmitting {
                entry.stage = Stage::Done;
                self.doubts.remove(id);
            }
            self.cancelled.insert(*id);
        }
        (ended, named)
    }

    /// Whether a task is to be cancelled.
    pub(super) fn is_cancelled(&self, task: TaskId) -> bool {
        self.cancelled.contains(&task)
    }
}
