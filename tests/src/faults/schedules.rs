//! Faults while schedules make tasks: each instant has one record and at most one task, and none
//! is left out, however often the service ends, its clock is set, or the broker is away.

use super::dice::Dice;
use super::faked_clock::FakedClock;
use super::stage::{Site, Stage};
use super::{Need, Play, Row, Seen};
use crate::oracle::Verdict;
use crate::proxy::Carry;
use crate::world::SOON;
use crate::{api, poll};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many instants a schedule has here: as many as it is shown with.
const INSTANTS: u64 = 20;
/// All schedules together have an instant after each of these, in milliseconds.
const PACE: u64 = 100;
/// The schedule that has an instant every second.
const TICK: &str = "tick";
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
/// Longer than a faked clock takes to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "schedules-service-kill",
        "schedules have 10 instants a second, 1,000 in all, and the service is ended by kill -9 at \
         30 random moments",
        Play::Beside(kill),
    )
    .since("the last start"),
    Row::new(
        "schedules-clock-steps",
        "a schedule has an instant every second; the service's clock is set an hour back, forth \
         again, another hour forth, and back",
        Play::Beside(clock),
    )
    .since("the clock being right again")
    .needs(&[Need::FakeTime]),
    Row::new(
        "schedules-broker-away",
        "schedules have 10 instants a second while the service cannot reach the broker; the \
         service is ended by kill -9 and started again meanwhile",
        Play::Beside(broker_away),
    )
    .since("the broker being there again"),
];

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn socket(stage: &Stage) -> PathBuf {
    stage.world.folder().join("service/clutch.sock")
}

/// Adds schedules by their names and rules. Their tasks note their starts.
fn add(stage: &Stage, rules: &[(String, Value)], policy: &Value) -> Result<()> {
    let named = |(name, rule): &(String, Value)| {
        let spec = json!({
            "endpoint": stage.endpoint.name, "rule": rule, "policy": policy,
            "task": { "argv": stage.runs.command("", &[]) },
        });
        json!({ "name": name, "spec": spec })
    };
    let set = json!({ "schedules": rules.iter().map(named).collect::<Vec<Value>>() });
    api::post(&socket(stage), "/v1/schedules", &set).map(drop).context("adding schedules")
}

/// Schedules that take turns: each has [`INSTANTS`] instants, all together one at each
/// [`PACE`].
struct Turns {
    schedules: u64,
    first_ms: u64,
}

impl Turns {
    fn add(stage: &Stage, schedules: u64) -> Result<Self> {
        let turns = Self { schedules, first_ms: now_ms() + 1500 };
        let policy = json!({ "catch_up": "all", "overlap": "allow" });
        let rule = |number: u64| {
            let instants = turns.instants(number);
            let rule = json!({
                "recurrence": { "every_ms": PACE * schedules },
                "from_ms": instants.first(), "until_ms": instants.last(),
            });
            (Self::name(number), rule)
        };
        add(stage, &(0..schedules).map(rule).collect::<Vec<_>>(), &policy)?;
        ensure!(now_ms() < turns.first_ms, "the schedules were added too slowly");
        Ok(turns)
    }

    fn name(number: u64) -> String {
        format!("turn-{number}")
    }

    fn instants(&self, number: u64) -> Vec<u64> {
        let first = self.first_ms + PACE * number;
        (0..INSTANTS).map(|instant| first + instant * PACE * self.schedules).collect()
    }

    fn total(&self) -> u64 {
        self.schedules * INSTANTS
    }

    /// From the first instant to the last.
    fn span_ms(&self) -> u64 {
        PACE * self.total()
    }

    /// Waits until each instant's task has its outcome, and says what became of all.
    fn seen(&self, stage: &Stage) -> Result<Seen> {
        let total = usize::try_from(self.total())?;
        until_succeeded(stage, total)?;
        let mut records = Records::default();
        let mut silent = 0;
        for number in 0..self.schedules {
            let name = Self::name(number);
            let told = records.gather(stage, &name)?;
            silent += self.instants(number).iter().filter(|at| !told.contains(*at)).count();
        }
        let seen = records.seen(stage)?;
        let tasks = records.tasks.len();
        let seen = seen.must(silent == 0, || format!("{silent} instants have no record"));
        Ok(seen.must(tasks == total, || format!("{tasks} of {total} instants have a task")))
    }
}

/// The tasks in the service's records, each with its state.
fn listed(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let list = ["tasks", "--json", "--limit", "5000"];
    let tasks = stage.world.service(&list)?.ok()?.json_lines()?;
    let text = |task: &Value, name: &str| task[name].as_str().unwrap_or_default().to_owned();
    Ok(tasks.iter().map(|task| (text(task, "id"), text(task, "state"))).collect())
}

/// How many tasks are in a state; none while the service does not answer.
fn count(stage: &Stage, state: &str) -> usize {
    listed(stage).map_or(0, |all| all.values().filter(|one| *one == state).count())
}

fn until_succeeded(stage: &Stage, tasks: usize) -> Result<()> {
    poll::until(&format!("{tasks} tasks to succeed"), 2 * SOON, || {
        Ok((count(stage, "succeeded") >= tasks).then_some(()))
    })
}

/// Waits for the first outcome from now on; says how long after `since` it was.
fn recovery(stage: &Stage, since: Instant) -> Result<Duration> {
    let before = count(stage, "succeeded");
    poll::until("an outcome after the fault", SOON, || {
        Ok((count(stage, "succeeded") > before).then(|| since.elapsed()))
    })
}

/// The records of instants, gathered again and again: a schedule is shown with its last ones.
#[derive(Default)]
struct Records {
    /// By schedule and instant.
    rows: BTreeMap<(String, i64), Value>,
    /// The tasks.
    tasks: BTreeSet<String>,
    /// Ways in which a promise was broken.
    breaches: Vec<String>,
}

impl Records {
    /// Adds the last records of a schedule; returns their instants.
    fn gather(&mut self, stage: &Stage, name: &str) -> Result<BTreeSet<u64>> {
        let shown = api::get(&socket(stage), &format!("/v1/schedules/{name}"))?;
        let rows = shown["occurrences"].as_array().context("it is shown without records")?;
        let mut told = BTreeSet::new();
        for row in rows {
            let instant = row["instant_ms"].as_i64().context("a record without an instant")?;
            told.insert(instant.unsigned_abs());
            if row["recorded_at_ms"].as_i64() < Some(instant) && row["by_hand"] != true {
                self.breaches.push(format!("an instant came too early: {row}"));
            }
            if let Some(task) = row["task"].as_str() {
                self.tasks.insert(task.to_owned());
            }
            let before = self.rows.insert((name.to_owned(), instant), row.clone());
            let another = before.is_some_and(|before| before["task"] != row["task"]);
            if another {
                self.breaches.push(format!("an instant got another task: {row}"));
            }
        }
        Ok(told)
    }

    /// The instants of a schedule's rule, each record as its first and its last one, in order.
    fn of_rule(&self, name: &str) -> Vec<(i64, i64)> {
        let rows = self.rows.iter().filter(|((of, _), row)| of == name && row["by_hand"] != true);
        rows.map(|((_, first), row)| (*first, row["last_ms"].as_i64().unwrap_or(*first))).collect()
    }

    /// Judges what was gathered: every task of the service is that of a record, and ran once.
    fn seen(&self, stage: &Stage) -> Result<Seen> {
        let all = listed(stage)?;
        let ended = all.iter().filter(|(_, state)| *state == "succeeded");
        let recorded: BTreeSet<String> = ended.map(|(id, _)| id.clone()).collect();
        let tasks = Verdict::new(&self.tasks, &recorded, &stage.runs.read()?);
        let seen = Seen { tasks, breaches: self.breaches.clone(), ..Seen::default() };
        let others = all.len() - recorded.len();
        let seen = seen.must(others == 0, || format!("{others} tasks did not succeed"));
        let dead = stage.world.dead_letters()?;
        Ok(seen.must(dead == 0, || format!("{dead} messages were dead-lettered")))
    }
}

fn kill(site: &Site) -> Result<Seen> {
    let (schedules, kills) = if site.brief { (10, 8) } else { (50, 30) };
    let mut stage = site.stage()?;
    let turns = Turns::add(&stage, schedules)?;
    let mut dice = Dice(now_ms());
    // The last ones come after the last kill.
    let span = turns.span_ms() * 9 / 10;
    let moments: BTreeSet<u64> =
        (0..kills).map(|_| turns.first_ms + 200 + dice.throw(span)).collect();
    let mut started = Instant::now();
    for moment in &moments {
        poll::pause(Duration::from_millis(moment.saturating_sub(now_ms())));
        stage.service.kill()?;
        started = Instant::now();
        stage.service = stage.world.launch_service(&[])?;
    }
    let recovery = recovery(&stage, started)?;
    let seen = turns.seen(&stage)?.recovered_in(recovery);
    Ok(seen.note(format!("{} instants, {} kills", turns.total(), moments.len())))
}

fn broker_away(site: &Site) -> Result<Seen> {
    let (mut stage, proxy, options) = site.stage_without_link()?;
    let options = options.each_ref().map(String::as_str);
    let turns = Turns::add(&stage, 10)?;
    let waiting = |stage: &Stage, tasks: usize| {
        poll::until(&format!("{tasks} tasks to wait for the broker"), SOON, || {
            Ok((count(stage, "waiting") >= tasks).then_some(()))
        })
    };
    waiting(&stage, 40)?;
    stage.service.kill()?;
    stage.service = stage.world.launch_service(&options)?;
    stage.service.wait_for("disengaged", SOON)?;
    waiting(&stage, 100)?;
    let others = listed(&stage)?.into_values().filter(|state| state != "waiting").count();
    proxy.carry(Carry::Pass)?;
    let recovery = recovery(&stage, Instant::now())?;
    let seen = turns.seen(&stage)?.recovered_in(recovery);
    Ok(seen.must(others == 0, || format!("{others} tasks did not wait while it was away")))
}

/// A stage on which a schedule ticks while the service's clock is set.
struct Ticking {
    stage: Stage,
    clock: FakedClock,
    records: Records,
}

impl Ticking {
    /// Has the schedule make a task beside its rule; returns the service's time then.
    fn run(&mut self) -> Result<i64> {
        let path = format!("/v1/schedules/{TICK}/run");
        let made = api::post(&socket(&self.stage), &path, &json!({}))?;
        // It is not among the last instants if the clock was set back.
        let task = made["task"].as_str().context("a run without a task")?;
        self.records.tasks.insert(task.to_owned());
        made["instant_ms"].as_i64().context("a run without an instant")
    }

    /// Sets the clock, and has the service look at it: the kernel, which tells of a clock that is
    /// really set, knows nothing of this one.
    fn set(&mut self, shift: &str) -> Result<i64> {
        // Not more records are added than are shown.
        self.records.gather(&self.stage, TICK)?;
        self.clock.set(shift)?;
        poll::pause(SEEN_WITHIN);
        self.run()
    }

    /// The last instant of the rule that has its record.
    fn last(&mut self) -> Result<i64> {
        self.records.gather(&self.stage, TICK)?;
        Ok(self.records.of_rule(TICK).last().map_or(0, |(_, last)| *last))
    }

    /// Waits for a record of an instant behind one.
    fn until_behind(&mut self, instant: i64) -> Result<()> {
        poll::until("a further instant", SOON, || Ok((self.last()? > instant).then_some(())))
    }

    /// Sets the clock back, and sees to it that no instant comes meanwhile.
    fn back(&mut self, shift: &str) -> Result<()> {
        let before = self.last()?;
        let now = self.set(shift)?;
        ensure!(now < before - HOUR / 2, "the clock did not change: {now} after {before}");
        let last = self.last()?;
        poll::pause(SEEN_WITHIN);
        self.run()?;
        let later = self.last()?;
        if later != last {
            let words = format!("{later} came while the clock was set back behind {last}");
            self.records.breaches.push(words);
        }
        Ok(())
    }
}

fn clock(site: &Site) -> Result<Seen> {
    let clock = FakedClock::within(&site.folder)?;
    let mut stage = site.stage()?;
    stage.service.stop(SOON)?;
    let wrapper = clock.wrapper()?;
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    stage.service = stage.world.serve_in(&words)?;
    let mut ticking = Ticking { stage, clock, records: Records::default() };
    let rule = json!({ "recurrence": { "every_ms": SECOND } });
    add(&ticking.stage, &[(TICK.to_owned(), rule)], &json!({ "overlap": "allow" }))?;
    ticking.until_behind(0)?;
    let first = ticking.last()?;
    ticking.until_behind(first + 2 * SECOND)?;
    ticking.back("-3600s")?;
    let before = ticking.last()?;
    ticking.set("+0s")?;
    ticking.until_behind(before + SECOND)?;
    let before = ticking.last()?;
    ticking.set("+3600s")?;
    ticking.until_behind(before + HOUR)?;
    ticking.back("+0s")?;
    let again = Instant::now();
    let recovery = recovery_by_hand(&mut ticking, again)?;
    let Ticking { stage, mut records, .. } = ticking;
    api::post(&socket(&stage), &format!("/v1/schedules/{TICK}/pause"), &json!({}))?;
    records.gather(&stage, TICK)?;
    until_succeeded(&stage, records.tasks.len())?;
    let rule = records.of_rule(TICK);
    let gaps = rule.windows(2).filter(|pair| pair[1].0 != pair[0].1 + SECOND).count();
    let missed = rule.iter().map(|(first, last)| last - first).max().unwrap_or(0);
    let seen = records.seen(&stage)?.recovered_in(recovery);
    let seen = seen.must(gaps == 0, || format!("instants are missing, or twice: {rule:?}"));
    let told = missed > HOUR / 2;
    Ok(seen.must(told, || format!("the hour that was missed is not told: {rule:?}")))
}

/// Waits until a task that is made by hand has its outcome.
fn recovery_by_hand(ticking: &mut Ticking, since: Instant) -> Result<Duration> {
    let before = count(&ticking.stage, "succeeded");
    ticking.run()?;
    poll::until("an outcome after the last step", SOON, || {
        Ok((count(&ticking.stage, "succeeded") > before).then(|| since.elapsed()))
    })
}
