//! The judge of a run: knows by itself what runs, what is paused and which instants there are, and
//! says which promise a record breaks.

use super::plan::{MINUTE, Plan};
use crate::schedule::{CatchUp, Decision, End, Overlap, Recurrence, SkipReason};
use clutch_common::id::TaskId;
use std::collections::BTreeSet;

/// The judge's knowledge of a schedule.
#[derive(Default)]
pub(super) struct Judged {
    /// When the schedule was added.
    added: i64,
    /// The instants that have records, in the order of these.
    told: Vec<i64>,
    /// The instant that waits.
    queued: Option<i64>,
    running: u64,
    made: u64,
    failures: u32,
    pub(super) paused: bool,
    resumed: Option<i64>,
    last_end: Option<i64>,
    /// Every task that was ever made under the schedule's name.
    tasks: BTreeSet<TaskId>,
    /// The instants that had records when the schedule was added again.
    known: BTreeSet<i64>,
    /// Since when, by the clock, the service ran and decided on the schedule without a break;
    /// nothing while it is down.
    pub(super) steady: Option<i64>,
}

/// A record that was committed.
pub(super) struct Committed<'a> {
    pub(super) record: &'a Decision,
    /// The moment by the service's clock.
    pub(super) now: i64,
    /// Whether the task of a [`Decision::Fire`] was placed.
    pub(super) placed: bool,
}

type Judgement = Result<(), String>;

fn hold(holds: bool, promise: impl FnOnce() -> String) -> Judgement {
    if holds { Ok(()) } else { Err(promise()) }
}

impl Judged {
    /// A schedule that was added at a moment.
    pub(super) fn added(added: i64) -> Self {
        Self { added, steady: Some(added), ..Self::default() }
    }

    /// Notes that the schedule was removed and added again, and begins behind a moment.
    pub(super) fn add_again(&mut self, added: i64, known: BTreeSet<i64>, now: i64) {
        let tasks = std::mem::take(&mut self.tasks);
        *self = Self { added, tasks, known, steady: Some(now + 1), ..Self::default() };
    }

    /// Judges a record.
    pub(super) fn record(&mut self, plan: &Plan, committed: &Committed<'_>) -> Judgement {
        let Committed { record, now, placed } = *committed;
        hold(!self.paused, || format!("{record:?} while paused"))?;
        match *record {
            Decision::Fire { instant_ms, queued, cancel_previous } => {
                if queued {
                    hold(self.queued.take() == Some(instant_ms), || {
                        format!("{record:?} did not wait")
                    })?;
                    hold(self.running == 0, || format!("{record:?} before the end of another"))?;
                } else {
                    let new = !self.known.contains(&instant_ms);
                    hold(new, || format!("{record:?} of an instant that has its record"))?;
                    self.told_one(plan, instant_ms, now)?;
                    self.may_fire(plan, instant_ms, now)?;
                }
                self.fired(plan, record, cancel_previous, placed, now)?;
                let id = plan.id.occurrence(instant_ms);
                hold(!placed || self.tasks.insert(id), || format!("{record:?}: a task twice"))
            }
            Decision::Queue { instant_ms } => {
                self.told_one(plan, instant_ms, now)?;
                self.may_fire(plan, instant_ms, now)?;
                let fits = plan.policy.overlap == Overlap::QueueOne && self.running > 0;
                let first = self.queued.replace(instant_ms).is_none();
                hold(fits && first, || format!("{record:?} without need"))
            }
            Decision::Skip { instant_ms, reason } => {
                self.told_one(plan, instant_ms, now)?;
                self.may_skip(plan, instant_ms, reason, now)
            }
            Decision::SkipMany { first_ms, last_ms, count, reason } => {
                let instants = plan.instants(first_ms - 1, last_ms).unwrap_or_default();
                let told = instants.len() as u64 == count && instants.last() == Some(&last_ms);
                hold(told, || format!("{record:?} for {} instants", instants.len()))?;
                for instant in instants {
                    self.told_one(plan, instant, now)?;
                    self.may_skip(plan, instant, reason, now)?;
                }
                Ok(())
            }
        }
    }

    /// An instant has one record, not before it is due, and at once if the service was there.
    fn told_one(&mut self, plan: &Plan, instant: i64, now: i64) -> Judgement {
        let before = self.told.last().copied().unwrap_or(self.added);
        hold(before < instant, || format!("{instant} after {before}: twice, or out of order"))?;
        let due = plan.rule.due_at(plan.id, instant);
        let jitter = due - instant;
        hold((0..=plan.rule.jitter_ms).contains(&jitter), || format!("a jitter of {jitter} ms"))?;
        hold(due <= now, || format!("{instant} is due at {due}, and has its record at {now}"))?;
        let late = self.steady.is_some_and(|steady| steady <= due) && due < now;
        hold(!late, || format!("{instant} has its record {} ms late for no reason", now - due))?;
        self.told.push(instant);
        Ok(())
    }

    /// How late an instant is, and whether a later one is due as well.
    fn lateness(plan: &Plan, instant: i64, now: i64) -> (i64, bool) {
        let next = plan.rule.next_after(instant);
        let another = next.is_some_and(|next| plan.rule.due_at(plan.id, next) <= now);
        (now - plan.rule.due_at(plan.id, instant), another)
    }

    /// Whether the policy makes up for an instant.
    fn made_up(plan: &Plan, instant: i64, now: i64) -> bool {
        let (late, another) = Self::lateness(plan, instant, now);
        let most = match plan.policy.catch_up {
            CatchUp::None => MINUTE,
            CatchUp::Last | CatchUp::All => plan.policy.window_ms,
        };
        late <= 1000 || late <= most && (plan.policy.catch_up == CatchUp::All || !another)
    }

    fn may_fire(&self, plan: &Plan, instant: i64, now: i64) -> Judgement {
        if let Recurrence::AfterEndMs(delay) = plan.rule.recurrence {
            let before = self.told.iter().rev().nth(1).copied().unwrap_or(self.added);
            let mut earliest = (before.max(self.last_end.unwrap_or(0)) + delay)
                .max(plan.rule.from_ms.unwrap_or(0));
            while self.known.contains(&earliest) {
                earliest += delay;
            }
            return hold(instant == earliest, || format!("{instant}, not {earliest}: the delay"));
        }
        let paused = self.resumed.is_some_and(|resumed| instant <= resumed);
        hold(!paused, || format!("{instant} of a pause was not skipped"))?;
        hold(Self::made_up(plan, instant, now), || format!("{instant} was made up for at {now}"))
    }

    fn fired(
        &mut self,
        plan: &Plan,
        record: &Decision,
        cancel: bool,
        placed: bool,
        now: i64,
    ) -> Judgement {
        let alone = match plan.policy.overlap {
            Overlap::Skip | Overlap::QueueOne => self.running == 0,
            Overlap::Allow => true,
            Overlap::CancelPrevious => cancel == (self.running > 0),
        };
        hold(alone, || format!("{record:?} beside {} tasks", self.running))?;
        self.running += 1;
        let most = plan.rule.max_runs.unwrap_or(u64::MAX);
        if !placed {
            if self.made + 1 >= most {
                // The rule was over while its last run was promised to this instant.
                self.steady = Some(now + 1);
            }
            self.ended(plan, End::Failed, now);
            return Ok(());
        }
        self.made += 1;
        hold(self.made <= most, || format!("{} tasks of {most}", self.made))
    }

    fn may_skip(&self, plan: &Plan, instant: i64, reason: SkipReason, now: i64) -> Judgement {
        let paused = self.resumed.is_some_and(|resumed| instant <= resumed);
        let right = match reason {
            SkipReason::Paused => paused,
            SkipReason::Missed => !paused && !Self::made_up(plan, instant, now),
            SkipReason::Overlap => {
                let waits = plan.policy.overlap != Overlap::QueueOne || self.queued.is_some();
                !paused && self.running > 0 && waits && plan.policy.overlap != Overlap::Allow
            }
        };
        hold(right, || format!("{instant} was skipped at {now}: {reason:?}, which it was not"))
    }

    /// Notes a task that a person had made.
    pub(super) fn by_hand(&mut self) {
        self.running += 1;
    }

    /// Notes the end of a task.
    pub(super) fn ended(&mut self, plan: &Plan, end: End, now: i64) {
        self.running -= 1;
        self.last_end = self.last_end.max(Some(now));
        match end {
            End::Succeeded => self.failures = 0,
            End::Failed => self.failures += 1,
            End::Cancelled => {}
        }
        if end == End::Failed && plan.policy.pause_after.is_some_and(|most| self.failures >= most) {
            self.paused = true;
        }
    }

    /// Notes that the schedule goes on.
    pub(super) fn resume(&mut self, now: i64) {
        if self.paused {
            self.paused = false;
            self.failures = 0;
            self.resumed = self.resumed.max(Some(now));
        }
    }

    /// Whether nothing runs, waits or is paused.
    pub(super) fn is_quiet(&self) -> bool {
        self.running == 0 && self.queued.is_none() && !self.paused
    }

    /// Judges the end, when nothing runs, nothing is paused, and the service has decided on all
    /// that is due: the instants that have records, and how many.
    pub(super) fn end(&self, plan: &Plan, now: i64) -> Result<usize, String> {
        let last = self.told.last().copied().unwrap_or(self.added);
        hold(self.queued.is_none(), || format!("{:?} still waits", self.queued))?;
        let Some(expected) = plan.instants(self.added, last.max(now)) else {
            return Ok(self.told.len());
        };
        let over = plan.rule.max_runs.is_some_and(|most| self.made >= most);
        let due = |instant: &&i64| **instant <= last || plan.rule.due_at(plan.id, **instant) <= now;
        let new = |instant: &&i64| !self.known.contains(*instant);
        let told: Vec<i64> = self.told.iter().filter(new).copied().collect();
        let most = if over { told.len() } else { usize::MAX };
        let expected: Vec<i64> =
            expected.iter().filter(due).filter(new).take(most).copied().collect();
        if expected == told {
            return Ok(expected.len());
        }
        let differs = expected.iter().zip(&told).position(|(one, other)| one != other);
        let at = differs.unwrap_or(expected.len().min(told.len()));
        Err(format!(
            "instant {at} of {}: expected {:?}, told {:?}",
            expected.len(),
            expected.get(at),
            told.get(at)
        ))
    }
}
