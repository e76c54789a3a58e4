//! Decides what becomes of the instants of a schedule that are due, and when to look again. Pure.

use super::state::{Decision, ScheduleState, SkipReason};
use super::{CatchUp, Overlap, Policy, Recurrence, Rule, ScheduleId};

/// The most decisions of one step.
const DECISIONS: usize = 1000;
/// The most instants that one step looks at.
const INSTANTS: usize = 10_000;
/// More instants than this, skipped in a row for one reason, share a decision.
const ALONE: usize = 1000;
/// An instant that is no later than this was not missed, in milliseconds.
const ON_TIME_MS: i64 = 1000;
/// With [`CatchUp::None`], the last instant may be this late, in milliseconds.
const LATE_MS: i64 = 60_000;

/// When to decide again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once, from the state after the decisions: more instants are due.
    Again,
    /// At this moment by the wall clock; earlier when the schedule or one of its tasks changes.
    At(i64),
    /// When the schedule or one of its tasks changes.
    Change,
    /// Never: the rule has no further instant.
    Over,
}

/// The decisions on a schedule, and when it is decided on again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The decisions on instants, in their order. At most a thousand. Each assumes the ones before
    /// it: where the task of a [`Decision::Fire`] cannot be placed, decide anew behind it.
    pub(crate) decisions: Vec<Decision>,
    pub(crate) next: Next,
}

/// Decides what becomes of the instants that are due at `now_ms`.
pub(crate) fn step(
    id: ScheduleId,
    rule: &Rule,
    policy: &Policy,
    state: &ScheduleState,
    now_ms: i64,
) -> Decided {
    if state.paused_ms.is_some() {
        return Decided { decisions: Vec::new(), next: Next::Change };
    }
    let mut deciding = Deciding {
        policy,
        max_runs: rule.max_runs,
        now_ms,
        state: state.clone(),
        decisions: Vec::new(),
    };
    deciding.queued();
    let next = match rule.recurrence {
        Recurrence::AfterEndMs(_) => deciding.after_end(id, rule),
        Recurrence::EveryMs(_) | Recurrence::Cron(_) | Recurrence::Calendar(_) => {
            let due = Due::look(id, rule, state.cursor_ms, now_ms);
            deciding.instants(&due).unwrap_or(due.next)
        }
    };
    let over = next == Next::Over && deciding.state.queued_ms.is_some();
    Decided { decisions: deciding.decisions, next: if over { Next::Change } else { next } }
}

/// An instant and when its task is due.
#[derive(Clone, Copy)]
struct DueInstant {
    instant_ms: i64,
    due_ms: i64,
}

/// The instants that are due.
struct Due {
    instants: Vec<DueInstant>,
    /// The next decision, if these are all made.
    next: Next,
}

impl Due {
    fn look(id: ScheduleId, rule: &Rule, cursor_ms: i64, now_ms: i64) -> Self {
        let mut instants = Vec::new();
        let mut last_ms = cursor_ms;
        while instants.len() < INSTANTS {
            let Some(instant_ms) = rule.next_after(last_ms) else {
                return Self { instants, next: Next::Over };
            };
            let due_ms = rule.due_at(id, instant_ms);
            if due_ms > now_ms {
                return Self { instants, next: Next::At(due_ms) };
            }
            instants.push(DueInstant { instant_ms, due_ms });
            last_ms = instant_ms;
        }
        Self { instants, next: Next::Again }
    }

    /// Whether an instant is the last one that is due.
    fn is_last(&self, at: usize) -> bool {
        at + 1 == self.instants.len() && self.next != Next::Again
    }
}

/// A decision under way: the state after the decisions so far.
struct Deciding<'a> {
    policy: &'a Policy,
    max_runs: Option<u64>,
    now_ms: i64,
    state: ScheduleState,
    decisions: Vec<Decision>,
}

impl Deciding<'_> {
    fn decide(&mut self, decision: Decision) {
        self.state.apply(&decision);
        self.decisions.push(decision);
    }

    /// Whether the rule has made all tasks that it may.
    fn used_up(&self) -> bool {
        let promised = self.state.tasks + u64::from(self.state.queued_ms.is_some());
        self.max_runs.is_some_and(|most| promised >= most)
    }

    /// The instant that waits becomes a task once no other runs.
    fn queued(&mut self) {
        if let Some(instant_ms) = self.state.queued_ms
            && self.state.running == 0
        {
            self.decide(Decision::Fire { instant_ms, queued: true, cancel_previous: false });
        }
    }

    /// A fixed delay has one instant at a time. It is never missed, as the delay is the least.
    fn after_end(&mut self, id: ScheduleId, rule: &Rule) -> Next {
        if self.used_up() {
            return Next::Over;
        }
        if self.state.running > 0 {
            return Next::Change;
        }
        let after_ms = self.state.last_ended_ms.max(Some(self.state.cursor_ms));
        let Some(instant_ms) = after_ms.and_then(|after_ms| rule.next_after(after_ms)) else {
            return Next::Over;
        };
        let due_ms = rule.due_at(id, instant_ms);
        if due_ms > self.now_ms {
            return Next::At(due_ms);
        }
        self.decide(Decision::Fire { instant_ms, queued: false, cancel_previous: false });
        if self.used_up() { Next::Over } else { Next::Change }
    }

    /// Decides on instants one after the other; what follows, if it is not what follows on them.
    fn instants(&mut self, due: &Due) -> Option<Next> {
        let mut at = 0;
        while at < due.instants.len() {
            if self.used_up() {
                return Some(Next::Over);
            }
            if self.decisions.len() >= DECISIONS {
                return Some(Next::Again);
            }
            let instant_ms = due.instants[at].instant_ms;
            let reason = match self.verdict(due, at) {
                Verdict::Fire { cancel_previous } => {
                    self.decide(Decision::Fire { instant_ms, queued: false, cancel_previous });
                    at += 1;
                    continue;
                }
                Verdict::Queue => {
                    self.decide(Decision::Queue { instant_ms });
                    at += 1;
                    continue;
                }
                Verdict::Skip(reason) => reason,
            };
            let same = |at: &usize| self.verdict(due, *at) == Verdict::Skip(reason);
            let end = (at..due.instants.len()).take_while(same).last().unwrap_or(at) + 1;
            at += self.skip(&due.instants[at..end], reason);
        }
        self.used_up().then_some(Next::Over)
    }

    /// Skips instants, each with its decision as far as there is room, or many with one. How many
    /// were skipped.
    fn skip(&mut self, instants: &[DueInstant], reason: SkipReason) -> usize {
        if instants.len() > ALONE
            && let (Some(first), Some(last)) = (instants.first(), instants.last())
        {
            let (first_ms, last_ms) = (first.instant_ms, last.instant_ms);
            let count = instants.len() as u64;
            self.decide(Decision::SkipMany { first_ms, last_ms, count, reason });
            return instants.len();
        }
        let room = DECISIONS.saturating_sub(self.decisions.len()).min(instants.len());
        for DueInstant { instant_ms, .. } in &instants[..room] {
            self.decide(Decision::Skip { instant_ms: *instant_ms, reason });
        }
        room
    }

    /// The verdict on an instant, by the state after the decisions so far.
    fn verdict(&self, due: &Due, at: usize) -> Verdict {
        let DueInstant { instant_ms, due_ms } = due.instants[at];
        if self.state.resumed_ms.is_some_and(|resumed_ms| instant_ms <= resumed_ms) {
            return Verdict::Skip(SkipReason::Paused);
        }
        let late_ms = self.now_ms - due_ms;
        let last = due.is_last(at);
        let made_up = match self.policy.catch_up {
            CatchUp::All => late_ms <= self.policy.window_ms,
            CatchUp::Last => last && late_ms <= self.policy.window_ms,
            CatchUp::None => last && late_ms <= LATE_MS,
        };
        if late_ms > ON_TIME_MS && !made_up {
            return Verdict::Skip(SkipReason::Missed);
        }
        match self.policy.overlap {
            _ if self.state.running == 0 => Verdict::Fire { cancel_previous: false },
            Overlap::Allow => Verdict::Fire { cancel_previous: false },
            Overlap::CancelPrevious if last => Verdict::Fire { cancel_previous: true },
            Overlap::QueueOne if self.state.queued_ms.is_none() => Verdict::Queue,
            Overlap::Skip | Overlap::QueueOne | Overlap::CancelPrevious => {
                Verdict::Skip(SkipReason::Overlap)
            }
        }
    }
}

/// The end of an instant that is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fire { cancel_previous: bool },
    Queue,
    Skip(SkipReason),
}

#[cfg(test)]
mod tests;
