//! Decides what is told of running work. Pure: no clock, no IO.
//!
//! Each tick brings what is pending; out come messages of at most [`ATTEMPTS_MAX`] attempts.
//! Promises: an attempt is told once it has waited, or has run, for [`OLD_MS`], and again when
//! it comes to another phase, has new progress, or has other sends and receives open for as long; one that has a slot and does not run for two
//! ticks is told as accepted; every [`COMPLETE_MS`], and when it is asked
//! for, all of them are told; what was not fetched yet is not gathered again.

use crate::pending::look::WaitingTask;
use crate::storage::journal::{NotedRun, Seq};
use clutch_common::id::Attempt;
use clutch_common::wire::{AttemptEvent, Load, MessageWait, Phase, TaskProgress};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// The most attempts of a message.
pub(super) const ATTEMPTS_MAX: usize = 1000;
/// The most attempts without a slot that are gathered in a tick.
pub(super) const WAITING_MAX: usize = 10 * ATTEMPTS_MAX;
/// How long an attempt is in a phase before that is told, in milliseconds.
const OLD_MS: u64 = 1000;
/// How often all is told, in milliseconds.
const COMPLETE_MS: u64 = 30_000;

/// The attempts that are pending at a tick.
#[derive(Default)]
pub(super) struct Seen {
    /// The attempts that run.
    pub(super) running: Vec<NotedRun>,
    /// Attempts without a slot, from [`Gatherer::next_waiting`] on, in order.
    pub(super) waiting: Vec<WaitingTask>,
    /// Attempts with a slot. One that does not run is being started.
    pub(super) slotted: Vec<WaitingTask>,
    /// The last progress of attempts that run.
    pub(super) progress: BTreeMap<Attempt, TaskProgress>,
    /// The open sends and receives of attempts that run.
    pub(super) waits: BTreeMap<Attempt, Vec<MessageWait>>,
    /// The load.
    pub(super) load: Load,
}

/// A message to be sent.
#[derive(PartialEq, Debug)]
pub(super) struct NextEvents {
    /// Whether attempts that are not told are not pending.
    pub(super) complete: bool,
    /// The load.
    pub(super) load: Load,
    /// Attempts.
    pub(super) attempts: Vec<AttemptEvent>,
}

/// The last event of an attempt that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ToldRun {
    /// When it told its progress.
    progress_at_ms: Option<u64>,
    /// Its open sends and receives.
    waits: Vec<MessageWait>,
}

/// Gathers what is to be told.
pub(super) struct Gatherer {
    /// The attempts that were told to run, and what was told of them.
    running: HashMap<Attempt, ToldRun>,
    /// The attempts with a slot that did not run at the last tick, and whether that was told.
    starting: HashMap<Attempt, bool>,
    /// From where on attempts without a slot were not told.
    next_waiting: Seq,
    /// When all is told next.
    complete_at_ms: u64,
    /// Whether the next message is the first of a complete report.
    complete: bool,
    /// The load that was told last; `None` where it has to be told.
    load: Option<Load>,
    /// The load as it is.
    current: Load,
    /// Events to be told.
    untold: VecDeque<AttemptEvent>,
    /// Whether something was told since nothing was pending.
    spoke: bool,
}

impl Default for Gatherer {
    fn default() -> Self {
        Self {
            running: HashMap::new(),
            starting: HashMap::new(),
            next_waiting: Seq(0),
            complete_at_ms: 0,
            complete: false,
            load: Some(Load::default()),
            current: Load::default(),
            untold: VecDeque::new(),
            spoke: false,
        }
    }
}

impl Gatherer {
    /// Has all be told at the next tick.
    pub(super) fn ask_complete(&mut self) {
        self.complete_at_ms = 0;
    }

    /// Whether the next tick may gather: what was gathered before is on its way.
    pub(super) fn is_drained(&self) -> bool {
        self.untold.is_empty() && !self.complete
    }

    /// Returns from where on the attempts without a slot are to be seen at a tick.
    pub(super) fn next_waiting(&self, now_ms: u64) -> Seq {
        if now_ms >= self.complete_at_ms { Seq(0) } else { self.next_waiting }
    }

    /// Takes what is pending at a tick.
    pub(super) fn gather(&mut self, now_ms: u64, seen: Seen) {
        let Seen { running, waiting, slotted, mut progress, mut waits, load } = seen;
        let is_old = |since_ms: u64| since_ms.saturating_add(OLD_MS) <= now_ms;
        if now_ms >= self.complete_at_ms {
            self.complete_at_ms = now_ms + COMPLETE_MS;
            (self.complete, self.load) = (true, None);
            (self.running, self.next_waiting) = (HashMap::new(), Seq(0));
            self.starting.values_mut().for_each(|is_told| *is_told = false);
        }
        self.current = load;
        let runs: HashSet<Attempt> = running.iter().map(|run| run.attempt).collect();
        let before = std::mem::take(&mut self.running);
        for run in running {
            let told = before.get(&run.attempt);
            let progress = progress.remove(&run.attempt);
            let mut waits = waits.remove(&run.attempt).unwrap_or_default();
            waits.retain(|wait| is_old(wait.since_ms));
            let progress_at_ms = progress.as_ref().map(|progress| progress.at_ms);
            let is_told = told.is_some_and(|before| {
                let same = progress_at_ms.is_none() || before.progress_at_ms == progress_at_ms;
                same && before.waits == waits
            });
            if told.is_none() && !is_old(run.started_at_ms) {
                continue;
            }
            self.running.insert(run.attempt, ToldRun { progress_at_ms, waits: waits.clone() });
            if !is_told {
                self.untold.push_back(AttemptEvent {
                    attempt: run.attempt,
                    phase: Phase::Running,
                    since_ms: run.started_at_ms,
                    accepted_at_ms: run.accepted_at_ms,
                    progress,
                    waits_for: None,
                    waits,
                });
            }
        }
        // One that is started in no time is not told.
        let known = std::mem::take(&mut self.starting);
        for task in slotted.into_iter().filter(|task| !runs.contains(&task.attempt)) {
            let before = known.get(&task.attempt);
            self.starting.insert(task.attempt, before.is_some());
            if before == Some(&false) {
                self.untold.push_back(accepted(task, now_ms));
            }
        }
        for task in waiting {
            if !task.accepted_at_ms.is_none_or(is_old) {
                break;
            }
            self.next_waiting = Seq(task.seq.0 + 1);
            self.untold.push_back(accepted(task, now_ms));
        }
    }

    /// Nothing is pending: that is told, if something else was before.
    pub(super) fn rest(&mut self, load: Load) {
        if std::mem::take(&mut self.spoke) {
            self.untold.clear();
            (self.complete, self.load) = (true, None);
        } else {
            self.load = Some(load.clone());
        }
        self.running.clear();
        self.starting.clear();
        (self.current, self.complete_at_ms) = (load, 0);
    }

    /// Returns the next message, if there is something to tell.
    pub(super) fn next(&mut self) -> Option<NextEvents> {
        let is_told = self.load.as_ref() == Some(&self.current);
        if self.untold.is_empty() && !self.complete && is_told {
            return None;
        }
        let attempts: Vec<AttemptEvent> =
            self.untold.drain(..self.untold.len().min(ATTEMPTS_MAX)).collect();
        let load = self.current.clone();
        self.load = Some(load.clone());
        self.spoke |= load.running + load.accepted > 0;
        Some(NextEvents { complete: std::mem::take(&mut self.complete), load, attempts })
    }
}

/// Tells an attempt that does not run.
fn accepted(task: WaitingTask, now_ms: u64) -> AttemptEvent {
    let WaitingTask { attempt, accepted_at_ms, waits_for, .. } = task;
    AttemptEvent {
        attempt,
        phase: Phase::Accepted,
        since_ms: accepted_at_ms.unwrap_or(now_ms),
        accepted_at_ms,
        progress: None,
        waits_for,
        waits: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
