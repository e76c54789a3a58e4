//! Seeded simulation of schedules: their rules and their decisions under a clock that is stepped,
//! a service that crashes, pauses, failures, and tasks that take their time.
//!
//! A seed determines a run. The service and its database are small here: it wakes when the first
//! schedule is due or one changes, and records in transactions of single statements, before, amid
//! and after each of which it can crash. Records are forgotten, and schedules removed and added
//! again. A judge that knows the instants in another way, minute by
//! minute, watches every record. A run has a few schedules over some weeks, by chance of three
//! years and often around a clock change; one in 5,000 has 200 schedules over three years.
//!
//! | variable | meaning |
//! |---|---|
//! | `CLUTCH_SIMULATE_SEEDS` | `A..B`: the seeds to run; 0..60 without it |
//! | `CLUTCH_SIMULATE_TRACE` | set: every record of every run is printed |

mod judge;
mod plan;

use super::choices::Choices;
use super::step::Decided;
use super::{Decision, End, Next, PauseCause, ScheduleState, step};
use judge::{Committed, Judged};
use plan::{DAY, HOUR, MINUTE, Plan, ZONES};
use std::collections::BTreeMap;

/// The first of January 2024.
const FIRST: i64 = 1_704_067_200_000;
/// A run that has 200 schedules, among so many.
const FULL: u64 = 5000;

/// A task that runs.
struct Running {
    schedule: usize,
    /// When it ends, in true time.
    at: i64,
    end: End,
}

/// An event from outside the service.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pause(usize),
    Resume(usize),
    ByHand(usize),
    /// All records are forgotten but the newest.
    Forget {
        which: usize,
        kept: usize,
    },
    /// The schedule is removed and added again.
    AddAgain(usize),
    Crash {
        down: i64,
    },
    ClockStep {
        by: i64,
    },
}

/// A run.
struct World {
    choices: Choices,
    plans: Vec<Plan>,
    judged: Vec<Judged>,
    /// The database: the state of each schedule, whether each of its records has a task, and the
    /// newest instant that was forgotten with its task.
    states: Vec<ScheduleState>,
    records: Vec<BTreeMap<i64, bool>>,
    forgotten: Vec<Option<i64>>,
    /// The service's memory: when it decides again on each schedule.
    nexts: Vec<Next>,
    running: Vec<Running>,
    /// True time, and how far the clock is ahead of it.
    now: i64,
    ahead: i64,
    /// When the service runs again; nothing while it runs.
    down_until: Option<i64>,
    /// Whether tasks fail to be placed and transactions crash.
    calm: bool,
    traced: bool,
}

/// The consequence of a transaction.
enum After {
    /// The service crashed.
    Down,
    /// A task could not be placed, or an instant had its record: what was decided beyond it is
    /// decided anew.
    NotAll,
    Done,
}

type Outcome<T> = Result<T, String>;

impl World {
    fn new(seed: u64) -> (Self, i64) {
        let mut choices = Choices::of_seed(seed);
        let full = seed % FULL == FULL - 1;
        let (count, span) =
            if full { (200, 3 * 365 * DAY) } else { (choices.between(2, 6), 25 * DAY) };
        let added = if full { FIRST } else { start(&mut choices) };
        let plans: Vec<Plan> =
            (0..count).map(|number| Plan::any(&mut choices, number, added)).collect();
        let world = Self {
            judged: plans.iter().map(|_| Judged::added(added)).collect(),
            states: plans.iter().map(|_| ScheduleState::added(added)).collect(),
            records: vec![BTreeMap::new(); count],
            forgotten: vec![None; count],
            nexts: plans.iter().map(|_| Next::Again).collect(),
            plans,
            choices,
            running: Vec::new(),
            now: added,
            ahead: 0,
            down_until: None,
            calm: false,
            traced: std::env::var_os("CLUTCH_SIMULATE_TRACE").is_some(),
        };
        (world, span)
    }

    fn clock(&self) -> i64 {
        self.now + self.ahead
    }

    fn trace(&self, words: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>14} {}", self.clock(), words());
        }
    }

    /// The service ends, and is there again later.
    fn crash(&mut self, down: i64) {
        self.trace(|| format!("crash, down for {down} ms"));
        self.down_until = Some(self.now + down);
        self.judged.iter_mut().for_each(|judged| judged.steady = None);
    }

    /// A transaction of so many statements. Whether it was committed, and whether the service ran on.
    fn transaction(&mut self, statements: usize) -> (bool, bool) {
        if self.calm || !self.choices.once_in(60) {
            return (true, true);
        }
        let committed = self.choices.below(statements + 2) > statements;
        let bounds = [1000, HOUR, 3 * DAY];
        let bound = self.choices.of(&bounds);
        let down = self.choices.ms(bound);
        self.crash(down);
        (committed, false)
    }

    /// Decides on a schedule until nothing of it is due. Whether the service runs on.
    fn decide(&mut self, at: usize) -> Outcome<bool> {
        loop {
            let (plan, now) = (&self.plans[at], self.clock());
            let Decided { decisions, next } =
                step(plan.id, &plan.rule, &plan.policy, &self.states[at], now);
            if decisions.len() > 1000 || next == Next::Again && decisions.is_empty() {
                return Err(format!("a step of {} records", decisions.len()));
            }
            let after =
                if decisions.is_empty() { After::Done } else { self.commit(at, &decisions)? };
            match after {
                After::Down => return Ok(false),
                After::Done if next != Next::Again => {
                    self.nexts[at] = next;
                    return Ok(true);
                }
                After::Done | After::NotAll => {}
            }
        }
    }

    /// Records what was decided, in one transaction.
    fn commit(&mut self, at: usize, decisions: &[Decision]) -> Outcome<After> {
        let (committed, alive) = self.transaction(2 * decisions.len() + 1);
        if !committed {
            return Ok(After::Down);
        }
        let mut all = true;
        let now = self.clock();
        for record in decisions {
            if self.is_recorded(at, record) {
                let (state, instant) = (&mut self.states[at], first_instant(record));
                state.cursor_ms = state.cursor_ms.max(instant);
                state.queued_ms = state.queued_ms.filter(|queued| *queued != instant);
                all = false;
                break;
            }
            let placed = self.calm || !self.choices.once_in(40);
            self.trace(|| {
                format!("schedule {at}: {record:?}{}", if placed { "" } else { " UNPLACED" })
            });
            let plan = &self.plans[at];
            self.judged[at]
                .record(plan, &Committed { record, now, placed })
                .map_err(|broken| format!("schedule {at} ({}): {broken}", plan.rule.recurrence))?;
            let fires = matches!(record, Decision::Fire { .. });
            self.records[at].insert(first_instant(record), fires && placed);
            let Decision::Fire { cancel_previous, .. } = *record else {
                self.states[at].apply(record);
                continue;
            };
            if cancel_previous {
                self.cancel(at);
            }
            if placed {
                self.states[at].apply(record);
                self.start(at);
            } else {
                self.states[at].apply_unplaced(record, &self.plans[at].policy, now);
                all = false;
                break;
            }
        }
        Ok(match alive {
            false => After::Down,
            true if !all => After::NotAll,
            true => After::Done,
        })
    }

    /// Whether an instant has its record. One that waits for an earlier task gets it anew.
    fn is_recorded(&self, at: usize, record: &Decision) -> bool {
        let found = self.records[at].get(&first_instant(record));
        let waits = matches!(record, Decision::Fire { queued: true, .. });
        found.is_some_and(|has_task| *has_task || !waits)
    }

    /// Forgets records of a schedule, as the service does.
    fn forget(&mut self, at: usize, kept: usize) {
        let records = &mut self.records[at];
        let old = records.len().saturating_sub(kept);
        let queued = self.states[at].queued_ms;
        let gone: Vec<i64> =
            records.keys().take(old).filter(|one| Some(**one) != queued).copied().collect();
        for instant in gone {
            if records.remove(&instant) == Some(true) {
                self.forgotten[at] = self.forgotten[at].max(Some(instant));
            }
        }
    }

    /// Removes a schedule and adds it again. What it has running is none of its concern then.
    fn add_again(&mut self, at: usize) {
        let now = self.clock();
        self.running.retain(|task| task.schedule != at);
        self.states[at] = ScheduleState::added(now).behind(self.forgotten[at]);
        self.nexts[at] = Next::Again;
        let known = self.records[at].keys().copied().collect();
        self.judged[at].add_again(self.states[at].cursor_ms, known, now);
    }

    fn start(&mut self, schedule: usize) {
        let end = match self.choices.below(4) {
            0 => End::Failed,
            1 if self.choices.once_in(4) => End::Cancelled,
            _ => End::Succeeded,
        };
        let at = self.now + 1 + self.choices.ms(self.plans[schedule].longest_ms);
        self.running.push(Running { schedule, at, end });
    }

    fn cancel(&mut self, schedule: usize) {
        let soon = self.now + 1 + self.choices.ms(10 * MINUTE);
        for task in self.running.iter_mut().filter(|task| task.schedule == schedule) {
            if soon < task.at {
                (task.at, task.end) = (soon, End::Cancelled);
            }
        }
    }

    /// The service starts: it knows what the database has, and decides on each schedule.
    fn wake(&mut self) -> Outcome<()> {
        self.down_until = None;
        let now = self.clock();
        for at in 0..self.plans.len() {
            self.nexts[at] = Next::Again;
            self.judged[at].steady = Some(now);
        }
        self.decide_all()
    }

    fn decide_all(&mut self) -> Outcome<()> {
        for at in 0..self.plans.len() {
            let due = match self.nexts[at] {
                Next::Again => true,
                Next::At(due) => due <= self.clock(),
                Next::Change | Next::Over => false,
            };
            if due && !self.decide(at)? {
                break;
            }
        }
        Ok(())
    }

    /// Records the end of a task. Whether the service runs on.
    fn end(&mut self, task: usize) -> Outcome<bool> {
        let (committed, alive) = self.transaction(1);
        if committed {
            let Running { schedule, end, .. } = self.running.swap_remove(task);
            let now = self.clock();
            self.trace(|| format!("schedule {schedule}: a task {end:?}"));
            self.states[schedule].ended(end, &self.plans[schedule].policy, now);
            self.judged[schedule].ended(&self.plans[schedule], end, now);
            self.nexts[schedule] = Next::Again;
        }
        Ok(alive)
    }

    fn happen(&mut self, event: Event) -> Outcome<()> {
        self.trace(|| format!("{event:?}"));
        let now = self.clock();
        match event {
            Event::Pause(at) => {
                self.states[at].pause(now, PauseCause::ByHand { reason: None });
                self.judged[at].paused = true;
                self.nexts[at] = Next::Again;
            }
            Event::Resume(at) => {
                self.states[at].resume(now);
                self.judged[at].resume(now);
                self.judged[at].steady = Some(now + 1);
                self.nexts[at] = Next::Again;
            }
            Event::ByHand(at) => {
                self.states[at].run_by_hand();
                self.judged[at].by_hand();
                self.start(at);
                self.nexts[at] = Next::Again;
            }
            Event::Forget { which, kept } => self.forget(which, kept),
            Event::AddAgain(at) => self.add_again(at),
            Event::Crash { down } => self.crash(down),
            Event::ClockStep { by } => {
                self.ahead += by;
                let now = self.clock();
                self.judged.iter_mut().for_each(|judged| judged.steady = Some(now + 1));
            }
        }
        if self.down_until.is_none() { self.decide_all() } else { Ok(()) }
    }

    /// Plays until a moment of true time.
    fn play(&mut self, until: i64, mut events: Vec<(i64, Event)>) -> Outcome<()> {
        events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        if self.down_until.is_none() {
            self.decide_all()?;
        }
        loop {
            let event = events.last().map_or(i64::MAX, |(at, _)| *at);
            let task = self.running.iter().enumerate().min_by_key(|(_, task)| task.at);
            let (task, task_at) = task.map_or((0, i64::MAX), |(at, task)| (at, task.at));
            let dues = self.nexts.iter().filter_map(|next| match next {
                Next::Again => Some(self.now),
                Next::At(due) => Some(due - self.ahead),
                Next::Change | Next::Over => None,
            });
            let due = dues.min().unwrap_or(i64::MAX);
            // While the service is down, events wait for it, as ends of tasks do.
            let first = self.down_until.unwrap_or_else(|| event.min(task_at).min(due));
            if first >= until {
                self.now = until;
                return Ok(());
            }
            self.now = self.now.max(first);
            if self.down_until.is_some() {
                self.wake()?;
            } else if task_at <= self.now {
                if self.end(task)? {
                    self.decide_all()?;
                }
            } else if event <= self.now {
                if let Some((_, event)) = events.pop() {
                    self.happen(event)?;
                }
            } else {
                self.decide_all()?;
            }
        }
    }

    /// The events of a run.
    fn events(&mut self, until: i64) -> Vec<(i64, Event)> {
        let count = self.plans.len();
        let span = until - self.now;
        let mut events = Vec::new();
        for _ in 0..self.choices.between(0, 6 * count) {
            let (at, which) = (self.now + self.choices.ms(span), self.choices.below(count));
            let bound = self.choices.of(&[MINUTE, 2 * HOUR, 3 * DAY]);
            let event = match self.choices.below(7) {
                0 => {
                    events.push((at + self.choices.ms(bound), Event::Resume(which)));
                    Event::Pause(which)
                }
                1 => Event::ByHand(which),
                2 => Event::Crash { down: self.choices.ms(bound) },
                3 => Event::ClockStep { by: self.choices.ms(2 * bound) - bound },
                4 => {
                    // The clock is set back, so that instants come again.
                    events.push((at + 1, Event::ClockStep { by: -self.choices.ms(bound) }));
                    events.push((at + 2, Event::AddAgain(which)));
                    Event::Forget { which, kept: self.choices.of(&[0, 0, 3, 20]) }
                }
                5 => Event::Forget { which, kept: 20 },
                _ => Event::Resume(which),
            };
            events.push((at, event));
        }
        events
    }
}

/// The instant of a record; of several, the first.
fn first_instant(record: &Decision) -> i64 {
    match *record {
        Decision::Fire { instant_ms, .. }
        | Decision::Queue { instant_ms }
        | Decision::Skip { instant_ms, .. } => instant_ms,
        Decision::SkipMany { first_ms, .. } => first_ms,
    }
}

/// When a run begins: at any time of three years, or some days before a clock change.
fn start(choices: &mut Choices) -> i64 {
    let at = FIRST + choices.ms(3 * 365 * DAY);
    let zone: super::Zone = choices.of(&ZONES).parse().unwrap();
    let from = jiff::Timestamp::from_millisecond(at).unwrap();
    let change = zone.rules().following(from).next().filter(|_| choices.once_in(2));
    change.map_or(at, |change| change.timestamp().as_millisecond() - choices.ms(20 * DAY))
}

/// Plays the run of a seed; how many instants it had.
fn run(seed: u64) -> Outcome<usize> {
    let (mut world, span) = World::new(seed);
    let until = world.now + span;
    let events = world.events(until);
    world.play(until, events)?;
    // Then all is well: what runs ends, what is paused goes on, what is due is decided.
    world.calm = true;
    world.down_until = Some(world.now);
    world.judged.iter_mut().for_each(|judged| judged.steady = None);
    world.play(until + 4 * DAY, Vec::new())?;
    for at in 0..world.plans.len() {
        world.happen(Event::Resume(at))?;
    }
    let mut instants = 0;
    while let Some(task) = (!world.running.is_empty()).then_some(0) {
        world.end(task)?;
        let all = 0..world.plans.len();
        all.into_iter().try_for_each(|at| world.happen(Event::Resume(at)))?;
        world.running.iter_mut().for_each(|task| task.at = world.now);
        if world.judged.iter().all(|judged| judged.is_quiet()) {
            break;
        }
    }
    for (plan, judged) in world.plans.iter().zip(&world.judged) {
        let told = judged.end(plan, world.clock());
        instants += told.map_err(|broken| format!("{}: {broken}", plan.rule.recurrence))?;
    }
    Ok(instants)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds to play.
    fn seeds() -> std::ops::Range<u64> {
        let Ok(range) = std::env::var("CLUTCH_SIMULATE_SEEDS") else { return 0..60 };
        let (first, end) = range.split_once("..").unwrap();
        first.parse().unwrap()..end.parse().unwrap()
    }

    #[test]
    fn every_seed_keeps_the_promises() {
        let mut instants = 0;
        for seed in seeds() {
            match run(seed) {
                Ok(told) => instants += told,
                Err(broken) => panic!("seed {seed}: {broken}"),
            }
        }
        println!("{instants} instants");
    }

    #[test]
    fn a_seed_determines_its_run() {
        assert_eq!(run(7), run(7));
    }
}
